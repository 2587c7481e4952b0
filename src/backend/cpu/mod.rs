//! The fast way on a CPU: a fixed plan of fused stages over memory that is had once, with weights
//! repacked when the model is opened and multiplied as the integers they are.
//!
//! How it differs from the reference (`candle/`): the rows that meet integer weights are rounded to
//! integers too, 64 at a time (`kernels::Block`), and the scales of such weights to 16 bits; the keys and
//! values of a model that has such weights to integers of 16 and of 8 bits, keys to 8 where its manifest
//! says so, queries as keys, and weights of values to 16 (`kernels::Kept`); rows that meet `bf16` to that
//! where the processor gains by it (`kernels::Bf16Dots`).
//! With [`WeightsForm::F32`] nothing is rounded, and it is the reference to the order of its sums.
//!
//! As there, a position's result is the same to the last bit however positions are grouped into rows
//! and steps: every kernel works on a row in an order that depends on the row alone, and threads share
//! out whole outputs, never a sum.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `lower.rs`, `plan.rs` | from the graph to stages, and how a step runs through them |
//! | `project.rs`, `attention.rs` | the two stages that are more than a loop over rows |
//! | `matrix.rs`, `pack.rs`, `packed.rs` | weights, from the file's blocks to panels in huge pages |
//! | `cache.rs`, `rotary.rs`, `batch.rs` | what a step reads beside them |
//! | `parts.rs` | attention and gates by themselves, for a backend that multiplies elsewhere |
//! | `pool.rs`, `view.rs` | threads, and matrices that they share out |
//! | `kernels/` | the loops, for each instruction set |

mod attention;
mod batch;
mod cache;
mod kernels;
mod lower;
mod matrix;
mod pack;
mod packed;
mod parts;
mod plan;
mod pool;
mod project;
mod rotary;
mod view;

use super::{
    Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot, WeightsForm,
    rules::{self, Held},
};
use crate::model::Model;
use batch::Batch;
use cache::Cache;
use kernels::Isa;
use plan::{Plan, Step};
use pool::Pool;

pub(super) use parts::{CachedAttention, gate};
pub(super) use pool::Tasks;

pub(super) const NAME: &str = "cpu";

/// See the [module](self).
pub struct CpuBackend {
    limits: Limits,
    isa: Isa,
    pool: Pool,
    plan: Plan,
    cache: Cache,
    batch: Batch,
    held: Held,
}

impl CpuBackend {
    /// # Errors
    /// [`BackendError::Open`] if the options do not fit the model, or memory does not suffice.
    pub fn open(model: &Model, options: &OpenOptions) -> Result<Self, BackendError> {
        Self::prepare(model, options, Isa::best())
            .map_err(|source| BackendError::Open { backend: NAME, source })
    }

    fn prepare(
        model: &Model,
        options: &OpenOptions,
        isa: Isa,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = rules::limits(NAME, model, options)?;
        let &Limits { slots, context_len, max_step_tokens, .. } = &limits;
        let decoded = options.weights == WeightsForm::F32;
        let cache = Cache::new(model, slots, context_len, decoded)?;
        let mut pool = Pool::new()?;
        // No step writes more than all slots hold, whose memory there is.
        let max_rows = max_step_tokens.min(slots * context_len);
        let request = lower::Request { model, decoded, context_len, max_rows };
        let plan = lower::lower(&request, &mut pool)?;
        let batch = Batch::with_capacity(max_rows, limits.vocab_size);
        Ok(Self { held: Held::nothing(slots), limits, isa, pool, plan, cache, batch })
    }
}

impl Backend for CpuBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        self.held
            .begin_step(&self.limits, rows)
            .map_err(|rule| BackendError::Step { backend: NAME, source: rule.into() })?;
        self.batch.fill(rows);
        let Self { isa, pool, plan, cache, batch, .. } = self;
        let isa = *isa;
        match cache {
            Cache::Whole(cache) => plan.run(&mut Step { isa, pool, batch, cache, logits }),
            Cache::Floats(cache) => plan.run(&mut Step { isa, pool, batch, cache, logits }),
        }
        self.held.end_step(rows);
        Ok(())
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.held
            .begin_copy(&self.limits, from, to, len)
            .map_err(|rule| BackendError::Step { backend: NAME, source: rule.into() })?;
        self.cache.copy_prefix(from, to, len);
        self.held.end_copy(to, len);
        Ok(())
    }

    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, task);
    }
}

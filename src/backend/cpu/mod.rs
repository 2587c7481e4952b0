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
//! | `shares.rs`, `memory.rs` | which threads take which sequences, and what stages write and read |
//! | `project.rs`, `attention.rs` | the two stages that are more than a loop over rows |
//! | `matrix.rs`, `pack.rs`, `packed.rs` | weights, from the file's blocks to panels in huge pages |
//! | `cache.rs`, `rotary.rs`, `batch.rs` | what they read beside them |
//! | `parts.rs` | attention and gates by themselves, for a backend that multiplies elsewhere |
//! | `pool.rs`, `view.rs`, `aligned.rs` | threads, matrices that they share out, and where these begin |
//! | `kernels/` | the loops, for each instruction set |

mod aligned;
mod attention;
mod batch;
mod cache;
mod kernels;
mod lower;
mod matrix;
mod memory;
mod pack;
mod packed;
mod parts;
mod plan;
mod pool;
mod project;
mod rotary;
mod shares;
mod view;

use super::{
    Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot, WeightsForm,
    rules::{self, Held},
};
use crate::model::Model;
use batch::Wanted;
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
    wanted: Wanted,
    held: Held,
}

impl CpuBackend {
    /// # Errors
    /// [`BackendError::Open`] if the options do not fit the model, or memory does not suffice.
    pub fn open(model: &Model, options: &OpenOptions) -> Result<Self, BackendError> {
        let opened = Pool::new().map_err(Into::into).and_then(|pool| Self::prepare(model, options, pool));
        opened.map_err(|source| BackendError::Open { backend: NAME, source })
    }

    fn prepare(
        model: &Model,
        options: &OpenOptions,
        mut pool: Pool,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = rules::limits(NAME, model, options)?;
        let &Limits { slots, context_len, max_step_tokens, .. } = &limits;
        let decoded = options.weights == WeightsForm::F32;
        let cache = Cache::new(model, slots, context_len, decoded)?;
        // No step writes more than all slots hold, whose memory there is.
        let max_rows = max_step_tokens.min(slots * context_len);
        let request = lower::Request { model, decoded, context_len, max_rows };
        let plan = lower::lower(&request, &mut pool)?;
        let wanted = Wanted::new(limits.vocab_size);
        Ok(Self { held: Held::nothing(slots), limits, isa: Isa::best(), pool, plan, cache, wanted })
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
        self.wanted.fill(rows);
        let Self { isa, pool, plan, cache, wanted, .. } = self;
        let isa = *isa;
        match cache {
            Cache::Whole(cache) => plan.run(rows, Step { isa, pool, cache, wanted, logits }),
            Cache::Floats(cache) => plan.run(rows, Step { isa, pool, cache, wanted, logits }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(threads: usize) -> CpuBackend {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/gguf-Q4_1.gguf");
        let model = Model::open(path, Path::new("models")).unwrap();
        let options =
            OpenOptions { slots: 24, context_len: 96, max_step_tokens: 64, ..OpenOptions::default() };
        CpuBackend::prepare(&model, &options, Pool::with_threads(threads).unwrap()).unwrap()
    }

    /// The logits of a step's sequences, in slots from the last one down, and in how many shares they were computed.
    fn step(threads: usize, backend: &mut CpuBackend, rows: &[Row<'_>]) -> (Vec<Vec<f32>>, usize) {
        let mut logits = Logits::new(backend.limits.vocab_size);
        backend.extend(rows, &mut logits).unwrap();
        assert_eq!(backend.pool.threads(), threads);
        ((0..logits.len()).map(|idx| logits.row(idx).to_vec()).collect(), backend.plan.shares.in_use())
    }

    #[test]
    fn sequences_that_a_thread_has_for_itself_are_what_they_are_otherwise() {
        let (mut one, mut two, mut three) = (open(1), open(2), open(3));
        let tokens: Vec<_> = (0..64).map(|idx| idx * 7 % 60).collect();
        let mut held = [0; 24];
        // Tokens of each sequence, and in how many shares two and three threads compute them.
        let steps: [(&[usize], [usize; 2]); 5] = [
            (&[3; 20], [2, 3]),
            (&[2; 18], [2, 3]),
            (&[5, 1, 3, 1, 1, 1], [2, 1]),
            (&[9, 1], [1, 1]),
            (&[14, 20, 15, 15], [2, 1]),
        ];
        for (lens, shares) in steps {
            // Logits of the last token, and of up to two.
            for asked in [|_| 1, |idx| idx % 3] {
                let slot = |idx: usize| 23 - idx;
                let row = |(idx, &len): (usize, &usize)| Row {
                    slot: Slot(slot(idx)),
                    start: held[slot(idx)],
                    tokens: &tokens[idx..idx + len],
                    logits_from: len - asked(idx).min(len),
                    allowed: None,
                    draw: None,
                };
                let rows: Vec<_> = lens.iter().enumerate().map(row).collect();
                let (expected, _) = step(1, &mut one, &rows);
                assert!(step(2, &mut two, &rows) == (expected.clone(), shares[0]), "{lens:?}");
                assert!(step(3, &mut three, &rows) == (expected, shares[1]), "{lens:?}");
                for (idx, len) in lens.iter().enumerate() {
                    held[slot(idx)] += len;
                }
            }
        }
    }
}

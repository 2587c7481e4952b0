//! The reference: the graph run node by node with candle's tensors, on any CPU.
//!
//! Plain before fast. One promise costs some care: a position's result is the same to the last bit
//! however positions are grouped into rows and steps, so that chunked prefill, reused prefixes and
//! batching cannot change an answer. Everything here works a row at a time in an order that depends
//! on the position alone; the one thing that does not do so by itself is candle's matrix product, and
//! `matrix.rs` says what makes it.
//!
//! Absent: quantised arithmetic. Weights that are kept as stored are decoded before they are used.

mod attention;
mod matrix;
mod plan;
mod rotary;

use super::{
    Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot, WeightsForm,
    rules::{self, Held},
};
use crate::model::Model;
use attention::KvCache;
use plan::{Batch, Plan};

pub(super) const NAME: &str = "candle";

/// Weights whose `f32` form is larger are kept as stored, unless asked otherwise.
const MAX_F32_WEIGHT_BYTES: usize = 4 << 30;

/// See the [module](self).
pub struct CandleBackend {
    limits: Limits,
    plan: Plan,
    cache: KvCache,
    held: Held,
}

impl CandleBackend {
    /// # Errors
    /// [`BackendError::Open`] if the options do not fit the model, or memory does not suffice.
    pub fn open(model: &Model, options: &OpenOptions) -> Result<Self, BackendError> {
        Self::prepare(model, options).map_err(|source| BackendError::Open { backend: NAME, source })
    }

    fn prepare(
        model: &Model,
        options: &OpenOptions,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = rules::limits(NAME, model, options)?;
        let context_len = limits.context_len;
        let stored = match options.weights {
            WeightsForm::F32 => false,
            WeightsForm::Stored => true,
            WeightsForm::Auto => f32_weight_bytes(model) > MAX_F32_WEIGHT_BYTES,
        };
        let cache = KvCache::new(model.graph.cache(), options.slots, context_len)?;
        let plan = Plan::lower(model, context_len, stored)?;
        Ok(Self { held: Held::nothing(options.slots), limits, plan, cache })
    }
}

impl Backend for CandleBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        let step_error = |source| BackendError::Step { backend: NAME, source };
        self.held.begin_step(&self.limits, rows).map_err(|rule| step_error(rule.into()))?;
        let batch = Batch::new(rows);
        self.plan.run(&batch, &mut self.cache, logits).map_err(|error| step_error(error.into()))?;
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
}

/// What the matrices take when they are decoded; the embedding's rows are read where they are stored.
fn f32_weight_bytes(model: &Model) -> usize {
    model.matrices().map(|tensor| tensor.elements() * size_of::<f32>()).sum()
}

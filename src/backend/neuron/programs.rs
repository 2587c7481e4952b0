//! Which programs a model is written as, and each of them written.

use super::{
    hlo::{self, Bucket, CachePlan, LowerError, Lowered, Variant},
    sidecar::Sidecar,
};
use crate::{
    backend::{OpenOptions, rules},
    model::{Graph, Model},
};
use std::collections::HashSet;

/// Which programs are wanted.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    pub slots: usize,
    /// Positions a slot can hold; 0 takes the model's own context, 2048 at most.
    pub context_len: usize,
    /// None of them: [`Bucket::defaults`].
    pub buckets: Vec<Bucket>,
    pub variant: Variant,
}

/// The programs of one model, which share a cache.
#[derive(Clone, Debug)]
pub struct ProgramSet {
    pub plan: CachePlan,
    pub variant: Variant,
    /// Each once.
    pub buckets: Vec<Bucket>,
}

/// A program as the Neuron compiler takes it.
#[derive(Debug)]
pub struct Program {
    pub bucket: Bucket,
    pub lowered: Lowered,
    /// `lowered.module` as bytes.
    pub hlo: Vec<u8>,
    pub sidecar: Sidecar,
}

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("the model {model} cannot be prepared so")]
    Options {
        model: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the bucket {bucket} cannot be written")]
    Lower {
        bucket: Bucket,
        #[source]
        source: LowerError,
    },
}

impl ProgramSet {
    /// # Errors
    /// [`ProgramError::Options`]: no slots, or a context longer than the model's.
    pub fn new(model: &Model, options: &ProgramOptions) -> Result<Self, ProgramError> {
        let asked =
            OpenOptions { slots: options.slots, context_len: options.context_len, ..OpenOptions::default() };
        let limits = rules::limits("neuron", model, &asked)
            .map_err(|source| ProgramError::Options { model: model.name.clone(), source: source.into() })?;
        let plan = CachePlan { slots: limits.slots, context: limits.context_len };
        let mut buckets =
            if options.buckets.is_empty() { Bucket::defaults(plan) } else { options.buckets.clone() };
        let mut seen = HashSet::new();
        buckets.retain(|bucket| seen.insert(*bucket));
        Ok(Self { plan, variant: options.variant, buckets })
    }

    /// Writes the program of a bucket, of this set or not: a matter of some 30 ms.
    ///
    /// # Errors
    /// [`ProgramError::Lower`]: the cache does not hold the bucket, the device not the cache, or the model has no
    /// equal parts for the ranks.
    pub fn write(&self, graph: &Graph, bucket: Bucket) -> Result<Program, ProgramError> {
        let lowered = hlo::lower(graph, self.plan, bucket, self.variant)
            .map_err(|source| ProgramError::Lower { bucket, source })?;
        let hlo = lowered.module.to_bytes();
        let sidecar = Sidecar::of(&lowered, self, bucket, &hlo);
        Ok(Program { bucket, lowered, hlo, sidecar })
    }
}

/// What the files of a program are called, but for their endings: `decode-4x1x512`.
pub fn file_stem(bucket: Bucket) -> String {
    format!("{}-{bucket}", bucket.family().name())
}

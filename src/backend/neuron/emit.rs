//! A model's programs as files: for each bucket the HLO, and beside it what its inputs and outputs mean.

use super::{
    hlo::{self, Bucket, CachePlan, ElementType, Input, InputSource, LowerError, Lowered, Precision},
    sidecar::Sidecar,
    values::constant_values,
};
use crate::{
    backend::{OpenOptions, WeightsForm, rules},
    model::Model,
};
use safetensors::{Dtype, SafeTensorError, View, serialize_to_file};
use std::{
    borrow::Cow,
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// The file that [`emit`] writes weights to.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// Which programs are wanted.
#[derive(Clone, Debug)]
pub struct EmitOptions {
    pub slots: usize,
    /// Positions a slot can hold; 0 takes the model's own context, 2048 at most.
    pub context_len: usize,
    /// None of them: [`Bucket::defaults`].
    pub buckets: Vec<Bucket>,
    pub precision: Precision,
    /// Whether to write the weights as the device gets them, too.
    pub with_weights: bool,
}

/// A program that was written.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub bucket: Bucket,
    pub path: PathBuf,
    pub bytes: usize,
    pub instructions: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum EmitError {
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
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write {path}")]
    Weights {
        path: PathBuf,
        #[source]
        source: SafeTensorError,
    },
}

/// Writes a program for each bucket into a folder, which is made if it is not there.
///
/// # Errors
/// [`EmitError`]; files that were written by then stay.
pub fn emit(model: &Model, options: &EmitOptions, folder: &Path) -> Result<Vec<Emitted>, EmitError> {
    let plan = cache_plan(model, options)?;
    let mut buckets =
        if options.buckets.is_empty() { Bucket::defaults(plan) } else { options.buckets.clone() };
    let mut seen = HashSet::new();
    buckets.retain(|bucket| seen.insert(*bucket));
    fs::create_dir_all(folder).map_err(|source| EmitError::Write { path: folder.to_path_buf(), source })?;
    let mut emitted = Vec::with_capacity(buckets.len());
    let mut constants = Vec::new();
    for bucket in buckets {
        let lowered = hlo::lower(&model.graph, plan, bucket, options.precision)
            .map_err(|source| EmitError::Lower { bucket, source })?;
        emitted.push(write_program(&lowered, plan, bucket, folder)?);
        constants = lowered.inputs;
    }
    if options.with_weights {
        // The same inputs in every bucket.
        write_weights(model, plan, constants, &folder.join(WEIGHTS_FILE))?;
    }
    Ok(emitted)
}

fn cache_plan(model: &Model, options: &EmitOptions) -> Result<CachePlan, EmitError> {
    let asked = OpenOptions {
        slots: options.slots,
        context_len: options.context_len,
        max_step_tokens: 1,
        weights: WeightsForm::Auto,
    };
    let limits = rules::limits("neuron", model, &asked)
        .map_err(|source| EmitError::Options { model: model.name.clone(), source: source.into() })?;
    Ok(CachePlan { slots: limits.slots, context: limits.context_len })
}

fn write_program(
    lowered: &Lowered,
    plan: CachePlan,
    bucket: Bucket,
    folder: &Path,
) -> Result<Emitted, EmitError> {
    let name = format!("{}-{bucket}", bucket.family().name());
    let path = folder.join(format!("{name}.hlo.pb"));
    let bytes = lowered.module.to_bytes();
    write(&path, &bytes)?;
    let sidecar = Sidecar::of(lowered, plan, bucket, &bytes);
    let sidecar = serde_json::to_string_pretty(&sidecar).expect("names and numbers are JSON") + "\n";
    write(&Sidecar::path(&path), sidecar.as_bytes())?;
    let instructions =
        lowered.module.computations.iter().map(|computation| computation.instructions.len()).sum();
    Ok(Emitted { bucket, path, bytes: bytes.len(), instructions })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), EmitError> {
    fs::write(path, bytes).map_err(|source| EmitError::Write { path: path.to_path_buf(), source })
}

/// An input whose numbers are made when they are written, one at a time.
struct Constant<'a> {
    model: &'a Model,
    plan: CachePlan,
    input: Input,
}

impl View for Constant<'_> {
    fn dtype(&self) -> Dtype {
        match self.input.shape.element {
            ElementType::Pred => Dtype::BOOL,
            ElementType::S32 => Dtype::I32,
            ElementType::F32 => Dtype::F32,
            ElementType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.input.shape.dimensions
    }

    fn data(&self) -> Cow<'_, [u8]> {
        constant_values(self.model, self.plan, &self.input).unwrap_or_default().into()
    }

    fn data_len(&self) -> usize {
        self.shape().iter().product::<usize>() * self.input.shape.element.size()
    }
}

fn write_weights(model: &Model, plan: CachePlan, inputs: Vec<Input>, path: &Path) -> Result<(), EmitError> {
    let is_constant = |input: &Input| {
        matches!(input.source, InputSource::Cosines | InputSource::Sines | InputSource::Weight { .. })
    };
    let constants = inputs
        .into_iter()
        .filter(is_constant)
        .map(|input| (input.name.clone(), Constant { model, plan, input }));
    serialize_to_file(constants, None, path)
        .map_err(|source| EmitError::Weights { path: path.to_path_buf(), source })
}

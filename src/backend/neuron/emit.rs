//! A model's programs as files: for each bucket the HLO, and beside it what its inputs and outputs mean.

use super::{
    hlo::{Bucket, CachePlan, ElementType, Input, InputSource},
    programs::{Program, ProgramError, ProgramOptions, ProgramSet, file_stem},
    sidecar::Sidecar,
    values,
};
use crate::model::Model;
use safetensors::{Dtype, SafeTensorError, View, serialize_to_file};
use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
};

/// The file that [`emit`] writes weights to.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

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
    #[error(transparent)]
    Program(#[from] ProgramError),
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

/// Writes a program for each bucket into a folder, which is made if it is not there; and on request the weights as
/// the device gets them, those of the first rank.
///
/// # Errors
/// [`EmitError`]; files that were written by then stay.
pub fn emit(
    model: &Model,
    options: &ProgramOptions,
    with_weights: bool,
    folder: &Path,
) -> Result<Vec<Emitted>, EmitError> {
    let set = ProgramSet::new(model, options)?;
    fs::create_dir_all(folder).map_err(|source| EmitError::Write { path: folder.to_path_buf(), source })?;
    let mut emitted = Vec::with_capacity(set.buckets.len());
    let mut constants = Vec::new();
    for &bucket in &set.buckets {
        let program = set.write(&model.graph, bucket)?;
        emitted.push(write_program(&program, folder)?);
        constants = program.lowered.inputs;
    }
    if with_weights {
        // The same inputs in every bucket.
        write_weights(model, set.plan, constants, &folder.join(WEIGHTS_FILE))?;
    }
    Ok(emitted)
}

fn write_program(program: &Program, folder: &Path) -> Result<Emitted, EmitError> {
    let path = folder.join(file_stem(program.bucket) + ".hlo.pb");
    write(&path, &program.hlo)?;
    write(&Sidecar::path(&path), program.sidecar.to_json().as_bytes())?;
    let computations = &program.lowered.module.computations;
    let instructions = computations.iter().map(|computation| computation.instructions.len()).sum();
    Ok(Emitted { bucket: program.bucket, path, bytes: program.hlo.len(), instructions })
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
        let constant = values::Constant::of(self.model, self.plan, &self.input);
        constant.map(|constant| constant.bytes(0)).unwrap_or_default().into()
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

//! A model as the two files of a folder.

use super::lower::{Form, Runner, lower};
use crate::model::Model;
use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

pub const MODEL_FILE: &str = "model.onnx";
/// Beside [`MODEL_FILE`], which names it.
pub const WEIGHTS_FILE: &str = "model.onnx.data";

#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct EmitError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Writes the model into a folder that is there.
///
/// # Errors
/// A file cannot be written; the folder may hold a part of it.
pub fn emit(model: &Model, form: Form, runner: Runner, folder: &Path) -> Result<(), EmitError> {
    let path = folder.join(WEIGHTS_FILE);
    let lowered = File::create(&path)
        .and_then(|file| lower(model, form, runner, BufWriter::new(file)))
        .map_err(|source| EmitError { path, source })?;
    let path = folder.join(MODEL_FILE);
    fs::write(&path, lowered.to_bytes(WEIGHTS_FILE)).map_err(|source| EmitError { path, source })
}

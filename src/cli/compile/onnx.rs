//! `mondai compile --target onnx`: a model as ONNX, in a folder.

use crate::backend::ort::onnx::{Form, MODEL_FILE, Runner, WEIGHTS_FILE, emit};
use crate::model::Model;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormFlag {
    /// Standard operators alone, all numbers f32
    Portable,
    /// ONNX Runtime's own operators, and quantised matrices as the integers they are
    Fast,
    /// As fast, but each matrix rounded anew to 4 bits, which is faster and further from the model
    Int4,
}

/// `context_len` 0 takes the model's own.
pub(super) fn write(model: &Model, context_len: usize, form: FormFlag, folder: &Path) -> Result<()> {
    let limit = model.config.context_len;
    ensure!(context_len <= limit, "a context of {context_len} is longer than the model's {limit}");
    let context_len = if context_len == 0 { limit } else { context_len };
    let form = match form {
        FormFlag::Portable => Form::Portable,
        FormFlag::Fast => Form::Fast,
        FormFlag::Int4 => Form::Int4,
    };
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    emit(model, form, Runner::Elsewhere { context_len }, folder)?;
    let mut out = io::stdout().lock();
    for file in [MODEL_FILE, WEIGHTS_FILE] {
        let path = folder.join(file);
        writeln!(out, "{}  {} bytes", path.display(), fs::metadata(&path)?.len())?;
    }
    Ok(())
}

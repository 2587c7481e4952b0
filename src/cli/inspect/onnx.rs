//! An ONNX model, whoever wrote it.

use super::Format;
use crate::backend::ort::onnx::{Description, MODEL_FILE, ValueDescription};
use anyhow::Result;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The model that a path is of: its file, or a folder that `mondai compile --target onnx` wrote.
pub(super) fn model_file(path: &Path) -> Option<PathBuf> {
    if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
        return Some(path.to_owned());
    }
    let inside = path.join(MODEL_FILE);
    (inside.is_file() && !path.join("config.json").exists()).then_some(inside)
}

pub(super) fn print(out: &mut impl Write, path: &Path, format: Format) -> Result<()> {
    let description = Description::read(path)?;
    match format {
        Format::Text => print_text(out, path, &description)?,
        Format::Json => writeln!(out, "{:#}", json!({ "path": path, "onnx": description }))?,
    }
    Ok(())
}

fn print_text(out: &mut impl Write, path: &Path, description: &Description) -> io::Result<()> {
    let Description { name, producer, ir_version, opsets, inputs, outputs, operators, .. } = description;
    writeln!(out, "{name}  {}\n\nModel", path.display())?;
    writeln!(out, "  {:<12}{producer}", "producer")?;
    writeln!(out, "  {:<12}{ir_version}", "IR version")?;
    for (domain, version) in opsets {
        let domain = if domain.is_empty() { "ONNX" } else { domain };
        writeln!(out, "  {:<12}{domain} {version}", "operators")?;
    }
    let columns = inputs.iter().chain(outputs).map(|value| value.name.len()).max().unwrap_or(0);
    for (title, values) in [("Inputs", inputs), ("Outputs", outputs)] {
        writeln!(out, "\n{title}")?;
        for ValueDescription { name, element, shape } in values {
            writeln!(out, "  {name:<columns$}  {element:<8} {}", shape.join(" x "))?;
        }
    }
    writeln!(out, "\nOperators")?;
    let columns = operators.keys().map(String::len).max().unwrap_or(0);
    for (operator, count) in operators {
        writeln!(out, "  {operator:<columns$}  {count:>5}")?;
    }
    let [inline, external] =
        [description.inline_bytes, description.external_bytes].map(|bytes| bytes as f64 / 1e6);
    writeln!(
        out,
        "\nTotals\n  {} initializers, {inline:.1} MB in the model and {external:.1} MB beside it",
        description.initializers
    )
}

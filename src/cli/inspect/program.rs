//! A program that `mondai compile` wrote: what the file beside it says of it.

use super::Format;
use crate::backend::neuron::{
    hlo::ElementType,
    sidecar::{CacheSizes, Sidecar, Sizes},
};
use anyhow::Result;
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

/// Whether a path is one of a program rather than of a model.
pub(super) fn is_program(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".hlo.pb") && path.is_file()
}

pub(super) fn print(out: &mut impl Write, path: &Path, format: Format) -> Result<()> {
    let (sidecar, bytes) = Sidecar::read(path)?;
    match format {
        Format::Text => print_text(out, path, &sidecar, bytes)?,
        Format::Json => {
            writeln!(out, "{:#}", json!({ "path": path, "bytes": bytes, "program": sidecar }))?;
        }
    }
    Ok(())
}

fn print_text(out: &mut impl Write, path: &Path, sidecar: &Sidecar, bytes: usize) -> io::Result<()> {
    let Sidecar { hlo_sha256, family, bucket, cache, inputs, outputs } = sidecar;
    let Sizes { slots, width, context } = bucket;
    let CacheSizes { slots: cache_slots, context: cache_context } = cache;
    writeln!(out, "{}\n\nProgram", path.display())?;
    writeln!(out, "  {:<10}HLO, not compiled for a device; {bytes} bytes", "form")?;
    writeln!(out, "  {:<10}{hlo_sha256}", "sha256")?;
    writeln!(out, "  {:<10}{family}", "family")?;
    writeln!(out, "  {:<10}{slots} slots, rows of {width}, a context of {context}", "bucket")?;
    writeln!(out, "  {:<10}{cache_slots} slots of {cache_context} positions", "cache")?;

    let names = inputs.iter().map(|input| &input.name).chain(outputs.iter().map(|output| &output.name));
    let columns = names.map(String::len).max().unwrap_or(0);
    writeln!(out, "\nInputs")?;
    for input in inputs {
        let array = array(input.element, &input.shape);
        writeln!(out, "  {:<columns$}  {array:<24} {}", input.name, input.is)?;
    }
    writeln!(out, "\nOutputs")?;
    for output in outputs {
        let place = output.replaces.as_ref().map_or("", |_| "in place");
        writeln!(
            out,
            "{}",
            format!("  {:<columns$}  {:<24} {place}", output.name, array(output.element, &output.shape))
                .trim_end()
        )?;
    }
    writeln!(out, "\nTotals")?;
    for is in ["weight", "table", "cache"] {
        let of_kind = inputs.iter().filter(|input| input.is == is);
        let count = of_kind.clone().count();
        let megabytes: f64 = of_kind.map(|input| megabytes(input.element, &input.shape)).sum();
        writeln!(out, "  {is:<10}{count:>5} arrays {megabytes:>10.1} MB")?;
    }
    Ok(())
}

fn array(element: ElementType, shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{} {}", element.name(), sizes.join(" x "))
}

/// Not counted in integers: a file may say anything.
fn megabytes(element: ElementType, shape: &[usize]) -> f64 {
    shape.iter().map(|&size| size as f64).product::<f64>() * element.size() as f64 / 1e6
}

//! A program that `mondai compile` wrote: what the file beside it says of it, and of a compiled one what its own
//! header says and what is packed in it.

use super::Format;
use crate::backend::neuron::{
    hlo::{ElementType, Sampling},
    neff::{Header, Member, Neff},
    sidecar::{CacheSizes, Compiled, Sidecar, Sizes},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;

/// What kind of file a path is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hlo,
    Neff,
}

impl Kind {
    /// `None`: it is of a model.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        let kind = match () {
            () if name.ends_with(".hlo.pb") => Self::Hlo,
            () if name.ends_with(".neff") => Self::Neff,
            () => return None,
        };
        path.is_file().then_some(kind)
    }
}

pub(super) fn print(out: &mut impl Write, path: &Path, kind: Kind, format: Format) -> Result<()> {
    match kind {
        Kind::Hlo => {
            let (sidecar, bytes) = Sidecar::of_hlo(path)?;
            match format {
                Format::Text => {
                    let form = format!("HLO, not compiled for a device; {bytes} bytes");
                    writeln!(out, "{}\n", path.display())?;
                    print_program(out, &form, &sidecar)?;
                }
                Format::Json => {
                    writeln!(out, "{:#}", json!({ "path": path, "bytes": bytes, "program": sidecar }))?;
                }
            }
        }
        Kind::Neff => {
            let not_neff = || format!("{} is not a NEFF", path.display());
            let neff = Neff::open(path).with_context(not_neff)?;
            let members = neff.members(path).with_context(not_neff)?;
            let json = path.with_extension("json");
            let sidecar = if json.exists() { Some(Sidecar::read(&json)?) } else { None };
            match format {
                Format::Text => print_neff(out, path, &neff, &members, sidecar.as_ref())?,
                Format::Json => writeln!(out, "{:#}", neff_json(path, &neff, &members, sidecar.as_ref()))?,
            }
        }
    }
    Ok(())
}

fn header_rows(neff: &Neff) -> Vec<(&'static str, Value)> {
    let Header {
        package_version,
        archive_bytes,
        version: [major, minor],
        build,
        cores,
        hash,
        uuid,
        name,
        feature_bits,
        lnc,
    } = &neff.header;
    vec![
        ("name", json!(name)),
        ("uuid", json!(uuid)),
        ("build", json!(build)),
        ("version", json!(format!("{major}.{minor}"))),
        ("package_version", json!(package_version)),
        ("cores", json!(cores)),
        ("lnc", json!(lnc)),
        ("feature_bits", json!(format!("{feature_bits:#x}"))),
        ("hash", json!(hash)),
        ("packing", json!(neff.packing.name())),
        ("archive_bytes", json!(archive_bytes)),
    ]
}

fn print_neff(
    out: &mut impl Write,
    path: &Path,
    neff: &Neff,
    members: &[Member],
    sidecar: Option<&Sidecar>,
) -> io::Result<()> {
    writeln!(out, "{}  {} bytes\n\nHeader", path.display(), neff.file_bytes)?;
    for (name, value) in header_rows(neff) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{}", format!("  {name:<17}{value}").trim_end())?;
    }
    writeln!(out, "\nArchive")?;
    let width = members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0);
    for Member { name, bytes } in members {
        writeln!(out, "  {name:<width$}  {bytes:>12}")?;
    }
    writeln!(out)?;
    match sidecar {
        Some(sidecar) => print_program(out, "compiled", sidecar),
        None => writeln!(
            out,
            "What its inputs and outputs are is not in it: `mondai compile` writes a JSON file beside it"
        ),
    }
}

fn neff_json(path: &Path, neff: &Neff, members: &[Member], sidecar: Option<&Sidecar>) -> Value {
    let header: serde_json::Map<String, Value> =
        header_rows(neff).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let members: Vec<Value> =
        members.iter().map(|member| json!({ "name": member.name, "bytes": member.bytes })).collect();
    json!({
        "path": path,
        "bytes": neff.file_bytes,
        "header": header,
        "archive": members,
        "program": sidecar,
    })
}

fn print_program(out: &mut impl Write, form: &str, sidecar: &Sidecar) -> io::Result<()> {
    let Sidecar { hlo_sha256, family, precision, bucket, cache, tensor_parallel, inputs, compiled, .. } =
        sidecar;
    let Sizes { slots, width, context } = bucket;
    let CacheSizes { slots: cache_slots, context: cache_context } = cache;
    writeln!(out, "Program")?;
    writeln!(out, "  {:<10}{form}", "form")?;
    writeln!(out, "  {:<10}{hlo_sha256}{}", "sha256", if compiled.is_some() { " of the HLO" } else { "" })?;
    writeln!(out, "  {:<10}{family}", "family")?;
    writeln!(out, "  {:<10}{}", "precision", precision.name())?;
    writeln!(out, "  {:<10}{slots} slots, rows of {width}, a context of {context}", "bucket")?;
    writeln!(out, "  {:<10}{cache_slots} slots of {cache_context} positions", "cache")?;
    if *tensor_parallel > 1 {
        writeln!(out, "  {:<10}{tensor_parallel} share the model; arrays are one's part", "cores")?;
    }
    if sidecar.sampling == Sampling::Device {
        writeln!(out, "  {:<10}the device draws a token for each row", "sampling")?;
    }
    if let Some(Compiled { key, target, lnc, compiler, flags, neff_sha256, neff_bytes }) = compiled {
        writeln!(out, "\nCompiled")?;
        writeln!(out, "  {:<10}{target}, {lnc} physical core a logical core", "target")?;
        writeln!(out, "  {:<10}{compiler}", "compiler")?;
        writeln!(out, "  {:<10}{}", "flags", flags.join(" "))?;
        writeln!(out, "  {:<10}{key}", "key")?;
        writeln!(out, "  {:<10}{neff_bytes} bytes, {neff_sha256}", "NEFF")?;
    }
    print_tensors(out, sidecar)?;
    writeln!(out, "\nTotals")?;
    for is in ["weight", "table", "cache"] {
        let of_kind = inputs.iter().filter(|input| input.is == is);
        let count = of_kind.clone().count();
        let megabytes: f64 = of_kind.map(|input| megabytes(input.element, &input.shape)).sum();
        writeln!(out, "  {is:<10}{count:>5} arrays {megabytes:>10.1} MB")?;
    }
    Ok(())
}

fn print_tensors(out: &mut impl Write, sidecar: &Sidecar) -> io::Result<()> {
    let Sidecar { inputs, outputs, .. } = sidecar;
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
        let array = array(output.element, &output.shape);
        writeln!(out, "{}", format!("  {:<columns$}  {array:<24} {place}", output.name).trim_end())?;
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

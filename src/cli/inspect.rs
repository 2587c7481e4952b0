//! `mondai inspect`: what is in a model file, or in a program made of one.

mod onnx;
mod program;

use super::models_dir;
use crate::model::{Model, StoredTensor};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Print a model's config, graph and tensors, or a program's inputs and outputs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Inspect {
    /// A name in the models folder, a GGUF file, a Hugging Face folder, an ONNX file, or a program for a NeuronCore
    /// (.neff, or .hlo.pb as `mondai compile --emit-only` writes it)
    model: String,
    /// The folder with one folder a model [default: models]
    #[arg(long, value_name = "DIR")]
    models_dir: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  mondai inspect smollm2-135m-instruct
  mondai inspect --format json ~/models/qwen3.gguf | jq .totals
  mondai inspect models/smollm2-135m-instruct/neuron/inf2/decode-4x1x2048.neff";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Inspect {
    pub(super) fn run(self) -> Result<()> {
        let mut out = io::stdout().lock();
        let path = Path::new(&self.model);
        if let Some(kind) = program::Kind::of(path) {
            return program::print(&mut out, path, kind, self.format);
        }
        if let Some(file) = onnx::model_file(path) {
            return onnx::print(&mut out, &file, self.format);
        }
        let model = Model::open(&self.model, &models_dir(self.models_dir)?)?;
        match self.format {
            Format::Text => print_text(&mut out, &model)?,
            Format::Json => writeln!(out, "{:#}", to_json(&model))?,
        }
        Ok(())
    }
}

/// Name and value of what the config says, in the order to be printed.
fn config_rows(model: &Model) -> Vec<(&'static str, Value)> {
    let config = &model.config;
    vec![
        ("architecture", json!(config.architecture.name())),
        ("context_len", json!(config.context_len)),
        ("vocab_size", json!(config.vocab_size)),
        ("layers", json!(config.layers)),
        ("width", json!(config.width)),
        ("feed_forward_width", json!(config.feed_forward_width)),
        ("heads", json!(config.heads)),
        ("kv_heads", json!(config.kv_heads)),
        ("head_dim", json!(config.head_dim)),
        ("norm_epsilon", json!(config.norm_epsilon)),
        ("rope_theta", json!(config.rope.theta)),
        ("rope_scaling", json!(format!("{:?}", config.rope.scaling))),
        ("tied_head", json!(config.tied_head)),
    ]
}

/// What all tensors come to.
#[derive(Default)]
struct Totals {
    tensors: usize,
    parameters: usize,
    bytes: usize,
    /// Tensors and bytes of each type.
    types: BTreeMap<&'static str, (usize, usize)>,
}

impl Totals {
    fn of(model: &Model) -> Self {
        let mut totals = Self::default();
        for tensor in model.tensors() {
            totals.tensors += 1;
            totals.parameters += tensor.elements();
            totals.bytes += tensor.byte_len();
            let of_type = totals.types.entry(tensor.tensor_type().name()).or_default();
            of_type.0 += 1;
            of_type.1 += tensor.byte_len();
        }
        totals
    }
}

fn print_text(out: &mut impl Write, model: &Model) -> io::Result<()> {
    writeln!(out, "{}  {}\n\nConfig", model.name, model.path.display())?;
    for adapter in model.adapters() {
        writeln!(out, "  {:<20}{}", "adapter", adapter.display())?;
    }
    for (name, value) in config_rows(model) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "  {name:<20}{value}")?;
    }
    writeln!(out, "\nGraph")?;
    for line in model.graph.to_string().lines() {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "\nTensors")?;
    let width = model.tensors().map(|tensor| tensor.name().len()).max().unwrap_or(0);
    for tensor in model.tensors() {
        writeln!(
            out,
            "  {:<width$}  {:<5} {:<16} {:>12}",
            tensor.name(),
            tensor.tensor_type().name(),
            shape(tensor),
            tensor.byte_len(),
        )?;
    }
    let totals = Totals::of(model);
    writeln!(out, "\nTotals")?;
    writeln!(
        out,
        "  {} tensors, {:.1} million parameters, {:.1} MB",
        totals.tensors,
        totals.parameters as f64 / 1e6,
        totals.bytes as f64 / 1e6
    )?;
    for (name, (tensors, bytes)) in totals.types {
        writeln!(out, "  {name:<5} {tensors:>5} tensors {:>10.1} MB", bytes as f64 / 1e6)?;
    }
    Ok(())
}

/// Outermost dimension first.
fn shape(tensor: &StoredTensor) -> String {
    let dimensions: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    dimensions.join(" x ")
}

fn to_json(model: &Model) -> Value {
    let tensors: Vec<Value> = model
        .tensors()
        .map(|tensor| {
            json!({
                "name": tensor.name(),
                "type": tensor.tensor_type().name(),
                "shape": tensor.shape(),
                "bytes": tensor.byte_len(),
            })
        })
        .collect();
    let totals = Totals::of(model);
    let types: serde_json::Map<String, Value> = totals
        .types
        .iter()
        .map(|(name, (tensors, bytes))| ((*name).to_owned(), json!({ "tensors": tensors, "bytes": bytes })))
        .collect();
    let config: serde_json::Map<String, Value> =
        config_rows(model).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let graph = model.graph.to_string();
    json!({
        "name": model.name,
        "path": model.path,
        "adapters": model.adapters(),
        "config": config,
        "graph": graph.lines().collect::<Vec<_>>(),
        "tensors": tensors,
        "totals": {
            "tensors": totals.tensors,
            "parameters": totals.parameters,
            "bytes": totals.bytes,
            "types": types,
        },
    })
}

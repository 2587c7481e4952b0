//! `mondai compile`: writes the programs that a NeuronCore would run.

use super::loaded::open_model;
use crate::backend::neuron::{
    emit::{EmitOptions, emit},
    hlo::{Bucket, Precision},
};
use crate::config::{ModelFlags, ModelSettings, Sources};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::path::PathBuf;

/// Write a model's programs for a NeuronCore, as HLO
///
/// Neither Neuron's compiler nor a device is used: the files are what that compiler takes. There is one for each
/// bucket, and beside it a JSON file that says what its inputs and outputs are.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compile {
    /// Write the HLO and leave it at that; there is nothing else yet
    #[arg(long, required = true)]
    emit_only: bool,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The model: a name in the models folder, a GGUF file or a Hugging Face folder
    #[arg(long)]
    model: Option<String>,
    /// The folder with one folder a model
    #[arg(long, value_name = "DIR")]
    models_dir: Option<String>,
    /// Sequences the KV cache holds
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
    /// Positions of each; 0: as many as the model was made for, at most 2048
    #[arg(long, value_name = "TOKENS")]
    context_len: Option<usize>,
    /// A shape to write a program for, slots x row width x context, such as 4x1x512; may be given several times
    /// [default: a set that fits the cache]
    #[arg(long = "bucket", value_name = "SxWxC")]
    buckets: Vec<Bucket>,
    /// How matrices and the KV cache are kept; norms, softmax and logits are always f32
    #[arg(long, value_enum, default_value_t = PrecisionFlag::Bf16)]
    precision: PrecisionFlag,
    /// Write the weights too, as a device would get them: for scripts/hlo_judge.py
    #[arg(long)]
    with_weights: bool,
}

const EXAMPLES: &str = "\
Examples:
  mondai compile --emit-only --model smollm2-135m-instruct --output programs/
  mondai compile --emit-only --slots 1 --bucket 1x1x256 --bucket 1x64x256 --context-len 256 --output small/";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionFlag {
    Bf16,
    F32,
}

impl Compile {
    pub(super) fn run(self) -> Result<()> {
        let flags = ModelFlags {
            model: self.model,
            models_dir: self.models_dir,
            slots: self.slots,
            context_len: self.context_len,
            ..ModelFlags::default()
        };
        let settings = ModelSettings::resolve(flags, &mut Sources::open(None)?)?;
        let options = EmitOptions {
            slots: settings.slots.value,
            context_len: settings.context_len.value,
            buckets: self.buckets,
            precision: match self.precision {
                PrecisionFlag::Bf16 => Precision::Bf16,
                PrecisionFlag::F32 => Precision::F32,
            },
            with_weights: self.with_weights,
        };
        let emitted = emit(&open_model(&settings)?, &options, &self.output)?;
        let mut out = io::stdout().lock();
        for program in emitted {
            writeln!(
                out,
                "{}  {} bytes, {} instructions",
                program.path.display(),
                program.bytes,
                program.instructions
            )?;
        }
        Ok(())
    }
}

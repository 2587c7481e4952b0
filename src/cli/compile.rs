//! `mondai compile`: makes the programs that a NeuronCore runs, or writes what its compiler would take, or a model
//! for ONNX Runtime.

mod jobs;
mod onnx;
mod watch;

use super::loaded::open_model;
use crate::backend::neuron::{
    Target, UnknownTarget,
    artifact::default_folder,
    compile::{CompileOptions, compile},
    emit::emit,
    hlo::{Bucket, Precision, Sampling, Variant},
    neuronx_cc::NeuronxCc,
    programs::{ProgramOptions, ProgramSet},
};
use crate::config::{CompilerFlags, CompilerSettings, ModelFlags, ModelSettings, Sources};
use crate::model::Model;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use watch::Watch;

/// Compile a model's programs for a NeuronCore, or write it for ONNX Runtime
///
/// For a chip it runs Neuron's own compiler, neuronx-cc, which needs no device, once for each bucket. What is there
/// already is left as it is. Beside each program (.neff) lie a JSON file that says what its inputs and outputs are, and
/// the compiler's log. The folder can be copied to another machine.
///
/// With --target onnx there is one model, with its weights in a file beside it; `mondai serve --backend ort` needs none,
/// and makes its own.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(super) struct Compile {
    /// What to compile for: inf2, trn1, trn1n, trn2, trn3, or onnx
    #[arg(long, value_name = "TARGET", required_unless_present = "emit_only")]
    target: Option<Goal>,
    /// With --target onnx: in standard operators and f32, or as ONNX Runtime runs it fastest
    #[arg(long, value_enum, default_value_t = onnx::FormFlag::Fast)]
    form: onnx::FormFlag,
    /// Write each program as HLO, which is what the compiler takes, and run no compiler
    #[arg(long, conflicts_with_all = ["target", "jobs", "neuronx_cc"], requires = "output")]
    emit_only: bool,
    /// The folder to write to [default: neuron/TARGET in the model's folder in the models folder; onnx has none]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Programs compiled at the same time [default: one for every 2 CPUs, if each has 8 GB of memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
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
    /// Cores that share the model, for one that does not fit a single core: each has a part of the heads and of the
    /// feed-forward width, and their results are added up
    #[arg(long, value_name = "CORES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    tensor_parallel: u16,
    /// Who chooses the next token: the host, from logits that it reads, or the device itself, so that a few bytes are
    /// read; requests that want more than it can do are left to the host all the same
    #[arg(long, value_enum, default_value_t = SamplingFlag::Host)]
    sampling: SamplingFlag,
    /// With --emit-only, write the weights too, as a device would get them: for scripts/hlo_judge.py
    #[arg(long, requires = "emit_only", conflicts_with = "tensor_parallel")]
    with_weights: bool,
    #[command(flatten)]
    compiler: CompilerFlags,
}

const USAGE: &str = "\
mondai compile --target <TARGET> [OPTIONS]
       mondai compile --emit-only --output <DIR> [OPTIONS]";

const EXAMPLES: &str = "\
Examples:
  mondai compile --model smollm2-135m-instruct --target inf2
  mondai compile --target trn1 --slots 8 --bucket 8x1x512 --bucket 1x128x512 --context-len 512
  mondai compile --emit-only --model smollm2-135m-instruct --output programs/
  mondai compile --target onnx --model smollm2-135m-instruct --output onnx/";

/// What `--target` names.
#[derive(Clone, Copy, Debug)]
enum Goal {
    Chip(Target),
    Onnx,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "onnx" => Ok(Self::Onnx),
            chip => chip.parse().map(Self::Chip).map_err(|error: UnknownTarget| format!("{error}, or onnx")),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionFlag {
    Bf16,
    F32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SamplingFlag {
    Host,
    Device,
}

impl Compile {
    /// # Errors
    /// The model cannot be opened, the compiler not be found, or a program not be compiled or written.
    pub(super) fn run(self) -> Result<()> {
        let flags = ModelFlags {
            model: self.model,
            models_dir: self.models_dir,
            slots: self.slots,
            context_len: self.context_len,
            ..ModelFlags::default()
        };
        let mut sources = Sources::open(None)?;
        let settings = ModelSettings::resolve(flags, &mut sources)?;
        let compiler = CompilerSettings::resolve(self.compiler, &mut sources)?;
        let target = match self.target {
            Some(Goal::Onnx) => {
                let for_chips = self.jobs.is_some() || self.slots.is_some() || !self.buckets.is_empty();
                ensure!(
                    !for_chips,
                    "--jobs, --slots and --bucket are for chips; --target onnx has one model"
                );
                let folder = self.output.context("--target onnx wants the folder to write to: --output")?;
                let context_len = settings.context_len.value;
                return onnx::write(&open_model(&settings)?, context_len, self.form, &folder);
            }
            Some(Goal::Chip(target)) => Some(target),
            None => None,
        };
        let programs = ProgramOptions {
            slots: settings.slots.value,
            context_len: settings.context_len.value,
            buckets: self.buckets,
            variant: Variant {
                precision: match self.precision {
                    PrecisionFlag::Bf16 => Precision::Bf16,
                    PrecisionFlag::F32 => Precision::F32,
                },
                ranks: self.tensor_parallel.into(),
                sampling: match self.sampling {
                    SamplingFlag::Host => Sampling::Host,
                    SamplingFlag::Device => Sampling::Device,
                },
            },
        };
        let model = open_model(&settings)?;
        match (target, self.output) {
            (Some(target), output) => {
                let folder = output.unwrap_or_else(|| {
                    default_folder(Path::new(&settings.models_dir.value), &model.name, target)
                });
                let jobs = self.jobs.map_or_else(jobs::default, usize::from);
                let options = CompileOptions { programs, target, jobs };
                compile_into(&model, &options, &compiler, &folder)
            }
            (None, Some(folder)) => write_hlo(&model, &programs, self.with_weights, &folder),
            (None, None) => unreachable!("--emit-only requires --output"),
        }
    }
}

fn compile_into(
    model: &Model,
    options: &CompileOptions,
    settings: &CompilerSettings,
    folder: &Path,
) -> Result<()> {
    let setting = &settings.neuronx_cc;
    let named = (!setting.value.is_empty()).then(|| (Path::new(&setting.value), setting.origin.to_string()));
    let compiler = NeuronxCc::find(named)?;
    let stop = stop_on_signals()?;
    let watch = Watch::new(compiler.path(), ProgramSet::new(model, &options.programs)?.buckets.len());
    let result = compile(model, options, &compiler, folder, &stop, &|bucket, event| watch.see(bucket, event));
    watch.end();
    result?;
    eprintln!("the programs of {} for {} are in {}", model.name, options.target, folder.display());
    Ok(())
}

fn write_hlo(model: &Model, programs: &ProgramOptions, with_weights: bool, folder: &Path) -> Result<()> {
    let emitted = emit(model, programs, with_weights, folder)?;
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

/// True from the first of the signals on that ask a program to end: the compiler's processes have to be ended first.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("signals cannot be listened for");
        let [interrupt, terminate, hang_up] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
        (interrupt?, terminate?, hang_up?)
    };
    let stopping = Arc::clone(&stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        stopping.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

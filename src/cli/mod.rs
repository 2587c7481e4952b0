//! The command line: one file a verb, and nothing that another room could know.
//!
//! Wires the rooms together, reads settings, talks to the terminal. May use all rooms. Errors are
//! `anyhow`'s and are printed once, by `main`.

mod bench;
mod compile;
mod doctor;
mod eval;
mod generate;
mod inspect;
mod library;
mod loaded;
mod logs;
mod neuron_environment;
mod probe;
mod pull;
mod serve;

use crate::backend::NEURON;
use crate::config::{
    CheckFlags, CheckSettings, HttpSettings, LibraryFlags, LibrarySettings, LogFlags, LogSettings,
    ModelFlags, ModelSettings, Sources,
};
use crate::library::Library;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// An inference server that writes quizzes
///
/// Settings come from flags, from environment variables such as MONDAI_PORT, and from a file; `mondai
/// serve --print-config` shows each value and where it came from.
#[derive(Debug, Parser)]
#[command(name = "mondai", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mondai pull
  mondai generate --topic 'the solar system' --count 3
  mondai generate --source notes.txt --kind short_answer --format ndjson
  mondai serve --port 8080";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Generate(generate::Generate),
    Eval(eval::Eval),
    Bench(Box<bench::BenchVerb>),
    Library(library::LibraryVerb),
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
    Compile(compile::Compile),
    Pull(PullArgs),
    Probe(probe::Probe),
}

#[derive(Debug, Args)]
struct PullArgs {
    #[command(flatten)]
    pull: pull::Pull,
    /// The folder with one folder a model [default: models]
    #[arg(long, value_name = "DIR")]
    models_dir: Option<String>,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// Whatever was in the way, as a chain of causes for `main` to print.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Generate(generate) => generate.run(),
            Command::Eval(eval) => eval.run(),
            Command::Bench(bench) => bench.run(),
            Command::Library(library) => library.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Compile(compile) => compile.run(),
            Command::Pull(PullArgs { pull, models_dir: dir }) => pull.run(&models_dir(dir)?),
            Command::Probe(probe) => probe.run(),
        }
    }
}

/// The folder with the models, for the verbs that run none.
fn models_dir(flag: Option<String>) -> Result<PathBuf> {
    let flags = ModelFlags { models_dir: flag, ..ModelFlags::default() };
    let settings = ModelSettings::resolve(flags, &mut Sources::open(None)?)?;
    Ok(settings.models_dir.value.into())
}

/// The library that the settings name, opened; `None` where they want none.
fn chosen_library(settings: &LibrarySettings) -> Result<Option<Library>> {
    Ok(match settings.library.value.as_str() {
        LibrarySettings::NONE => None,
        LibrarySettings::SHIPPED => Some(Library::shipped()),
        folder => Some(Library::open(folder.as_ref())?),
    })
}

/// The settings of the verbs that run a model.
#[derive(Clone, Debug, Args)]
struct CommonFlags {
    /// A file of settings, in TOML; the keys are the flags' names with `_` for `-` [env: MONDAI_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    library: LibraryFlags,
    #[command(flatten)]
    checks: CheckFlags,
    #[command(flatten)]
    log: LogFlags,
}

/// Every setting there is.
#[derive(Clone)]
struct Settings {
    model: ModelSettings,
    library: LibrarySettings,
    checks: CheckSettings,
    http: HttpSettings,
    log: LogSettings,
}

impl CommonFlags {
    fn resolve(self, http: crate::config::HttpFlags) -> Result<Settings> {
        let file = self.config.or_else(|| std::env::var_os("MONDAI_CONFIG").map(PathBuf::from));
        let mut sources = Sources::open(file.as_deref())?;
        let settings = Settings {
            model: ModelSettings::resolve(self.model, &mut sources)?,
            library: LibrarySettings::resolve(self.library, &mut sources)?,
            checks: CheckSettings::resolve(self.checks, &mut sources)?,
            http: HttpSettings::resolve(http, &mut sources)?,
            log: LogSettings::resolve(self.log, &mut sources)?,
        };
        sources.finish()?;
        if settings.model.backend.value == NEURON {
            // Before anything is read that could not be read again.
            neuron_environment::enter(&settings.model)?;
        }
        Ok(settings)
    }
}

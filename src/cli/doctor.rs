//! `mondai doctor`: what a machine lacks, and whether what it computes is right.

mod trial;

use super::neuron_environment;
use crate::backend::neuron::doctor::{Machine, Verdict, examine};
use crate::config::{ModelFlags, ModelSettings, Sources};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::io::{self, Write};

/// Say what a machine lacks to run a backend
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(subcommand)]
    patient: Patient,
}

#[derive(Debug, Subcommand)]
enum Patient {
    Neuron(NeuronDoctor),
}

/// Look at driver, devices, permissions, cores and runtime library
///
/// Claims no core. Exits with 1 if something is missing, and says of each what to do. With --trial it claims the
/// cores, runs the model on them and compares what they compute with the CPU's.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct NeuronDoctor {
    /// Run the model on the cores beside the CPU
    #[arg(long)]
    trial: bool,
    #[command(flatten)]
    model: ModelFlags,
}

const EXAMPLES: &str = "\
Examples:
  mondai doctor neuron
  mondai doctor neuron --trial --model smollm2-135m-instruct --cores 0";

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let Patient::Neuron(NeuronDoctor { trial, model }) = self.patient;
        let settings = ModelSettings::resolve(model, &mut Sources::open(None)?)?;
        if trial {
            neuron_environment::enter(&settings)?;
            return trial::run(&settings);
        }
        let library = settings.neuron_library.value;
        let findings = examine(&Machine::this((!library.is_empty()).then(|| library.into())));
        let mut out = io::stdout().lock();
        for finding in &findings {
            let sign = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Doubtful => "look",
                Verdict::Bad => "BAD ",
            };
            writeln!(out, "{sign}  {:<14} {}", finding.what, finding.found)?;
            if let Some(advice) = finding.advice {
                writeln!(out, "{:<21}-> {advice}", "")?;
            }
        }
        match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
            0 => Ok(()),
            bad => bail!("{bad} of {} findings are in the way of a NeuronCore", findings.len()),
        }
    }
}

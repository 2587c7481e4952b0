//! The same tokens on a NeuronCore and on the CPU: how far apart the logits are, and how long a step takes.

use crate::backend::{self, Backend, Draw, Logits, NEURON, OpenOptions, Row, Slot, WeightsForm};
use crate::cli::loaded::{open_model, open_options};
use crate::config::ModelSettings;
use crate::text::TokenId;
use anyhow::{Context, Result, bail};
use std::io::{self, Write};
use std::time::{Duration, Instant};

const STEPS: usize = 64;
/// Of a prompt: past the widest of the short rows, so that prefill is tried too.
const PROMPT_TOKENS: usize = 100;
/// Rounding to bf16 alone moves a logit by less than this part of the largest.
const TOLERANCE: f32 = 0.05;

/// A backend under trial, and what its logits are written to.
struct Subject {
    backend: Box<dyn Backend>,
    logits: Logits,
}

impl Subject {
    fn open(name: &str, model: &crate::model::Model, options: &OpenOptions) -> Result<Self> {
        let backend = backend::open(name, model, options)?;
        let logits = Logits::new(backend.limits().vocab_size);
        Ok(Self { backend, logits })
    }

    /// Writes tokens to a slot; the time it took. The last one's logits are had, and the best token by them where the
    /// backend draws.
    fn write(&mut self, slot: usize, start: usize, tokens: &[TokenId]) -> Result<Duration> {
        let began = Instant::now();
        let greedy = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 };
        let draw = self.backend.limits().draws.then_some(greedy);
        let row = Row { slot: Slot(slot), start, tokens, logits_from: tokens.len() - 1, allowed: None, draw };
        self.backend.extend(&[row], &mut self.logits)?;
        Ok(began.elapsed())
    }
}

pub(super) fn run(settings: &ModelSettings) -> Result<()> {
    let mut out = io::stdout().lock();
    let model = open_model(settings)?;
    let began = Instant::now();
    let options = OpenOptions { max_step_tokens: PROMPT_TOKENS, ..open_options(settings) };
    let mut device = Subject::open(NEURON, &model, &options)
        .with_context(|| format!("the model {} cannot be run on a NeuronCore", model.name))?;
    let limits = device.backend.limits().clone();
    writeln!(
        out,
        "opened         {:.1} s, {} slots of {} positions",
        began.elapsed().as_secs_f64(),
        limits.slots,
        limits.context_len
    )?;
    if limits.simulated {
        writeln!(out, "simulated      a stand-in for the device: no time below is a device's")?;
    }
    let reference =
        OpenOptions { slots: 1, context_len: limits.context_len, weights: WeightsForm::F32, ..options };
    let mut reference = Subject::open("cpu", &model, &reference)?;

    let n_prompt = PROMPT_TOKENS.min(limits.context_len.saturating_sub(STEPS).max(1));
    let prompt: Vec<TokenId> = (0..n_prompt).map(|idx| (idx * 7919 % limits.vocab_size) as TokenId).collect();
    // On the last slot, whose place in the cache is the most likely to be wrong.
    let slot = limits.slots - 1;
    let prefill = device.write(slot, 0, &prompt)?;
    reference.write(0, 0, &prompt)?;
    let steps = STEPS.min(limits.context_len - n_prompt);
    let (mut far, mut times, mut parted) = (Distance::default(), Vec::with_capacity(steps), None);
    let mut drawn = 0;
    for step in 0..steps {
        let (expected, actual) = (reference.logits.row(0), device.logits.row(0));
        far.compare(expected, actual);
        let token = best(expected);
        drawn += device
            .logits
            .drawn()
            .iter()
            .filter(|drawn| actual[drawn.token as usize] == highest(actual))
            .count();
        if parted.is_none() && best(actual) != token {
            parted = Some(step);
        }
        times.push(device.write(slot, n_prompt + step, &[token])?);
        reference.write(0, n_prompt + step, &[token])?;
    }
    far.compare(reference.logits.row(0), device.logits.row(0));
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    writeln!(out, "prefill        {:.1} ms for {n_prompt} tokens", milliseconds(prefill))?;
    if let (Some(least), Some(median)) = (times.first(), times.get(times.len() / 2)) {
        writeln!(
            out,
            "decode         {:.2} ms a step, {:.2} at best",
            milliseconds(*median),
            milliseconds(*least)
        )?;
    }
    match parted {
        None => writeln!(out, "greedy tokens  {steps} of {steps} are the CPU's")?,
        Some(step) => writeln!(out, "greedy tokens  the first that is not the CPU's is number {}", step + 1)?,
    }
    if limits.draws {
        writeln!(out, "drawn tokens   {drawn} of {steps} are the best of the core's own logits")?;
        if drawn < steps {
            bail!(
                "the core draws tokens that are not the best of its logits; compile without --sampling device, and see docs/neuron.md for what to report"
            );
        }
    }
    let Distance { worst, largest, not_numbers } = far;
    writeln!(out, "logits         {worst:.4} from the CPU's at most; the largest is {largest:.1}")?;
    if not_numbers > 0 || worst > TOLERANCE * largest {
        bail!(
            "what the core computes is not what the CPU does ({not_numbers} logits are not numbers); see docs/neuron.md for what to report"
        );
    }
    Ok(())
}

/// How far logits are from the reference's.
#[derive(Default)]
struct Distance {
    worst: f32,
    largest: f32,
    not_numbers: usize,
}

impl Distance {
    fn compare(&mut self, expected: &[f32], actual: &[f32]) {
        for (expected, actual) in expected.iter().zip(actual) {
            self.largest = self.largest.max(expected.abs());
            self.worst = self.worst.max((expected - actual).abs());
            self.not_numbers += usize::from(actual.is_nan());
        }
    }
}

fn highest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn best(logits: &[f32]) -> TokenId {
    let best = logits.iter().enumerate().max_by(|left, right| left.1.total_cmp(right.1));
    best.map_or(0, |(idx, _)| idx as TokenId)
}

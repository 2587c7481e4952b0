//! `mondai bench`: how fast a model or a server is, alone or beside others.

use super::loaded::Loaded;
use super::{CommonFlags, Settings, logs};
use crate::bench::{
    Bench, Load, Loads, ModelCard, Price, PriceTable, Progress, Report, Sampling, Slo, SystemCard, Target,
    Workload, WorkloadOptions,
};
use crate::config::{HttpFlags, Origin};
use crate::eval::EvalSet;
use crate::model::Model;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure how fast a model or a server is, alone or beside others
///
/// A target is a backend in this process (cpu, candle; cpu:MODEL runs another model) or the URL of a
/// server: a mondai, or any that speaks OpenAI's chat completions. In this process there are as many slots
/// as requests at once, unless --slots says otherwise.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchVerb {
    /// What to measure [default: the model in this process, on its --backend]
    #[arg(conflicts_with = "compare")]
    target: Option<String>,
    /// Two or more targets, interleaved in one run; the first is what the others are set against
    #[arg(long, value_name = "NAME=TARGET", num_args = 2..)]
    compare: Vec<String>,

    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    requests: RequestFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    common: CommonFlags,
}

const EXAMPLES: &str = "\
Examples:
  mondai bench --workload decode --concurrency 1,4
  mondai bench http://localhost:8080 --goodput ttfi:5000 --rate sweep
  mondai bench --workload schema --compare llama=http://localhost:8081 mondai=http://localhost:8080";

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadFlags {
    /// Closed loop: so many requests at once, one load after another
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_values_t = [1, 4, 16],
        value_parser = positive())]
    concurrency: Vec<u64>,
    /// Open loop instead: Poisson arrivals, so many a second, timed from when each should have been sent;
    /// `sweep` goes from a fifth of what the target can take to beyond it
    #[arg(long, value_name = "R,R,...|sweep", value_parser = rates, conflicts_with = "concurrency")]
    rate: Option<Loads>,
    /// Requests of one measurement, at least twice as many as there are at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive())]
    requests: u64,
    /// Requests before each measurement that do not count
    #[arg(long, value_name = "N", default_value_t = 2)]
    warm_up: usize,
    /// Times that everything is measured, in rounds [default: 1, with --compare 5]
    #[arg(long, value_name = "N", value_parser = positive())]
    runs: Option<u64>,
    /// A request that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = positive())]
    timeout: u64,
    /// Count the requests that keep to limits in milliseconds, of ttft, ttfi, tpot, e2e
    #[arg(long, value_name = "ttft:MS,e2e:MS")]
    goodput: Option<Slo>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
struct RequestFlags {
    /// What is asked for
    #[arg(long, value_enum, default_value_t = Workload::Quiz)]
    workload: Workload,
    /// Passages for the prompts, one JSON object a line, instead of those that are built in
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    /// Tokens of a reply, of all but quizzes [default: 128, with a schema at most 256]
    #[arg(long, value_name = "N", value_parser = positive())]
    tokens: Option<u64>,
    /// Tokens of a prompt of `prefill`
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive())]
    prompt_tokens: u64,
    /// Items of a quiz
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=50))]
    items: u64,
    /// The same seed, the same requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// [default: 0 for chat, the target's own for quizzes; with a schema 0.7, cut at top-p 0.95, top-k 40, min-p 0.05]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    #[arg(long, value_name = "K")]
    top_k: Option<u64>,
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Let replies of `chat` end where the model ends them, instead of all at --tokens
    #[arg(long)]
    respect_eos: bool,
    /// The model to ask a server for [default: the first it has]
    #[arg(long, value_name = "NAME")]
    served_model: Option<String>,
    /// What a server wants as its key
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// The process of a server on this machine, whose memory is watched
    #[arg(long, value_name = "[NAME=]PID", value_delimiter = ',')]
    pid: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputFlags {
    /// Write a line of JSON for the run, and one for each measurement
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots, and with what faster chips are predicted to do where the model is in this
    /// process
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The instance that a target runs on, for what tokens and items cost there
    #[arg(long, value_name = "[NAME=]INSTANCE", value_delimiter = ',')]
    instance: Vec<String>,
    /// What instances cost an hour, instead of the table that is built in (src/bench/prices.toml)
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

/// What was named as a target.
#[derive(Debug, PartialEq)]
enum Place {
    Url(String),
    Backend { backend: Option<String>, model: Option<String> },
}

impl BenchVerb {
    pub(super) fn run(mut self) -> Result<()> {
        let mut settings = self.common_settings()?;
        let places = self.places()?;
        let set = match &self.requests.set {
            Some(path) => EvalSet::open(path)?,
            None => EvalSet::default_set(),
        };
        let prices = match &self.output.prices {
            Some(path) => PriceTable::open(path)?,
            None => PriceTable::shipped(),
        };
        if settings.model.slots.origin == Origin::Default {
            settings.model.slots.value = self.most_at_once();
        }
        let system = SystemCard::read();
        // One thread sends and reads everything; what is measured has the others.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = runtime.block_on(async {
            let mut targets = Vec::new();
            for (name, place) in places {
                let price = self.price(&name, &prices)?;
                let mut target = self.open(name, place, &settings).await?;
                target.card.price = price;
                targets.push(target);
            }
            let bench = self.bench(targets, set);
            let bar = progress_bar();
            let measurements = bench.run(&|progress| show(&bar, progress)).await?;
            bar.finish_and_clear();
            anyhow::Ok(Report::new(&bench, system, measurements))
        })?;
        if let Some(path) = &self.output.json {
            write(path, &report.json_lines()?)?;
        }
        if let Some(path) = &self.output.html {
            write(path, &report.html())?;
        }
        io::stdout().write_all(report.table().as_bytes())?;
        let succeeded = report.measurements.iter().any(|of| of.requests.succeeded > 0);
        ensure!(succeeded, "no request succeeded");
        Ok(())
    }

    fn common_settings(&mut self) -> Result<Settings> {
        let mut settings = self.common.clone().resolve(HttpFlags::default())?;
        if settings.log.log_level.origin == Origin::Default {
            // The table is what the reader is here for.
            settings.log.log_level.value = "warn".to_owned();
        }
        logs::start(&settings.log)?;
        Ok(settings)
    }

    /// Names and targets, as they were given.
    fn places(&self) -> Result<Vec<(String, Place)>> {
        if self.compare.is_empty() {
            let place = self.target.as_deref().map_or(Ok(Place::this_process()), Place::parse)?;
            let name = match &place {
                Place::Url(_) => "server".to_owned(),
                Place::Backend { backend, .. } => backend.clone().unwrap_or_else(|| "model".to_owned()),
            };
            return Ok(vec![(name, place)]);
        }
        let mut places: Vec<(String, Place)> = Vec::new();
        for named in &self.compare {
            let Some((name, target)) = named.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                bail!("--compare: {named:?} is not NAME=TARGET");
            };
            ensure!(places.iter().all(|(other, _)| other != name), "--compare: {name} is there twice");
            places.push((name.to_owned(), Place::parse(target)?));
        }
        Ok(places)
    }

    async fn open(&self, name: String, place: Place, settings: &Settings) -> Result<Target> {
        let (backend, model) = match place {
            Place::Url(url) => {
                let RequestFlags { served_model, api_key, .. } = &self.requests;
                let pid = self.pid(&name)?;
                return Target::at_url(name, &url, served_model.clone(), api_key.clone(), pid).await;
            }
            Place::Backend { backend, model } => (backend, model),
        };
        let mut settings = settings.clone();
        if let Some(backend) = backend {
            settings.model.backend.value = backend;
        }
        if let Some(model) = model {
            settings.model.model.value = model;
        }
        let loaded = Loaded::open(&settings)?;
        let model = Model::open(&settings.model.model.value, Path::new(&settings.model.models_dir.value))?;
        let weights =
            ModelCard::of(&model).with_context(|| format!("{} cannot be read", model.path.display()))?;
        Ok(Target::in_process(name, loaded.generator, loaded.quizzes, loaded.metrics, Some(weights)))
    }

    fn pid(&self, name: &str) -> Result<Option<u32>> {
        let pid = |pid: &str| pid.parse().with_context(|| format!("--pid: {pid:?} is no process id"));
        of_target(&self.requests.pid, name).map(pid).transpose()
    }

    fn price(&self, name: &str, prices: &PriceTable) -> Result<Option<Price>> {
        let price = |instance: &str| prices.of(instance).context("--instance");
        of_target(&self.output.instance, name).map(price).transpose()
    }

    fn bench(&self, targets: Vec<Target>, set: EvalSet) -> Bench {
        let LoadFlags { requests, warm_up, runs, timeout, goodput, .. } = &self.load;
        let default_runs = if self.compare.is_empty() { 1 } else { 5 };
        Bench {
            targets,
            set,
            workload: self.requests.options(),
            loads: self.loads(),
            requests: (*requests as usize).max(2 * self.most_at_once_closed()),
            warm_up: *warm_up,
            runs: runs.map_or(default_runs, |runs| runs as usize),
            slo: goodput.clone(),
            limit: Duration::from_secs(*timeout),
        }
    }

    fn loads(&self) -> Loads {
        let closed = |&concurrency: &u64| Load::Closed { concurrency: concurrency as usize };
        let listed = || Loads::Listed(self.load.concurrency.iter().map(closed).collect());
        self.load.rate.clone().unwrap_or_else(listed)
    }

    fn most_at_once_closed(&self) -> usize {
        match self.load.rate {
            None => self.load.concurrency.iter().copied().max().unwrap_or(1) as usize,
            Some(_) => 1,
        }
    }

    /// Slots for a model in this process that was given no number of them.
    fn most_at_once(&self) -> usize {
        match self.load.rate {
            None => self.most_at_once_closed(),
            Some(_) => 16,
        }
    }
}

impl Place {
    fn this_process() -> Self {
        Self::Backend { backend: None, model: None }
    }

    fn parse(text: &str) -> Result<Self> {
        if text.contains("://") {
            return Ok(Self::Url(text.to_owned()));
        }
        let (backend, model) = match text.split_once(':') {
            Some((backend, model)) => (backend, Some(model.to_owned())),
            None => (text, None),
        };
        ensure!(!backend.is_empty(), "{text:?} is no target: it is a backend's name or http://HOST:PORT");
        Ok(Self::Backend { backend: Some(backend.to_owned()), model })
    }
}

impl RequestFlags {
    fn options(&self) -> WorkloadOptions {
        let greedy = Sampling { temperature: Some(0.0), ..Sampling::default() };
        let (tokens, sampling) = match self.workload {
            // Servers cut the distribution differently where nothing is said, and how many items are valid
            // depends on it.
            Workload::Schema => (
                256,
                Sampling { temperature: Some(0.7), top_p: Some(0.95), top_k: Some(40), min_p: Some(0.05) },
            ),
            Workload::Quiz => (0, Sampling::default()),
            Workload::Chat | Workload::Prefill | Workload::Decode => (128, greedy),
        };
        WorkloadOptions {
            workload: self.workload,
            output_tokens: self.tokens.map_or(tokens, |tokens| tokens as usize),
            prompt_tokens: self.prompt_tokens as usize,
            items: self.items as usize,
            seed: self.seed,
            ignore_eos: !self.respect_eos,
            sampling: Sampling {
                temperature: self.temperature.or(sampling.temperature),
                top_p: self.top_p.or(sampling.top_p),
                top_k: self.top_k.or(sampling.top_k),
                min_p: self.min_p.or(sampling.min_p),
            },
        }
    }
}

/// What was given for a target: `NAME=VALUE`, or a value for all.
fn of_target<'a>(given: &'a [String], name: &str) -> Option<&'a str> {
    let value = |given: &'a String| match given.split_once('=') {
        Some((of, value)) => (of == name).then_some(value),
        None => Some(given.as_str()),
    };
    given.iter().find_map(value)
}

fn positive() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1_000_000)
}

fn rates(text: &str) -> Result<Loads, String> {
    if text == "sweep" {
        return Ok(Loads::Sweep);
    }
    let rate = |part: &str| match part.trim().parse() {
        Ok(per_second) if per_second > 0.0 && per_second < 1e6 => Ok(Load::Open { per_second }),
        _ => Err(format!("{part:?} is no number of requests a second")),
    };
    text.split(',').map(rate).collect::<Result<_, _>>().map(Loads::Listed)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len}, {msg}, {elapsed}")
        .expect("the template is valid");
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress<'_>) {
    let Progress { run, runs, target, load, done, of } = progress;
    bar.set_length(of as u64);
    bar.set_position(done as u64);
    bar.set_message(format!("{target} at {load}, run {} of {runs}", run + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let backend = |backend: &str, model: Option<&str>| Place::Backend {
            backend: Some(backend.to_owned()),
            model: model.map(str::to_owned),
        };
        assert_eq!(Place::parse("http://a:1").unwrap(), Place::Url("http://a:1".to_owned()));
        assert_eq!(Place::parse("cpu").unwrap(), backend("cpu", None));
        assert_eq!(Place::parse("cpu:b/c.gguf").unwrap(), backend("cpu", Some("b/c.gguf")));
        assert!(Place::parse("").is_err() && Place::parse(":m").is_err());
    }

    #[test]
    fn rates_are_read() {
        let open = |rates: &[f64]| {
            Loads::Listed(rates.iter().map(|&per_second| Load::Open { per_second }).collect())
        };
        assert_eq!(rates("sweep"), Ok(Loads::Sweep));
        assert_eq!(rates("0.5, 2"), Ok(open(&[0.5, 2.0])));
        for wrong in ["", "0", "-1", "fast", "1,,2", "NaN"] {
            assert!(rates(wrong).is_err(), "{wrong}");
        }
    }
}

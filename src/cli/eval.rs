//! `mondai eval`: how good a model's questions are.

use super::loaded::Loaded;
use super::{CommonFlags, logs};
use crate::config::{HttpFlags, Origin};
use crate::eval::{EvalOptions, EvalSet, Evaluation, Known, Reader, Report};
use crate::quiz::DraftPolicies;
use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Score a model's quizzes: valid, answerable, grounded, clean, not repeated
///
/// The model writes a quiz about each passage of a set; a reader answers the questions from the passage.
/// What people asked about the same passages is scored beside it by the same reader. A run that is
/// stopped goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Eval {
    /// A set of passages, one JSON object a line, instead of the one that is built in
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    /// The model that answers: a name, a GGUF file or a folder [default: the model itself]
    #[arg(long, value_name = "MODEL")]
    reader: Option<String>,
    /// Questions that no item may be a copy of, such as the model's training data: a file of JSON lines with a
    /// `question` each, or a folder of them; may be given again
    #[arg(long, value_name = "PATH")]
    known: Vec<PathBuf>,
    /// Items asked for about each passage; multiple choice, short answer, true/false take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=50))]
    items: u64,
    /// Only the set's first passages
    #[arg(long, value_name = "N")]
    passages: Option<usize>,
    /// The same seed and settings give the same items
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    drafts: DraftPolicies,
    /// The folder for items.jsonl, scores.json and report.html
    #[arg(long, value_name = "DIR", default_value = "eval")]
    out: PathBuf,
    #[command(flatten)]
    common: CommonFlags,
}

const EXAMPLES: &str = "\
Examples:
  mondai eval --passages 5 --out /tmp/quick
  mondai eval --reader qwen2.5-0.5b.gguf --out eval/smollm2";

impl Eval {
    pub(super) fn run(self) -> Result<()> {
        let mut settings = self.common.resolve(HttpFlags::default())?;
        if settings.log.log_level.origin == Origin::Default {
            // The table is what the reader is here for.
            settings.log.log_level.value = "warn".to_owned();
        }
        logs::start(&settings.log)?;
        let set = match &self.set {
            Some(path) => EvalSet::open(path)?,
            None => EvalSet::default_set(),
        };
        ensure!(self.passages != Some(0), "--passages is 0: there is nothing to score");
        let writer = Loaded::open(&settings)?;
        let reader = match self.reader {
            None => writer.generator.clone(),
            Some(name) => {
                settings.model.model.value = name;
                Loaded::open(&settings).context("the reader")?.generator
            }
        };
        let questions = set.passages.iter().flat_map(|passage| &passage.questions);
        let mut known = Known::new(questions.map(|question| question.question.as_str()));
        for path in &self.known {
            known.add(path)?;
        }
        let evaluation = Evaluation {
            known,
            embedder: writer.embedder,
            options: EvalOptions {
                items: self.items as usize,
                passages: self.passages.unwrap_or(set.passages.len()).min(set.passages.len()),
                seed: self.seed,
                drafts: self.drafts,
            },
            set,
            backend: writer.generator.engine().limits().backend,
            writer: writer.quizzes,
            reader: Reader::new(reader),
        };
        let runtime = tokio::runtime::Runtime::new().context("the async runtime cannot be started")?;
        let bar = progress_bar();
        let report = runtime.block_on(evaluation.run(&self.out, |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }))?;
        bar.finish_and_clear();
        write(&report, &self.out)
    }
}

fn write(report: &Report, folder: &Path) -> Result<()> {
    let files =
        [("scores.json", serde_json::to_string_pretty(report)? + "\n"), ("report.html", report.html())];
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let mut out = io::stdout();
    write!(out, "{}", report.table())?;
    writeln!(out, "Each item with its verdict: {}", folder.join("report.html").display())?;
    Ok(())
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} passages, {elapsed}, about {eta} left")
        .expect("the template is valid");
    ProgressBar::new(0).with_style(style)
}

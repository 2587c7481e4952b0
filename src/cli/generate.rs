//! `mondai generate`: one quiz in the terminal, as it is written.

mod text;

use super::loaded::Loaded;
use super::{CommonFlags, logs};
use crate::config::{HttpFlags, Origin};
use crate::generation::GenerateError;
use crate::http::{QuizDocument, WireEvent};
use crate::quiz::{DraftPolicies, OneOrMany, QuizEvent, QuizRequest, QuizSpec, QuizStream};
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Write one quiz and print each question as soon as it is checked
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Generate {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    quiz: QuizFlags,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    common: CommonFlags,
}

const EXAMPLES: &str = "\
Examples:
  mondai generate --topic 'the solar system'
  mondai generate --source notes.txt --count 10 --kind multiple_choice,true_false --seed 7
  pdftotext lecture.pdf - | mondai generate --source - --language ja --format json";

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// What to ask about, from the library, or from the model's memory where it has nothing
    #[arg(long)]
    topic: Option<String>,
    /// A text file to ask about; `-` is standard input
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Quiz")]
struct QuizFlags {
    /// Questions to write
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// multiple_choice, true_false or short_answer; several take turns
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    kind: Vec<String>,
    /// easy, medium or hard
    #[arg(long)]
    difficulty: Option<String>,
    /// The language of the questions, as a tag such as en or ja
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    /// Who is to answer
    #[arg(long, value_name = "WHO")]
    audience: Option<String>,
    /// A question or an answer that must not come; may be given again
    #[arg(long, value_name = "TEXT")]
    exclude: Vec<String>,
    /// The same seed and settings give the same quiz
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    drafts: DraftPolicies,
    /// Budget of one question
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    #[arg(long, value_name = "K")]
    top_k: Option<u64>,
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Laid out for reading
    Text,
    /// One document at the end
    Json,
    /// One event a line
    Ndjson,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let mut settings = self.common.resolve(HttpFlags::default())?;
        if settings.log.log_level.origin == Origin::Default {
            // The reader is here for the quiz.
            settings.log.log_level.value = "warn".to_owned();
        }
        logs::start(&settings.log)?;
        let request = self.quiz.request(self.subject)?;
        let spec = QuizSpec::try_from(request).map_err(|error| anyhow!("{}: {error}", error.param))?;
        let loaded = Loaded::open(&settings)?;
        let runtime = tokio::runtime::Runtime::new().context("the async runtime cannot be started")?;
        let delivered = runtime.block_on(async {
            let quiz = loaded.quizzes.create(spec).await.context("the quiz cannot be written")?;
            print(quiz, self.format).await
        })?;
        ensure!(delivered > 0, "no question passed the checks; try another subject, seed or model");
        Ok(())
    }
}

impl QuizFlags {
    fn request(self, subject: Subject) -> Result<QuizRequest> {
        Ok(QuizRequest {
            topic: subject.topic,
            source: subject.source.map(|path| read_source(&path)).transpose()?,
            count: self.count,
            kind: (!self.kind.is_empty()).then_some(OneOrMany::Many(self.kind)),
            difficulty: self.difficulty,
            language: self.language,
            audience: self.audience,
            exclude: (!self.exclude.is_empty()).then_some(self.exclude),
            seed: self.seed,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            ..QuizRequest::from(self.drafts)
        })
    }
}

fn read_source(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("the source cannot be read from standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("the source {} cannot be read", path.display()))
}

/// Prints the quiz to standard output as it comes; returns how many items there were.
async fn print(quiz: QuizStream, format: Format) -> Result<usize> {
    if format == Format::Json {
        let document = QuizDocument::gather(quiz).await.map_err(interrupted)?;
        let json = serde_json::to_string_pretty(&document)?;
        writeln!(io::stdout(), "{json}")?;
        return Ok(document.items.len());
    }
    print_events(quiz, format).await
}

async fn print_events(mut quiz: QuizStream, format: Format) -> Result<usize> {
    let mut out = io::stdout();
    let mut delivered = 0;
    let mut failed = None;
    let bar = progress_bar();
    while let Some(event) = quiz.next().await {
        match &event {
            QuizEvent::Created(created) => bar.set_length(created.requested as u64),
            QuizEvent::Item(_) => {
                delivered += 1;
                bar.inc(1);
            }
            QuizEvent::Failed(error) => failed = Some(error.clone()),
            QuizEvent::Completed(_) => bar.finish_and_clear(),
        }
        let text = match format {
            Format::Ndjson => serde_json::to_string(&WireEvent::new(event))? + "\n",
            _ => text::layout(&event),
        };
        bar.suspend(|| out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    }
    // What was printed stays; the error is printed once, by `main`.
    failed.map_or(Ok(delivered), |error| Err(interrupted(error)))
}

fn interrupted(error: GenerateError) -> anyhow::Error {
    anyhow::Error::new(error).context("the quiz was not written to its end")
}

/// A spinner on standard error; nothing when that is not a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos} of {len} questions, {elapsed}")
        .expect("the template is valid");
    let bar = ProgressBar::new(0).with_style(style).with_finish(ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

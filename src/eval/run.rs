use super::candidate::{Candidate, ITEM_KINDS};
use super::metric::{Scores, Seen, score};
use super::reader::Reader;
use super::record::{Author, PassageRecord, RunFile, RunHead, Scored};
use super::report::{Report, Setting};
use super::set::{EvalSet, Passage};
use crate::generation::GenerateError;
use crate::quiz::{DraftPolicies, OneOrMany, QuizEvent, QuizRequest, QuizService, QuizSpec, RejectReason};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalOptions {
    /// Items asked for about each passage; kinds take turns.
    pub items: usize,
    /// The first so many passages of the set.
    pub passages: usize,
    pub seed: u64,
    #[serde(flatten)]
    pub drafts: DraftPolicies,
}

/// A model under test, the set it is tested with, and its reader.
pub struct Evaluation {
    pub set: EvalSet,
    pub writer: QuizService,
    /// The backend that runs the writer.
    pub backend: &'static str,
    pub reader: Reader,
    pub options: EvalOptions,
}

/// What a quiz about a passage came to.
struct Quiz {
    /// By index; `None` where no draft passed the checks.
    items: Vec<Option<Candidate>>,
    rejected: BTreeMap<RejectReason, usize>,
    completion_tokens: usize,
    seconds: f64,
}

impl Evaluation {
    /// Writes, reads and scores, a passage at a time; `progress` hears of each that is done. What is
    /// already in `folder` is not done again.
    ///
    /// # Errors
    /// The folder cannot be used, or an engine failed.
    pub async fn run(&self, folder: &Path, mut progress: impl FnMut(usize, usize)) -> Result<Report> {
        let passages = &self.set.passages[..self.options.passages.min(self.set.passages.len())];
        let known: Vec<String> = self
            .set
            .passages
            .iter()
            .flat_map(|passage| passage.questions.iter().map(|question| question.question.clone()))
            .collect();
        let (mut file, mut records) = RunFile::open(folder, &self.head())?;
        for (idx, passage) in passages.iter().enumerate() {
            progress(idx, passages.len());
            if records.iter().any(|record| record.passage == passage.id) {
                continue;
            }
            let record = self
                .passage(passage, idx, &known)
                .await
                .with_context(|| format!("passage {}", passage.id))?;
            file.write(&record)?;
            records.push(record);
        }
        progress(passages.len(), passages.len());
        Ok(Report::new(self.setting(), records))
    }

    fn head(&self) -> RunHead {
        let Setting { model, backend, reader, set, options } = self.setting();
        RunHead { model, backend, reader, set, options }
    }

    fn setting(&self) -> Setting {
        Setting {
            model: self.writer.model_name().to_owned(),
            backend: self.backend.to_owned(),
            reader: self.reader.name().to_owned(),
            set: self.set.name.clone(),
            options: self.options.clone(),
        }
    }

    async fn passage(&self, passage: &Passage, idx: usize, known: &[String]) -> Result<PassageRecord> {
        let quiz = self.write(passage, idx).await?;
        let mut scored = self.score_all(Author::Model, quiz.items, passage, known).await?;
        // A person's question is known by its nature; how new it is says nothing.
        let human = Candidate::humans(passage).into_iter().map(Some).collect();
        scored.extend(self.score_all(Author::Human, human, passage, &[]).await?);
        Ok(PassageRecord {
            passage: passage.id.clone(),
            items: scored,
            rejected: quiz.rejected,
            write_seconds: quiz.seconds,
            completion_tokens: quiz.completion_tokens,
        })
    }

    async fn write(&self, passage: &Passage, idx: usize) -> Result<Quiz> {
        let kinds = ITEM_KINDS.map(|kind| kind.name().to_owned()).to_vec();
        let request = QuizRequest {
            source: Some(passage.context.clone()),
            count: Some(self.options.items as u64),
            kind: Some(OneOrMany::Many(kinds)),
            language: Some(passage.language.clone()),
            seed: Some(self.options.seed.wrapping_add(idx as u64)),
            ..QuizRequest::from(self.options.drafts.clone())
        };
        let spec = QuizSpec::try_from(request).map_err(|error| anyhow!("{}: {error}", error.param))?;
        let began = Instant::now();
        let mut stream = self.writer.create(spec).await?;
        let mut items = vec![None; self.options.items];
        loop {
            match stream.next().await {
                Some(QuizEvent::Created(_)) => {}
                Some(QuizEvent::Item(item)) => items[item.index] = Some(Candidate::from_item(&item)),
                Some(QuizEvent::Completed(summary)) => {
                    return Ok(Quiz {
                        items,
                        rejected: summary.rejected,
                        completion_tokens: summary.usage.completion_tokens,
                        seconds: began.elapsed().as_secs_f64(),
                    });
                }
                Some(QuizEvent::Failed(error)) => return Err(error.into()),
                None => unreachable!("a quiz stream ends with Completed or Failed"),
            }
        }
    }

    /// In order, as what comes first decides what is a repeat.
    async fn score_all(
        &self,
        author: Author,
        items: Vec<Option<Candidate>>,
        passage: &Passage,
        known: &[String],
    ) -> Result<Vec<Scored>, GenerateError> {
        let (mut scored, mut earlier) = (Vec::new(), Vec::new());
        for (idx, item) in items.into_iter().enumerate() {
            let Some(item) = item else {
                let kind = ITEM_KINDS[idx % ITEM_KINDS.len()];
                let scores = Scores::of_missing(kind);
                scored.push(Scored { author, kind, item: None, reading: None, flaws: Vec::new(), scores });
                continue;
            };
            let reading = self.reader.read(&item, &passage.context).await?;
            let seen = Seen { context: &passage.context, earlier: &earlier, known };
            let (scores, flaws) = score(&item, &reading, &seen);
            earlier.push(item.question.clone());
            scored.push(Scored {
                author,
                kind: item.kind,
                item: Some(item),
                reading: Some(reading),
                flaws,
                scores,
            });
        }
        Ok(scored)
    }
}

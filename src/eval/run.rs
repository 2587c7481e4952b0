use super::candidate::{Candidate, ITEM_KINDS};
use super::known::Known;
use super::metric::{Scores, Seen, score};
use super::plausible::plausibility;
use super::reader::Reader;
use super::record::{AnswerAware, Author, PassageRecord, RunFile, RunHead, Scored};
use super::report::{Report, Setting};
use super::set::{EvalSet, HumanQuestion, Passage};
use crate::embedding::Embedder;
use crate::quiz::{
    Difficulty, DraftPolicies, OneOrMany, QuizEvent, QuizRequest, QuizService, QuizSpec, RejectReason,
};
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
    /// Of the questions that no item may be a copy of; the set's own are added.
    pub known: Known,
    /// Where there are none, what rests on them is not scored.
    pub embedder: Option<Embedder>,
    pub options: EvalOptions,
}

/// What is asked for of the passages, in turn.
const LEVELS: [Difficulty; 3] = [Difficulty::Easy, Difficulty::Medium, Difficulty::Hard];

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
        let (mut file, mut records) = RunFile::open(folder, &self.head())?;
        for (idx, passage) in passages.iter().enumerate() {
            progress(idx, passages.len());
            if records.iter().any(|record| record.passage == passage.id) {
                continue;
            }
            let record =
                self.passage(passage, idx).await.with_context(|| format!("passage {}", passage.id))?;
            file.write(&record)?;
            records.push(record);
        }
        progress(passages.len(), passages.len());
        Ok(Report::new(self.setting(), records))
    }

    fn head(&self) -> RunHead {
        let Setting { model, backend, reader, set, known_questions, embeddings, options } = self.setting();
        RunHead { model, backend, reader, set, known_questions, embeddings, options }
    }

    fn setting(&self) -> Setting {
        Setting {
            model: self.writer.model_name().to_owned(),
            backend: self.backend.to_owned(),
            reader: self.reader.name().to_owned(),
            set: self.set.name.clone(),
            known_questions: self.known.len(),
            embeddings: self.embedder.is_some(),
            options: self.options.clone(),
        }
    }

    async fn passage(&self, passage: &Passage, idx: usize) -> Result<PassageRecord> {
        let difficulty = LEVELS[idx % LEVELS.len()];
        let quiz = self.write(passage, idx, difficulty).await?;
        let mut scored = self.score_all(Author::Model, quiz.items, passage).await?;
        let human = Candidate::humans(passage).into_iter().map(Some).collect();
        scored.extend(self.score_all(Author::Human, human, passage).await?);
        Ok(PassageRecord {
            passage: passage.id.clone(),
            difficulty,
            items: scored,
            answer_aware: self.answer_aware(passage).await?,
            rejected: quiz.rejected,
            write_seconds: quiz.seconds,
            completion_tokens: quiz.completion_tokens,
        })
    }

    /// What the model asks for the answers that people asked for, where one sentence has the answer.
    async fn answer_aware(&self, passage: &Passage) -> Result<Vec<AnswerAware>> {
        let mut asked = Vec::new();
        for HumanQuestion { question: reference, answers, .. } in &passage.questions {
            let request = QuizRequest {
                source: Some(passage.context.clone()),
                language: Some(passage.language.clone()),
                seed: Some(self.options.seed),
                ..QuizRequest::default()
            };
            let spec = QuizSpec::try_from(request).map_err(|error| anyhow!("{}: {error}", error.param))?;
            let question = self.writer.question_for(spec, &answers[0]).await?;
            asked.extend(question.map(|question| AnswerAware {
                answer: answers[0].clone(),
                question,
                reference: reference.clone(),
            }));
        }
        Ok(asked)
    }

    async fn write(&self, passage: &Passage, idx: usize, difficulty: Difficulty) -> Result<Quiz> {
        let kinds = ITEM_KINDS.map(|kind| kind.name().to_owned()).to_vec();
        let request = QuizRequest {
            source: Some(passage.context.clone()),
            count: Some(self.options.items as u64),
            kind: Some(OneOrMany::Many(kinds)),
            language: Some(passage.language.clone()),
            difficulty: Some(difficulty.name().to_owned()),
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
    ) -> Result<Vec<Scored>> {
        let (mut scored, mut earlier) = (Vec::new(), Vec::new());
        for (idx, item) in items.into_iter().enumerate() {
            let Some(item) = item else {
                let kind = ITEM_KINDS[idx % ITEM_KINDS.len()];
                let scores = Scores::of_missing(kind);
                let (flaws, nearest) = (Vec::new(), None);
                scored.push(Scored { author, kind, item: None, reading: None, flaws, scores, nearest });
                continue;
            };
            let reading = self.reader.read(&item, &passage.context).await?;
            // A person's question is known by its nature; how new it is says nothing.
            let nearest = match author {
                Author::Model => self.known.nearest(&item.question),
                Author::Human => None,
            };
            let embedder = self.embedder.as_ref().filter(|_| passage.language == "en");
            let plausible = embedder.map(|embedder| plausibility(&item, embedder)).transpose()?.flatten();
            let (context, earlier_seen) = (&passage.context, &earlier);
            let seen = Seen { context, earlier: earlier_seen, nearest: nearest.as_ref(), plausible };
            let (scores, flaws) = score(&item, &reading, &seen);
            earlier.push(item.question.clone());
            scored.push(Scored {
                author,
                kind: item.kind,
                item: Some(item),
                reading: Some(reading),
                flaws,
                scores,
                nearest,
            });
        }
        Ok(scored)
    }
}

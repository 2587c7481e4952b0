//! Writes a quiz: several items at once, settled strictly in order of index, so that the same seed
//! gives the same quiz whatever the timing.

use super::candidate::Candidate;
use super::checks::{Asked as Said, is_excluded, is_repeat, is_same_fact};
use super::draft::Draft;
use super::drafting::{Written, write_item};
use super::history::{Asked, History};
use super::item::{Check, QuizItem, RejectReason};
use super::meaning::{Comparison, Embed, Meaning};
use super::plan::QuizPlan;
use super::prompt_templates::PromptTemplates;
use super::round_trip::RoundTrip;
use super::spec::{CheckPolicy, ItemKind, QuizSpec, Subject};
use super::writer::{Reply, Writer};
use crate::embedding::Embedder;
use crate::engine::SequenceSummary;
use crate::generation::{GenerateError, Generator};
use crate::library::Library;
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt, unfold};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The room's front door: writes quizzes with one model.
#[derive(Clone)]
pub struct QuizService {
    writer: Arc<dyn Writer>,
    library: Option<Library>,
    metrics: Arc<Metrics>,
    templates: Option<Arc<PromptTemplates>>,
    embedder: Option<Arc<dyn Embed>>,
    history: Arc<History>,
}

/// What a quiz stream yields: `Created`, then `Item`s in order of index, then one `Completed` or `Failed`.
#[derive(Debug)]
pub enum QuizEvent {
    Created(QuizCreated),
    Item(Box<QuizItem>),
    Completed(QuizSummary),
    Failed(GenerateError),
}

/// The first event: what is being written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuizCreated {
    pub id: String,
    pub model: String,
    /// Ask with it again for the same quiz.
    pub seed: u64,
    pub requested: usize,
}

/// The last event: what the quiz took.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct QuizSummary {
    pub model: String,
    pub seed: u64,
    pub requested: usize,
    pub delivered: usize,
    /// Attempts thrown away, by reason.
    pub rejected: BTreeMap<RejectReason, usize>,
    /// Attempts that passed and gave way to a better one of the same item.
    pub outdone: usize,
    pub usage: QuizUsage,
    pub timings: QuizTimings,
}

/// Tokens of all attempts, the rejected ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct QuizUsage {
    pub prompt_tokens: usize,
    /// Of them, those whose KV cache was reused.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Of them, those the grammar wrote.
    pub forced_tokens: usize,
    /// Tokens guessed ahead, and those of them that came true.
    pub drafted_tokens: usize,
    pub accepted_tokens: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct QuizTimings {
    /// Absent when there is no item.
    pub time_to_first_item_ms: Option<f64>,
    pub total_ms: f64,
}

/// Items of one quiz that are written at the same time, if the backend has as many slots.
const MAX_IN_FLIGHT: usize = 8;

impl QuizService {
    pub fn new(generator: Generator, metrics: Arc<Metrics>) -> Self {
        Self::with_writer(Arc::new(generator), metrics)
    }

    fn with_writer(writer: Arc<dyn Writer>, metrics: Arc<Metrics>) -> Self {
        Self { writer, library: None, metrics, templates: None, embedder: None, history: Arc::default() }
    }

    /// The same service, which asks about a topic what the library has on it; without one, or where it has
    /// nothing, topics come from the model's memory.
    #[must_use]
    pub fn with_library(self, library: Library) -> Self {
        Self { library: Some(library), ..self }
    }

    /// The same service, which asks with the model's own words.
    #[must_use]
    pub fn with_templates(self, templates: PromptTemplates) -> Self {
        Self { templates: Some(Arc::new(templates)), ..self }
    }

    /// The same service, which compares items by what they mean too.
    #[must_use]
    pub fn with_embedder(self, embedder: Embedder) -> Self {
        Self { embedder: Some(Arc::new(embedder)), ..self }
    }

    /// The model that writes.
    pub fn model_name(&self) -> &str {
        self.writer.model_name()
    }

    /// The round trip of an item, whoever wrote it, as if this model had for `spec`: how well it asks for its key, or
    /// why it does not. `None` where there is nothing to compare.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn round_trip(
        &self,
        spec: QuizSpec,
        item: &QuizItem,
    ) -> Result<Option<Result<f32, RejectReason>>, GenerateError> {
        let plan = self.plan(spec).await?;
        let way = || plan.way_back(0, 0, &item.question);
        let Some(trip) = RoundTrip::of(item, way) else { return Ok(None) };
        let (verdict, _) = trip.verdict(item, |request| self.writer.weigh(request)).await?;
        Ok(Some(verdict))
    }

    /// The likeliest question of this model for an answer that stands in a sentence of the spec's source; `None`
    /// where no one sentence has it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn question_for(&self, spec: QuizSpec, answer: &str) -> Result<Option<String>, GenerateError> {
        let plan = self.plan(spec).await?;
        let Some(request) = plan.request_for(answer) else { return Ok(None) };
        let (reply, _) = self.writer.write(request).await?.await?;
        let draft = Draft::parse(ItemKind::ShortAnswer, &reply);
        Ok(draft.ok().map(|draft| draft.question))
    }

    async fn plan(&self, spec: QuizSpec) -> Result<QuizPlan, GenerateError> {
        let (writer, library) = (Arc::clone(&self.writer), self.library.clone());
        let (templates, embedder) = (self.templates.clone(), self.embedder.clone());
        let earlier = spec.user.as_deref().map_or_else(Vec::new, |user| self.history.of(user));
        // Sources are long and every sentence is counted, a library is searched, what is excluded is read: not
        // a task for an async thread.
        let plan = tokio::task::spawn_blocking(move || {
            let comparison = Comparison::of(&spec, embedder.as_ref())?;
            let plan = writer.with_capacity(templates.as_ref(), |capacity| {
                QuizPlan::new(spec, library.as_ref(), earlier, capacity)
            });
            let plan = plan.map_err(|error| internal(&error))?;
            Ok(QuizPlan { comparison, ..plan })
        });
        plan.await.map_err(|panic| internal(&panic))?
    }

    /// Starts a quiz; its first item is accepted when this returns.
    ///
    /// # Errors
    /// Nothing was started: a full queue, a budget that no item fits, a source that cannot fit.
    pub async fn create(&self, spec: QuizSpec) -> Result<QuizStream, GenerateError> {
        let started = Instant::now();
        let model = self.writer.model_name().to_owned();
        let plan = self.plan(spec).await?;
        let first = self.writer.write(plan.request(0, 0)).await.map_err(|error| in_terms_of(&plan, error))?;
        self.metrics.quiz_started();

        let created =
            QuizCreated { id: plan.id("quiz", 0), model, seed: plan.spec.seed, requested: plan.items.len() };
        let mut run = Run {
            plan: Arc::new(plan),
            writer: Arc::clone(&self.writer),
            metrics: Arc::clone(&self.metrics),
            history: Arc::clone(&self.history),
            started,
            first_item: None,
            events: VecDeque::from([QuizEvent::Created(created)]),
            in_flight: FuturesUnordered::new(),
            next_start: 0,
            written: BTreeMap::new(),
            next_settled: 0,
            delivered: Vec::new(),
            rejected: BTreeMap::new(),
            outdone: 0,
            usage: QuizUsage::default(),
            ended: false,
        };
        run.start(0, 0, Some(first));
        run.next_start = 1;
        let events = unfold(run, |mut run| async move { run.next().await.map(|event| (event, run)) });
        Ok(QuizStream { events: events.boxed() })
    }
}

/// A quiz as it is written. Dropping it cancels what is still being written.
pub struct QuizStream {
    events: BoxStream<'static, QuizEvent>,
}

impl QuizStream {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<QuizEvent> {
        self.events.next().await
    }
}

/// A quiz on its way. Everything in flight is owned here: dropping it cancels.
struct Run {
    plan: Arc<QuizPlan>,
    writer: Arc<dyn Writer>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    started: Instant,
    first_item: Option<Duration>,
    /// Ready to be yielded.
    events: VecDeque<QuizEvent>,
    in_flight: FuturesUnordered<BoxFuture<'static, Result<Written, GenerateError>>>,
    /// The first item that has not been started.
    next_start: usize,
    /// Items that passed what can be checked alone and wait for those before them.
    written: BTreeMap<usize, Written>,
    /// The first item that is neither delivered nor given up.
    next_settled: usize,
    delivered: Vec<Arc<Asked>>,
    rejected: BTreeMap<RejectReason, usize>,
    outdone: usize,
    usage: QuizUsage,
    ended: bool,
}

impl Run {
    async fn next(&mut self) -> Option<QuizEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.start_more();
            match self.in_flight.next().await {
                Some(Ok(written)) => {
                    self.written.insert(written.index, written);
                    self.settle();
                }
                Some(Err(error)) => self.end(QuizEvent::Failed(error)),
                None => self.end(QuizEvent::Completed(self.summary())),
            }
        }
    }

    fn start_more(&mut self) {
        let drafts =
            (0..self.plan.items.len()).map(|index| self.plan.drafts_at_once(index)).max().unwrap_or(1);
        let at_once = (MAX_IN_FLIGHT.min(self.writer.slots()) / drafts).max(1);
        while self.next_start < self.plan.items.len() && self.in_flight.len() < at_once {
            self.start(self.next_start, 0, None);
            self.next_start += 1;
        }
    }

    fn start(&mut self, index: usize, attempt: usize, accepted: Option<Reply>) {
        let (plan, writer) = (Arc::clone(&self.plan), Arc::clone(&self.writer));
        self.in_flight.push(Box::pin(write_item(plan, writer, index, attempt, accepted)));
    }

    /// Yields every item whose turn has come, in order of index.
    fn settle(&mut self) {
        while let Some(written) = self.written.remove(&self.next_settled) {
            self.usage.add(written.usage);
            for reason in written.rejected {
                self.reject(reason);
            }
            let chosen = self.choose(written.drafts);
            if chosen.is_none() && written.next_attempt < self.plan.max_attempts() {
                self.start(written.index, written.next_attempt, None);
                return;
            }
            self.next_settled += 1;
            if let Some(asked) = chosen {
                self.deliver(asked);
            }
        }
    }

    /// The best of the drafts that were not asked before; those that were only in other words come last, or
    /// not at all.
    fn choose(&mut self, drafts: Vec<Candidate>) -> Option<Asked> {
        let distinct =
            self.plan.comparison.as_ref().map_or(CheckPolicy::Off, |comparison| comparison.distinct);
        let (mut new, mut in_other_words) = (Vec::new(), Vec::new());
        for Candidate { mut item, meaning, .. } in drafts {
            if let Some(reason) = self.asked_before(&item) {
                self.reject(reason);
                continue;
            }
            item.checks.push(Check::NotRepeated);
            match &meaning {
                Some(meaning) if distinct != CheckPolicy::Off => {
                    if !self.asked_in_other_words(&item, meaning) {
                        item.checks.push(Check::Distinct);
                    } else if distinct == CheckPolicy::Require {
                        self.reject(RejectReason::NearDuplicate);
                        continue;
                    } else {
                        in_other_words.push(Asked { item, meaning: Some(meaning.clone()) });
                        continue;
                    }
                }
                _ => {}
            }
            new.push(Asked { item, meaning });
        }
        new.append(&mut in_other_words);
        for _ in 1..new.len() {
            self.outdone += 1;
            self.metrics.quiz_draft_outdone();
        }
        new.into_iter().next()
    }

    fn asked_before(&self, item: &QuizItem) -> Option<RejectReason> {
        if self.plan.spec.exclude.iter().any(|entry| is_excluded(said(item), item.kind, entry)) {
            return Some(RejectReason::Excluded);
        }
        let repeats =
            |asked: &Arc<Asked>| is_repeat(said(item), said(&asked.item)) || is_same_fact(item, &asked.item);
        if self.delivered.iter().any(repeats) {
            return Some(RejectReason::Repeated);
        }
        self.plan.earlier.iter().any(repeats).then_some(RejectReason::AskedEarlier)
    }

    fn asked_in_other_words(&self, item: &QuizItem, meaning: &Meaning) -> bool {
        let is_near = |asked: &Arc<Asked>| {
            asked.meaning.as_ref().is_some_and(|other| meaning.is_near(item, other, &asked.item))
        };
        let excluded = |comparison: &Comparison| comparison.is_excluded(meaning);
        self.plan.comparison.as_ref().is_some_and(excluded)
            || self.delivered.iter().chain(&self.plan.earlier).any(is_near)
    }

    fn reject(&mut self, reason: RejectReason) {
        *self.rejected.entry(reason).or_default() += 1;
        self.metrics.quiz_rejected(reason.name());
    }

    fn deliver(&mut self, asked: Asked) {
        if self.first_item.is_none() {
            let waited = self.started.elapsed();
            self.first_item = Some(waited);
            self.metrics.time_to_first_item(waited);
        }
        self.metrics.quiz_item(asked.item.kind.name());
        self.events.push_back(QuizEvent::Item(Box::new(asked.item.clone())));
        let asked = Arc::new(asked);
        if let Some(user) = &self.plan.spec.user {
            self.history.add(user, Arc::clone(&asked));
        }
        self.delivered.push(asked);
    }

    fn end(&mut self, event: QuizEvent) {
        self.ended = true;
        self.in_flight.clear();
        self.events.push_back(event);
    }

    fn summary(&self) -> QuizSummary {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        QuizSummary {
            model: self.writer.model_name().to_owned(),
            seed: self.plan.spec.seed,
            requested: self.plan.items.len(),
            delivered: self.delivered.len(),
            rejected: self.rejected.clone(),
            outdone: self.outdone,
            usage: self.usage,
            timings: QuizTimings {
                time_to_first_item_ms: self.first_item.map(ms),
                total_ms: ms(self.started.elapsed()),
            },
        }
    }
}

impl QuizUsage {
    pub(super) fn add(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
        self.forced_tokens += other.forced_tokens;
        self.drafted_tokens += other.drafted_tokens;
        self.accepted_tokens += other.accepted_tokens;
    }
}

impl From<&SequenceSummary> for QuizUsage {
    fn from(sequence: &SequenceSummary) -> Self {
        Self {
            prompt_tokens: sequence.prompt_tokens,
            cached_tokens: sequence.cached_tokens,
            completion_tokens: sequence.completion_tokens,
            forced_tokens: sequence.forced_tokens,
            drafted_tokens: sequence.drafted_tokens,
            accepted_tokens: sequence.accepted_tokens,
        }
    }
}

fn said(item: &QuizItem) -> Said<'_> {
    Said { question: &item.question, answer: &item.answer.text }
}

/// Not the asker's doing: the error with its causes, for the log.
pub(super) fn internal(error: &dyn std::error::Error) -> GenerateError {
    let chain = std::iter::successors(Some(error), |error| error.source());
    GenerateError::Internal { reason: chain.map(ToString::to_string).collect::<Vec<_>>().join(": ") }
}

/// The same error in the words of a quiz request: it has no messages and no response format.
fn in_terms_of(plan: &QuizPlan, error: GenerateError) -> GenerateError {
    match error {
        GenerateError::Invalid { param: "messages", message } => {
            let param = match plan.spec.subject {
                Subject::Topic(_) => "topic",
                Subject::Source(_) => "source",
            };
            GenerateError::Invalid { param, message }
        }
        GenerateError::Invalid { param: "response_format", message } => {
            GenerateError::Internal { reason: message }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests;

//! Writes one item of a quiz: attempt after attempt, until one passes what can be checked of it alone. Absent: the
//! other items, and in which order they settle.

use super::candidate::Candidate;
use super::item::{QuizItem, RejectReason};
use super::meaning::{Comparison, Meaning};
use super::plan::QuizPlan;
use super::round_trip::RoundTrip;
use super::service::{QuizUsage, internal};
use super::spec::CheckPolicy;
use super::writer::{Reply, Writer};
use crate::engine::EngineError;
use crate::generation::{GenerateError, WeighRequest};
use futures_util::future::{BoxFuture, try_join_all};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an item of a running quiz waits for a place in a full queue, all in all.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(120);
const MIN_QUEUE_PAUSE: Duration = Duration::from_millis(50);
const MAX_QUEUE_PAUSE: Duration = Duration::from_secs(5);

/// Attempts beyond those that give what the best is chosen from, where that has something that the request would rather
/// be without.
const SECOND_CHANCES: usize = 1;

/// What came of one item, up to the attempts that passed or the last.
pub(super) struct Written {
    pub(super) index: usize,
    /// The first attempt that was not made.
    pub(super) next_attempt: usize,
    /// Those that passed what can be checked alone, best first. None: the attempts are used up.
    pub(super) drafts: Vec<Candidate>,
    pub(super) rejected: Vec<RejectReason>,
    pub(super) usage: QuizUsage,
}

impl Written {
    /// What there is need not be added to.
    fn suffices(&self, plan: &QuizPlan) -> bool {
        let may_be_better = self.next_attempt < plan.spec.candidates;
        if may_be_better { self.drafts.iter().any(Candidate::is_sure) } else { !self.drafts.is_empty() }
    }

    /// The best has something that the request would rather be without.
    fn is_blemished(&self, plan: &QuizPlan) -> bool {
        let best = self.drafts.iter().max_by(|a, b| a.compare(b, &plan.spec));
        best.is_some_and(|best| best.is_blemished(&plan.spec))
    }
}

/// Writes one item, from the given attempt on, until drafts pass what can be checked alone. The first time
/// as many are written as the best is to be chosen from, at once, or where the model reads them until one is sure;
/// later one by one.
///
/// # Errors
/// What ends the whole quiz: the engine is gone, or its queue stays full.
pub(super) async fn write_item(
    plan: Arc<QuizPlan>,
    writer: Arc<dyn Writer>,
    index: usize,
    first_attempt: usize,
    mut accepted: Option<Reply>,
) -> Result<Written, GenerateError> {
    let mut written = Written {
        index,
        next_attempt: first_attempt,
        drafts: Vec::new(),
        rejected: Vec::new(),
        usage: QuizUsage::default(),
    };
    let mut second_chances = SECOND_CHANCES;
    while written.next_attempt < plan.max_attempts() {
        if written.suffices(&plan) {
            if second_chances == 0 || !written.is_blemished(&plan) {
                break;
            }
            second_chances -= 1;
        }
        let at_once = if written.next_attempt == 0 { plan.drafts_at_once(index) } else { 1 };
        let attempts = written.next_attempt..written.next_attempt + at_once;
        written.next_attempt = attempts.end;
        let drafts = attempts.map(|attempt| write_draft(&plan, &*writer, index, attempt, accepted.take()));
        for draft in try_join_all(drafts).await? {
            written.usage.add(draft.usage);
            match draft.candidate {
                Ok(candidate) => written.drafts.push(candidate),
                Err(reason) => written.rejected.push(reason),
            }
        }
    }
    // Of equals the earlier attempt.
    written.drafts.sort_by(|a, b| b.compare(a, &plan.spec));
    Ok(written)
}

/// What came of one attempt.
struct Drafted {
    candidate: Result<Candidate, RejectReason>,
    usage: QuizUsage,
}

/// Writes one draft and checks it alone.
///
/// # Errors
/// As [`write_item`].
async fn write_draft(
    plan: &Arc<QuizPlan>,
    writer: &dyn Writer,
    index: usize,
    attempt: usize,
    accepted: Option<Reply>,
) -> Result<Drafted, GenerateError> {
    let mut usage = QuizUsage::default();
    let reply = async {
        let reply = match accepted {
            Some(reply) => reply,
            None => when_there_is_room(|| writer.write(plan.request(index, attempt))).await?,
        };
        reply.await
    };
    let (text, summary) = match reply.await {
        Ok(reply) => reply,
        Err(error) => {
            let candidate = Err(reason_of(error, index, attempt)?);
            return Ok(Drafted { candidate, usage });
        }
    };
    usage.add((&summary.sequence).into());
    let mut candidate = plan.item(index, attempt, &text).map(|item| {
        let is_about_passage = plan.is_about_passage(index, &item);
        Candidate::new(item, is_about_passage, &summary)
    });
    if let Ok(drafted) = &mut candidate
        && plan.spec.round_trip != CheckPolicy::Off
        && let Some(trip) =
            RoundTrip::of(&drafted.item, || plan.way_back(index, attempt, &drafted.item.question))
    {
        let weigh = |request: WeighRequest| when_there_is_room(move || writer.weigh(request.clone()));
        match trip.verdict(&drafted.item, weigh).await {
            Ok((verdict, weighed)) => {
                weighed.iter().for_each(|likelihood| usage.add((&likelihood.sequence).into()));
                match verdict {
                    Ok(fit) => drafted.pass(fit),
                    Err(reason) if plan.spec.round_trip == CheckPolicy::Require => candidate = Err(reason),
                    Err(_) => {}
                }
            }
            Err(error) => candidate = Err(reason_of(error, index, attempt)?),
        }
    }
    if let Ok(drafted) = &mut candidate
        && let Some(meaning) = meaning_of(plan, &drafted.item).await?
    {
        drafted.understood(meaning);
        if drafted.is_implausible() && plan.comparison.as_ref().is_some_and(Comparison::requires_plausible) {
            candidate = Err(RejectReason::ImplausibleOptions);
        }
    }
    if let Err(reason) = &candidate {
        tracing::debug!(index, attempt, reason = reason.name(), reply = text, "item rejected");
    }
    Ok(Drafted { candidate, usage })
}

/// What an item means, if that is compared.
///
/// # Errors
/// The embeddings cannot be used.
async fn meaning_of(plan: &Arc<QuizPlan>, item: &QuizItem) -> Result<Option<Meaning>, GenerateError> {
    if plan.comparison.is_none() {
        return Ok(None);
    }
    let (plan, item) = (Arc::clone(plan), item.clone());
    let meaning = tokio::task::spawn_blocking(move || {
        plan.comparison.as_ref().map(|comparison| comparison.meaning(&item)).transpose()
    });
    meaning.await.map_err(|panic| internal(&panic))?
}

/// Why an attempt came to nothing.
///
/// # Errors
/// The same error, where no attempt could do better.
fn reason_of(error: GenerateError, index: usize, attempt: usize) -> Result<RejectReason, GenerateError> {
    match error {
        GenerateError::Engine(EngineError::Sequence { reason }) => {
            tracing::warn!(index, attempt, reason, "an item failed to be written");
            Ok(RejectReason::GenerationFailed)
        }
        GenerateError::Invalid { message, .. } => {
            tracing::debug!(index, attempt, message, "item does not fit");
            Ok(RejectReason::DoesNotFit)
        }
        GenerateError::Engine(EngineError::PromptTooLong { .. }) => Ok(RejectReason::DoesNotFit),
        error => Err(error),
    }
}

/// A full queue is no reason to give up a quiz that has begun: its items wait for their turn.
pub(super) async fn when_there_is_room<T>(
    submit: impl Fn() -> BoxFuture<'static, Result<T, GenerateError>>,
) -> Result<T, GenerateError> {
    let started = Instant::now();
    loop {
        match submit().await {
            Err(GenerateError::Engine(EngineError::QueueFull { retry_after, .. }))
                if started.elapsed() < MAX_QUEUE_WAIT =>
            {
                tokio::time::sleep(retry_after.clamp(MIN_QUEUE_PAUSE, MAX_QUEUE_PAUSE)).await;
            }
            accepted => return accepted,
        }
    }
}

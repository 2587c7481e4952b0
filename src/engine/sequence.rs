//! One request on its way: waiting → running → finished. It owns its sampler, grammar and counters, and
//! the sending end of its stream. Absent: slots, positions, the backend but for what it may draw.

use super::{EngineError, FinishReason, NewToken, SequenceRequest, SequenceSummary, TokenEvent};
use crate::backend::{Draw, Drawn};
use crate::metrics::Metrics;
use crate::sampling::{
    Grammar, Sampled, Sampler, SamplingParams, TokenLogprobs, TokenMask, log_probabilities,
};
use crate::text::TokenId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

pub(super) struct Sequence {
    /// Taken by the scheduler when the sequence is queued.
    prompt: Vec<TokenId>,
    sampler: Sampler,
    grammar: Option<Grammar>,
    stop_tokens: Vec<TokenId>,
    /// The reply, where it is read and not written.
    given: Vec<TokenId>,
    /// Tokens the reply may have, by the request and by the context.
    budget: usize,

    events: UnboundedSender<TokenEvent>,
    stop: Arc<AtomicBool>,
    /// Tokens of the reply that were not yet sent.
    fresh: Vec<NewToken>,

    n_prompt: usize,
    n_cached: usize,
    n_completion: usize,
    n_forced: usize,
    n_drafted: usize,
    n_accepted: usize,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What a step has yielded for a sequence.
pub(super) enum Yielded<'a> {
    /// Rows of logits, of places one after another.
    Logits(Vec<&'a mut [f32]>),
    Token(Drawn),
}

/// How a sequence ends.
pub(super) enum End {
    Finished(FinishReason),
    Failed(EngineError),
    /// Nobody listens any more.
    Cancelled,
}

impl Sequence {
    pub(super) fn new(
        request: SequenceRequest,
        context_len: usize,
        events: UnboundedSender<TokenEvent>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let SequenceRequest { prompt, max_new_tokens, sampling, grammar, given, stop_tokens } = request;
        Self {
            sampler: Sampler::new(sampling, &prompt),
            grammar,
            stop_tokens,
            given,
            budget: max_new_tokens.clamp(1, context_len - prompt.len()),
            events,
            stop,
            fresh: Vec::new(),
            n_prompt: prompt.len(),
            prompt,
            n_cached: 0,
            n_completion: 0,
            n_forced: 0,
            n_drafted: 0,
            n_accepted: 0,
            submitted: Instant::now(),
            started: None,
            first_token: None,
            last_token: None,
        }
    }

    /// What is to be computed before the first token can be sampled: the prompt, and the tokens that the
    /// grammar forces at the very start; or a given reply. With the first of them whose logits are wanted.
    /// `Err` where nothing is to be sampled at all.
    pub(super) fn begin(&mut self) -> Result<(Vec<TokenId>, usize), End> {
        if let Some(reason) = self.take_forced().map_err(failed)? {
            return Err(End::Finished(reason));
        }
        let mut tokens = std::mem::take(&mut self.prompt);
        tokens.extend(self.fresh.iter().map(|new| new.token));
        let logits_from = tokens.len() - 1;
        // Nothing comes after the last token of a given reply: it need not be computed.
        tokens.extend(&self.given[..self.given.len().saturating_sub(1)]);
        Ok((tokens, logits_from))
    }

    /// How the sequence must end before its next step, whatever the model says.
    pub(super) fn called_off(&self) -> Option<End> {
        if self.events.is_closed() {
            Some(End::Cancelled)
        } else if self.stop.load(Ordering::Relaxed) {
            Some(End::Finished(FinishReason::Stop))
        } else {
            None
        }
    }

    /// Its first row is about to run.
    pub(super) fn start(&mut self, n_cached: usize, now: Instant, metrics: &Metrics) {
        if self.started.is_none() {
            self.started = Some(now);
            self.n_cached = n_cached.min(self.n_prompt);
            metrics.sequence_started(now - self.submitted, self.n_prompt, self.n_cached);
        }
    }

    /// What it took over is computed again.
    pub(super) fn start_over(&mut self) {
        self.n_cached = 0;
    }

    /// So many tokens were drafted for it in one step.
    pub(super) fn count_drafted(&mut self, n: usize, metrics: &Metrics) {
        self.n_drafted += n;
        metrics.drafted(n);
    }

    /// So many of them it chose itself.
    pub(super) fn count_accepted(&mut self, n: usize, metrics: &Metrics) {
        self.n_accepted += n;
        metrics.accepted(n);
    }

    /// Chooses on by what a step has yielded, up to the first token that is not the one `drafted`. Leaves the tokens
    /// chosen, and those that the grammar forces behind each, to be read by [`fresh_tokens`](Self::fresh_tokens) and sent
    /// by [`report`](Self::report).
    pub(super) fn advance(
        &mut self,
        yielded: Yielded<'_>,
        drafted: &VecDeque<TokenId>,
    ) -> Result<Option<FinishReason>, String> {
        match yielded {
            Yielded::Token(drawn) => self.take_drawn(drawn),
            Yielded::Logits(rows) if self.is_given() => self.weigh(&rows),
            Yielded::Logits(rows) => self.choose(rows, drafted),
        }
    }

    /// Chooses a token from the first logits, and from those after it as long as it was drafted.
    fn choose(
        &mut self,
        mut rows: Vec<&mut [f32]>,
        drafted: &VecDeque<TokenId>,
    ) -> Result<Option<FinishReason>, String> {
        let (mut place, mut drafted) = (0, drafted.iter());
        while let Some(logits) = rows.get_mut(place) {
            let n_known = self.fresh.len();
            let mask = self.grammar.as_mut().map(Grammar::mask).transpose().map_err(|e| e.to_string())?;
            let sampled = self.sampler.sample(logits, mask).map_err(|e| e.to_string())?;
            if let Some(end) = self.accept(sampled)? {
                return Ok(Some(end));
            }
            let chosen = &self.fresh[n_known..];
            if !chosen.iter().all(|new| drafted.next() == Some(&new.token)) {
                break;
            }
            place += chosen.len();
        }
        Ok(None)
    }

    /// Takes so many tokens of a given reply, each with its probability.
    fn weigh(&mut self, rows: &[&mut [f32]]) -> Result<Option<FinishReason>, String> {
        for logits in rows {
            let token = self.given[self.n_completion];
            let logprobs = log_probabilities(logits, token, 0).map_err(|error| error.to_string())?;
            self.take(token, true, Some(logprobs));
        }
        Ok((self.n_completion == self.given.len()).then_some(FinishReason::Stop))
    }

    /// Readies the mask for [`allowed`](Self::allowed).
    pub(super) fn prepare_mask(&mut self) -> Result<(), String> {
        match &mut self.grammar {
            Some(grammar) if self.given.is_empty() => {
                grammar.mask().map(drop).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    /// The tokens that may come next, where that is [prepared](Self::prepare_mask); `None` where the logits of all
    /// are wanted, or any may come.
    pub(super) fn allowed(&self, is_drawn: bool) -> Option<&[u32]> {
        let suffices = self.given.is_empty() && (is_drawn || self.sampler.wants_only_allowed());
        let grammar = self.grammar.as_ref().filter(|_| suffices)?;
        grammar.known_mask().map(TokenMask::words)
    }

    /// How a backend can choose the next token; `None` where it takes its logits.
    pub(super) fn draw(&self) -> Option<Draw> {
        let (params, uniform) = self.sampler.draw().filter(|_| self.given.is_empty())?;
        let &SamplingParams { temperature, top_k, top_p, min_p, .. } = params;
        Some(Draw { temperature, top_k, top_p, min_p, uniform })
    }

    fn take_drawn(&mut self, drawn: Drawn) -> Result<Option<FinishReason>, String> {
        let mask = self.grammar.as_ref().and_then(Grammar::known_mask);
        let sampled = self.sampler.drawn(drawn.token, drawn.logprob, mask);
        self.accept(sampled.map_err(|error| error.to_string())?)
    }

    /// Takes a chosen token, and those the grammar forces after it.
    fn accept(&mut self, sampled: Sampled) -> Result<Option<FinishReason>, String> {
        let Some(grammar) = &mut self.grammar else {
            self.take(sampled.token, false, sampled.logprobs);
            let stops = self.stop_tokens.contains(&sampled.token).then_some(FinishReason::Stop);
            return Ok(stops.or(self.out_of_budget()));
        };
        let token = grammar.accept(sampled.token).map_err(|error| error.to_string())?;
        if token == sampled.token {
            self.take(token, false, sampled.logprobs);
        } else {
            self.take(token, true, None); // the grammar put its own in place of the sampled one
        }
        self.take_forced()
    }

    /// Takes what the grammar forces next; `Some` when the reply ends with it.
    fn take_forced(&mut self) -> Result<Option<FinishReason>, String> {
        let Some(grammar) = &mut self.grammar else { return Ok(None) };
        if grammar.is_finished() {
            return Ok(Some(FinishReason::Stop));
        }
        let forced = grammar.forced().map_err(|error| error.to_string())?;
        let is_finished = grammar.is_finished();
        for token in forced {
            if self.out_of_budget().is_some() {
                return Ok(Some(FinishReason::Length)); // only if the grammar was given a larger budget
            }
            self.take(token, true, None);
        }
        Ok(if is_finished { Some(FinishReason::Stop) } else { self.out_of_budget() })
    }

    fn out_of_budget(&self) -> Option<FinishReason> {
        (self.n_completion >= self.budget).then_some(FinishReason::Length)
    }

    fn take(&mut self, token: TokenId, forced: bool, logprobs: Option<TokenLogprobs>) {
        self.sampler.observe(token);
        self.n_completion += 1;
        self.n_forced += usize::from(forced);
        self.fresh.push(NewToken { token, forced, logprobs });
    }

    /// Whether the reply is read and not written: all of it is known from the start.
    pub(super) fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// Tokens that were not yet sent, without the first `n_known`.
    pub(super) fn fresh_tokens(&self, n_known: usize) -> &[NewToken] {
        &self.fresh[n_known..]
    }

    pub(super) fn n_fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Sends the fresh tokens, all in one event.
    pub(super) fn report(&mut self, now: Instant, metrics: &Metrics) {
        if self.fresh.is_empty() {
            return;
        }
        if self.first_token.is_none() {
            self.first_token = Some(now);
            metrics.first_token(now - self.submitted);
        }
        if let Some(last) = self.last_token.replace(now) {
            metrics.inter_token(now - last);
        }
        let tokens = std::mem::take(&mut self.fresh);
        metrics.tokens(tokens.len(), tokens.iter().filter(|new| new.forced).count());
        let _ = self.events.send(TokenEvent::Tokens(tokens)); // a closed stream is noticed before the next step
    }

    /// The last event.
    pub(super) fn end(self, end: End, now: Instant, metrics: &Metrics) {
        let (label, event) = match end {
            End::Finished(reason) => {
                let label = match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                };
                (label, Some(TokenEvent::Finished(self.summary(reason, now))))
            }
            End::Failed(error) => ("failed", Some(TokenEvent::Failed(error))),
            End::Cancelled => ("cancelled", None),
        };
        metrics.sequence_finished(label, now - self.submitted);
        if let Some(event) = event {
            let _ = self.events.send(event);
        }
    }

    fn summary(&self, reason: FinishReason, now: Instant) -> SequenceSummary {
        SequenceSummary {
            reason,
            prompt_tokens: self.n_prompt,
            cached_tokens: self.n_cached,
            completion_tokens: self.n_completion,
            forced_tokens: self.n_forced,
            drafted_tokens: self.n_drafted,
            accepted_tokens: self.n_accepted,
            queue_time: self.started.unwrap_or(now) - self.submitted,
            time_to_first_token: self.first_token.unwrap_or(now) - self.submitted,
            total_time: now - self.submitted,
        }
    }
}

pub(super) fn failed(reason: String) -> End {
    End::Failed(EngineError::Sequence { reason })
}

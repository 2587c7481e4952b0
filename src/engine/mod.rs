//! Runs many sequences on one backend: token ids in, token ids out. May use `sampling`, `backend`.
//! Absent: text, JSON, HTTP.

use crate::backend::{Backend, Limits};
use crate::metrics::Metrics;
use crate::sampling::{Grammar, SamplingParams, TokenLogprobs};
use crate::text::TokenId;
use std::sync::Arc;
use std::time::Duration;

/// A reply to be made: everything the engine needs to know of a request.
pub struct SequenceRequest {
    pub prompt: Vec<TokenId>,
    /// Tokens of the reply, forced ones and the end token included; at least one.
    pub max_new_tokens: usize,
    pub sampling: SamplingParams,
    pub grammar: Option<Grammar>,
    /// Tokens that end the reply when sampled; they are reported too.
    pub stop_tokens: Vec<TokenId>,
}

/// What comes back, in order: any number of `Tokens`, then exactly one `Finished` or `Failed`.
#[derive(Debug)]
pub enum TokenEvent {
    /// The tokens of one step: forced ones, then the sampled one.
    Tokens(Vec<NewToken>),
    Finished(SequenceSummary),
    Failed(EngineError),
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    pub token: TokenId,
    /// Written by the grammar alone, never sampled.
    pub forced: bool,
    pub logprobs: Option<TokenLogprobs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token, or the end of the grammar.
    Stop,
    /// `max_new_tokens`, or the end of the context.
    Length,
}

/// What a finished sequence used.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceSummary {
    pub reason: FinishReason,
    pub prompt_tokens: usize,
    /// Prompt tokens whose KV cache was reused.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    pub forced_tokens: usize,
    pub queue_time: Duration,
    /// From submission to the first token of the reply.
    pub time_to_first_token: Duration,
    pub total_time: Duration,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the queue is full ({queued} waiting); try again in {retry_after:?}")]
    QueueFull { queued: usize, retry_after: Duration },
    #[error(
        "the prompt of {prompt_tokens} tokens does not fit the context of {context_len} with room for a reply"
    )]
    PromptTooLong { prompt_tokens: usize, context_len: usize },
    #[error("the server is shutting down")]
    ShuttingDown,
    /// This request failed; others go on.
    #[error("the sequence failed: {reason}")]
    Sequence { reason: String },
    #[error("the backend is lost: {reason}")]
    BackendLost { reason: String },
}

/// How the engine queues and plans.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Requests that may wait for a slot.
    pub max_queued: usize,
    /// Tokens one step may have; long prompts are cut to fit beside the running replies.
    pub max_step_tokens: usize,
}

/// A handle on the engine thread; clones share it. Dropping the last one drains and stops it.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Starts the thread that owns `backend`.
    pub fn start(_backend: Box<dyn Backend>, _options: EngineOptions, _metrics: Arc<Metrics>) -> Self {
        todo!()
    }

    pub fn limits(&self) -> &Limits {
        todo!()
    }

    /// Queues a request; never blocks.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::PromptTooLong`], [`EngineError::ShuttingDown`],
    /// [`EngineError::BackendLost`].
    pub fn submit(&self, _request: SequenceRequest) -> Result<TokenStream, EngineError> {
        todo!()
    }

    /// Whether the engine can take work, judged by forward progress.
    pub fn health(&self) -> EngineHealth {
        todo!()
    }

    /// Refuses new work; what was accepted is finished.
    pub fn drain(&self) {
        todo!()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineHealth {
    Ready,
    /// A step has been running for this long, more than the stall limit.
    Stalled {
        since: Duration,
    },
    Draining,
    Lost {
        reason: String,
    },
}

/// One request's events. Dropping it cancels the request within one step.
pub struct TokenStream {}

impl TokenStream {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        todo!()
    }

    /// Ends the sequence where it is, as a stop token would; `Finished` still comes.
    pub fn stop(&self) {
        todo!()
    }
}

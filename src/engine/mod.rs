//! Runs many sequences on one backend: token ids in, token ids out. May use `sampling`, `backend`.
//! Absent: text, JSON, HTTP.
//!
//! [`Engine`] is a handle on one thread of its own, which owns the backend and everything else, so that
//! a step waits for no lock. That thread repeats: take new requests and drop abandoned ones, let the
//! `Scheduler` plan a step, run it, and let each `Sequence` choose its next token. What sequences do by themselves, to
//! choose and to compute masks, the backend's threads share out.
//!
//! Where the backend draws tokens itself, a sequence says before the step how its next one is to be drawn, if that
//! takes no more than its logits; else it is chosen here, as on any backend. The token is the same.
//!
//! What fails ends as little as possible: a row that cannot be sampled, a grammar that errs, a panic in
//! either: that sequence. A failed or panicked step is repeated row by row, without drafts, and the rows that fail again
//! end. A lost device ends everything, and [`Engine::health`] says so.

mod draft;
mod handle;
mod scheduler;
mod sequence;
mod shared;
mod thread;

pub use handle::{Engine, EngineHealth, EngineOptions, TokenStream};

use crate::sampling::{Grammar, SamplingParams, TokenLogprobs};
use crate::text::TokenId;
use std::time::Duration;

/// A reply to be made: everything the engine needs to know of a request.
pub struct SequenceRequest {
    pub prompt: Vec<TokenId>,
    /// Tokens of the reply, forced ones and the end token included; at least one.
    pub max_new_tokens: usize,
    pub sampling: SamplingParams,
    pub grammar: Option<Grammar>,
    /// A reply to be read instead of written: nothing is sampled, and its tokens come back as forced ones,
    /// each with its log-probability after all before it. Empty: a reply is to be written.
    pub given: Vec<TokenId>,
    /// Tokens that end the reply when sampled; they are reported too. A grammar decides alone when the
    /// reply ends: with one, these are not looked at.
    pub stop_tokens: Vec<TokenId>,
}

/// What comes back, in order: any number of `Tokens`, then exactly one `Finished` or `Failed`.
#[derive(Debug)]
pub enum TokenEvent {
    /// What one step added to the reply, in its order: the sampled token, and those the grammar forces
    /// beside it. Never empty.
    Tokens(Vec<NewToken>),
    Finished(SequenceSummary),
    Failed(EngineError),
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    pub token: TokenId,
    /// Written by the grammar alone, or given; never sampled.
    pub forced: bool,
    pub logprobs: Option<TokenLogprobs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token, the end of the grammar, or [`TokenStream::stop`].
    Stop,
    /// `max_new_tokens`, or a context that prompt and reply together have filled.
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
    /// Tokens guessed ahead of the reply, and how many of them it then chose.
    pub drafted_tokens: usize,
    pub accepted_tokens: usize,
    pub queue_time: Duration,
    /// From submission to the first token of the reply; the whole time if there was none.
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
    /// This request failed, or cannot be run (an empty prompt, a token outside the vocabulary); others go on.
    #[error("the sequence failed: {reason}")]
    Sequence { reason: String },
    #[error("the backend is lost: {reason}")]
    BackendLost { reason: String },
}

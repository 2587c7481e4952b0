//! From a chat to text, as it is made: what quizzes and chat completions have in common.
//!
//! A [`TextRequest`] becomes a prompt by the model's own chat template, the prompt becomes token ids,
//! and the engine's tokens come back as [`TextEvent`]s with stop strings applied. A text that is there
//! already is weighed instead: how likely it is after a prompt. May use `engine`,
//! `sampling`, `text`. Absent: quizzes, HTTP, wire formats.

mod generator;
mod stop;
mod stream;
mod weigh;

pub use generator::{Generator, TextSide};
pub use stream::TextStream;
pub use weigh::{Likelihood, WeighRequest};

use crate::engine::{EngineError, FinishReason, SequenceSummary};
use crate::sampling::{GrammarError, GrammarSpec, SamplingParams};
use crate::text::{ChatMessage, TokenId};

/// A reply to be written. Already valid but for what only the model can tell.
#[derive(Clone, Debug)]
pub struct TextRequest {
    pub prompt: Prompt,
    /// `None`: whatever the context leaves.
    pub max_new_tokens: Option<usize>,
    pub sampling: SamplingParams,
    pub grammar: Option<GrammarSpec>,
    /// Texts that end the reply and are not part of it.
    pub stop: Vec<String>,
    /// Further tokens that end the reply and are not part of its text.
    pub stop_token_ids: Vec<TokenId>,
    /// Go on past the model's end-of-reply tokens (load tools ask for this).
    pub ignore_eos: bool,
}

#[derive(Clone, Debug)]
pub enum Prompt {
    Chat(Vec<ChatMessage>),
    Tokens(Vec<TokenId>),
}

/// What comes back, in order: any number of `Delta`s, then exactly one `Finished` or `Failed`.
#[derive(Debug)]
pub enum TextEvent {
    Delta(TextDelta),
    Finished(TextSummary),
    Failed(GenerateError),
}

/// Text that became certain: whole code points that no stop string can take back.
///
/// One comes for each step of the engine, with empty text where nothing became certain.
#[derive(Clone, Debug, Default)]
pub struct TextDelta {
    pub text: String,
    /// The tokens of the step, in order; with their log-probabilities where asked for.
    pub tokens: Vec<DeltaToken>,
}

#[derive(Clone, Debug)]
pub struct DeltaToken {
    pub token: TokenId,
    /// The bytes it stands for; a special token's name.
    pub bytes: Vec<u8>,
    /// Written by the grammar alone, never sampled.
    pub forced: bool,
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place: bytes and log-probability, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

#[derive(Clone, Debug)]
pub struct TextSummary {
    pub reason: FinishReason,
    /// Of the tokens that were sampled, not forced; where log-probabilities were asked for.
    pub mean_logprob: Option<f32>,
    pub sequence: SequenceSummary,
}

/// Why a reply was not written, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The request can never be honoured as it is: `param` names what to change.
    #[error("{message}")]
    Invalid { param: &'static str, message: String },
    /// A defect of ours, met while the request was prepared.
    #[error("the request could not be prepared: {reason}")]
    Internal { reason: String },
}

impl From<GrammarError> for GenerateError {
    fn from(error: GrammarError) -> Self {
        let param = match error {
            GrammarError::Unsupported { .. } => "response_format",
            GrammarError::BudgetTooSmall { .. } => "max_tokens",
        };
        Self::Invalid { param, message: error.to_string() }
    }
}

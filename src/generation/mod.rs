//! From a chat to text, as it is made: what quizzes and chat completions have in common.
//!
//! A [`TextRequest`] becomes a prompt by the model's own chat template, the prompt becomes token ids,
//! and the engine's tokens come back as [`TextEvent`]s with stop strings applied. May use `engine`,
//! `sampling`, `text`. Absent: quizzes, HTTP, wire formats.

use crate::engine::{Engine, EngineError, FinishReason, SequenceSummary};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::sampling::{GrammarError, GrammarSpec, SamplingParams};
use crate::text::{ChatMessage, TextError, TokenId};
use std::sync::Arc;

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
    /// Further tokens that end the reply.
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
#[derive(Clone, Debug, Default)]
pub struct TextDelta {
    pub text: String,
    /// The tokens behind it, in order; with their log-probabilities where asked for.
    pub tokens: Vec<DeltaToken>,
}

#[derive(Clone, Debug)]
pub struct DeltaToken {
    pub token: TokenId,
    /// The bytes it stands for.
    pub bytes: Vec<u8>,
    pub forced: bool,
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place: bytes and log-probability, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

#[derive(Clone, Debug)]
pub struct TextSummary {
    pub reason: FinishReason,
    pub sequence: SequenceSummary,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The request can never be honoured as it is: `param` names what to change.
    #[error("{message}")]
    Invalid { param: &'static str, message: String },
}

/// One loaded model, ready to write: what `quiz` and the chat endpoints share. Clones share it.
#[derive(Clone)]
pub struct Generator {}

impl Generator {
    pub fn new(_model: Arc<Model>, _engine: Engine, _metrics: Arc<Metrics>) -> Result<Self, TextError> {
        todo!()
    }

    pub fn model_name(&self) -> &str {
        todo!()
    }

    pub fn engine(&self) -> &Engine {
        todo!()
    }

    /// Tokens `text` takes, as plain text.
    pub fn count_tokens(&self, _text: &str) -> usize {
        todo!()
    }

    /// Starts a reply. Tokenising and compiling a grammar happen off the async threads.
    ///
    /// # Errors
    /// [`GenerateError`]: a full queue, a prompt that cannot fit, a grammar that cannot be honoured.
    pub async fn generate(&self, _request: TextRequest) -> Result<TextStream, GenerateError> {
        todo!()
    }
}

/// One reply as it is written. Dropping it cancels the request.
pub struct TextStream {}

impl TextStream {
    pub async fn next(&mut self) -> Option<TextEvent> {
        todo!()
    }

    /// The whole reply.
    pub async fn collect(self) -> Result<(String, TextSummary), GenerateError> {
        todo!()
    }
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

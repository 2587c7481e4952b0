//! Text to token ids and back: the model's own tokenizer, its chat template, and a detokenizer that
//! never emits half a code point. May use `model`. Absent: sampling, requests, JSON schemas.

/// A token's index in the model's vocabulary.
pub type TokenId = u32;

mod chat_template;
mod detokenizer;
mod folder;
mod gguf_tokenizer;
mod json_tokenizer;
mod pre_tokenizer;
mod python;
mod special_tokens;
mod token;
mod tokenizer;

#[cfg(test)]
mod tests;

pub use chat_template::{ChatMessage, ChatTemplate, Role};
pub use detokenizer::Detokenizer;
pub use tokenizer::Tokenizer;

/// Why text could not be turned into tokens, or a model's text side not be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The model's tokenizer or template cannot be used.
    #[error("cannot use the {part} of {model}: {reason}")]
    Unusable { part: &'static str, model: String, reason: String },
    /// The chat template refused the messages (for example roles that do not alternate).
    #[error("the model's chat template refused the messages: {reason}")]
    Template { reason: String },
}

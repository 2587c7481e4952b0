use crate::text::{TextError, TokenId, Tokenizer};
use std::sync::Arc;

/// What a reply must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSpec {
    /// Compact JSON (no free white space) that fits the schema, properties in the schema's order.
    JsonSchema(serde_json::Value),
    /// Any JSON object, compact.
    JsonObject,
    Regex(String),
    /// llguidance's dialect of Lark.
    Lark(String),
}

/// Why a grammar cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    #[error("the grammar cannot be honoured: {reason}")]
    Unsupported { reason: String },
    /// The shortest reply the grammar allows is longer than the budget.
    #[error("the shortest reply the grammar allows takes {shortest} tokens, the budget is {budget}")]
    BudgetTooSmall { shortest: usize, budget: usize },
}

/// Compiles grammars for one vocabulary; one a model, shared by all requests.
pub struct GrammarCompiler {}

impl GrammarCompiler {
    /// `vocab_size` is the length of the model's logits rows.
    pub fn new(_tokenizer: Arc<Tokenizer>, _vocab_size: usize) -> Result<Self, TextError> {
        todo!()
    }

    /// Takes milliseconds: call it off the async threads.
    ///
    /// # Errors
    /// [`GrammarError`]: the grammar is invalid, unsupported, or cannot end within `max_new_tokens`.
    pub fn compile(&self, _spec: &GrammarSpec, _max_new_tokens: usize) -> Result<Grammar, GrammarError> {
        todo!()
    }
}

/// The tokens a grammar allows next, one bit each, packed in `u32` words, lowest bit first.
pub struct TokenMask {}

impl TokenMask {
    pub fn allows(&self, _token: TokenId) -> bool {
        todo!()
    }

    /// Packed words, `ceil(vocab_size / 32)` of them.
    pub fn words(&self) -> &[u32] {
        todo!()
    }
}

/// One reply's way through its grammar. Always ends within the budget it was compiled for.
///
/// The caller repeats: take [`forced`](Self::forced) tokens, and when there are none and the grammar
/// is not [`is_finished`](Self::is_finished), sample from [`mask`](Self::mask) and
/// [`accept`](Self::accept) the token. End-of-reply tokens are part of the grammar's language and of
/// the budget.
pub struct Grammar {}

impl Grammar {
    /// Tokens that must come next, whatever the model says; already accepted when they are returned.
    pub fn forced(&mut self) -> Result<Vec<TokenId>, GrammarError> {
        todo!()
    }

    /// The tokens that may come next and still leave room for the shortest end.
    pub fn mask(&mut self) -> Result<&TokenMask, GrammarError> {
        todo!()
    }

    /// Moves on by a sampled token. A token that would leave no room to finish is not taken: the
    /// first token of the shortest known end is taken instead. Returns the token taken.
    pub fn accept(&mut self, _token: TokenId) -> Result<TokenId, GrammarError> {
        todo!()
    }

    /// Nothing may follow.
    pub fn is_finished(&self) -> bool {
        todo!()
    }
}

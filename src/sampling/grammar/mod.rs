//! What a reply must look like, and the promise that it ends.
//!
//! llguidance says which tokens a grammar allows next. It does not say how far the end is, so a reply
//! may run out of tokens in the middle of a string. Here it cannot: a [`Grammar`] always knows one
//! ending, tokens that complete the reply from where it stands, and never lets that ending grow longer
//! than what is left of the budget. A sampled token is taken only if an ending that fits is known
//! behind it; else the first token of the known ending is taken. When the ending has used up the
//! budget exactly, it is all that is left to write.
//!
//! Every grammar is compiled with a token behind it that no vocabulary has (`document_end`). Where it
//! may come next the document is complete, and where nothing else may come the reply is over without
//! a token to say so.
//!
//! May use `text`. Absent: other sequences, but for what their lexers have met (`cache.rs`); threads, but for the stack that
//! compiling borrows; time.

mod cache;
mod compiler;
mod ending;
mod layout;
mod schema;
mod search;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use compiler::GrammarCompiler;
use compiler::first_line;

use crate::text::TokenId;
use cache::{Compiled, Lesson};
use ending::Ending;
use llguidance::{TokenParser, panic_utils::catch_unwind};
use search::speculate;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use vocabulary::Vocabulary;

/// What a reply must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSpec {
    /// JSON that fits the schema, properties in the schema's order. Objects that allow no further properties, and lists
    /// but those of numbers, have a property or an item a line, indented by two spaces: models have read it so most
    /// often. What else there is the model lays out, with a line break and 32 spaces at most between two parts.
    JsonSchema(serde_json::Value),
    /// Any JSON object, laid out by the model in the same bounds.
    JsonObject,
    /// A text that the expression matches from its first character to its last.
    Regex(String),
    /// llguidance's dialect of Lark. Without special tokens, `stop=`, `max_tokens=`, `temperature=`.
    ///
    /// Names in capitals are regular, and only those may be joined by `&` and negated by `~`. A text
    /// held to spans of another, here an answer to the sentence it rests on:
    ///
    /// ```text
    /// start: "{\"evidence\":\"" (pair_0 | pair_1) "\",\"question\":\"" QUESTION "\"}"
    /// pair_0: "It opened in 1889.\",\"answer\":\"" SPAN_0
    /// pair_1: "湖は滋賀県にある。\",\"answer\":\"" SPAN_1
    /// SPAN_0: %regex {"substring_chunks": ["It", " ", "opened", " ", "in", " ", "1889", "."]} & /.+/
    /// SPAN_1: %regex {"substring_chunks": ["湖", "は", "滋賀県", "に", "ある", "。"]} & /.+/
    /// QUESTION: /[^"\\\x00-\x1f]{1,200}/
    /// ```
    ///
    /// A chunk is never cut, and `& /.+/` leaves out the span of none. In a JSON string the chunks are
    /// what stands between its quotes, escapes and all: `\n` in a text is the chunk `"\\n"`.
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

impl GrammarError {
    fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported { reason: reason.into() }
    }
}

/// The tokens a grammar allows next, one bit each, packed in `u32` words, lowest bit first.
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    pub(super) fn new(n_words: usize) -> Self {
        Self { words: vec![0; n_words] }
    }

    /// False for ids beyond the mask.
    pub fn allows(&self, token: TokenId) -> bool {
        let word = self.words.get((token / u32::BITS) as usize).copied().unwrap_or(0);
        word & (1 << (token % u32::BITS)) != 0
    }

    /// Packed words, `ceil(vocab_size / 32)` of them.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub(super) fn set(&mut self, token: TokenId, allowed: bool) {
        // `document_end` may lie just past the model's logits.
        if let Some(word) = self.words.get_mut((token / u32::BITS) as usize) {
            let bit = 1 << (token % u32::BITS);
            *word = if allowed { *word | bit } else { *word & !bit };
        }
    }

    fn copy_from(&mut self, words: &[u32]) {
        let n = self.words.len().min(words.len());
        self.words[..n].copy_from_slice(&words[..n]);
        self.words[n..].fill(0);
    }
}

/// One reply's way through its grammar. Always ends within the budget it was compiled for.
///
/// The caller repeats: take [`forced`](Self::forced) tokens, and when there are none and the grammar
/// is not [`is_finished`](Self::is_finished), sample from [`mask`](Self::mask) and
/// [`accept`](Self::accept) the token. End-of-reply tokens are part of the grammar's language and of
/// the budget.
pub struct Grammar {
    parser: TokenParser,
    vocabulary: Arc<Vocabulary>,
    mask: TokenMask,
    /// `mask` is of the place that the reply is at.
    mask_is_current: bool,
    /// Never longer than `remaining`; empty when the reply is over.
    ending: Ending,
    remaining: usize,
    /// Only the ending is left: the budget allows no more, or the parser gave up.
    closing: bool,
    /// What `parser` meets is in it, too. None once the parser has given up.
    lesson: Option<Lesson>,
}

impl Grammar {
    /// The budget suffices for the shortest reply.
    fn new(compiled: &Arc<Compiled>, vocabulary: Arc<Vocabulary>, budget: usize) -> Self {
        let (parser, lesson) = compiled.begin();
        let ending = compiled.ending().clone();
        Self {
            parser,
            mask: TokenMask::new(vocabulary.mask_words()),
            vocabulary,
            mask_is_current: false,
            closing: ending.len() == budget,
            ending,
            remaining: budget,
            lesson: Some(lesson),
        }
    }

    /// Tokens that must come next, whatever the model says; already accepted when they are returned.
    ///
    /// The grammar forces them, or, when the budget allows no other reply, they are all that is left
    /// of it.
    pub fn forced(&mut self) -> Result<Vec<TokenId>, GrammarError> {
        if self.is_finished() {
            return Ok(Vec::new());
        }
        self.mask_is_current = false;
        let mut tokens = Vec::new();
        if !self.closing {
            tokens = self.guarded(|parser| Ok(parser.compute_ff_tokens())).unwrap_or_default();
        }
        if self.closing {
            let tokens = self.ending.tokens().to_vec();
            self.remaining -= tokens.len();
            self.ending = Ending::default();
            return Ok(tokens);
        }
        if tokens.last() == Some(&self.vocabulary.document_end()) {
            tokens.pop();
        }
        let rest = self.past_all(&tokens);
        match rest.filter(|rest| tokens.len() + rest.len() <= self.remaining) {
            Some(rest) => self.ending = rest,
            None => {
                // Spelled as usual the forced bytes take too many tokens: spell them as the ending does.
                let n_forced: usize = tokens.iter().map(|&token| self.vocabulary.bytes(token).len()).sum();
                tokens = self.ending_tokens_within(n_forced);
                self.ending = self.past_all(&tokens).expect("whole tokens leave whole tokens");
            }
        }
        self.remaining -= tokens.len();
        for &token in &tokens {
            self.consume(token);
        }
        self.close_if_tight();
        Ok(tokens)
    }

    /// The tokens the grammar allows next; only the known ending's when the budget allows no more.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`]: the reply is over.
    pub fn mask(&mut self) -> Result<&TokenMask, GrammarError> {
        if self.is_finished() {
            return Err(GrammarError::unsupported("the reply is over, nothing may follow"));
        }
        if self.mask_is_current {
            return Ok(&self.mask);
        }
        let allowed = if self.closing { None } else { self.guarded(|parser| parser.compute_mask()) };
        match allowed {
            Some(allowed) => {
                self.mask.copy_from(allowed.as_slice());
                let document_end = self.vocabulary.document_end();
                let may_end = allowed.get(document_end as usize);
                self.mask.set(document_end, false);
                if may_end {
                    self.allow_ends();
                }
            }
            None => {
                self.mask.words.fill(0);
                let first = self.ending.tokens()[0];
                self.mask.set(first, true);
                if self.vocabulary.end_tokens().contains(&first) {
                    self.allow_ends();
                }
            }
        }
        self.mask_is_current = true;
        Ok(&self.mask)
    }

    /// What [`mask`](Self::mask) has said, where the reply has not moved on since.
    pub fn known_mask(&self) -> Option<&TokenMask> {
        self.mask_is_current.then_some(&self.mask)
    }

    /// Moves on by a sampled token. A token that would leave no room to finish is not taken: the
    /// first token of the shortest known end is taken instead. Returns the token taken.
    ///
    /// # Errors
    /// [`GrammarError::Unsupported`]: the reply is over.
    pub fn accept(&mut self, token: TokenId) -> Result<TokenId, GrammarError> {
        if self.is_finished() {
            return Err(GrammarError::unsupported("the reply is over, nothing may follow"));
        }
        self.mask_is_current = false;
        let (taken, ending) = match self.ending_after(token) {
            Some(ending) => (token, ending),
            None => {
                let first = self.ending.tokens()[0];
                (first, self.past_all(&[first]).expect("whole tokens leave whole tokens"))
            }
        };
        self.ending = ending;
        self.remaining -= 1;
        if !self.is_finished() && !self.closing {
            self.consume(taken);
        }
        self.close_if_tight();
        Ok(taken)
    }

    /// Nothing may follow.
    pub fn is_finished(&self) -> bool {
        self.ending.len() == 0
    }

    /// An ending behind `token` that fits the budget, if the grammar allows the token and one is known.
    fn ending_after(&mut self, token: TokenId) -> Option<Ending> {
        let ends = self.vocabulary.end_tokens().contains(&token);
        if self.closing {
            let first = self.ending.tokens()[0];
            let same = token == first || (ends && self.vocabulary.end_tokens().contains(&first));
            return if same { self.past_all(&[first]) } else { None };
        }
        let forced = self.parser.parser.currently_forced_bytes().to_vec();
        let vocabulary = Arc::clone(&self.vocabulary);
        if ends {
            let may_end = forced.is_empty()
                && self.guarded(|parser| Ok(speculate(&mut parser.parser, &vocabulary, |w| w.may_end())))?;
            return may_end.then(Ending::default);
        }
        let next = vocabulary.bytes(token);
        if next.is_empty() {
            return None;
        }
        if forced.starts_with(next) {
            let rest = self.ending.past(next.len(), &vocabulary);
            return rest.filter(|rest| rest.len() < self.remaining);
        }
        let (ending, max_len) = (self.ending.clone(), self.remaining - 1);
        self.guarded(|parser| {
            Ok(speculate(&mut parser.parser, &vocabulary, |walker| {
                ending.after(next, &forced, max_len, walker, &vocabulary)
            }))
        })?
    }

    /// What is left of the ending behind its first tokens, or behind others that spell the same.
    fn past_all(&self, tokens: &[TokenId]) -> Option<Ending> {
        if tokens.len() == self.ending.len() && tokens == self.ending.tokens() {
            return Some(Ending::default()); // the token that ends the reply has no bytes
        }
        let n_bytes = tokens.iter().map(|&token| self.vocabulary.bytes(token).len()).sum();
        self.ending.past(n_bytes, &self.vocabulary)
    }

    /// The ending's first tokens, as many as lie in its first `n_bytes`.
    fn ending_tokens_within(&self, n_bytes: usize) -> Vec<TokenId> {
        let mut end = 0;
        let within = |&&token: &&TokenId| {
            let n = self.vocabulary.bytes(token).len();
            end += n;
            n > 0 && end <= n_bytes
        };
        self.ending.tokens().iter().take_while(within).copied().collect()
    }

    fn consume(&mut self, token: TokenId) {
        self.guarded(|parser| parser.consume_token(token));
    }

    /// Looks for a shorter ending when the known one is about to use up the budget, and commits to it
    /// when it does.
    fn close_if_tight(&mut self) {
        if self.closing || self.is_finished() {
            return;
        }
        if self.ending.len() == self.remaining && !self.ending.shortest {
            self.shorten_ending();
        }
        self.closing |= self.ending.len() == self.remaining;
    }

    fn shorten_ending(&mut self) {
        let forced = self.parser.parser.currently_forced_bytes().to_vec();
        let vocabulary = Arc::clone(&self.vocabulary);
        let max_len = self.remaining;
        let shorter = self.guarded(|parser| {
            Ok(speculate(&mut parser.parser, &vocabulary, |walker| {
                Ending::shortest(&forced, max_len, walker, &vocabulary)
            }))
        });
        if let Some(shorter) = shorter.flatten().filter(|shorter| shorter.len() < self.ending.len()) {
            self.ending = shorter;
        }
        self.ending.shortest = true;
    }

    fn allow_ends(&mut self) {
        for &end in self.vocabulary.end_tokens() {
            self.mask.set(end, true);
        }
    }

    /// Runs the parser. Should it give up (its limits, a fault of its own), the reply still ends well:
    /// the ending has been parsed, and from here on it is all there is.
    fn guarded<T>(&mut self, f: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>) -> Option<T> {
        let parser = &mut self.parser;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let result = f(parser)?;
            match parser.parser.get_error() {
                Some(error) => Err(anyhow::Error::msg(error.message())),
                None => Ok(result),
            }
        }));
        result
            .map_err(|error| {
                let error = first_line(&error);
                tracing::warn!(error, "the grammar's parser gave up, ending the reply");
                self.closing = true;
                self.lesson = None;
            })
            .ok()
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        if let Some(lesson) = self.lesson.take() {
            lesson.pass_on();
        }
    }
}

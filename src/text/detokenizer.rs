use super::{TokenId, Tokenizer};

/// Turns token ids into text as they come; holds bytes back until a code point is whole.
#[derive(Default)]
pub struct Detokenizer {}

impl Detokenizer {
    /// The text that became whole with this token; often empty inside an emoji.
    pub fn push(&mut self, _tokenizer: &Tokenizer, _token: TokenId) -> String {
        todo!()
    }

    /// What is left at the end: bytes that never became a code point, as U+FFFD.
    pub fn finish(&mut self) -> String {
        todo!()
    }
}

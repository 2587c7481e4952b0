use super::{TextError, TokenId};
use crate::model::Model;

/// The model's vocabulary, both ways.
pub struct Tokenizer {}

impl Tokenizer {
    /// Reads the tokenizer of a model: GGUF metadata, or `tokenizer.json` in its folder.
    pub fn open(_model: &Model) -> Result<Self, TextError> {
        todo!()
    }

    /// Token ids of `text`, in which the text of special tokens stands for those tokens.
    ///
    /// Adds nothing at either end: the chat template writes its own beginning-of-text token.
    pub fn encode(&self, _text: &str) -> Vec<TokenId> {
        todo!()
    }

    /// Token ids of `text` as plain text: `<|im_end|>` in it is seven characters, not a token.
    pub fn encode_plain(&self, _text: &str) -> Vec<TokenId> {
        todo!()
    }

    /// The bytes a token stands for; empty for special tokens.
    pub fn token_bytes(&self, _id: TokenId) -> &[u8] {
        todo!()
    }

    /// The token's own name, `<|im_end|>` for a special one.
    pub fn token_text(&self, _id: TokenId) -> &str {
        todo!()
    }

    pub fn is_special(&self, _id: TokenId) -> bool {
        todo!()
    }

    /// The texts that [`encode`](Self::encode) would take for special tokens.
    pub fn special_texts(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// Entries in the vocabulary; the model's logits may be longer.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }

    pub fn bos(&self) -> Option<TokenId> {
        todo!()
    }

    /// Tokens that end a reply: end of text, end of turn.
    pub fn end_tokens(&self) -> &[TokenId] {
        todo!()
    }
}

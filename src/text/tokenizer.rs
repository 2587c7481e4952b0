use super::token::Token;
use super::{TextError, TokenId, gguf_tokenizer, json_tokenizer};
use crate::model::{Model, TextSource};

/// The model's vocabulary, both ways.
pub struct Tokenizer {
    /// Takes the text of special tokens for those tokens.
    parsing: tokenizers::Tokenizer,
    /// The same vocabulary, but special tokens are spelt out like any other text.
    plain: tokenizers::Tokenizer,
    /// By id.
    tokens: Vec<Token>,
    bos: Option<TokenId>,
    end_tokens: Vec<TokenId>,
    adds_leading_space: bool,
}

/// What a file says of a vocabulary: all of [`Tokenizer`] but what follows from it.
pub(super) struct Parts {
    /// Added tokens included.
    pub(super) inner: tokenizers::Tokenizer,
    /// By id, one for every id of `inner`.
    pub(super) tokens: Vec<Token>,
    pub(super) bos: Option<TokenId>,
    /// Each of them special.
    pub(super) end_tokens: Vec<TokenId>,
    /// SentencePiece: a space before the first word that is not part of the text.
    pub(super) adds_leading_space: bool,
}

impl Tokenizer {
    /// Reads the tokenizer of a model: GGUF metadata, or `tokenizer.json` in its folder.
    ///
    /// # Errors
    /// [`TextError::Unusable`] names the metadata key, or the file and its field.
    pub fn open(model: &Model) -> Result<Self, TextError> {
        let parts = match model.text_source() {
            TextSource::Gguf(metadata) => gguf_tokenizer::read(metadata),
            TextSource::Folder(folder) => json_tokenizer::read_folder(folder),
        };
        Self::from_parts(parts, &model.name)
    }

    /// Reads the contents of a `tokenizer.json`; `end_token_texts` are the tokens that end a reply.
    ///
    /// # Errors
    /// [`TextError::Unusable`] names the field.
    pub fn from_json(json: &[u8], end_token_texts: &[&str]) -> Result<Self, TextError> {
        Self::from_parts(json_tokenizer::read(json, end_token_texts), "tokenizer.json")
    }

    pub(super) fn from_parts(parts: Result<Parts, String>, model: &str) -> Result<Self, TextError> {
        let Parts { inner: parsing, tokens, bos, end_tokens, adds_leading_space } = parts
            .map_err(|reason| TextError::Unusable { part: "tokenizer", model: model.to_owned(), reason })?;
        let mut plain = parsing.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { parsing, plain, tokens, bos, end_tokens, adds_leading_space })
    }

    /// Token ids of `text`, in which the text of special tokens stands for those tokens.
    ///
    /// Adds nothing at either end: the chat template writes its own beginning-of-text token.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        encode(&self.parsing, text)
    }

    /// Token ids of `text` as plain text: `<|im_end|>` in it is ten characters, not a token.
    pub fn encode_plain(&self, text: &str) -> Vec<TokenId> {
        encode(&self.plain, text)
    }

    /// The bytes a token stands for; empty for special and unused tokens.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.token(id).map_or(&[], |token| &token.bytes)
    }

    /// The token's own name, `<|im_end|>` for a special one; empty past the vocabulary.
    pub fn token_text(&self, id: TokenId) -> &str {
        self.token(id).map_or("", |token| &token.text)
    }

    pub fn is_special(&self, id: TokenId) -> bool {
        self.token(id).is_some_and(|token| token.special)
    }

    /// The texts that [`encode`](Self::encode) would take for special tokens.
    pub fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter(|token| token.special).map(|token| token.text.as_str())
    }

    /// Entries in the vocabulary; the model's logits may be longer.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The token that begins a text, where the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// Tokens that end a reply: end of text, end of turn. Ascending.
    pub fn end_tokens(&self) -> &[TokenId] {
        &self.end_tokens
    }

    /// Whether the vocabulary writes a space before the first word, which is not part of the text.
    pub(super) fn adds_leading_space(&self) -> bool {
        self.adds_leading_space
    }

    fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(usize::try_from(id).ok()?)
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<TokenId> {
    let encoding = tokenizer.encode_fast(text, false).expect(
        "byte pair encoding fails only for an unknown-token outside the vocabulary, and readers check it",
    );
    encoding.get_ids().to_vec()
}

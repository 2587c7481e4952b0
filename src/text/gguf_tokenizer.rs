//! A tokenizer from the metadata of a GGUF file.
//!
//! Source: `tokenizer.ggml.*` in ggml/docs/gguf.md; `llama_vocab::impl::load`, llama.cpp.

use super::TokenId;
use super::pre_tokenizer::PreTokenizer;
use super::special_tokens::{END_TEXTS, gguf_token};
use super::token::{MAX_TOKEN_BYTES, MAX_VOCAB_SIZE, Spelling, Token};
use super::tokenizer::Parts;
use crate::model::{GgufMetadata, MetadataValue};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// # Errors
/// A sentence that begins with the metadata key.
pub(super) fn read(metadata: &GgufMetadata) -> Result<Parts, String> {
    let model = metadata.get(MODEL).ok_or_else(|| format!("{MODEL}: missing"))?;
    let vocabulary = Vocabulary::read(metadata)?;
    match model.as_str() {
        Some("gpt2") => read_byte_level(metadata, vocabulary),
        Some("llama") => read_sentence_piece(metadata, vocabulary),
        Some(other) => Err(format!("{MODEL}: `{other}` is not supported (`gpt2` and `llama` are)")),
        None => Err(format!("{MODEL}: not a string")),
    }
}

/// Byte-level BPE: the merges are in the file.
fn read_byte_level(metadata: &GgufMetadata, vocabulary: Vocabulary) -> Result<Parts, String> {
    let name = match metadata.get(PRE) {
        None => "default",
        Some(name) => name.as_str().ok_or_else(|| format!("{PRE}: not a string"))?,
    };
    let pre = PreTokenizer::named(name).ok_or_else(|| format!("{PRE}: `{name}` is not supported"))?;
    let merges = vocabulary.merges(metadata)?;
    let mut inner = vocabulary.build(BPE::builder().ignore_merges(pre.ignores_merges), merges)?;
    inner.with_pre_tokenizer(Some(pre.build()));
    inner.with_normalizer(pre.normalizer()).map_err(|error| format!("{PRE}: {error}"))?;
    vocabulary.into_parts(inner, Spelling::ByteLevel, false)
}

/// SentencePiece BPE: the merges follow from the scores; unknown characters fall back to bytes.
fn read_sentence_piece(metadata: &GgufMetadata, vocabulary: Vocabulary) -> Result<Parts, String> {
    let adds_leading_space = match metadata.get(ADD_SPACE_PREFIX) {
        None => true,
        Some(value) => value.as_bool().ok_or_else(|| format!("{ADD_SPACE_PREFIX}: not a boolean"))?,
    };
    let mut bpe = BPE::builder().byte_fallback(true).fuse_unk(true);
    if let Some(idx) = vocabulary.kinds.iter().position(|kind| *kind == TokenKind::Unknown) {
        bpe = bpe.unk_token(vocabulary.texts[idx].clone());
    }
    let merges = vocabulary.merges_by_score(metadata)?;
    let mut inner = vocabulary.build(bpe, merges)?;
    let spaces = Replace::new(" ", "▁").map_err(|error| error.to_string())?;
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if adds_leading_space {
        steps.push(Prepend::new("▁".to_owned()).into());
    }
    steps.push(spaces.into());
    inner.with_normalizer(Some(Sequence::new(steps))).map_err(|error| format!("{TOKENS}: {error}"))?;
    vocabulary.into_parts(inner, Spelling::SentencePiece, adds_leading_space)
}

/// What a token is for. The numbers are GGUF's; 0 means undefined there and serves as a normal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn of_gguf(number: u64) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Tokens by id, and what follows from them alone.
struct Vocabulary {
    /// An empty text is a gap.
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    ids: Vocab,
    bos: Option<TokenId>,
    end_tokens: Vec<TokenId>,
}

impl Vocabulary {
    fn read(metadata: &GgufMetadata) -> Result<Self, String> {
        let values = array(metadata, TOKENS)?;
        if values.is_empty() || values.len() > MAX_VOCAB_SIZE {
            return Err(format!("{TOKENS}: {} tokens, not between 1 and {MAX_VOCAB_SIZE}", values.len()));
        }
        let mut texts = Vec::with_capacity(values.len());
        let mut ids = Vocab::with_capacity(values.len());
        for (idx, value) in values.iter().enumerate() {
            let text = value.as_str().ok_or_else(|| format!("{TOKENS}[{idx}]: not a string"))?;
            if text.len() > MAX_TOKEN_BYTES {
                return Err(format!("{TOKENS}[{idx}]: longer than {MAX_TOKEN_BYTES} bytes"));
            }
            if !text.is_empty() && ids.insert(text.to_owned(), idx as TokenId).is_some() {
                return Err(format!("{TOKENS}[{idx}]: {text:?} is there twice"));
            }
            texts.push(text.to_owned());
        }
        let mut kinds = read_kinds(metadata, texts.len())?;

        let bos = gguf_token(metadata, "bos")?.map(|(id, _)| id);
        // Among the ordinary tokens the same text may stand for itself, as `</s>` does in Qwen's.
        let is_added =
            |id: &TokenId| matches!(kinds[*id as usize], TokenKind::Control | TokenKind::UserDefined);
        let known_ends = END_TEXTS.iter().filter_map(|text| ids.get(*text).copied());
        let mut end_tokens: Vec<_> = known_ends.filter(is_added).collect();
        for purpose in ["eos", "eot", "eom"] {
            end_tokens.extend(gguf_token(metadata, purpose)?.map(|(id, _)| id));
        }
        end_tokens.sort_unstable();
        end_tokens.dedup();
        // Some files list them as ordinary tokens, which would print them.
        for id in end_tokens.iter().chain(&bos) {
            kinds[*id as usize] = TokenKind::Control;
        }
        Ok(Self { texts, kinds, ids, bos, end_tokens })
    }

    /// The merges in the file, best first.
    fn merges(&self, metadata: &GgufMetadata) -> Result<Merges, String> {
        let values = array(metadata, MERGES)?;
        let mut merges = Vec::with_capacity(values.len());
        for (idx, value) in values.iter().enumerate() {
            let merge = value.as_str().ok_or_else(|| format!("{MERGES}[{idx}]: not a string"))?;
            // The first half may itself begin with a space.
            let space = merge.char_indices().skip(1).find(|(_, char)| *char == ' ');
            let (left, right) = space.map(|(at, _)| (&merge[..at], &merge[at + 1..])).unwrap_or((merge, ""));
            for token in [left, right, &[left, right].concat()] {
                if !self.ids.contains_key(token) {
                    return Err(format!("{MERGES}[{idx}]: {token:?} is not in the vocabulary"));
                }
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        Ok(merges)
    }

    /// The merges SentencePiece would make: any two tokens that make a third, the best scored first.
    ///
    /// Source: `generate_merges`, transformers/convert_slow_tokenizer.py.
    fn merges_by_score(&self, metadata: &GgufMetadata) -> Result<Merges, String> {
        let scores = array(metadata, SCORES)?;
        if scores.len() != self.texts.len() {
            return Err(format!("{SCORES}: {} scores for {} tokens", scores.len(), self.texts.len()));
        }
        let is_piece = |id: TokenId| {
            matches!(self.kinds[id as usize], TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused)
        };
        let piece_id = |text: &str| self.ids.get(text).copied().filter(|id| is_piece(*id));
        let mut merges = Vec::new();
        for (idx, (text, score)) in self.texts.iter().zip(scores).enumerate() {
            let score = score.as_f64().filter(|score| !score.is_nan());
            let score = score.ok_or_else(|| format!("{SCORES}[{idx}]: not a number"))?;
            if !is_piece(idx as TokenId) {
                continue;
            }
            let len = text.chars().count();
            let mut splits: Vec<_> = text
                .char_indices()
                .skip(1)
                .enumerate()
                .filter_map(|(before, (at, _))| {
                    let (left, right) = text.split_at(at);
                    let ids = (piece_id(left)?, piece_id(right)?);
                    Some((ids, before + 1, len - before - 1, left, right))
                })
                .collect();
            splits.sort_by_key(|(ids, ..)| *ids);
            merges.extend(splits.into_iter().map(|(_, left_len, right_len, left, right)| {
                (score, left_len, right_len, left.to_owned(), right.to_owned())
            }));
        }
        merges.sort_by(|one, other| {
            let lens = (other.1, other.2).cmp(&(one.1, one.2));
            other.0.total_cmp(&one.0).then(lens)
        });
        Ok(merges.into_iter().map(|(.., left, right)| (left, right)).collect())
    }

    fn build(&self, bpe: BpeBuilder, merges: Merges) -> Result<tokenizers::Tokenizer, String> {
        let bpe = bpe.vocab_and_merges(self.ids.clone(), merges).build();
        Ok(tokenizers::Tokenizer::new(bpe.map_err(|error| format!("{TOKENS}: {error}"))?))
    }

    /// Adds the tokens that stand beside the model's alphabet, once normalisation is settled.
    fn into_parts(
        self,
        mut inner: tokenizers::Tokenizer,
        spelling: Spelling,
        adds_leading_space: bool,
    ) -> Result<Parts, String> {
        let added = self.texts.iter().zip(&self.kinds).filter_map(|(text, kind)| match kind {
            TokenKind::Control | TokenKind::Unknown => Some(AddedToken::from(text.clone(), true)),
            TokenKind::UserDefined => Some(AddedToken::from(text.clone(), false).normalized(false)),
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => None,
        });
        inner.add_tokens(added.collect::<Vec<_>>()).map_err(|error| format!("{TOKEN_TYPE}: {error}"))?;
        let token = |(text, kind)| match kind {
            TokenKind::Control | TokenKind::Unknown => Token::special(text),
            TokenKind::UserDefined => Token::added(text),
            TokenKind::Unused => Token::unused(text),
            TokenKind::Byte => Token::spelt(text, Spelling::HexByte),
            TokenKind::Normal => Token::spelt(text, spelling),
        };
        let tokens = self.texts.into_iter().zip(self.kinds).map(token).collect();
        Ok(Parts { inner, tokens, bos: self.bos, end_tokens: self.end_tokens, adds_leading_space })
    }
}

fn read_kinds(metadata: &GgufMetadata, token_count: usize) -> Result<Vec<TokenKind>, String> {
    let types = array(metadata, TOKEN_TYPE)?;
    if types.len() != token_count {
        return Err(format!("{TOKEN_TYPE}: {} types for {token_count} tokens", types.len()));
    }
    let kind = |(idx, value): (usize, &MetadataValue)| {
        value
            .as_u64()
            .and_then(TokenKind::of_gguf)
            .ok_or_else(|| format!("{TOKEN_TYPE}[{idx}]: not a token type"))
    };
    types.iter().enumerate().map(kind).collect()
}

fn array<'a>(metadata: &'a GgufMetadata, key: &str) -> Result<&'a [MetadataValue], String> {
    let value = metadata.get(key).ok_or_else(|| format!("{key}: missing"))?;
    value.as_array().ok_or_else(|| format!("{key}: not an array"))
}

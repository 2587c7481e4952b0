//! A tokenizer from the `tokenizer.json` of a Hugging Face folder.
//!
//! The `tokenizers` crate reads and runs the file. What it takes on trust is checked here first (a
//! broken merge would make it panic), and what it does not tell is found out: the bytes of a token.

use super::special_tokens::{END_TEXTS, SpecialTokens};
use super::token::{MAX_TOKEN_BYTES, MAX_VOCAB_SIZE, Spelling, Token, hex_byte};
use super::tokenizer::Parts;
use super::{TokenId, folder};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::AddedToken;

/// # Errors
/// A sentence that begins with the file's name.
pub(super) fn read_folder(path: &Path) -> Result<Parts, String> {
    let json = folder::read(path, folder::TOKENIZER)?;
    let json = json.ok_or_else(|| format!("{}: missing", folder::TOKENIZER))?;
    let file = File::parse(&json).map_err(|reason| format!("{}: {reason}", folder::TOKENIZER))?;
    let SpecialTokens { bos, eos, .. } = SpecialTokens::of_folder(path)?;
    let bos = bos.as_deref().map(|text| file.id(text, folder::TOKENIZER_CONFIG)).transpose()?;
    let mut end_tokens = end_ids(path)?;
    if let Some(eos) = eos {
        end_tokens.push(file.id(&eos, folder::TOKENIZER_CONFIG)?);
    }
    let known_ends = file.added.iter().filter(|added| END_TEXTS.contains(&added.content.as_str()));
    end_tokens.extend(known_ends.map(|added| added.id));
    file.into_parts(&json, bos, end_tokens).map_err(|reason| format!("{}: {reason}", folder::TOKENIZER))
}

/// # Errors
/// A sentence that begins with the field.
pub(super) fn read(json: &[u8], end_texts: &[&str]) -> Result<Parts, String> {
    let file = File::parse(json)?;
    let end_tokens = end_texts.iter().map(|text| file.id(text, "end tokens")).collect::<Result<_, _>>()?;
    file.into_parts(json, None, end_tokens)
}

/// `eos_token_id` of the generation config: one id or a list.
fn end_ids(path: &Path) -> Result<Vec<TokenId>, String> {
    let config = folder::read_json(path, folder::GENERATION_CONFIG)?.unwrap_or_default();
    let ids = match config.get("eos_token_id") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
    };
    let id = |id: &Value| id.as_u64().and_then(|id| TokenId::try_from(id).ok());
    let ids = ids.iter().map(id).collect::<Option<_>>();
    ids.ok_or_else(|| format!("{}: eos_token_id: not a token id", folder::GENERATION_CONFIG))
}

/// The fields we look into ourselves.
#[derive(Deserialize)]
struct Fields {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
struct Model {
    /// Absent in some files of the first years.
    r#type: Option<String>,
    vocab: HashMap<String, TokenId>,
    #[serde(default)]
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    dropout: Option<f32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

#[derive(Deserialize)]
struct Added {
    id: TokenId,
    content: String,
    #[serde(default)]
    special: bool,
}

/// A checked file.
struct File {
    /// Added tokens included.
    ids: HashMap<String, TokenId>,
    added: Vec<Added>,
    spelling: Spelling,
    has_byte_tokens: bool,
    adds_leading_space: bool,
}

impl File {
    fn parse(json: &[u8]) -> Result<Self, String> {
        let fields: Fields = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let model = fields.model;
        match model.r#type.as_deref() {
            None | Some("BPE") => {}
            Some(other) => return Err(format!("model.type: `{other}` is not supported (`BPE` is)")),
        }
        for (field, affix) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
                return Err(format!("model.{field}: not supported"));
            }
        }
        if model.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err("model.dropout: would make every encoding a random one".to_owned());
        }
        let mut ids = model.vocab;
        check_vocabulary(&ids).map_err(|reason| format!("model.vocab: {reason}"))?;
        for (idx, merge) in model.merges.iter().enumerate() {
            let (left, right) = match merge {
                Merge::Pair(left, right) => (left.as_str(), right.as_str()),
                Merge::Joined(both) if both.starts_with("#version") => continue,
                Merge::Joined(both) => both.split_once(' ').unwrap_or((both, "")),
            };
            for token in [left, right, &[left, right].concat()] {
                if !ids.contains_key(token) {
                    return Err(format!("model.merges[{idx}]: {token:?} is not in the vocabulary"));
                }
            }
        }
        if let Some(unknown) = model.unk_token.filter(|unknown| !ids.contains_key(unknown)) {
            return Err(format!("model.unk_token: {unknown:?} is not in the vocabulary"));
        }
        for Added { id, content, .. } in &fields.added_tokens {
            if content.is_empty() || *ids.entry(content.clone()).or_insert(*id) != *id {
                return Err(format!("added_tokens: {content:?} is not token {id} of the vocabulary"));
            }
        }
        check_vocabulary(&ids).map_err(|reason| format!("added_tokens: {reason}"))?;
        let steps = match &fields.decoder {
            Value::Null => steps(&fields.pre_tokenizer, "pretokenizers"),
            decoder => steps(decoder, "decoders"),
        };
        let spelling = if steps.iter().any(|step| is_step(step, "ByteLevel")) {
            Spelling::ByteLevel
        } else if steps.iter().any(|step| is_step(step, "Metaspace") || is_step(step, "Replace")) {
            Spelling::SentencePiece
        } else {
            return Err("decoder: neither byte-level nor SentencePiece".to_owned());
        };
        let strips_space = |step: &Value| {
            let adds_it = step.get("prepend_scheme").and_then(Value::as_str) != Some("never");
            is_step(step, "Strip") || (is_step(step, "Metaspace") && adds_it)
        };
        let adds_leading_space = steps.iter().any(strips_space);
        Ok(Self {
            ids,
            added: fields.added_tokens,
            spelling,
            has_byte_tokens: model.byte_fallback,
            adds_leading_space,
        })
    }

    fn id(&self, text: &str, named_by: &str) -> Result<TokenId, String> {
        let id = self.ids.get(text).copied();
        id.ok_or_else(|| format!("{named_by}: {text:?} is not in the vocabulary"))
    }

    fn into_parts(
        self,
        json: &[u8],
        bos: Option<TokenId>,
        mut end_tokens: Vec<TokenId>,
    ) -> Result<Parts, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let size = self.ids.values().map(|id| *id as usize + 1).max().unwrap_or_default();
        let mut tokens = vec![Token::default(); size];
        for (text, id) in self.ids {
            if inner.token_to_id(&text) != Some(id) {
                return Err(format!("added_tokens: {text:?} cannot be token {id}: earlier ids are missing"));
            }
            let is_byte = self.has_byte_tokens && hex_byte(&text).is_some();
            let spelling = if is_byte { Spelling::HexByte } else { self.spelling };
            tokens[id as usize] = Token::spelt(text, spelling);
        }
        for Added { id, content, special } in self.added {
            let token = if special { Token::special(content) } else { Token::added(content) };
            tokens[id as usize] = token;
        }

        end_tokens.sort_unstable();
        end_tokens.dedup();
        for id in end_tokens.iter().chain(&bos) {
            let token = tokens.get_mut(*id as usize).filter(|token| !token.text.is_empty());
            let token = token.ok_or_else(|| format!("end token {id} is not in the vocabulary of {size}"))?;
            if !token.special {
                *token = Token::special(std::mem::take(&mut token.text));
                let added = AddedToken::from(token.text.clone(), true);
                inner.add_tokens([added]).map_err(|error| error.to_string())?;
            }
        }
        let adds_leading_space = self.adds_leading_space;
        Ok(Parts { inner, tokens, bos, end_tokens, adds_leading_space })
    }
}

/// Ids stay within bounds and each stands for one token; no token is absurdly long.
fn check_vocabulary(ids: &HashMap<String, TokenId>) -> Result<(), String> {
    if ids.is_empty() || ids.len() > MAX_VOCAB_SIZE {
        return Err(format!("{} tokens, not between 1 and {MAX_VOCAB_SIZE}", ids.len()));
    }
    let mut texts = HashMap::with_capacity(ids.len());
    for (text, id) in ids {
        if *id as usize >= MAX_VOCAB_SIZE {
            return Err(format!("{text:?}: the id {id} is not below {MAX_VOCAB_SIZE}"));
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(format!("token {id} is longer than {MAX_TOKEN_BYTES} bytes"));
        }
        if let Some(other) = texts.insert(id, text) {
            return Err(format!("{text:?} and {other:?} are both token {id}"));
        }
    }
    Ok(())
}

/// The steps of a decoder or pre-tokenizer: those in its list, or itself.
fn steps<'a>(component: &'a Value, list: &str) -> &'a [Value] {
    let one = std::slice::from_ref(component);
    component.get(list).and_then(Value::as_array).map_or(one, Vec::as_slice)
}

fn is_step(step: &Value, name: &str) -> bool {
    step.get("type").and_then(Value::as_str) == Some(name)
}

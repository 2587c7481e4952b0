//! The tokens a model's files name for a purpose: beginning, end, unknown, padding.

use super::{TokenId, folder};
use crate::model::GgufMetadata;
use serde_json::Value;
use std::path::Path;

/// Texts that end a text or a turn in the model families we know. Where the vocabulary has one beside
/// its ordinary tokens, it ends a reply, whatever the model's files say of it.
///
/// Source: `llama_vocab::impl::load`, llama.cpp (those of text models).
pub(super) const END_TEXTS: &[&str] = &[
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
];

/// Their texts, by the names that chat templates know them by.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(super) struct SpecialTokens {
    #[serde(rename = "bos_token", skip_serializing_if = "Option::is_none")]
    pub(super) bos: Option<String>,
    #[serde(rename = "eos_token", skip_serializing_if = "Option::is_none")]
    pub(super) eos: Option<String>,
    #[serde(rename = "unk_token", skip_serializing_if = "Option::is_none")]
    pub(super) unk: Option<String>,
    #[serde(rename = "pad_token", skip_serializing_if = "Option::is_none")]
    pub(super) pad: Option<String>,
}

impl SpecialTokens {
    /// # Errors
    /// A sentence that begins with the metadata key.
    pub(super) fn of_gguf(metadata: &GgufMetadata) -> Result<Self, String> {
        let text = |purpose| match gguf_token(metadata, purpose)? {
            Some((_, text)) => Ok::<_, String>(Some(text.to_owned())),
            None => Ok(None),
        };
        Ok(Self { bos: text("bos")?, eos: text("eos")?, unk: text("unknown")?, pad: text("padding")? })
    }

    /// # Errors
    /// A sentence that begins with the file's name.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, String> {
        let config = folder::read_json(folder, folder::TOKENIZER_CONFIG)?.unwrap_or_default();
        // Written as a string, or as the whole added token.
        let text = |key| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(token) => match token.get("content").and_then(Value::as_str) {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(format!("{}: {key}: neither a string nor a token", folder::TOKENIZER_CONFIG)),
            },
        };
        Ok(Self {
            bos: text("bos_token")?,
            eos: text("eos_token")?,
            unk: text("unk_token")?,
            pad: text("pad_token")?,
        })
    }
}

/// The id and text of the token that `tokenizer.ggml.{purpose}_token_id` names.
///
/// # Errors
/// The key holds no id of the vocabulary.
pub(super) fn gguf_token<'a>(
    metadata: &'a GgufMetadata,
    purpose: &str,
) -> Result<Option<(TokenId, &'a str)>, String> {
    let key = format!("tokenizer.ggml.{purpose}_token_id");
    let Some(value) = metadata.get(&key) else { return Ok(None) };
    let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    let texts =
        metadata.get("tokenizer.ggml.tokens").and_then(|tokens| tokens.as_array()).unwrap_or_default();
    let token = id.and_then(|id| Some((id, texts.get(id as usize)?.as_str()?)));
    token.map(Some).ok_or_else(|| format!("{key}: not a token of the vocabulary of {}", texts.len()))
}

//! One entry of a vocabulary, and how vocabularies spell bytes.

use std::{collections::HashMap, sync::LazyLock};

/// No vocabulary we know comes near it; one that does is a broken or hostile file.
pub(super) const MAX_VOCAB_SIZE: usize = 1 << 20;

/// The longest tokens of real vocabularies are runs of some hundred spaces.
pub(super) const MAX_TOKEN_BYTES: usize = 1024;

/// One entry of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Token {
    /// As the vocabulary spells it.
    pub(super) text: String,
    /// What it stands for; empty if special or unused.
    pub(super) bytes: Box<[u8]>,
    pub(super) special: bool,
}

impl Token {
    /// A control token: steers the model and stands for no text.
    pub(super) fn special(text: String) -> Self {
        Self { text, bytes: Box::default(), special: true }
    }

    /// A token beside the model's own alphabet: stands for its text as it is written.
    pub(super) fn added(text: String) -> Self {
        Self { bytes: text.as_bytes().into(), text, special: false }
    }

    /// A place holder that stands for nothing.
    pub(super) fn unused(text: String) -> Self {
        Self { text, bytes: Box::default(), special: false }
    }

    pub(super) fn spelt(text: String, spelling: Spelling) -> Self {
        Self { bytes: spelling.bytes(&text).into(), text, special: false }
    }
}

/// How a vocabulary writes the bytes a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A printable character for each byte. Source: `bytes_to_unicode`, openai/gpt-2:src/encoder.py.
    ByteLevel,
    /// UTF-8 with `▁` for a space.
    SentencePiece,
    /// `<0x0A>` for one byte, in SentencePiece vocabularies.
    HexByte,
}

impl Spelling {
    fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            // A text with a character outside the alphabet can only be meant literally.
            Self::ByteLevel => {
                let bytes: Option<_> = text.chars().map(|char| BYTE_OF_CHAR.get(&char).copied()).collect();
                bytes.unwrap_or_else(|| text.as_bytes().to_vec())
            }
            Self::SentencePiece => text.replace('▁', " ").into_bytes(),
            Self::HexByte => hex_byte(text).into_iter().collect(),
        }
    }
}

/// The byte of `<0x0A>`.
pub(super) fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let unprintable = (0..=u8::MAX).filter(|byte| !is_printable(byte));
    let stand_ins = (0x100..).filter_map(char::from_u32).zip(unprintable);
    (0..=u8::MAX).filter(is_printable).map(|byte| (char::from(byte), byte)).chain(stand_ins).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, spelling: Spelling, expected: &[u8]) {
        assert_eq!(*Token::spelt(text.to_owned(), spelling).bytes, *expected, "{text:?} as {spelling:?}");
    }

    #[test]
    fn bytes_of_each_spelling() {
        check("Ġthe", Spelling::ByteLevel, b" the");
        check("Ċ", Spelling::ByteLevel, b"\n");
        check("ŃĀ", Spelling::ByteLevel, &[0xAD, 0x00]);
        check("æĹ¥", Spelling::ByteLevel, "日".as_bytes());
        check("日", Spelling::ByteLevel, "日".as_bytes());
        check("▁the▁▁", Spelling::SentencePiece, b" the  ");
        check("<0x0A>", Spelling::SentencePiece, b"<0x0A>");
        check("<0x0A>", Spelling::HexByte, b"\n");
        check("<0xE2>", Spelling::HexByte, &[0xE2]);
        check("<0x+1>", Spelling::HexByte, b"");
    }

    #[test]
    fn the_byte_level_alphabet_is_whole() {
        assert_eq!(BYTE_OF_CHAR.len(), 256);
        let bytes: std::collections::HashSet<_> = BYTE_OF_CHAR.values().collect();
        assert_eq!(bytes.len(), 256);
    }
}

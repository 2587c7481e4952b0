use super::{TokenId, Tokenizer};

/// Turns token ids into text as they come; holds bytes back until a code point is whole.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// The beginning of a code point.
    pending: Vec<u8>,
    has_begun: bool,
}

impl Detokenizer {
    /// The text that became whole with this token; often empty inside an emoji.
    ///
    /// Bytes that no further byte could complete are U+FFFD, as in `String::from_utf8_lossy`.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: TokenId) -> String {
        let mut bytes = tokenizer.token_bytes(token);
        if !self.has_begun && !bytes.is_empty() {
            self.has_begun = true;
            if tokenizer.adds_leading_space() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        self.take_whole()
    }

    /// What is left at the end: bytes that never became a code point, as U+FFFD.
    pub fn finish(&mut self) -> String {
        self.has_begun = false;
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        loop {
            let (valid_len, invalid_len) = match std::str::from_utf8(&self.pending) {
                Ok(_) => (self.pending.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.extend(self.pending[..valid_len].utf8_chunks().map(|chunk| chunk.valid()));
            self.pending.drain(..valid_len + invalid_len.unwrap_or(0));
            match invalid_len {
                Some(1..) => text.push(char::REPLACEMENT_CHARACTER),
                Some(0) | None => return text,
            }
        }
    }
}

//! The shortest known way from where a reply stands to its end, kept in tokens while the reply grows.

use super::search::{Effort, Walker, Way};
use super::vocabulary::Vocabulary;
use crate::text::TokenId;

/// Tokens that end a reply, the token that says so included if one is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    bytes: Vec<u8>,
    tokens: Vec<TokenId>,
    /// The last token ends the reply and has no bytes.
    open: bool,
    /// A shorter one has been looked for.
    pub(super) shortest: bool,
}

impl Ending {
    /// None if the vocabulary cannot spell the way.
    pub(super) fn new(way: Way, shortest: bool, vocabulary: &Vocabulary) -> Option<Self> {
        let mut tokens = vocabulary.fewest_tokens(&way.bytes)?;
        if way.open {
            tokens.push(vocabulary.end_tokens()[0]);
        }
        Some(Self { bytes: way.bytes, tokens, open: way.open, shortest })
    }

    /// How many tokens it takes.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// What is left of it past its first `n_bytes`.
    pub(super) fn past(&self, n_bytes: usize, vocabulary: &Vocabulary) -> Option<Self> {
        if n_bytes > self.bytes.len() {
            return None;
        }
        let mut skipped = 0;
        let mut n_tokens = 0;
        while skipped < n_bytes {
            skipped += vocabulary.bytes(self.tokens[n_tokens]).len();
            n_tokens += 1;
        }
        // The last token skipped may have been cut in two.
        let mut tokens = vocabulary.fewest_tokens(&self.bytes[n_bytes..skipped])?;
        tokens.extend_from_slice(&self.tokens[n_tokens..]);
        Some(Self { bytes: self.bytes[n_bytes..].to_vec(), tokens, open: self.open, shortest: self.shortest })
    }

    /// An ending for the reply that goes on with `next`, at most `max_len` tokens long.
    ///
    /// `walker` stands where the reply does, but for the bytes `forced` that it has already taken and
    /// that this ending begins with.
    pub(super) fn after(
        &self,
        next: &[u8],
        forced: &[u8],
        max_len: usize,
        walker: &mut Walker<'_, '_>,
        vocabulary: &Vocabulary,
    ) -> Option<Self> {
        let fits = |ending: &Self| ending.len() <= max_len;
        let next = next.strip_prefix(forced)?;
        let old = &self.bytes[forced.len()..];

        // As long as the parse comes back to where it stood, the old ending still holds.
        let here = walker.position();
        let (mut returned, mut left) = (0, false);
        for (index, &byte) in next.iter().enumerate() {
            left |= walker.push(byte)?;
            if !left && walker.position() == here {
                returned = index + 1;
            }
        }
        let since = &next[returned..];
        if old.starts_with(since) {
            let ending = self.past(forced.len() + since.len(), vocabulary).filter(fits);
            if ending.is_some() {
                return ending;
            }
        } else if let Some(ending) = self.taken_up_after(old, since, walker, vocabulary).filter(fits) {
            return Some(ending);
        }

        let near = Effort { max_bytes: MAX_BYTES_A_TOKEN * max_len, shorter: 0 };
        let search = |walker: &mut Walker<'_, '_>, effort: Effort| {
            Self::new(walker.way_out(effort)?, effort.shorter > 0, vocabulary).filter(fits)
        };
        search(walker, near).or_else(|| search(walker, Effort { shorter: SHORTER_STAGES, ..near }))
    }

    /// The shortest ending to be found, `forced` as in [`after`](Self::after).
    pub(super) fn shortest(
        forced: &[u8],
        max_len: usize,
        walker: &mut Walker<'_, '_>,
        vocabulary: &Vocabulary,
    ) -> Option<Self> {
        let effort = Effort { max_bytes: MAX_BYTES_A_TOKEN * max_len, shorter: SHORTER_STAGES };
        let way = walker.way_out(effort)?;
        Self::new(Way { bytes: [forced, &way.bytes].concat(), ..way }, true, vocabulary)
    }

    /// The old ending less what `since` has written of it, if it parses from where the walker stands.
    fn taken_up_after(
        &self,
        old: &[u8],
        since: &[u8],
        walker: &mut Walker<'_, '_>,
        vocabulary: &Vocabulary,
    ) -> Option<Self> {
        let base = walker.n_pushed();
        let longest = old.len().min(since.len());
        let overlaps = (0..=longest).rev().filter(|&n| since.ends_with(&old[..n]));
        let mut found = None;
        for overlap in overlaps {
            if walker.push_all(&old[overlap..]) && walker.may_end() {
                found = Some(overlap);
                break;
            }
            walker.pop_to(base);
        }
        walker.pop_to(base);
        let written = self.bytes.len() - old.len() + found?;
        let ending = self.past(written, vocabulary)?;
        Some(Self { shortest: false, ..ending })
    }
}

/// Longer ways than this many bytes for every token left are not looked at.
const MAX_BYTES_A_TOKEN: usize = 16;
/// Lexemes to look at for a shorter ending when the first one found is too long. A millisecond or so;
/// it happens only when a reply has almost used up its budget.
const SHORTER_STAGES: usize = 200;

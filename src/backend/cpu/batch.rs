//! The tokens of a step, one row of every matrix each.

use super::kernels::LANES;
use crate::{
    backend::{Row, Slot},
    text::TokenId,
};
use std::ops::Range;

/// Where a token's key and value go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) position: usize,
}

/// Kept between steps, so that no step allocates.
pub(super) struct Batch {
    pub(super) tokens: Vec<TokenId>,
    pub(super) places: Vec<Place>,
    /// Tokens whose logits are wanted.
    pub(super) selected: Vec<usize>,
    /// Which of the logits, for each of these.
    pub(super) wanted: Wanted,
}

impl Batch {
    pub(super) fn with_capacity(tokens: usize, vocab_size: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(tokens),
            places: Vec::with_capacity(tokens),
            selected: Vec::with_capacity(tokens),
            wanted: Wanted { outputs: vocab_size, runs: Vec::new(), rows: Vec::with_capacity(tokens) },
        }
    }

    pub(super) fn fill(&mut self, rows: &[Row<'_>]) {
        self.tokens.clear();
        self.places.clear();
        self.selected.clear();
        self.wanted.clear();
        for row in rows {
            let first = self.tokens.len();
            for idx in row.logits_from..row.tokens.len() {
                self.selected.push(first + idx);
                self.wanted.push(row.allowed.filter(|_| idx + 1 == row.tokens.len()));
            }
            self.tokens.extend(row.tokens);
            let positions = row.start..row.start + row.tokens.len();
            self.places.extend(positions.map(|position| Place { slot: row.slot, position }));
        }
    }
}

/// Which outputs of the head each selected token wants: all, or those panels that hold one that may come.
pub(super) struct Wanted {
    outputs: usize,
    /// Neighbouring outputs, whole panels, of one token after another.
    runs: Vec<Range<usize>>,
    /// Which runs are whose; `None` where all outputs are wanted.
    rows: Vec<Option<Range<usize>>>,
}

impl Wanted {
    /// With more panels than one in so many, rows are better multiplied together than one by one.
    const MIN_PANELS_PER_WANTED: usize = 4;

    fn clear(&mut self) {
        self.runs.clear();
        self.rows.clear();
    }

    /// Those of the next selected token: a bit each in words of 32, lowest first.
    fn push(&mut self, allowed: Option<&[u32]>) {
        let runs = allowed.and_then(|words| self.push_runs(words));
        self.rows.push(runs);
    }

    fn push_runs(&mut self, words: &[u32]) -> Option<Range<usize>> {
        const { assert!(2 * LANES == u32::BITS as usize) };
        let first = self.runs.len();
        let panels = words.iter().flat_map(|word| [word & 0xffff, word >> 16]);
        let (mut n_wanted, n_panels) = (0, self.outputs.div_ceil(LANES));
        for (panel, _) in panels.take(n_panels).enumerate().filter(|(_, bits)| *bits != 0) {
            n_wanted += 1;
            let (start, end) = (panel * LANES, ((panel + 1) * LANES).min(self.outputs));
            match self.runs[first..].last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => self.runs.push(start..end),
            }
        }
        if n_wanted * Self::MIN_PANELS_PER_WANTED > n_panels {
            self.runs.truncate(first);
            return None;
        }
        Some(first..self.runs.len())
    }

    /// The selected tokens in order: as many as want all outputs together, or one and what it wants.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Range<usize>, Option<&[Range<usize>]>)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = next;
            let runs = self.rows.get(first)?;
            next += match runs {
                Some(_) => 1,
                None => self.rows[first..].iter().take_while(|runs| runs.is_none()).count(),
            };
            Some((first..next, runs.clone().map(|runs| &self.runs[runs])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(outputs: usize, rows: &[Option<&[u32]>]) -> Wanted {
        let mut wanted = Wanted { outputs, runs: Vec::new(), rows: Vec::new() };
        rows.iter().for_each(|allowed| wanted.push(*allowed));
        wanted
    }

    #[test]
    fn few_tokens_want_the_panels_they_are_in() {
        let mut words = [0; 8];
        (words[0], words[1], words[7]) = (1 << 31, 1, 1 << 5);
        let wanted = wanted(234, &[None, None, Some(&words), None]);
        let parts: Vec<_> = wanted.parts().collect();
        assert_eq!(parts, [(0..2, None), (2..3, Some(&[16..48, 224..234][..])), (3..4, None)]);
    }

    #[test]
    fn many_tokens_want_all() {
        let alternate = [1 << 7; 6]; // every second panel
        let wanted = wanted(192, &[Some(&alternate), Some(&[u32::MAX; 6]), Some(&[])]);
        let parts: Vec<_> = wanted.parts().collect();
        assert_eq!(parts, [(0..2, None), (2..3, Some(&[][..]))]);
    }
}

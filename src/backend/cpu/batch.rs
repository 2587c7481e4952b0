//! The tokens of a share, one row of every matrix each, and which of a step's logits are wanted.

use super::kernels::{LANES, POSITIONS_PER_BLOCK};
use crate::{
    backend::{Row, Slot},
    text::TokenId,
};
use std::ops::Range;

/// Where a token's key and value go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) position: usize,
}

/// Those of a share's tokens.
#[derive(Default)]
pub(super) struct Places {
    of_tokens: Vec<Place>,
    /// The tokens in the order of their places.
    sorted: Vec<usize>,
    /// Of the sorted ones, where each part begins, and the end.
    cuts: Vec<usize>,
}

impl Places {
    /// Keys and values are written in no more parts than this: enough that of several sequences, or of a long prompt,
    /// each thread has about as many.
    const MAX_PARTS: usize = 4;

    pub(super) fn fill(&mut self, places: impl Iterator<Item = Place>) {
        let Self { of_tokens, sorted, cuts } = self;
        of_tokens.clear();
        of_tokens.extend(places);
        sorted.clear();
        sorted.extend(0..of_tokens.len());
        sorted.sort_unstable_by_key(|&token| of_tokens[token]);
        let block = |nth: usize| {
            let Place { slot, position } = of_tokens[sorted[nth]];
            (slot, position / POSITIONS_PER_BLOCK)
        };
        cuts.clear();
        cuts.push(0);
        for part in 1..=Self::MAX_PARTS {
            let (first, mut cut) = (cuts[cuts.len() - 1], sorted.len() * part / Self::MAX_PARTS);
            // No block of positions is in two parts.
            while first < cut && cut < sorted.len() && block(cut - 1) == block(cut) {
                cut -= 1;
            }
            if first < cut {
                cuts.push(cut);
            }
        }
    }

    /// In the order of the tokens.
    pub(super) fn all(&self) -> &[Place] {
        &self.of_tokens
    }

    /// The tokens of each part, in the order of their places; no part is empty, and no block of positions in two.
    pub(super) fn parts(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.cuts.windows(2).map(|cuts| &self.sorted[cuts[0]..cuts[1]])
    }

    pub(super) fn part(&self, part: usize) -> &[usize] {
        &self.sorted[self.cuts[part]..self.cuts[part + 1]]
    }
}

/// Tokens of some sequences.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tokens: Vec<TokenId>,
    pub(super) places: Places,
}

impl Batch {
    pub(super) fn fill<'a>(&mut self, rows: impl Iterator<Item = &'a Row<'a>> + Clone) {
        self.tokens.clear();
        self.tokens.extend(rows.clone().flat_map(|row| row.tokens));
        self.places.fill(rows.flat_map(|row| {
            let positions = row.start..row.start + row.tokens.len();
            positions.map(|position| Place { slot: row.slot, position })
        }));
    }
}

/// Which outputs of the head each token wants whose logits are wanted: all, or those panels that hold one that may come.
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

    pub(super) fn new(vocab_size: usize) -> Self {
        Self { outputs: vocab_size, runs: Vec::new(), rows: Vec::new() }
    }

    /// Those of a step's tokens.
    pub(super) fn fill(&mut self, rows: &[Row<'_>]) {
        self.runs.clear();
        self.rows.clear();
        for row in rows {
            for idx in row.logits_from..row.tokens.len() {
                self.push(row.allowed.filter(|_| idx + 1 == row.tokens.len()));
            }
        }
    }

    /// Those of the next token: a bit each in words of 32, lowest first.
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

    /// The tokens in order: as many as want all outputs together, or one and what it wants.
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

    #[test]
    fn parts_have_about_as_many_places_and_whole_blocks() {
        let check = |places: &[(usize, usize)], expected: &[&[usize]]| {
            let mut filled = Places::default();
            filled.fill(places.iter().map(|&(slot, position)| Place { slot: Slot(slot), position }));
            assert_eq!(filled.parts().collect::<Vec<_>>(), expected, "{places:?}");
        };
        check(&[], &[]);
        check(&[(3, 7)], &[&[0]]);
        check(&[(3, 7), (1, 9), (2, 40), (0, 1)], &[&[3], &[1], &[2], &[0]]);
        check(&[(5, 7), (5, 8), (5, 9), (5, 10)], &[&[0, 1, 2, 3]]);
        check(&[(5, 30), (5, 31), (5, 32), (5, 33)], &[&[0, 1], &[2, 3]]);
        check(&[(0, 3), (1, 3), (0, 3)], &[&[0, 2], &[1]]);
    }

    fn wanted(outputs: usize, rows: &[Option<&[u32]>]) -> Wanted {
        let mut wanted = Wanted::new(outputs);
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

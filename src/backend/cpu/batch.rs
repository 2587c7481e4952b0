//! The tokens of a step, one row of every matrix each.

use crate::{
    backend::{Row, Slot},
    text::TokenId,
};

/// Where a token's key and value go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) position: usize,
}

/// Kept between steps, so that no step allocates.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tokens: Vec<TokenId>,
    pub(super) places: Vec<Place>,
    /// Tokens whose logits are wanted.
    pub(super) selected: Vec<usize>,
}

impl Batch {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(tokens),
            places: Vec::with_capacity(tokens),
            selected: Vec::with_capacity(tokens),
        }
    }

    pub(super) fn fill(&mut self, rows: &[Row<'_>]) {
        self.tokens.clear();
        self.places.clear();
        self.selected.clear();
        for row in rows {
            let first = self.tokens.len();
            self.selected.extend(first + row.logits_from..first + row.tokens.len());
            self.tokens.extend(row.tokens);
            let positions = row.start..row.start + row.tokens.len();
            self.places.extend(positions.map(|position| Place { slot: row.slot, position }));
        }
    }
}

//! From the rows of a step to the inputs of a run.

use crate::backend::{Row, Slot};
use std::ops::Range;

/// Rows of more tokens run alone: laid out as a grid beside others, they would make the others as long.
const MAX_SHARED_ROW: usize = 16;

/// Rows in the runs they share, as indices; each row is in one of them.
pub(super) fn groups(rows: &[Row<'_>]) -> Vec<Vec<usize>> {
    let (short, long): (Vec<usize>, Vec<usize>) =
        (0..rows.len()).partition(|&row| rows[row].tokens.len() <= MAX_SHARED_ROW);
    let short = (!short.is_empty()).then_some(short);
    short.into_iter().chain(long.into_iter().map(|row| vec![row])).collect()
}

/// What a run reads beside weights and cache; see [`names`](super::onnx::names).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Inputs {
    /// The slots that the grid and the cache are bound for: those of the rows, and those between them.
    pub(super) slots: Range<usize>,
    /// Positions in a row of the grid.
    pub(super) row_len: usize,
    pub(super) tokens: Vec<i64>,
    pub(super) positions: Vec<i64>,
    pub(super) selected: Vec<i64>,
    pub(super) cache_rows: Vec<i64>,
    pub(super) grid: Vec<i64>,
    pub(super) cells: Vec<i64>,
    pub(super) last_seen: Vec<i64>,
    /// 0, 1, 2 and so on, as many as there are positions in a slot of the cache.
    pub(super) context: Vec<i64>,
}

impl Inputs {
    /// # Panics
    /// If there are no rows.
    pub(super) fn new(rows: &[&Row<'_>], kv_heads: usize, bound_context: usize, min_row_len: usize) -> Self {
        let slots = rows.iter().map(|row| row.slot.0);
        let first = slots.clone().min().expect("a run has rows");
        let slots = first..slots.max().map_or(first, |last| last + 1);
        let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let row_len = longest.max(min_row_len);
        let cells = slots.len() * row_len;
        let mut inputs = Self {
            slots,
            row_len,
            grid: vec![0; cells],
            last_seen: vec![0; cells],
            context: (0..bound_context as i64).collect(),
            ..Self::default()
        };
        for row in rows {
            inputs.add(row, kv_heads, bound_context);
        }
        inputs
    }

    fn add(&mut self, row: &Row<'_>, kv_heads: usize, bound_context: usize) {
        let &Row { slot: Slot(slot), start, tokens, logits_from, .. } = row;
        let slot = slot - self.slots.start;
        let first = self.tokens.len();
        self.selected.extend((first + logits_from..first + tokens.len()).map(|token| token as i64));
        for (idx, &token) in tokens.iter().enumerate() {
            let (position, cell) = (start + idx, slot * self.row_len + idx);
            self.tokens.push(token.into());
            self.positions.push(position as i64);
            self.cells.push(cell as i64);
            self.grid[cell] = (first + idx) as i64;
            self.last_seen[cell] = position as i64;
            let heads = (slot * kv_heads..(slot + 1) * kv_heads).map(|head| head * bound_context + position);
            self.cache_rows.extend(heads.map(|row| row as i64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(slot: usize, start: usize, tokens: &[u32], logits_from: usize) -> Row<'_> {
        Row { slot: Slot(slot), start, tokens, logits_from, allowed: None, draw: None }
    }

    #[test]
    fn long_rows_run_alone() {
        let long = [1; MAX_SHARED_ROW + 1];
        let rows = [row(3, 0, &[1], 0), row(0, 0, &long, 0), row(1, 0, &long[1..], 0), row(2, 0, &long, 0)];
        assert_eq!(groups(&rows), [vec![0, 2], vec![1], vec![3]]);
        assert_eq!(groups(&rows[1..2]), [vec![0]]);
    }

    #[test]
    fn rows_become_a_grid() {
        let rows = [row(4, 7, &[30], 0), row(2, 0, &[10, 11, 12], 2)];
        let inputs = Inputs::new(&rows.each_ref(), 2, 100, 2);
        let expected = Inputs {
            slots: 2..5,
            row_len: 3,
            tokens: vec![30, 10, 11, 12],
            positions: vec![7, 0, 1, 2],
            selected: vec![0, 3],
            // Slots 4 and 2 are the third and the first that are bound, two heads of 100 positions each.
            cache_rows: vec![407, 507, 0, 100, 1, 101, 2, 102],
            grid: vec![1, 2, 3, 0, 0, 0, 0, 0, 0],
            cells: vec![6, 0, 1, 2],
            last_seen: vec![0, 1, 2, 0, 0, 0, 7, 0, 0],
            context: (0..100).collect(),
        };
        assert_eq!(inputs, expected);
    }
}

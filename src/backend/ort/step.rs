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
    pub(super) cache_cells: Vec<i64>,
    pub(super) query_cells: Vec<i64>,
    pub(super) attended_cells: Vec<i64>,
    pub(super) last_seen: Vec<i64>,
    /// 0, 1, 2 and so on, as many as there are positions in a slot of the cache.
    pub(super) context: Vec<i64>,
}

/// What of a model and its cache says where values lie in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) kv_heads: usize,
    /// Query heads that share a key-value head.
    pub(super) shared_queries: usize,
    /// Positions of each slot, as they are bound.
    pub(super) bound_context: usize,
    /// Whether a run of one token has it twice; see [`sums_a_lone_row_alone`].
    pub(super) doubles_a_lone_token: bool,
}

/// Whether quantised products (`MatMulNBits`) may sum a single row in another order than one of several. With
/// AVX-512's integer products they do not; with AVX2 they do, and nobody has looked elsewhere.
pub(super) fn sums_a_lone_row_alone() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::arch::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

impl Layout {
    /// Positions that a row of the grid must have: a product of a single row sums in another order than one of
    /// several, and queries that share a key head are rows of one product.
    fn min_row_len(self) -> usize {
        if self.shared_queries > 1 { 1 } else { 2 }
    }
}

impl Inputs {
    /// # Panics
    /// If there are no rows.
    pub(super) fn new(rows: &[&Row<'_>], layout: Layout) -> Self {
        let slots = rows.iter().map(|row| row.slot.0);
        let first = slots.clone().min().expect("a run has rows");
        let slots = first..slots.max().map_or(first, |last| last + 1);
        let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let row_len = longest.max(layout.min_row_len());
        let Layout { kv_heads, shared_queries, bound_context, .. } = layout;
        let queries = slots.len() * shared_queries * row_len;
        // The heads of any token where there is none.
        let heads = (0..kv_heads).flat_map(|kv_head| {
            let heads = (0..shared_queries).map(move |query| kv_head * shared_queries + query);
            heads.flat_map(move |head| std::iter::repeat_n([0, head as i64], row_len)).flatten()
        });
        let heads: Vec<i64> = heads.collect();
        let mut inputs = Self {
            row_len,
            query_cells: heads.repeat(slots.len()),
            last_seen: vec![0; queries],
            context: (0..bound_context as i64).collect(),
            slots,
            ..Self::default()
        };
        for row in rows {
            inputs.add(row, layout);
        }
        if layout.doubles_a_lone_token {
            inputs.double_what_is_alone();
        }
        inputs
    }

    /// A lone token becomes two at the same place, which write the same values; a lone position's logits come twice.
    fn double_what_is_alone(&mut self) {
        if self.tokens.len() == 1 {
            let Self { tokens, positions, cache_cells, attended_cells, .. } = self;
            for values in [tokens, positions, cache_cells, attended_cells] {
                values.extend_from_within(..);
            }
        }
        if self.selected.len() == 1 {
            self.selected.extend_from_within(..);
        }
    }

    fn add(&mut self, row: &Row<'_>, Layout { kv_heads, shared_queries, .. }: Layout) {
        let &Row { slot: Slot(slot), start, tokens, logits_from, .. } = row;
        let slot = slot - self.slots.start;
        let first = self.tokens.len();
        self.selected.extend((first + logits_from..first + tokens.len()).map(|token| token as i64));
        for (idx, &token) in tokens.iter().enumerate() {
            let position = start + idx;
            self.tokens.push(token.into());
            self.positions.push(position as i64);
            for kv_head in 0..kv_heads {
                self.cache_cells.extend([slot, kv_head, position].map(|at| at as i64));
                for query in 0..shared_queries {
                    let cell = query * self.row_len + idx;
                    self.attended_cells.extend([slot, kv_head, cell].map(|at| at as i64));
                    let row = (slot * kv_heads + kv_head) * shared_queries * self.row_len;
                    self.query_cells[2 * (row + cell)] = (first + idx) as i64;
                }
            }
            for query in 0..shared_queries {
                self.last_seen[(slot * shared_queries + query) * self.row_len + idx] = position as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout =
        Layout { kv_heads: 1, shared_queries: 2, bound_context: 4, doubles_a_lone_token: false };

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
        let rows = [row(3, 7, &[30], 0), row(2, 0, &[10, 11], 1)];
        let layout = Layout { kv_heads: 2, bound_context: 100, ..LAYOUT };
        let inputs = Inputs::new(&rows.each_ref(), layout);
        let expected = Inputs {
            slots: 2..4,
            row_len: 2,
            tokens: vec![30, 10, 11],
            positions: vec![7, 0, 1],
            selected: vec![0, 2],
            // Slots 3 and 2 are the second and the first that are bound.
            cache_cells: [[1, 0, 7], [1, 1, 7], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]].concat(),
            // The second slot's row is shorter than the grid's: the first token stands in.
            query_cells: [
                [[1, 0], [2, 0], [1, 1], [2, 1], [1, 2], [2, 2], [1, 3], [2, 3]],
                [[0, 0], [0, 0], [0, 1], [0, 1], [0, 2], [0, 2], [0, 3], [0, 3]],
            ]
            .as_flattened()
            .concat(),
            attended_cells: [
                [[1, 0, 0], [1, 0, 2], [1, 1, 0], [1, 1, 2]],
                [[0, 0, 0], [0, 0, 2], [0, 1, 0], [0, 1, 2]],
                [[0, 0, 1], [0, 0, 3], [0, 1, 1], [0, 1, 3]],
            ]
            .as_flattened()
            .concat(),
            last_seen: vec![0, 1, 0, 1, 7, 0, 7, 0],
            context: (0..100).collect(),
        };
        assert_eq!(inputs, expected);
    }

    #[test]
    fn no_product_has_a_single_row() {
        for (shared_queries, row_len) in [(1, 2), (2, 1)] {
            let inputs = Inputs::new(&[&row(0, 3, &[9], 0)], Layout { shared_queries, ..LAYOUT });
            assert_eq!((inputs.row_len, inputs.tokens), (row_len, vec![9]));
        }
    }

    #[test]
    fn a_lone_token_is_doubled() {
        let layout = Layout { doubles_a_lone_token: true, ..LAYOUT };
        let inputs = Inputs::new(&[&row(0, 3, &[9], 0)], layout);
        let expected = Inputs {
            slots: 0..1,
            row_len: 1,
            tokens: vec![9, 9],
            positions: vec![3, 3],
            selected: vec![0, 0],
            cache_cells: [[0, 0, 3], [0, 0, 3]].concat(),
            query_cells: [[0, 0], [0, 1]].concat(),
            attended_cells: [[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 1]]].as_flattened().concat(),
            last_seen: vec![3, 3],
            context: (0..4).collect(),
        };
        assert_eq!(inputs, expected);
        // Of two tokens, one position's logits are wanted; of one, none.
        let inputs = Inputs::new(&[&row(0, 3, &[8, 9], 1)], layout);
        assert_eq!((inputs.tokens, inputs.selected), (vec![8, 9], vec![1, 1]));
        let inputs = Inputs::new(&[&row(0, 3, &[9], 1)], layout);
        assert_eq!((inputs.tokens, inputs.selected), (vec![9, 9], vec![]));
    }
}

//! From the rows of a step to the inputs of a run.

use crate::backend::{Row, Slot};

/// What a run reads beside the weights; see [`names`](super::onnx::names).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Inputs {
    pub(super) tokens: Vec<i64>,
    /// The slot and position of each token.
    pub(super) places: Vec<(Slot, usize)>,
    pub(super) selected: Vec<i64>,
}

/// Whether quantised products (`MatMulNBits`) may sum a single row in another order than one of several. With
/// AVX-512's integer products they do not; with AVX2 they do, and nobody has looked elsewhere.
pub(super) fn sums_a_lone_row_alone() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::arch::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

impl Inputs {
    /// All rows, one after another. `doubles_a_lone_token`: see [`sums_a_lone_row_alone`].
    pub(super) fn new(rows: &[Row<'_>], doubles_a_lone_token: bool) -> Self {
        let mut inputs = Self::default();
        for &Row { slot, start, tokens, logits_from, .. } in rows {
            let first = inputs.tokens.len();
            inputs.selected.extend((first + logits_from..first + tokens.len()).map(|token| token as i64));
            inputs.tokens.extend(tokens.iter().map(|&token| i64::from(token)));
            inputs.places.extend((start..start + tokens.len()).map(|position| (slot, position)));
        }
        if doubles_a_lone_token {
            inputs.double_what_is_alone();
        }
        inputs
    }

    /// A lone token becomes two at the same place, which write the same values; a lone position's logits come twice.
    fn double_what_is_alone(&mut self) {
        if self.tokens.len() == 1 {
            self.tokens.extend_from_within(..);
            self.places.extend_from_within(..);
        }
        if self.selected.len() == 1 {
            self.selected.extend_from_within(..);
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
    fn rows_lie_one_after_another() {
        let rows = [row(3, 7, &[30], 0), row(2, 0, &[10, 11], 1)];
        let expected = Inputs {
            tokens: vec![30, 10, 11],
            places: vec![(Slot(3), 7), (Slot(2), 0), (Slot(2), 1)],
            selected: vec![0, 2],
        };
        assert_eq!(Inputs::new(&rows, false), expected);
        assert_eq!(Inputs::new(&rows, true), expected);
    }

    #[test]
    fn a_lone_token_is_doubled() {
        let inputs = Inputs::new(&[row(0, 3, &[9], 0)], true);
        let expected =
            Inputs { tokens: vec![9, 9], places: vec![(Slot(0), 3), (Slot(0), 3)], selected: vec![0, 0] };
        assert_eq!(inputs, expected);
        // Of two tokens, one position's logits are wanted; of one, none.
        let inputs = Inputs::new(&[row(0, 3, &[8, 9], 1)], true);
        assert_eq!((inputs.tokens, inputs.selected), (vec![8, 9], vec![1, 1]));
        let inputs = Inputs::new(&[row(0, 3, &[9], 1)], true);
        assert_eq!((inputs.tokens, inputs.selected), (vec![9, 9], vec![]));
    }
}

//! The numbers that a program's inputs begin with, as the device gets them.

use super::hlo::{CachePlan, ElementType, Input, InputSource, rotary_table};
use crate::model::Model;
use half::bf16;
use std::borrow::Cow;

/// An input that stays the same from step to step, of all ranks.
pub(super) struct Constant<'a> {
    pub(super) input: &'a Input,
    values: Vec<f32>,
    /// The dimension that ranks have parts of, and the shape of the whole.
    split: Option<(usize, Vec<usize>)>,
}

impl<'a> Constant<'a> {
    /// `None` if the step or the cache fills it.
    pub(super) fn of(model: &Model, plan: CachePlan, input: &'a Input) -> Option<Self> {
        let mut whole = None;
        let values = match input.source {
            InputSource::Tokens
            | InputSource::Positions
            | InputSource::Slots
            | InputSource::Selected
            | InputSource::DrawnAfter
            | InputSource::Allowed
            | InputSource::DrawNumbers
            | InputSource::Cache => return None,
            InputSource::Cosines => rotary_table(&model.graph, plan.context, f64::cos),
            InputSource::Sines => rotary_table(&model.graph, plan.context, f64::sin),
            InputSource::Weight { id, transposed, split } => {
                let tensor = model.weight(id);
                let (mut values, mut shape) = (tensor.to_f32(), tensor.shape().to_vec());
                if transposed {
                    values = transpose(&values, shape[1]);
                    shape.reverse();
                }
                whole = split.map(|dimension| (dimension, shape));
                values
            }
        };
        Some(Self { input, values, split: whole })
    }

    /// Every rank has the same.
    pub(super) fn is_shared(&self) -> bool {
        self.split.is_none()
    }

    /// What a rank has, row-major and little-endian.
    pub(super) fn bytes(&self, rank: usize) -> Vec<u8> {
        let part = match &self.split {
            Some((dimension, shape)) => {
                let len = self.input.shape.dimensions[*dimension];
                Cow::Owned(part(&self.values, shape, *dimension, len, rank))
            }
            None => Cow::Borrowed(self.values.as_slice()),
        };
        match self.input.shape.element {
            ElementType::Bf16 => part.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            _ => part.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// Rows of `columns` values, turned into columns.
fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Of an array's dimension, the `rank`-th run of so many indices.
fn part(values: &[f32], shape: &[usize], dimension: usize, len: usize, rank: usize) -> Vec<f32> {
    let inner: usize = shape[dimension + 1..].iter().product();
    let whole = shape[dimension] * inner;
    let (start, len) = (rank * len * inner, len * inner);
    values.chunks_exact(whole).flat_map(|outer| &outer[start..start + len]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_neighbouring_parts() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(part(&values, &[2, 4], 1, 2, 0), [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(part(&values, &[2, 4], 1, 2, 1), [3.0, 4.0, 7.0, 8.0]);
        assert_eq!(part(&values, &[4, 2], 0, 1, 2), [5.0, 6.0]);
        assert_eq!(part(&values, &[8], 0, 4, 1), [5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}

//! The numbers that a program's inputs begin with, as the device gets them.

use super::hlo::{CachePlan, ElementType, Input, InputSource, rotary_table};
use crate::model::Model;
use half::bf16;

/// The bytes of an input that stays the same from step to step, row-major and little-endian; `None` if the
/// step or the cache fills it.
pub(super) fn constant_values(model: &Model, plan: CachePlan, input: &Input) -> Option<Vec<u8>> {
    let values = match input.source {
        InputSource::Tokens
        | InputSource::Positions
        | InputSource::Slots
        | InputSource::Selected
        | InputSource::Cache => return None,
        InputSource::Cosines => rotary_table(&model.graph, plan.context, f64::cos),
        InputSource::Sines => rotary_table(&model.graph, plan.context, f64::sin),
        InputSource::Weight { id, transposed } => {
            let tensor = model.weight(id);
            let values = tensor.to_f32();
            if transposed { transpose(&values, tensor.shape()[1]) } else { values }
        }
    };
    Some(match input.shape.element {
        ElementType::Bf16 => {
            values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect()
        }
        _ => values.into_iter().flat_map(f32::to_le_bytes).collect(),
    })
}

/// Rows of `columns` values, turned into columns.
fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}

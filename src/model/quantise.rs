//! Turns `f32` into stored numbers.
//!
//! Source: `quantize_row_q8_0_ref`, ggml-quants.c.

use half::f16;

/// Values in a block.
const BLOCK_LEN: usize = 32;
/// Added to a number below 2^22 it leaves no bits for fractions, and the lowest are those of the whole number: a
/// call of `round` for each weight is most of the time otherwise. Halves go to the even number.
const ROUND: f32 = 12_582_912.0;
/// A scale and the quants.
const BLOCK_BYTES: usize = 2 + BLOCK_LEN;

/// Fills blocks of Q8_0 with the values.
///
/// # Panics
/// If the values are not as many whole blocks.
pub(super) fn q8_0(values: &[f32], blocks: &mut [u8]) {
    let (values, values_left) = values.as_chunks::<BLOCK_LEN>();
    let (blocks, bytes_left) = blocks.as_chunks_mut::<BLOCK_BYTES>();
    assert!(values_left.is_empty() && bytes_left.is_empty(), "whole blocks");
    assert_eq!(values.len(), blocks.len(), "as many blocks in as out");
    for (values, block) in values.iter().zip(blocks) {
        // Of numbers without a sign the bits are in the numbers' order, and compare many at a time.
        let largest = values.iter().fold(0, |largest, value| value.abs().to_bits().max(largest));
        let scale = f32::from_bits(largest) / 127.0;
        let per_value = if scale > 0.0 { scale.recip() } else { 0.0 };
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        for (quant, value) in block[2..].iter_mut().zip(values) {
            *quant = (value * per_value + ROUND).to_bits() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TensorType, dequantise::dequantise};

    #[test]
    fn values_come_back_within_half_a_quant() {
        let values: Vec<f32> = (0..96).map(|idx| ((idx * 37 % 64) as f32 - 31.5) * 0.01).collect();
        let values = [values, vec![0.0; 32]].concat();
        let (mut blocks, mut back) = (vec![0; values.len() / 32 * 34], vec![1.0; values.len()]);
        q8_0(&values, &mut blocks);
        dequantise(TensorType::Q8_0, &blocks, &mut back);
        for (value, back) in values.iter().zip(back) {
            // Half of 0.315 / 127, and what the scale lost as an f16.
            assert!((value - back).abs() < 0.0014, "{value} came back as {back}");
        }
    }
}

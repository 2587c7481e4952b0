//! Turns `f32` into stored numbers.
//!
//! Source: `quantize_row_q8_0_ref`, ggml-quants.c.

use half::f16;
use rayon::prelude::*;

/// Values in a block.
const BLOCK_LEN: usize = 32;
/// Added to a number below 2^22 it leaves no bits for fractions: a call of `round` for each weight is most of the
/// time otherwise. Halves go to the even number.
const ROUND: f32 = 12_582_912.0;
/// A scale and the quants.
const BLOCK_BYTES: usize = 2 + BLOCK_LEN;

/// Blocks of Q8_0.
///
/// # Panics
/// If the values are not whole blocks.
pub(super) fn q8_0(values: &[f32]) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK_LEN>();
    assert!(rest.is_empty(), "whole blocks");
    blocks.par_iter().flat_map_iter(block).collect()
}

fn block(values: &[f32; BLOCK_LEN]) -> [u8; BLOCK_BYTES] {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let per_value = if scale > 0.0 { scale.recip() } else { 0.0 };
    let mut block = [0; BLOCK_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (quant, value) in block[2..].iter_mut().zip(values) {
        *quant = ((value * per_value + ROUND - ROUND) as i8).cast_unsigned();
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TensorType, dequantise::dequantise};

    #[test]
    fn values_come_back_within_half_a_quant() {
        let values: Vec<f32> = (0..96).map(|idx| ((idx * 37 % 64) as f32 - 31.5) * 0.01).collect();
        let values = [values, vec![0.0; 32]].concat();
        let mut back = vec![1.0; values.len()];
        dequantise(TensorType::Q8_0, &q8_0(&values), &mut back);
        for (value, back) in values.iter().zip(back) {
            // Half of 0.315 / 127, and what the scale lost as an f16.
            assert!((value - back).abs() < 0.0014, "{value} came back as {back}");
        }
    }
}

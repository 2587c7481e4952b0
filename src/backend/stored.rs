//! The blocks of the stored types, taken apart: whole numbers, and what they stand for.
//!
//! Source: `block_*` of ggml-common.h and `dequantize_row_*` of ggml-quants.c, as in
//! `model/dequantise.rs`; unlike there, numbers and scales stay apart.

use half::f16;

/// 32 neighbouring weights of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::backend) struct WeightBlock {
    pub(in crate::backend) quants: [u8; 32],
    /// Of the first and the last sixteen; most types have one for both.
    pub(in crate::backend) scales: [f32; 2],
    /// What a quant of 0 stands for; 0 in types with a bias instead.
    pub(in crate::backend) minimum: f32,
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low nibbles are the first half, the high ones the second.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut quants = [0; 32];
    for (idx, byte) in bytes[..16].iter().enumerate() {
        quants[idx] = byte & 0xf;
        quants[idx + 16] = byte >> 4;
    }
    quants
}

/// As [`nibbles`], with the fifth bits in a word of their own.
fn five_bits(fifth_bits: &[u8], bytes: &[u8]) -> [u8; 32] {
    let word = u32::from_le_bytes([fifth_bits[0], fifth_bits[1], fifth_bits[2], fifth_bits[3]]);
    let mut quants = nibbles(bytes);
    for (idx, quant) in quants.iter_mut().enumerate() {
        *quant |= ((word >> idx & 1) as u8) << 4;
    }
    quants
}

pub(in crate::backend) fn q4_0(block: &[u8]) -> WeightBlock {
    WeightBlock { quants: nibbles(&block[2..]), scales: [half_at(block, 0); 2], minimum: 0.0 }
}

pub(in crate::backend) fn q4_1(block: &[u8]) -> WeightBlock {
    WeightBlock { quants: nibbles(&block[4..]), scales: [half_at(block, 0); 2], minimum: half_at(block, 2) }
}

pub(in crate::backend) fn q5_0(block: &[u8]) -> WeightBlock {
    let quants = five_bits(&block[2..6], &block[6..]);
    let scale = half_at(block, 0);
    WeightBlock { quants, scales: [scale; 2], minimum: -16.0 * scale }
}

pub(in crate::backend) fn q5_1(block: &[u8]) -> WeightBlock {
    let quants = five_bits(&block[4..8], &block[8..]);
    WeightBlock { quants, scales: [half_at(block, 0); 2], minimum: half_at(block, 2) }
}

pub(in crate::backend) fn q8_0(block: &[u8]) -> WeightBlock {
    let mut quants = [0; 32];
    for (quant, &byte) in quants.iter_mut().zip(&block[2..34]) {
        // -128..=127 becomes 0..=255.
        *quant = byte ^ 0x80;
    }
    WeightBlock { quants, scales: [half_at(block, 0); 2], minimum: 0.0 }
}

/// The `nth` 32 of a block of 256.
pub(in crate::backend) fn q4_k(block: &[u8], nth: usize) -> WeightBlock {
    let bytes = &block[16 + 32 * (nth / 2)..][..32];
    let mut quants = [0; 32];
    for (quant, byte) in quants.iter_mut().zip(bytes) {
        *quant = byte >> (4 * (nth % 2)) & 0xf;
    }
    with_six_bit_scale(block, nth, quants)
}

pub(in crate::backend) fn q5_k(block: &[u8], nth: usize) -> WeightBlock {
    let (fifth_bits, bytes) = (&block[16..48], &block[48 + 32 * (nth / 2)..][..32]);
    let mut quants = [0; 32];
    for (idx, quant) in quants.iter_mut().enumerate() {
        *quant = bytes[idx] >> (4 * (nth % 2)) & 0xf | (fifth_bits[idx] >> nth & 1) << 4;
    }
    with_six_bit_scale(block, nth, quants)
}

pub(in crate::backend) fn q6_k(block: &[u8], nth: usize) -> WeightBlock {
    // Two halves of 128; in each, four runs of 32 share the bytes of their bits.
    let (half, run) = (nth / 4, nth % 4);
    let low_bits = &block[64 * half + 32 * (run % 2)..][..32];
    let high_bits = &block[128 + 32 * half..][..32];
    let mut quants = [0; 32];
    for (idx, quant) in quants.iter_mut().enumerate() {
        *quant = low_bits[idx] >> (4 * (run / 2)) & 0xf | (high_bits[idx] >> (2 * run) & 3) << 4;
    }
    let scale = half_at(block, 208);
    let scales = [2 * nth, 2 * nth + 1].map(|idx| scale * f32::from(block[192 + idx] as i8));
    WeightBlock { quants, scales, minimum: 0.0 }
}

/// Eight scales and eight minima of six bits each lie packed in twelve bytes.
fn with_six_bit_scale(block: &[u8], nth: usize, quants: [u8; 32]) -> WeightBlock {
    let packed = &block[4..16];
    let (scale, minimum) = if nth < 4 {
        (packed[nth] & 63, packed[nth + 4] & 63)
    } else {
        (packed[nth + 4] & 0xf | packed[nth - 4] >> 6 << 4, packed[nth + 4] >> 4 | packed[nth] >> 6 << 4)
    };
    let scale = half_at(block, 0) * f32::from(scale);
    WeightBlock { quants, scales: [scale; 2], minimum: -(half_at(block, 2) * f32::from(minimum)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, TensorType};
    use std::path::Path;

    /// Checks that blocks of `BYTES` stand for what the reference decodes.
    #[track_caller]
    fn check(tensor_type: TensorType, bias: i32, read: impl Fn(&[u8], usize) -> WeightBlock) {
        let path = format!("{}/tests/fixtures/golden/gguf-{tensor_type}.gguf", env!("CARGO_MANIFEST_DIR"));
        let model = Model::open(&path, Path::new("models")).unwrap();
        let of_type = model.tensors().filter(|tensor| tensor.tensor_type() == tensor_type);
        let mut checked = 0;
        for tensor in of_type {
            let bytes = tensor.bytes();
            let blocks = bytes.chunks_exact(tensor_type.block_bytes());
            let parts =
                blocks.flat_map(|block| (0..tensor_type.block_len() / 32).map(move |nth| (block, nth)));
            let values = parts.flat_map(|(block, nth)| {
                let WeightBlock { quants, scales, minimum } = read(block, nth);
                let value =
                    move |idx: usize| scales[idx / 16] * (i32::from(quants[idx]) - bias) as f32 + minimum;
                (0..32).map(value)
            });
            assert!(values.eq(tensor.to_f32()), "{}", tensor.name());
            checked += 1;
        }
        assert!(checked > 3);
    }

    #[test]
    fn blocks_stand_for_what_the_reference_decodes() {
        check(TensorType::Q4_0, 8, |block, _| q4_0(block));
        check(TensorType::Q4_1, 0, |block, _| q4_1(block));
        check(TensorType::Q5_0, 0, |block, _| q5_0(block));
        check(TensorType::Q5_1, 0, |block, _| q5_1(block));
        check(TensorType::Q8_0, 128, |block, _| q8_0(block));
        check(TensorType::Q4K, 0, q4_k);
        check(TensorType::Q5K, 0, q5_k);
        check(TensorType::Q6K, 32, q6_k);
    }
}

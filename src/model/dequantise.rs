//! Turns stored numbers into `f32`.
//!
//! Source: `dequantize_row_*`, ggml-quants.c; the values agree with it bit for bit.

use super::TensorType;
use half::{bf16, f16};

/// Decodes whole blocks of `tensor_type` from `bytes`.
///
/// # Panics
/// If `bytes` and `values` are not the same whole number of blocks.
pub(super) fn dequantise(tensor_type: TensorType, bytes: &[u8], values: &mut [f32]) {
    match tensor_type {
        TensorType::F32 => each(bytes, values, |&block, [value]| *value = f32::from_le_bytes(block)),
        TensorType::F16 => each(bytes, values, |&block, [value]| *value = half(block)),
        TensorType::BF16 => {
            each(bytes, values, |&block, [value]| *value = bf16::from_le_bytes(block).to_f32());
        }
        TensorType::Q4_0 => each(bytes, values, q4_0),
        TensorType::Q4_1 => each(bytes, values, q4_1),
        TensorType::Q5_0 => each(bytes, values, q5_0),
        TensorType::Q5_1 => each(bytes, values, q5_1),
        TensorType::Q8_0 => each(bytes, values, q8_0),
        TensorType::Q4K => each(bytes, values, q4_k),
        TensorType::Q5K => each(bytes, values, q5_k),
        TensorType::Q6K => each(bytes, values, q6_k),
    }
}

/// Decodes blocks of `BYTES` into `LEN` values each.
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, bytes_left) = bytes.as_chunks::<BYTES>();
    let (values, values_left) = values.as_chunks_mut::<LEN>();
    assert!(bytes_left.is_empty() && values_left.is_empty(), "whole blocks");
    assert_eq!(blocks.len(), values.len(), "as many blocks in as out");
    for (block, values) in blocks.iter().zip(values) {
        decode(block, values);
    }
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

fn half_at(block: &[u8], at: usize) -> f32 {
    half([block[at], block[at + 1]])
}

fn word_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

// The older types hold 32 numbers a block: the low nibbles of 16 bytes are the first half, the high
// nibbles the second; those of five bits keep the fifth ones together in a word.

fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (idx, &pair) in block[2..].iter().enumerate() {
        values[idx] = (i32::from(pair & 0xf) - 8) as f32 * scale;
        values[idx + 16] = (i32::from(pair >> 4) - 8) as f32 * scale;
    }
}

fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    for (idx, &pair) in block[4..].iter().enumerate() {
        values[idx] = f32::from(pair & 0xf) * scale + min;
        values[idx + 16] = f32::from(pair >> 4) * scale + min;
    }
}

fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let (scale, fifth_bits) = (half_at(block, 0), word_at(block, 2));
    for (idx, &pair) in block[6..].iter().enumerate() {
        let (low, high) = with_fifth_bits(pair, fifth_bits, idx);
        values[idx] = (i32::from(low) - 16) as f32 * scale;
        values[idx + 16] = (i32::from(high) - 16) as f32 * scale;
    }
}

fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let fifth_bits = word_at(block, 4);
    for (idx, &pair) in block[8..].iter().enumerate() {
        let (low, high) = with_fifth_bits(pair, fifth_bits, idx);
        values[idx] = f32::from(low) * scale + min;
        values[idx + 16] = f32::from(high) * scale + min;
    }
}

fn with_fifth_bits(pair: u8, fifth_bits: u32, idx: usize) -> (u8, u8) {
    let low = (fifth_bits >> idx & 1) as u8;
    let high = (fifth_bits >> (idx + 16) & 1) as u8;
    (pair & 0xf | low << 4, pair >> 4 | high << 4)
}

fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (value, &byte) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte as i8) * scale;
    }
}

// The K types hold 256 numbers a block, in sub-blocks whose scales are themselves quantised.

fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, nibbles) = (&block[4..16], &block[16..]);
    for (pair_idx, (values, nibbles)) in values.chunks_exact_mut(64).zip(nibbles.chunks_exact(32)).enumerate()
    {
        let (low_scale, low_min) = six_bit_scale_and_min(scales, 2 * pair_idx);
        let (high_scale, high_min) = six_bit_scale_and_min(scales, 2 * pair_idx + 1);
        let (low_scale, low_min) = (scale * low_scale, min * low_min);
        let (high_scale, high_min) = (scale * high_scale, min * high_min);
        for (idx, &pair) in nibbles.iter().enumerate() {
            values[idx] = low_scale * f32::from(pair & 0xf) - low_min;
            values[idx + 32] = high_scale * f32::from(pair >> 4) - high_min;
        }
    }
}

fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, fifth_bits, nibbles) = (&block[4..16], &block[16..48], &block[48..]);
    for (pair_idx, (values, nibbles)) in values.chunks_exact_mut(64).zip(nibbles.chunks_exact(32)).enumerate()
    {
        let (low_scale, low_min) = six_bit_scale_and_min(scales, 2 * pair_idx);
        let (high_scale, high_min) = six_bit_scale_and_min(scales, 2 * pair_idx + 1);
        let (low_scale, low_min) = (scale * low_scale, min * low_min);
        let (high_scale, high_min) = (scale * high_scale, min * high_min);
        for (idx, &pair) in nibbles.iter().enumerate() {
            let fifth = fifth_bits[idx] >> (2 * pair_idx);
            values[idx] = low_scale * f32::from(pair & 0xf | (fifth & 1) << 4) - low_min;
            values[idx + 32] = high_scale * f32::from(pair >> 4 | (fifth >> 1 & 1) << 4) - high_min;
        }
    }
}

/// Eight scales and eight minima of six bits each, packed into twelve bytes.
fn six_bit_scale_and_min(packed: &[u8], idx: usize) -> (f32, f32) {
    let (scale, min) = if idx < 4 {
        (packed[idx] & 63, packed[idx + 4] & 63)
    } else {
        (packed[idx + 4] & 0xf | packed[idx - 4] >> 6 << 4, packed[idx + 4] >> 4 | packed[idx] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let (low_bits, high_bits, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);
    for (idx, value) in values.iter_mut().enumerate() {
        // Two halves of 128; in each, four runs of 32 share the bytes of their bits.
        let (half, run, place) = (idx / 128, idx % 128 / 32, idx % 32);
        let low = low_bits[64 * half + 32 * (run % 2) + place] >> (4 * (run / 2)) & 0xf;
        let high = high_bits[32 * half + place] >> (2 * run) & 3;
        let quantised = i32::from(low | high << 4) - 32;
        *value = scale * f32::from(scales[idx / 16] as i8) * quantised as f32;
    }
}

//! Keys and values kept as whole numbers, with a scale for each key and each value.
//!
//! Keys have 16 bits or 8 ([`KeyBits`]), and so have the queries that meet them (`whole_heads.rs`): the instructions take
//! products of two or four numbers at once, and their sums are exact in any order. Values have 8. They and the weights
//! that meet them are read as pairs of 16 bits: most weights of a query are a small part of the largest, and of 8 bits
//! little would be left of them.
//!
//! What a query finds is a mean of many values, but a score stands alone, and its error becomes a factor: so keys have
//! 16 bits, but for models that were tried with 8. Weights are rounded to a 32,767th of the largest at
//! worst.
//!
//! No sum of values overflows: their numbers are within 127, the weights of a chunk within 32,767, and 128 products are
//! less than 2^30.
//!
//! The keys of a block are rows of 16 units, one for each position: two or four neighbouring numbers, those of 8 bits with
//! 128 added; then 16 scales. Its values are `[8, padded_dim / 2]` units, each two neighbouring dimensions of two
//! neighbouring positions, then 16 scales. A scale is the bits of an `f32`.

use super::{
    attention::{
        BLOCKS_PER_CHUNK, Blocks, CHUNK, Chunk, HeadShape, Keep, Kept, POSITIONS_PER_BLOCK, Prepared, Scores,
        ValueScales,
    },
    simd::{LANES, Simd},
    whole_heads::{Pairs, WholeHead, inverse, to_pairs, vector},
};
use crate::model::KeyBits;

/// The largest number of a value.
const LARGEST_VALUE: f32 = 127.0;
/// The largest weight.
const LARGEST_WEIGHT: f32 = 32_767.0;
const _: () = assert!(LARGEST_VALUE as u64 * LARGEST_WEIGHT as u64 * CHUNK as u64 <= i32::MAX as u64);

const PAIRS_PER_BLOCK: usize = POSITIONS_PER_BLOCK / 2;
/// Units of values that are loaded at once.
const HALF_LINE: usize = LANES / 2;

/// The weights of a chunk as pairs of neighbouring positions.
pub(super) type WholeWeights = [[u32; PAIRS_PER_BLOCK]; BLOCKS_PER_CHUNK];

/// Units that a key takes.
#[inline(always)]
fn key_rows(shape: HeadShape) -> usize {
    match shape.key_bits {
        KeyBits::Sixteen => shape.head_dim.div_ceil(2),
        KeyBits::Eight => shape.padded_dim / 4,
    }
}

impl Kept for u32 {
    const HAS_SCALES: bool = true;

    #[inline(always)]
    fn keys_len(shape: HeadShape) -> usize {
        (key_rows(shape) + 1) * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn values_len(padded_dim: usize) -> usize {
        PAIRS_PER_BLOCK * padded_dim / 2 + POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn keep<S: Simd>(simd: S, Keep { key, value, block, shape, position, .. }: Keep<'_, Self>) {
        let (keys, values) = block.split_at_mut(Self::keys_len(shape));
        let mut whole = WholeHead::new();
        whole.fill(simd, key, shape.key_bits);
        // Added to each byte.
        let sign = if shape.key_bits == KeyBits::Eight { 0x8080_8080 } else { 0 };
        let (rows, _) = keys.as_chunks_mut::<POSITIONS_PER_BLOCK>();
        let (scales, rows) = rows.split_last_mut().expect("a block has scales");
        for (row, numbers) in rows.iter_mut().zip(&whole.numbers) {
            row[position] = numbers ^ sign;
        }
        scales[position] = whole.scale.to_bits();

        let mut largest = simd.splat(0.0);
        for idx in 0..value.len().div_ceil(LANES) {
            largest = simd.max(largest, simd.abs(vector(simd, value, idx)));
        }
        let factor = inverse(LARGEST_VALUE, simd.maximum(largest));
        let mut pairs = Pairs::default();
        to_pairs(simd, value, factor, &mut pairs);
        let (rows, scales) = values.split_at_mut(values.len() - POSITIONS_PER_BLOCK);
        scales[position] = inverse(1.0, factor).to_bits();
        let row_len = rows.len() / PAIRS_PER_BLOCK;
        let row = &mut rows[position / 2 * row_len..];
        // The bytes of an even position come before those of the odd one.
        let shift = 8 * (position % 2);
        for (unit, pair) in row.iter_mut().zip(&pairs.as_flattened()[..value.len().div_ceil(2)]) {
            *unit = *unit & !(0xff_00ff << shift) | (pair & 0xff_00ff) << shift;
        }
    }

    #[inline(always)]
    fn prepare<S: Simd>(simd: S, values: &[f32], shape: HeadShape, whole: &mut WholeHead) {
        whole.fill(simd, values, shape.key_bits);
    }

    #[inline(always)]
    fn scores<S: Simd, const QUERIES: usize, const BLOCKS: usize>(
        simd: S,
        queries: &Prepared<'_, QUERIES>,
        blocks: &[u32],
        shape: HeadShape,
        nth: usize,
        scores: &mut [Scores; QUERIES],
    ) {
        let n_rows = key_rows(shape);
        let (rows, _) = blocks.as_chunks::<LANES>();
        let block_rows = shape.block_len::<u32>() / LANES;
        let mut blocks = [&rows[..block_rows]; BLOCKS];
        for (idx, block) in blocks.iter_mut().enumerate() {
            *block = &rows[idx * block_rows..][..block_rows];
        }
        // In one piece of memory, so that one register points to all of them.
        let (whole, ahead) = (queries.whole, queries.ahead);
        let mut sums = [[simd.no_pairs(); BLOCKS]; QUERIES];
        match shape.key_bits {
            KeyBits::Sixteen => {
                for (row, keys) in blocks[0][..n_rows].iter().enumerate() {
                    let mut keys = [simd.load_pairs(keys); BLOCKS];
                    for idx in 1..BLOCKS {
                        keys[idx] = simd.load_pairs(&blocks[idx][row]);
                    }
                    for block in &blocks {
                        simd.prefetch(&block[row], ahead);
                    }
                    for query in 0..QUERIES {
                        let numbers = simd.splat_pair(whole[query].numbers[row]);
                        for idx in 0..BLOCKS {
                            sums[query][idx] = simd.dot_pairs(sums[query][idx], keys[idx], numbers);
                        }
                    }
                }
            }
            KeyBits::Eight => {
                for query in 0..QUERIES {
                    sums[query] = [simd.begin_quads(whole[query].start); BLOCKS];
                }
                for (row, keys) in blocks[0][..n_rows].iter().enumerate() {
                    let mut keys = [simd.load_quads(keys); BLOCKS];
                    for idx in 1..BLOCKS {
                        keys[idx] = simd.load_quads(&blocks[idx][row]);
                    }
                    for block in &blocks {
                        simd.prefetch(&block[row], ahead);
                    }
                    for query in 0..QUERIES {
                        let numbers = whole[query].numbers[row];
                        for idx in 0..BLOCKS {
                            sums[query][idx] = simd.dot_quad(sums[query][idx], keys[idx], numbers);
                        }
                    }
                }
            }
        }
        for idx in 0..BLOCKS {
            let scale = simd.load(&blocks[idx][n_rows].map(f32::from_bits));
            simd.prefetch(&blocks[idx][n_rows], ahead);
            let powers = log2_above(simd, simd.load(&blocks[idx][block_rows - 1].map(f32::from_bits)));
            for query in 0..QUERIES {
                let scale = simd.mul(scale, simd.splat(whole[query].scale));
                let (to, _) = scores[query].as_chunks_mut::<LANES>();
                simd.store(simd.mul_add(simd.to_floats(sums[query][idx]), scale, powers), &mut to[nth + idx]);
            }
        }
    }

    #[inline(always)]
    fn value_scales<S: Simd>(simd: S, blocks: Blocks<'_, u32>) -> Option<ValueScales<S>> {
        let Blocks { units, shape, ahead } = blocks;
        let scales = units[..shape.block_len::<u32>()].last_chunk::<POSITIONS_PER_BLOCK>();
        let scales = scales.expect("a block ends with them");
        simd.prefetch(scales, ahead);
        let scales = simd.load(&scales.map(f32::from_bits));
        let powers = simd.sub(simd.splat(0.0), log2_above(simd, scales));
        let fractions = simd.times_exp2(simd.mul(scales, simd.splat(LARGEST_WEIGHT)), powers);
        Some(ValueScales { fractions, powers: simd.times_exp2(simd.splat(1.0), powers) })
    }

    #[inline(always)]
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, u32, QUERIES>,
        output: &mut [f32],
    ) {
        let Chunk { whole_weights, found, blocks: Blocks { units, shape, ahead }, .. } = chunk;
        let row_len = shape.padded_dim / LANES;
        let (rows, _) = units[Self::keys_len(shape)..].as_chunks::<HALF_LINE>();
        // Between the values of two blocks: scales, and keys.
        let gap = shape.block_len::<u32>() / HALF_LINE - PAIRS_PER_BLOCK * row_len;
        let mut longest = 0;
        for found in &found {
            longest = longest.max(found.seen);
        }
        let (mut scales, mut factors) = ([0.0; QUERIES], [0.0; QUERIES]);
        for query in 0..QUERIES {
            (scales[query], factors[query]) = (found[query].gain / LARGEST_WEIGHT, found[query].factor);
        }
        let pairs = longest.div_ceil(2);
        let mut dim = 0;
        while dim < row_len {
            let weighted = Weighted {
                numbers: whole_weights,
                scales: &scales,
                factors: &factors,
                pairs,
                row_len,
                gap,
                ahead,
            };
            if row_len - dim >= VECTORS {
                weighted.mix::<S, VECTORS>(simd, rows, dim, output);
                dim += VECTORS;
            } else {
                weighted.mix::<S, 1>(simd, rows, dim, output);
                dim += 1;
            }
        }
    }
}

/// The next whole number above the logarithm of a scale. Smaller ones count as 2^-40: values below 1e-10 lose bits, and
/// what a weight of 2^-126 is too much stays nothing, once it is taken out again.
#[inline(always)]
fn log2_above<S: Simd>(simd: S, scales: S::Floats) -> S::Floats {
    simd.add(simd.max(simd.exponents(scales), simd.splat(-41.0)), simd.splat(1.0))
}

struct Weighted<'a, const QUERIES: usize> {
    numbers: &'a [WholeWeights; QUERIES],
    scales: &'a [f32; QUERIES],
    factors: &'a [f32; QUERIES],
    pairs: usize,
    /// Half lines that a pair of positions takes.
    row_len: usize,
    /// Half lines between the values of two blocks.
    gap: usize,
    /// As in [`Blocks`].
    ahead: usize,
}

impl<const QUERIES: usize> Weighted<'_, QUERIES> {
    /// `VECTORS` vectors of the output from the `first` on.
    #[inline(always)]
    fn mix<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        rows: &[[u32; HALF_LINE]],
        first: usize,
        output: &mut [f32],
    ) {
        let &Self { numbers, scales, factors, pairs, row_len, gap, ahead } = self;
        let mut sums = [[simd.no_pairs(); VECTORS]; QUERIES];
        // One loop, not one of blocks and one of pairs: the sums would leave their registers between the two.
        for pair in 0..pairs {
            let row = &rows[pair * row_len + pair / PAIRS_PER_BLOCK * gap + first..][..VECTORS];
            let mut values = [simd.load_byte_pairs(&row[0]); VECTORS];
            for idx in 1..VECTORS {
                values[idx] = simd.load_byte_pairs(&row[idx]);
            }
            // Two half lines are a line.
            for line in row.chunks(2) {
                simd.prefetch(line, ahead);
            }
            for query in 0..QUERIES {
                let numbers = simd.splat_pair(numbers[query].as_flattened()[pair]);
                for idx in 0..VECTORS {
                    sums[query][idx] = simd.dot_pairs(sums[query][idx], values[idx], numbers);
                }
            }
        }
        let (output, _) = output.as_chunks_mut::<LANES>();
        for query in 0..QUERIES {
            for idx in 0..VECTORS {
                let to = &mut output[query * row_len + first + idx];
                let before = simd.mul(simd.load(to), simd.splat(factors[query]));
                let found = simd.to_floats(sums[query][idx]);
                simd.store(simd.mul_add(found, simd.splat(scales[query]), before), to);
            }
        }
    }
}

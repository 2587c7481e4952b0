//! Keys kept as whole numbers of 16 bits and values as whole numbers of 8, with a scale for each key and each value.
//!
//! Both are read as pairs of 16 bits, as are the queries and weights that meet them: products of pairs take half the
//! instructions of those of floats, and sums of whole numbers are exact in any order. None overflows:
//!
//! - a key is scaled to a length of 32,767, and so is a query: their product is at most the product of their lengths
//!   (Cauchy and Schwarz), hardly more than 2^30 when both have been rounded;
//! - a value's numbers are within 127, the weights of a chunk within 32,767: 128 products are less than 2^30.
//!
//! Values may be rounded more than keys: what a query finds is a mean of many, but a score stands alone, and its error
//! becomes a factor. Queries are rounded to a 65,534th of their length, weights to a 65,534th of the largest.
//!
//! The keys of a block are `[head_dim / 2, 16]` units, each two neighbouring dimensions of a position, then 16 scales; its
//! values are `[8, padded_dim / 2]` units, each two neighbouring dimensions of two neighbouring positions, then 16 scales.
//! A scale is the bits of an `f32`.

use super::{
    attention::{
        BLOCKS_PER_CHUNK, CHUNK, Chunk, HeadShape, Keep, Kept, MAX_HEAD_DIM, POSITIONS_PER_BLOCK, Prepared,
        Scores,
    },
    simd::{LANES, Simd},
};

/// The length of keys and queries.
const LENGTH: f32 = 32_767.0;
/// The largest number of a value.
const LARGEST_VALUE: f32 = 127.0;
/// The largest weight.
const LARGEST_WEIGHT: f32 = 32_767.0;
const _: () = assert!(LARGEST_VALUE as u64 * LARGEST_WEIGHT as u64 * CHUNK as u64 <= i32::MAX as u64);
/// Larger numbers are taken to be this large: their squares can still be added.
const BOUND: f32 = 1e18;

const PAIRS_PER_BLOCK: usize = POSITIONS_PER_BLOCK / 2;
/// Units of values that are loaded at once.
const HALF_LINE: usize = LANES / 2;

/// A head as pairs of neighbouring dimensions.
pub(super) type Pairs = [[u32; LANES / 2]; MAX_HEAD_DIM / LANES];
/// The weights of a chunk as pairs of neighbouring positions.
pub(super) type WholeWeights = [[u32; PAIRS_PER_BLOCK]; BLOCKS_PER_CHUNK];

impl Kept for u32 {
    #[inline(always)]
    fn keys_len(head_dim: usize) -> usize {
        (head_dim.div_ceil(2) + 1) * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn values_len(padded_dim: usize) -> usize {
        PAIRS_PER_BLOCK * padded_dim / 2 + POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn keep<S: Simd>(simd: S, Keep { key, value, block, position }: Keep<'_, Self>) {
        let (keys, values) = block.split_at_mut(Self::keys_len(key.len()));
        let mut pairs = Pairs::default();
        let scale = Self::prepare(simd, key, &mut pairs);
        let (rows, _) = keys.as_chunks_mut::<POSITIONS_PER_BLOCK>();
        let count = key.len().div_ceil(2);
        for (row, pair) in rows.iter_mut().zip(&pairs.as_flattened()[..count]) {
            row[position] = *pair;
        }
        rows[count][position] = scale.to_bits();

        let mut largest = simd.splat(0.0);
        for idx in 0..value.len().div_ceil(LANES) {
            largest = simd.max(largest, simd.abs(vector(simd, value, idx)));
        }
        let factor = inverse(LARGEST_VALUE, simd.maximum(largest));
        to_pairs(simd, value, factor, &mut pairs);
        let (rows, scales) = values.split_at_mut(values.len() - POSITIONS_PER_BLOCK);
        scales[position] = inverse(1.0, factor).to_bits();
        let row_len = rows.len() / PAIRS_PER_BLOCK;
        let row = &mut rows[position / 2 * row_len..];
        // The bytes of an even position come before those of the odd one.
        let shift = 8 * (position % 2);
        for (unit, pair) in row.iter_mut().zip(&pairs.as_flattened()[..count]) {
            *unit = *unit & !(0xff_00ff << shift) | (pair & 0xff_00ff) << shift;
        }
    }

    #[inline(always)]
    fn prepare<S: Simd>(simd: S, values: &[f32], pairs: &mut Pairs) -> f32 {
        let mut squares = simd.splat(0.0);
        for idx in 0..values.len().div_ceil(LANES) {
            let vector = vector(simd, values, idx);
            squares = simd.mul_add(vector, vector, squares);
        }
        // Smaller squares are not what they should be: a length would come out too small, and the numbers too large.
        let squares = simd.sum(squares);
        let factor = inverse(LENGTH, if squares > 1e-30 { squares.sqrt() } else { 0.0 });
        to_pairs(simd, values, factor, pairs);
        inverse(1.0, factor)
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
        let pairs = shape.head_dim.div_ceil(2);
        let (rows, _) = blocks.as_chunks::<LANES>();
        let block_rows = shape.block_len::<u32>() / LANES;
        let mut blocks = [&rows[..=pairs]; BLOCKS];
        for (idx, block) in blocks.iter_mut().enumerate() {
            *block = &rows[idx * block_rows..][..=pairs];
        }
        // In one piece of memory, so that one register points to all of them.
        let numbers = queries.pairs;
        let mut sums = [[simd.no_pairs(); BLOCKS]; QUERIES];
        for (pair, keys) in blocks[0][..pairs].iter().enumerate() {
            let mut keys = [simd.load_pairs(keys); BLOCKS];
            for idx in 1..BLOCKS {
                keys[idx] = simd.load_pairs(&blocks[idx][pair]);
            }
            for query in 0..QUERIES {
                let numbers = simd.splat_pair(numbers[query].as_flattened()[pair]);
                for idx in 0..BLOCKS {
                    sums[query][idx] = simd.dot_pairs(sums[query][idx], keys[idx], numbers);
                }
            }
        }
        for idx in 0..BLOCKS {
            let scale = simd.load(&blocks[idx][pairs].map(f32::from_bits));
            for query in 0..QUERIES {
                let scale = simd.mul(scale, simd.splat(queries.scales[query]));
                let (to, _) = scores[query].as_chunks_mut::<LANES>();
                simd.store(simd.mul(simd.to_floats(sums[query][idx]), scale), &mut to[nth + idx]);
            }
        }
    }

    #[inline(always)]
    fn value_scales<S: Simd>(simd: S, blocks: &[u32], shape: HeadShape) -> Option<S::Floats> {
        let scales = blocks[..shape.block_len::<u32>()].last_chunk::<POSITIONS_PER_BLOCK>();
        Some(simd.load(&scales.expect("a block ends with them").map(f32::from_bits)))
    }

    #[inline(always)]
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, u32, QUERIES>,
        numbers: &mut [WholeWeights; QUERIES],
        output: &mut [f32],
    ) {
        let Chunk { weights, found, blocks, shape } = chunk;
        let row_len = shape.padded_dim / LANES;
        let (rows, _) = blocks[Self::keys_len(shape.head_dim)..].as_chunks::<HALF_LINE>();
        // Between the values of two blocks: scales, and keys.
        let gap = shape.block_len::<u32>() / HALF_LINE - PAIRS_PER_BLOCK * row_len;
        let mut longest = 0;
        for found in &found {
            longest = longest.max(found.seen);
        }
        let (mut scales, mut factors) = ([0.0; QUERIES], [0.0; QUERIES]);
        for query in 0..QUERIES {
            let found = found[query];
            let to_whole = inverse(LARGEST_WEIGHT, found.largest);
            (scales[query], factors[query]) = (inverse(1.0, to_whole), found.factor);
            let (weights, _) = weights[query].as_chunks::<LANES>();
            for (weights, numbers) in weights[..longest.div_ceil(LANES)].iter().zip(&mut numbers[query]) {
                *numbers = simd.to_pairs(simd.mul(simd.load(weights), simd.splat(to_whole)));
            }
        }
        let pairs = longest.div_ceil(2);
        let mut dim = 0;
        while dim < row_len {
            let weighted = Weighted { numbers, scales: &scales, factors: &factors, pairs, row_len, gap };
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

struct Weighted<'a, const QUERIES: usize> {
    numbers: &'a [WholeWeights; QUERIES],
    scales: &'a [f32; QUERIES],
    factors: &'a [f32; QUERIES],
    pairs: usize,
    /// Half lines that a pair of positions takes.
    row_len: usize,
    /// Half lines between the values of two blocks.
    gap: usize,
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
        let &Self { numbers, scales, factors, pairs, row_len, gap } = self;
        let mut sums = [[simd.no_pairs(); VECTORS]; QUERIES];
        // One loop, not one of blocks and one of pairs: the sums would leave their registers between the two.
        for pair in 0..pairs {
            let row = &rows[pair * row_len + pair / PAIRS_PER_BLOCK * gap + first..][..VECTORS];
            let mut values = [simd.load_byte_pairs(&row[0]); VECTORS];
            for idx in 1..VECTORS {
                values[idx] = simd.load_byte_pairs(&row[idx]);
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

/// `to / from`; nothing is made of what is as good as nothing, or no number.
#[inline(always)]
fn inverse(to: f32, from: f32) -> f32 {
    if from > 1e-30 { to / from } else { 0.0 }
}

/// The values of a head from `idx * 16` on: zeros behind the last, none beyond [`BOUND`], and what is no number is it.
#[inline(always)]
fn vector<S: Simd>(simd: S, values: &[f32], idx: usize) -> S::Floats {
    let rest = &values[idx * LANES..];
    let vector = match rest.first_chunk() {
        Some(whole) => simd.load(whole),
        None => {
            let mut padded = [0.0; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            simd.load(&padded)
        }
    };
    simd.max(simd.min(vector, simd.splat(BOUND)), simd.splat(-BOUND))
}

/// The nearest whole numbers to values times `factor`.
#[inline(always)]
fn to_pairs<S: Simd>(simd: S, values: &[f32], factor: f32, pairs: &mut Pairs) {
    for (idx, to) in pairs.iter_mut().enumerate().take(values.len().div_ceil(LANES)) {
        *to = simd.to_pairs(simd.mul(vector(simd, values, idx), simd.splat(factor)));
    }
}

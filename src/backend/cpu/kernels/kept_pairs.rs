//! Keys and values kept as whole numbers of 16 bits, two to a unit, with a scale for each key and each value.
//!
//! Products of pairs take half the instructions of those of floats, and sums of whole numbers are exact in any order.
//! None overflows:
//!
//! - a key is scaled to a length of 32,767, and so is a query: their product is at most the product of their lengths
//!   (Cauchy and Schwarz), hardly more than 2^30 when both have been rounded;
//! - a value's largest number becomes 8,191, and the weights of a chunk, each with its value's scale in it, are
//!   scaled to a sum of 2^18 at most: less than 2^31.
//!
//! Keys and values lose what `f16` would lose, a few 10,000ths: they are rounded to a 65,534th of a key's length and a
//! 16,382nd of a value's largest number. So are queries, to a 65,534th of their length, and weights, to a 65,534th of
//! the largest or a 500,000th of their sum, whichever is more.
//!
//! The keys of a block are `[head_dim / 2, 16]` units, each two neighbouring dimensions of a position, then 16 scales; its
//! values are `[8, padded_dim]` units, each two neighbouring positions of a dimension, then 16 scales. A scale is the
//! bits of an `f32`.

use super::{
    attention::{
        BLOCKS_PER_CHUNK, Chunk, Found, HeadShape, Keep, Kept, MAX_HEAD_DIM, POSITIONS_PER_BLOCK, Scores,
    },
    simd::{LANES, Simd},
};

/// The length of keys and queries.
const LENGTH: f32 = 32_767.0;
/// The largest number of a value.
const LARGEST_VALUE: f32 = 8_191.0;
/// The largest weight.
const LARGEST_WEIGHT: f32 = 32_767.0;
/// The largest sum of weights; a chunk's are rounded up by 64 in all, at most.
const SUM_OF_WEIGHTS: f32 = (1 << 18) as f32 - 256.0;
/// Larger numbers are taken to be this large: their squares can still be added.
const BOUND: f32 = 1e18;

const PAIRS_PER_BLOCK: usize = POSITIONS_PER_BLOCK / 2;

/// A head as pairs of neighbouring dimensions.
type Pairs = [[u32; LANES / 2]; MAX_HEAD_DIM / LANES];

#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct PairQuery {
    pairs: Pairs,
    scale: f32,
}

impl Kept for u32 {
    type Query<'a> = PairQuery;

    #[inline(always)]
    fn keys_len(head_dim: usize) -> usize {
        (head_dim.div_ceil(2) + 1) * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn values_len(padded_dim: usize) -> usize {
        PAIRS_PER_BLOCK * padded_dim + POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn keep<S: Simd>(simd: S, Keep { key, value, block, position }: Keep<'_, Self>) {
        let (keys, values) = block.split_at_mut(Self::keys_len(key.len()));
        let PairQuery { pairs, scale } = Self::query(simd, key);
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
        let pairs = to_pairs(simd, value, factor);
        let (rows, scales) = values.split_at_mut(values.len() - POSITIONS_PER_BLOCK);
        scales[position] = inverse(1.0, factor).to_bits();
        let padded_dim = rows.len() / PAIRS_PER_BLOCK;
        let row = &mut rows[position / 2 * padded_dim..];
        let (kept, shift) = if position.is_multiple_of(2) { (0xffff_0000, 0) } else { (0xffff, 16) };
        for (units, pair) in row.as_chunks_mut::<2>().0.iter_mut().zip(&pairs.as_flattened()[..count]) {
            units[0] = units[0] & kept | (pair & 0xffff) << shift;
            units[1] = units[1] & kept | (pair >> 16) << shift;
        }
    }

    #[inline(always)]
    fn query<S: Simd>(simd: S, values: &[f32]) -> PairQuery {
        let mut squares = simd.splat(0.0);
        for idx in 0..values.len().div_ceil(LANES) {
            let vector = vector(simd, values, idx);
            squares = simd.mul_add(vector, vector, squares);
        }
        // Smaller squares are not what they should be: a length would come out too small, and the numbers too large.
        let squares = simd.sum(squares);
        let factor = inverse(LENGTH, if squares > 1e-30 { squares.sqrt() } else { 0.0 });
        PairQuery { pairs: to_pairs(simd, values, factor), scale: inverse(1.0, factor) }
    }

    #[inline(always)]
    fn scores<S: Simd, const QUERIES: usize, const BLOCKS: usize>(
        simd: S,
        queries: &[PairQuery; QUERIES],
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
        let mut numbers = [&queries[0].pairs.as_flattened()[..pairs]; QUERIES];
        for query in 0..QUERIES {
            numbers[query] = &queries[query].pairs.as_flattened()[..pairs];
        }
        let mut sums = [[simd.no_pairs(); BLOCKS]; QUERIES];
        for pair in 0..pairs {
            let mut keys = [simd.load_pairs(&blocks[0][pair]); BLOCKS];
            for idx in 1..BLOCKS {
                keys[idx] = simd.load_pairs(&blocks[idx][pair]);
            }
            for query in 0..QUERIES {
                let numbers = simd.splat_pair(numbers[query][pair]);
                for idx in 0..BLOCKS {
                    sums[query][idx] = simd.dot_pairs(sums[query][idx], keys[idx], numbers);
                }
            }
        }
        for idx in 0..BLOCKS {
            let scale = simd.load(&blocks[idx][pairs].map(f32::from_bits));
            for query in 0..QUERIES {
                let scale = simd.mul(scale, simd.splat(queries[query].scale));
                let (to, _) = scores[query].as_chunks_mut::<LANES>();
                simd.store(simd.mul(simd.to_floats(sums[query][idx]), scale), &mut to[nth + idx]);
            }
        }
    }

    #[inline(always)]
    fn value_scales(blocks: &[u32], shape: HeadShape) -> Option<[f32; POSITIONS_PER_BLOCK]> {
        let scales = blocks[..shape.block_len::<u32>()].last_chunk::<POSITIONS_PER_BLOCK>();
        Some(scales.expect("a block ends with them").map(f32::from_bits))
    }

    #[inline(always)]
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, u32, QUERIES>,
        output: &mut [f32],
    ) {
        let Chunk { weights, found, blocks, shape } = chunk;
        let row_len = shape.padded_dim / LANES;
        let (rows, _) = blocks[Self::keys_len(shape.head_dim)..].as_chunks::<LANES>();
        // Between the values of two blocks: scales, and keys.
        let gap = shape.block_len::<u32>() / LANES - PAIRS_PER_BLOCK * row_len;
        let (mut longest, mut scales, mut factors) = (0, [0.0; QUERIES], [0.0; QUERIES]);
        let mut numbers = [[[0; PAIRS_PER_BLOCK]; BLOCKS_PER_CHUNK]; QUERIES];
        for query in 0..QUERIES {
            let Found { seen, factor, sum, largest } = found[query];
            longest = longest.max(seen);
            let to_whole = inverse(LARGEST_WEIGHT, largest).min(inverse(SUM_OF_WEIGHTS, sum));
            (scales[query], factors[query]) = (inverse(1.0, to_whole), factor);
            let (weights, _) = weights[query].as_chunks::<LANES>();
            for (weights, numbers) in weights[..seen.div_ceil(LANES)].iter().zip(&mut numbers[query]) {
                *numbers = simd.to_pairs(simd.mul(simd.load(weights), simd.splat(to_whole)));
            }
        }
        let pairs = longest.div_ceil(2);
        let mut dim = 0;
        while dim < row_len {
            let weighted =
                Weighted { numbers: &numbers, scales: &scales, factors: &factors, pairs, row_len, gap };
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
    numbers: &'a [[[u32; PAIRS_PER_BLOCK]; BLOCKS_PER_CHUNK]; QUERIES],
    scales: &'a [f32; QUERIES],
    factors: &'a [f32; QUERIES],
    pairs: usize,
    /// Rows of sixteen units that a pair of positions takes.
    row_len: usize,
    /// Rows between the values of two blocks.
    gap: usize,
}

impl<const QUERIES: usize> Weighted<'_, QUERIES> {
    /// `VECTORS` vectors of the output from the `first` on.
    #[inline(always)]
    fn mix<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        rows: &[[u32; LANES]],
        first: usize,
        output: &mut [f32],
    ) {
        let &Self { numbers, scales, factors, pairs, row_len, gap } = self;
        let mut sums = [[simd.no_pairs(); VECTORS]; QUERIES];
        // One loop, not one of blocks and one of pairs: the sums would leave their registers between the two.
        for pair in 0..pairs {
            let row = &rows[pair * row_len + pair / PAIRS_PER_BLOCK * gap + first..][..VECTORS];
            let mut values = [simd.load_pairs(&row[0]); VECTORS];
            for idx in 1..VECTORS {
                values[idx] = simd.load_pairs(&row[idx]);
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
fn to_pairs<S: Simd>(simd: S, values: &[f32], factor: f32) -> Pairs {
    let mut pairs = [[0; LANES / 2]; MAX_HEAD_DIM / LANES];
    for (idx, to) in pairs.iter_mut().enumerate().take(values.len().div_ceil(LANES)) {
        *to = simd.to_pairs(simd.mul(vector(simd, values, idx), simd.splat(factor)));
    }
    pairs
}

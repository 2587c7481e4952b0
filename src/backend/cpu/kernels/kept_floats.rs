//! Keys and values kept as they are.
//!
//! The keys of a block are `[head_dim, 16]`, its values `[16, padded_dim]`.

use super::{
    attention::{Blocks, Chunk, HeadShape, Keep, Kept, POSITIONS_PER_BLOCK, Prepared, Scores, ValueScales},
    simd::{LANES, Simd},
    whole_heads::WholeHead,
};

impl Kept for f32 {
    const HAS_SCALES: bool = false;

    #[inline(always)]
    fn keys_len(shape: HeadShape) -> usize {
        shape.head_dim * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    fn values_len(padded_dim: usize) -> usize {
        POSITIONS_PER_BLOCK * padded_dim
    }

    #[inline(always)]
    fn keep<S: Simd>(_simd: S, Keep { key, value, block, shape, position, .. }: Keep<'_, Self>) {
        let (keys, values) = block.split_at_mut(Self::keys_len(shape));
        for (to, key) in keys.chunks_exact_mut(POSITIONS_PER_BLOCK).zip(key) {
            to[position] = *key;
        }
        let padded_dim = values.len() / POSITIONS_PER_BLOCK;
        values[position * padded_dim..][..value.len()].copy_from_slice(value);
    }

    #[inline(always)]
    fn prepare<S: Simd>(_simd: S, _values: &[f32], _shape: HeadShape, _whole: &mut WholeHead) {}

    #[inline(always)]
    fn scores<S: Simd, const QUERIES: usize, const BLOCKS: usize>(
        simd: S,
        queries: &Prepared<'_, QUERIES>,
        blocks: &[f32],
        shape: HeadShape,
        nth: usize,
        scores: &mut [Scores; QUERIES],
    ) {
        let head_dim = shape.head_dim;
        let (rows, _) = blocks.as_chunks::<LANES>();
        let block_rows = shape.block_len::<f32>() / LANES;
        let mut blocks = [&rows[..head_dim]; BLOCKS];
        for (idx, block) in blocks.iter_mut().enumerate() {
            *block = &rows[idx * block_rows..][..head_dim];
        }
        let mut values = queries.values;
        for values in &mut values {
            *values = &values[..head_dim];
        }
        let mut sums = [[simd.splat(0.0); BLOCKS]; QUERIES];
        for dim in 0..head_dim {
            let mut keys = [simd.splat(0.0); BLOCKS];
            for idx in 0..BLOCKS {
                keys[idx] = simd.load(&blocks[idx][dim]);
                simd.prefetch(&blocks[idx][dim], queries.ahead);
            }
            for query in 0..QUERIES {
                let value = simd.splat(values[query][dim]);
                for idx in 0..BLOCKS {
                    sums[query][idx] = simd.mul_add(keys[idx], value, sums[query][idx]);
                }
            }
        }
        for query in 0..QUERIES {
            let (blocks, _) = scores[query].as_chunks_mut::<LANES>();
            for idx in 0..BLOCKS {
                simd.store(sums[query][idx], &mut blocks[nth + idx]);
            }
        }
    }

    #[inline(always)]
    fn value_scales<S: Simd>(_simd: S, _blocks: Blocks<'_, f32>) -> Option<ValueScales<S>> {
        None
    }

    #[inline(always)]
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, f32, QUERIES>,
        output: &mut [f32],
    ) {
        let mut dim = 0;
        while dim < chunk.blocks.shape.padded_dim {
            if chunk.blocks.shape.padded_dim - dim >= VECTORS * LANES {
                mix_vectors::<S, QUERIES, VECTORS>(simd, &chunk, dim, output);
                dim += VECTORS * LANES;
            } else {
                mix_vectors::<S, QUERIES, 1>(simd, &chunk, dim, output);
                dim += LANES;
            }
        }
    }
}

/// `VECTORS` vectors of the output from `dim` on.
#[inline(always)]
fn mix_vectors<S: Simd, const QUERIES: usize, const VECTORS: usize>(
    simd: S,
    chunk: &Chunk<'_, f32, QUERIES>,
    dim: usize,
    output: &mut [f32],
) {
    let Chunk { weights, found, blocks: Blocks { units, shape, ahead }, .. } = chunk;
    let row_len = shape.padded_dim / LANES;
    let (rows, _) = units.as_chunks::<LANES>();
    // Rows of keys come before those of a block's values.
    let rows = &rows[dim / LANES..];
    let row_of = |position: usize| (position / POSITIONS_PER_BLOCK + 1) * shape.head_dim + position * row_len;
    let (output, _) = output.as_chunks_mut::<LANES>();
    let output = &mut output[dim / LANES..];

    let mut sums = [[simd.splat(0.0); VECTORS]; QUERIES];
    for query in 0..QUERIES {
        for idx in 0..VECTORS {
            sums[query][idx] =
                simd.mul(simd.load(&output[query * row_len + idx]), simd.splat(found[query].factor));
        }
    }
    let mut seen_by_all = found[0].seen;
    for found in found {
        seen_by_all = seen_by_all.min(found.seen);
    }
    for position in 0..seen_by_all {
        let stored = &rows[row_of(position)..][..VECTORS];
        let mut values = [simd.splat(0.0); VECTORS];
        for idx in 0..VECTORS {
            values[idx] = simd.load(&stored[idx]);
            simd.prefetch(&stored[idx], *ahead);
        }
        for query in 0..QUERIES {
            let weight = simd.splat(weights[query][position]);
            for idx in 0..VECTORS {
                sums[query][idx] = simd.mul_add(values[idx], weight, sums[query][idx]);
            }
        }
    }
    for query in 0..QUERIES {
        for idx in 0..VECTORS {
            simd.store(sums[query][idx], &mut output[query * row_len + idx]);
        }
    }
    // Added in memory: were the sums chosen by a number that is not known here, none would stay in registers.
    for query in 0..QUERIES {
        for position in seen_by_all..found[query].seen {
            let stored = &rows[row_of(position)..][..VECTORS];
            let weight = simd.splat(weights[query][position]);
            for idx in 0..VECTORS {
                let to = &mut output[query * row_len + idx];
                simd.store(simd.mul_add(simd.load(&stored[idx]), weight, simd.load(to)), to);
            }
        }
    }
}

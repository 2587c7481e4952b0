//! Attention of a few queries over the keys and values of one head of one slot, read where they lie.
//!
//! Positions are taken in chunks, with the largest score so far as a running reference (Milakov and
//! Gimelshein, arXiv:1805.02867), so that scores never leave the first cache. Chunks begin at fixed
//! positions: what a query finds depends on its own positions alone.

use super::simd::{Element, Kernel, LANES, Simd, exp};

/// Keys lie in blocks of as many positions, transposed.
pub(in crate::backend::cpu) const POSITIONS_PER_BLOCK: usize = LANES;
/// A multiple of [`POSITIONS_PER_BLOCK`].
const CHUNK: usize = 128;
/// Queries that share each key and value they read.
const MAX_TOGETHER: usize = 6;

/// A query of one head.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Query<'a> {
    /// Turned and scaled already; `[head_dim]`.
    pub(in crate::backend::cpu) values: &'a [f32],
    /// How many positions it sees; at least one.
    pub(in crate::backend::cpu) positions: usize,
}

/// `softmax(query · keysᵀ) · values` for each query.
pub(in crate::backend::cpu) struct Attend<'a, E> {
    pub(in crate::backend::cpu) queries: &'a [Query<'a>],
    /// `[position / 16, head_dim, 16]`.
    pub(in crate::backend::cpu) keys: &'a [E],
    /// `[position, padded_dim]`, where `padded_dim` is a multiple of 16.
    pub(in crate::backend::cpu) values: &'a [E],
    pub(in crate::backend::cpu) padded_dim: usize,
    /// `[query, padded_dim]`.
    pub(in crate::backend::cpu) output: &'a mut [f32],
}

impl<E: Element> Kernel for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { mut queries, keys, values, padded_dim, mut output } = self;
        while !queries.is_empty() {
            let together = match queries.len() {
                MAX_TOGETHER.. => 6,
                3.. => 3,
                len => len,
            };
            let (these, others) = queries.split_at(together);
            let (to, rest) = output.split_at_mut(together * padded_dim);
            let cached = Cached { keys, values, padded_dim };
            // Enough sums that none waits for another, and no more than there are registers for.
            match (together, S::ROWS >= 8) {
                (6, true) => attend::<S, E, 6, 2, 4>(simd, these, cached, to),
                (6, false) => attend::<S, E, 6, 1, 1>(simd, these, cached, to),
                (3, true) => attend::<S, E, 3, 4, 4>(simd, these, cached, to),
                (3, false) => attend::<S, E, 3, 1, 1>(simd, these, cached, to),
                (2, true) => attend::<S, E, 2, 4, 4>(simd, these, cached, to),
                (2, false) => attend::<S, E, 2, 2, 2>(simd, these, cached, to),
                (_, true) => attend::<S, E, 1, 8, 4>(simd, these, cached, to),
                (_, false) => attend::<S, E, 1, 4, 4>(simd, these, cached, to),
            }
            (queries, output) = (others, rest);
        }
    }
}

struct Cached<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    padded_dim: usize,
}

/// `QUERIES` queries, `BLOCKS` blocks of keys or `VECTORS` vectors of the values at a time.
#[inline(always)]
fn attend<S: Simd, E: Element, const QUERIES: usize, const BLOCKS: usize, const VECTORS: usize>(
    simd: S,
    queries: &[Query<'_>],
    cached: Cached<'_, E>,
    output: &mut [f32],
) {
    let mut together = [queries[0]; QUERIES];
    together.copy_from_slice(queries);
    let queries = together;
    let (mut largest, mut totals) = ([f32::NEG_INFINITY; QUERIES], [simd.splat(0.0); QUERIES]);
    output.fill(0.0);
    let longest = queries.iter().map(|query| query.positions).max().unwrap_or(0);
    let mut weights = [[0.0; CHUNK]; QUERIES];
    for first in (0..longest).step_by(CHUNK) {
        let mut seen = [0; QUERIES];
        for query in 0..QUERIES {
            seen[query] = queries[query].positions.saturating_sub(first).min(CHUNK);
        }
        scores::<S, E, QUERIES, BLOCKS>(
            simd,
            &queries,
            &cached,
            first,
            (longest - first).min(CHUNK),
            &mut weights,
        );
        let mut factors = [1.0; QUERIES];
        for query in 0..QUERIES {
            if seen[query] > 0 {
                factors[query] =
                    softmax(simd, &mut weights[query], seen[query], &mut largest[query], &mut totals[query]);
            }
        }
        let mut dim = 0;
        while dim < cached.padded_dim {
            dim += if cached.padded_dim - dim >= VECTORS * LANES {
                mix::<S, E, QUERIES, VECTORS>(simd, &cached, first, dim, &weights, &seen, &factors, output)
            } else {
                mix::<S, E, QUERIES, 1>(simd, &cached, first, dim, &weights, &seen, &factors, output)
            };
        }
    }
    for (output, total) in output.chunks_exact_mut(cached.padded_dim).zip(totals) {
        let total = simd.splat(simd.sum(total));
        for values in output.as_chunks_mut::<LANES>().0 {
            let mixed = simd.div(simd.load(values), total);
            simd.store(mixed, values);
        }
    }
}

/// `query · key` for `count` positions from `first` on.
#[inline(always)]
fn scores<S: Simd, E: Element, const QUERIES: usize, const BLOCKS: usize>(
    simd: S,
    queries: &[Query<'_>; QUERIES],
    cached: &Cached<'_, E>,
    first: usize,
    count: usize,
    scores: &mut [[f32; CHUNK]; QUERIES],
) {
    let head_dim = queries[0].values.len();
    let mut query_values = [queries[0].values; QUERIES];
    for query in 0..QUERIES {
        query_values[query] = &queries[query].values[..head_dim];
    }
    let (keys, _) = cached.keys.as_chunks::<LANES>();
    let n_blocks = count.div_ceil(POSITIONS_PER_BLOCK);
    let mut block = 0;
    while block < n_blocks {
        let keys = &keys[(first / POSITIONS_PER_BLOCK + block) * head_dim..];
        block += if n_blocks - block >= BLOCKS {
            key_blocks::<S, E, QUERIES, BLOCKS>(simd, &query_values, keys, block, scores)
        } else {
            key_blocks::<S, E, QUERIES, 1>(simd, &query_values, keys, block, scores)
        };
    }
}

/// Scores `BLOCKS` blocks of positions, of which `block` is the first; returns how many.
#[inline(always)]
fn key_blocks<S: Simd, E: Element, const QUERIES: usize, const BLOCKS: usize>(
    simd: S,
    queries: &[&[f32]; QUERIES],
    keys: &[[E; LANES]],
    block: usize,
    scores: &mut [[f32; CHUNK]; QUERIES],
) -> usize {
    let head_dim = queries[0].len();
    let mut blocks = [&keys[..head_dim]; BLOCKS];
    for (idx, block) in blocks.iter_mut().enumerate() {
        *block = &keys[idx * head_dim..][..head_dim];
    }
    let mut sums = [[simd.splat(0.0); BLOCKS]; QUERIES];
    for dim in 0..head_dim {
        let mut keys = [simd.splat(0.0); BLOCKS];
        for idx in 0..BLOCKS {
            keys[idx] = E::load(simd, &blocks[idx][dim]);
        }
        for query in 0..QUERIES {
            let value = simd.splat(queries[query][dim]);
            for idx in 0..BLOCKS {
                sums[query][idx] = simd.mul_add(keys[idx], value, sums[query][idx]);
            }
        }
    }
    for query in 0..QUERIES {
        let (blocks, _) = scores[query].as_chunks_mut::<LANES>();
        for idx in 0..BLOCKS {
            simd.store(sums[query][idx], &mut blocks[block + idx]);
        }
    }
    BLOCKS
}

/// Makes weights of the first `seen` scores; returns what earlier sums are to be multiplied with.
#[inline(always)]
fn softmax<S: Simd>(
    simd: S,
    scores: &mut [f32; CHUNK],
    seen: usize,
    largest: &mut f32,
    total: &mut S::Floats,
) -> f32 {
    let (blocks, _) = scores.as_chunks_mut::<LANES>();
    let blocks = &mut blocks[..seen.div_ceil(LANES)];
    let mut maxima = simd.splat(*largest);
    for (idx, block) in blocks.iter().enumerate() {
        let scores = simd.keep_first(simd.load(block), seen - idx * LANES, f32::NEG_INFINITY);
        maxima = simd.max(maxima, scores);
    }
    let now_largest = simd.maximum(maxima);
    let before = simd.splat(*largest - now_largest);
    // The first chunk has nothing before it; its difference is an infinity, which `exp` cuts off.
    let factor = if *largest == f32::NEG_INFINITY { 0.0 } else { simd.maximum(exp(simd, before)) };
    *largest = now_largest;
    *total = simd.mul(*total, simd.splat(factor));
    for (idx, block) in blocks.iter_mut().enumerate() {
        let weights = exp(simd, simd.sub(simd.load(block), simd.splat(now_largest)));
        let weights = simd.keep_first(weights, seen - idx * LANES, 0.0);
        *total = simd.add(*total, weights);
        simd.store(weights, block);
    }
    factor
}

/// Adds the weighted values of a chunk to `VECTORS` vectors of the output from `dim` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one inner loop, cut out for its length alone")]
fn mix<S: Simd, E: Element, const QUERIES: usize, const VECTORS: usize>(
    simd: S,
    cached: &Cached<'_, E>,
    first: usize,
    dim: usize,
    weights: &[[f32; CHUNK]; QUERIES],
    seen: &[usize; QUERIES],
    factors: &[f32; QUERIES],
    output: &mut [f32],
) -> usize {
    let padded_dim = cached.padded_dim;
    let row_len = padded_dim / LANES;
    let (values, _) = cached.values.as_chunks::<LANES>();
    let values = &values[first * row_len + dim / LANES..];
    let (output, _) = output.as_chunks_mut::<LANES>();
    let output = &mut output[dim / LANES..];

    let mut sums = [[simd.splat(0.0); VECTORS]; QUERIES];
    for query in 0..QUERIES {
        for idx in 0..VECTORS {
            sums[query][idx] =
                simd.mul(simd.load(&output[query * row_len + idx]), simd.splat(factors[query]));
        }
    }
    let mut seen_by_all = seen[0];
    for &seen in seen {
        seen_by_all = seen_by_all.min(seen);
    }
    for position in 0..seen_by_all {
        let stored = &values[position * row_len..][..VECTORS];
        let mut values = [simd.splat(0.0); VECTORS];
        for idx in 0..VECTORS {
            values[idx] = E::load(simd, &stored[idx]);
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
        for position in seen_by_all..seen[query] {
            let stored = &values[position * row_len..][..VECTORS];
            let weight = simd.splat(weights[query][position]);
            for idx in 0..VECTORS {
                let to = &mut output[query * row_len + idx];
                simd.store(simd.mul_add(E::load(simd, &stored[idx]), weight, simd.load(to)), to);
            }
        }
    }
    VECTORS * LANES
}

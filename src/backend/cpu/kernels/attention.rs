//! Attention of a few queries over the keys and values of one head of one slot, read where they lie.
//!
//! Positions are taken in chunks, with the largest score so far as a running reference (Milakov and
//! Gimelshein, arXiv:1805.02867), so that scores never leave the first cache. Chunks begin at fixed
//! positions: what a query finds depends on its own positions alone.
//!
//! Keys and values are kept in blocks of sixteen positions, the values behind their keys, in one of two
//! forms ([`Kept`]): what a query reads is one piece of memory, since to begin another takes as long as to
//! read ten kilobytes.

use super::simd::{Kernel, LANES, Simd, exp2};

/// Positions of a block of keys and values.
pub(in crate::backend::cpu) const POSITIONS_PER_BLOCK: usize = LANES;
/// Positions whose scores are had at once.
pub(super) const CHUNK: usize = 128;
pub(super) const BLOCKS_PER_CHUNK: usize = CHUNK / POSITIONS_PER_BLOCK;
/// Heads are prepared in fixed memory.
pub(in crate::backend::cpu) const MAX_HEAD_DIM: usize = 256;
/// Queries that share each key and value they read.
const MAX_TOGETHER: usize = 6;

/// The scores of a chunk, and then the weights that come of them.
pub(super) type Scores = [f32; CHUNK];

/// How many numbers a key or a value has.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct HeadShape {
    pub(in crate::backend::cpu) head_dim: usize,
    /// Filled up to whole vectors, with zeros: so values are kept.
    pub(in crate::backend::cpu) padded_dim: usize,
}

impl HeadShape {
    pub(in crate::backend::cpu) fn new(head_dim: usize) -> Self {
        Self { head_dim, padded_dim: head_dim.next_multiple_of(LANES) }
    }

    /// Units that a block takes.
    #[inline(always)]
    pub(in crate::backend::cpu) fn block_len<E: Kept>(self) -> usize {
        E::keys_len(self.head_dim) + E::values_len(self.padded_dim)
    }
}

/// A form in which keys and values are kept: `f32` as they are, or pairs of integers (`u32`).
///
/// Both parts of a block take a multiple of sixteen units.
pub(in crate::backend::cpu) trait Kept:
    Copy + Default + Send + Sync + 'static
{
    /// A query as it meets keys.
    type Query<'a>: Copy;

    /// Units that the keys of a block take.
    fn keys_len(head_dim: usize) -> usize;
    /// Units that the values of a block take.
    fn values_len(padded_dim: usize) -> usize;

    /// Puts a key and a value at a position of their block.
    fn keep<S: Simd>(simd: S, keep: Keep<'_, Self>);

    fn query<S: Simd>(simd: S, values: &[f32]) -> Self::Query<'_>;

    /// Products of queries with the keys of the first `BLOCKS` blocks, into the blocks of scores from the `nth` on.
    fn scores<S: Simd, const QUERIES: usize, const BLOCKS: usize>(
        simd: S,
        queries: &[Self::Query<'_>; QUERIES],
        blocks: &[Self],
        shape: HeadShape,
        nth: usize,
        scores: &mut [Scores; QUERIES],
    );

    /// Of the values of the first block, in the form that has scales: they go into the weights.
    fn value_scales(blocks: &[Self], shape: HeadShape) -> Option<[f32; POSITIONS_PER_BLOCK]>;

    /// Multiplies what a chunk's queries have found before with their factors, and adds the chunk's weighted values;
    /// `VECTORS` vectors of the output at a time.
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, Self, QUERIES>,
        output: &mut [f32],
    );
}

/// A key and a value to be kept.
pub(in crate::backend::cpu) struct Keep<'a, E> {
    pub(in crate::backend::cpu) key: &'a [f32],
    /// As many as the key has.
    pub(in crate::backend::cpu) value: &'a [f32],
    /// The block that they go to.
    pub(in crate::backend::cpu) block: &'a mut [E],
    /// Which one in its block.
    pub(in crate::backend::cpu) position: usize,
}

impl<E: Kept> Kernel for Keep<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        E::keep(simd, self);
    }
}

/// The weights of a chunk of positions, and their values.
pub(in crate::backend::cpu) struct Chunk<'a, E, const QUERIES: usize> {
    /// Times the scales of the values, if they have any.
    pub(super) weights: &'a [Scores; QUERIES],
    pub(super) found: [Found; QUERIES],
    /// From the chunk's first on.
    pub(super) blocks: &'a [E],
    pub(super) shape: HeadShape,
}

/// What is known of a query's weights in a chunk.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// How many there are. The others are 0 to the end of their block, and anything behind it.
    pub(super) seen: usize,
    /// What earlier chunks yielded is to be multiplied with.
    pub(super) factor: f32,
    /// Of the weights, where values have scales.
    pub(super) sum: f32,
    pub(super) largest: f32,
}

/// A query of one head.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Query<'a> {
    /// Turned and scaled already, so that weights are powers of two; `[head_dim]`.
    pub(in crate::backend::cpu) values: &'a [f32],
    /// How many positions it sees; at least one.
    pub(in crate::backend::cpu) positions: usize,
}

/// `softmax(query · keysᵀ * ln 2) · values` for each query.
pub(in crate::backend::cpu) struct Attend<'a, E> {
    pub(in crate::backend::cpu) queries: &'a [Query<'a>],
    pub(in crate::backend::cpu) blocks: &'a [E],
    pub(in crate::backend::cpu) shape: HeadShape,
    /// `[query, padded_dim]`.
    pub(in crate::backend::cpu) output: &'a mut [f32],
}

impl<E: Kept> Kernel for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { mut queries, blocks, shape, mut output } = self;
        while !queries.is_empty() {
            let together = match queries.len() {
                MAX_TOGETHER.. => 6,
                3.. => 3,
                len => len,
            };
            let (these, others) = queries.split_at(together);
            let (to, rest) = output.split_at_mut(together * shape.padded_dim);
            let cached = Cached { blocks, shape };
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

#[derive(Clone, Copy)]
struct Cached<'a, E> {
    blocks: &'a [E],
    shape: HeadShape,
}

/// `QUERIES` queries, `BLOCKS` blocks of keys or `VECTORS` vectors of the values at a time.
#[inline(always)]
fn attend<S: Simd, E: Kept, const QUERIES: usize, const BLOCKS: usize, const VECTORS: usize>(
    simd: S,
    queries: &[Query<'_>],
    cached: Cached<'_, E>,
    output: &mut [f32],
) {
    let Cached { blocks, shape } = cached;
    let block_len = shape.block_len::<E>();
    let mut prepared = [E::query(simd, queries[0].values); QUERIES];
    for query in 1..QUERIES {
        prepared[query] = E::query(simd, queries[query].values);
    }
    let (mut largest, mut totals) = ([f32::NEG_INFINITY; QUERIES], [simd.splat(0.0); QUERIES]);
    output.fill(0.0);
    let longest = queries.iter().map(|query| query.positions).max().unwrap_or(0);
    let mut weights = [[0.0; CHUNK]; QUERIES];
    for first in (0..longest).step_by(CHUNK) {
        let blocks = &blocks[first / POSITIONS_PER_BLOCK * block_len..];
        let n_blocks = (longest - first).div_ceil(POSITIONS_PER_BLOCK).min(BLOCKS_PER_CHUNK);
        let mut block = 0;
        while block < n_blocks {
            let blocks = &blocks[block * block_len..];
            if n_blocks - block >= BLOCKS {
                E::scores::<S, QUERIES, BLOCKS>(simd, &prepared, blocks, shape, block, &mut weights);
                block += BLOCKS;
            } else {
                E::scores::<S, QUERIES, 1>(simd, &prepared, blocks, shape, block, &mut weights);
                block += 1;
            }
        }
        let mut found = [Found { seen: 0, factor: 1.0, sum: 0.0, largest: 0.0 }; QUERIES];
        for query in 0..QUERIES {
            let seen = queries[query].positions.saturating_sub(first).min(CHUNK);
            if seen > 0 {
                let (largest, total) = (&mut largest[query], &mut totals[query]);
                let scores = &mut weights[query];
                found[query] = softmax(simd, scores, seen, largest, total, Cached { blocks, shape });
            }
        }
        let chunk = Chunk { weights: &weights, found, blocks, shape };
        E::mix::<S, QUERIES, VECTORS>(simd, chunk, output);
    }
    for (output, total) in output.chunks_exact_mut(shape.padded_dim).zip(totals) {
        let total = simd.splat(simd.sum(total));
        for values in output.as_chunks_mut::<LANES>().0 {
            let mixed = simd.div(simd.load(values), total);
            simd.store(mixed, values);
        }
    }
}

/// Makes weights of the first `seen` scores.
#[inline(always)]
fn softmax<S: Simd, E: Kept>(
    simd: S,
    scores: &mut Scores,
    seen: usize,
    largest: &mut f32,
    total: &mut S::Floats,
    Cached { blocks: kept, shape }: Cached<'_, E>,
) -> Found {
    let (blocks, _) = scores.as_chunks_mut::<LANES>();
    let blocks = &mut blocks[..seen.div_ceil(LANES)];
    let mut maxima = simd.splat(*largest);
    for (idx, block) in blocks.iter().enumerate() {
        let scores = simd.keep_first(simd.load(block), seen - idx * LANES, f32::NEG_INFINITY);
        maxima = simd.max(maxima, scores);
    }
    let now_largest = simd.maximum(maxima);
    let before = simd.splat(*largest - now_largest);
    // The first chunk has nothing before it.
    let factor = if *largest == f32::NEG_INFINITY { 0.0 } else { simd.maximum(exp2(simd, before)) };
    *largest = now_largest;
    *total = simd.mul(*total, simd.splat(factor));
    let (mut sums, mut maxima) = (simd.splat(0.0), simd.splat(0.0));
    for (idx, block) in blocks.iter_mut().enumerate() {
        let weights = exp2(simd, simd.sub(simd.load(block), simd.splat(now_largest)));
        let mut weights = simd.keep_first(weights, seen - idx * LANES, 0.0);
        *total = simd.add(*total, weights);
        if let Some(scales) = E::value_scales(&kept[idx * shape.block_len::<E>()..], shape) {
            weights = simd.mul(weights, simd.load(&scales));
            sums = simd.add(sums, weights);
            maxima = simd.max(maxima, weights);
        }
        simd.store(weights, block);
    }
    Found { seen, factor, sum: simd.sum(sums), largest: simd.maximum(maxima) }
}

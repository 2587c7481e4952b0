//! Attention of a few queries over the keys and values of one head of one slot, read where they lie.
//!
//! Positions are taken in chunks, with the largest score so far (in one form with the scale of its value)
//! as a running reference (Milakov and Gimelshein, arXiv:1805.02867), so that scores never leave the first
//! cache. Chunks begin at fixed positions: what a query finds depends on its own positions alone.
//!
//! Keys and values are kept in blocks of sixteen positions, the values behind their keys, in one of two
//! forms ([`Kept`]): what a query reads of a chunk is one piece of memory, since to begin another takes as long
//! as to read ten kilobytes. The pieces that come next are asked for while one is read.

use super::{
    kept_whole::WholeWeights,
    simd::{Kernel, LANES, Simd, exp2, exp2_up_to_127},
    whole_heads::WholeHead,
};
use crate::{
    backend::cpu::{aligned::Aligned, view::View},
    model::KeyBits,
};

/// Positions of a block of keys and values.
pub(in crate::backend::cpu) const POSITIONS_PER_BLOCK: usize = LANES;
/// Positions whose scores are had at once.
pub(in crate::backend::cpu) const CHUNK: usize = 128;
pub(in crate::backend::cpu) const BLOCKS_PER_CHUNK: usize = CHUNK / POSITIONS_PER_BLOCK;
/// Heads are prepared in fixed memory.
pub(in crate::backend::cpu) const MAX_HEAD_DIM: usize = 256;
/// Queries that share each key and value they read.
const MAX_TOGETHER: usize = 6;

/// The scores of a chunk, and then, where values have no scales, the weights that come of them.
pub(super) type Scores = [f32; CHUNK];

/// How many numbers a key or a value has, and of what kind.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct HeadShape {
    pub(in crate::backend::cpu) head_dim: usize,
    /// Filled up to whole vectors, with zeros: so values are kept, and keys of 8 bits.
    pub(in crate::backend::cpu) padded_dim: usize,
    /// Of keys and queries, where these become whole numbers.
    pub(in crate::backend::cpu) key_bits: KeyBits,
}

impl HeadShape {
    pub(in crate::backend::cpu) fn new(head_dim: usize, key_bits: KeyBits) -> Self {
        Self { head_dim, padded_dim: head_dim.next_multiple_of(LANES), key_bits }
    }

    /// Units that a block takes.
    #[inline(always)]
    pub(in crate::backend::cpu) fn block_len<E: Kept>(self) -> usize {
        E::keys_len(self) + E::values_len(self.padded_dim)
    }
}

/// A form in which keys and values are kept: `f32` as they are, or as whole numbers (`u32`, some to a unit), which queries
/// and weights must become, too.
///
/// Both parts of a block take a multiple of sixteen units. Any bytes are a unit.
pub(in crate::backend::cpu) trait Kept:
    Copy + Default + Send + Sync + 'static
{
    /// Whether values have scales.
    const HAS_SCALES: bool;

    /// Units that the keys of a block take.
    fn keys_len(shape: HeadShape) -> usize;
    /// Units that the values of a block take.
    fn values_len(padded_dim: usize) -> usize;

    /// Puts a key and a value at a position of their block.
    fn keep<S: Simd>(simd: S, keep: Keep<'_, Self>);

    /// Brings a query into the form that meets keys, if it is another one.
    fn prepare<S: Simd>(simd: S, values: &[f32], shape: HeadShape, whole: &mut WholeHead);

    /// Products of queries with the keys of the first `BLOCKS` blocks, into the blocks of scores from the `nth` on. In the
    /// form that has scales, [`ValueScales`] says what is added to each.
    fn scores<S: Simd, const QUERIES: usize, const BLOCKS: usize>(
        simd: S,
        queries: &Prepared<'_, QUERIES>,
        blocks: &[Self],
        shape: HeadShape,
        nth: usize,
        scores: &mut [Scores; QUERIES],
    );

    /// Of the first block's values, in the form that has scales: they go into the weights.
    fn value_scales<S: Simd>(simd: S, blocks: Blocks<'_, Self>) -> Option<ValueScales<S>>;

    /// Multiplies what a chunk's queries have found before with their factors, and adds the chunk's weighted values;
    /// `VECTORS` vectors of the output at a time.
    fn mix<S: Simd, const QUERIES: usize, const VECTORS: usize>(
        simd: S,
        chunk: Chunk<'_, Self, QUERIES>,
        output: &mut [f32],
    );
}

/// Queries as they meet keys.
pub(in crate::backend::cpu) struct Prepared<'a, const QUERIES: usize> {
    pub(super) values: [&'a [f32]; QUERIES],
    pub(super) whole: &'a [WholeHead; QUERIES],
    /// As in [`Cached`].
    pub(super) ahead: usize,
}

/// A key and a value to be kept.
pub(in crate::backend::cpu) struct Keep<'a, E> {
    pub(in crate::backend::cpu) key: &'a [f32],
    /// As many as the key has.
    pub(in crate::backend::cpu) value: &'a [f32],
    /// The block that they go to.
    pub(in crate::backend::cpu) block: &'a mut [E],
    pub(in crate::backend::cpu) shape: HeadShape,
    /// How many bytes behind this block the one lies that is written next, which is asked for.
    pub(in crate::backend::cpu) ahead: usize,
    /// Which one in its block.
    pub(in crate::backend::cpu) position: usize,
}

impl<E: Kept> Kernel for Keep<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.ahead != 0 {
            for line in self.block.chunks(LANES) {
                simd.prefetch(line, self.ahead);
            }
        }
        E::keep(simd, self);
    }
}

/// The scales of sixteen values. A weight meets its value's scale before it is rounded, so what the others are measured by
/// is the largest score plus the logarithm of its scale: a score in this form has that logarithm in it, rounded up. Scores
/// are taken to be far below 2^20, where a logarithm added to them would be lost.
pub(in crate::backend::cpu) struct ValueScales<S: Simd> {
    /// Scales by the next powers of two, times the largest whole weight.
    pub(super) fractions: S::Floats,
    /// One by these powers: what the score has been given too much.
    pub(super) powers: S::Floats,
}

/// The weights of a chunk of positions, and their values.
pub(in crate::backend::cpu) struct Chunk<'a, E, const QUERIES: usize> {
    pub(super) weights: &'a [Scores; QUERIES],
    /// Instead, where values have scales: times these.
    pub(super) whole_weights: &'a [WholeWeights; QUERIES],
    pub(super) found: [Found; QUERIES],
    pub(super) blocks: Blocks<'a, E>,
}

/// What is known of a query's weights in a chunk.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// How many there are. The others are 0, as far as any query of the chunk sees.
    pub(super) seen: usize,
    /// What earlier chunks yielded is to be multiplied with.
    pub(super) factor: f32,
    /// What this chunk yields is to be multiplied with; 1 where values have no scales.
    pub(super) gain: f32,
}

/// A query of one head.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Query<'a> {
    /// Turned and scaled already, so that weights are powers of two; `[head_dim]`.
    pub(in crate::backend::cpu) values: &'a [f32],
    /// How many positions it sees; at least one.
    pub(in crate::backend::cpu) positions: usize,
}

/// Memory for what is found on the way; what it holds does not matter.
pub(in crate::backend::cpu) struct Scratch {
    queries: [WholeHead; MAX_TOGETHER],
    scores: Aligned<[Scores; MAX_TOGETHER]>,
    /// The weights that come of the scores.
    weights: Aligned<[WholeWeights; MAX_TOGETHER]>,
}

impl Scratch {
    pub(in crate::backend::cpu) const fn new() -> Self {
        Self {
            queries: [const { WholeHead::new() }; _],
            scores: Aligned([[0.0; _]; _]),
            weights: Aligned([[[0; _]; _]; _]),
        }
    }
}

/// The keys and values of one head of one slot.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Cached<'a, E> {
    /// A row a chunk; what lies between them is others'.
    pub(in crate::backend::cpu) chunks: View<'a, E>,
    pub(in crate::backend::cpu) shape: HeadShape,
    /// How many bytes behind these blocks those lie that are read next: they are asked for line by line while these are
    /// read. 0 where it is not known, or not worth it.
    pub(in crate::backend::cpu) ahead: usize,
}

impl<E> Cached<'_, E> {
    /// Those are read next.
    pub(in crate::backend::cpu) fn ask_for(&mut self, next: Cached<'_, E>) {
        let address = |cached: &Cached<'_, E>| cached.chunks.row(0).as_ptr().addr();
        self.ahead = address(&next).wrapping_sub(address(self));
    }
}

/// A chunk's blocks, from one of them on.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Blocks<'a, E> {
    pub(super) units: &'a [E],
    pub(super) shape: HeadShape,
    /// As in [`Cached`].
    pub(super) ahead: usize,
}

/// `softmax(query · keysᵀ * ln 2) · values` for each query.
pub(in crate::backend::cpu) struct Attend<'a, E> {
    pub(in crate::backend::cpu) queries: &'a [Query<'a>],
    pub(in crate::backend::cpu) cached: Cached<'a, E>,
    /// `[query, padded_dim]`.
    pub(in crate::backend::cpu) output: &'a mut [f32],
    pub(in crate::backend::cpu) scratch: &'a mut Scratch,
}

impl<E: Kept> Kernel for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { mut queries, cached, mut output, scratch } = self;
        while !queries.is_empty() {
            let together = match queries.len() {
                6.. => 6,
                3.. => 3,
                len => len,
            };
            let (these, others) = queries.split_at(together);
            let (to, rest) = output.split_at_mut(together * cached.shape.padded_dim);
            // Enough sums that none waits for another, and no more than there are registers for.
            match (together, S::ROWS >= 8) {
                (6, true) => attend::<S, E, 6, 2, 4>(simd, these, cached, to, scratch),
                (6, false) => attend::<S, E, 6, 1, 1>(simd, these, cached, to, scratch),
                (3, true) => attend::<S, E, 3, 4, 4>(simd, these, cached, to, scratch),
                (3, false) => attend::<S, E, 3, 1, 1>(simd, these, cached, to, scratch),
                (2, true) => attend::<S, E, 2, 4, 4>(simd, these, cached, to, scratch),
                (2, false) => attend::<S, E, 2, 2, 2>(simd, these, cached, to, scratch),
                (_, true) => attend::<S, E, 1, 8, 4>(simd, these, cached, to, scratch),
                (_, false) => attend::<S, E, 1, 4, 4>(simd, these, cached, to, scratch),
            }
            (queries, output) = (others, rest);
        }
    }
}

/// `QUERIES` queries, `BLOCKS` blocks of keys or `VECTORS` vectors of the values at a time.
#[inline(always)]
fn attend<S: Simd, E: Kept, const QUERIES: usize, const BLOCKS: usize, const VECTORS: usize>(
    simd: S,
    queries: &[Query<'_>],
    cached: Cached<'_, E>,
    output: &mut [f32],
    scratch: &mut Scratch,
) {
    let Cached { chunks, shape, ahead } = cached;
    let block_len = shape.block_len::<E>();
    let Scratch { queries: whole, scores: Aligned(scores), weights: Aligned(weights) } = scratch;
    let whole = whole.first_chunk_mut::<QUERIES>().expect("as many as there may be");
    let scores = scores.first_chunk_mut::<QUERIES>().expect("as many as there may be");
    let weights = weights.first_chunk_mut::<QUERIES>().expect("as many as there may be");
    let mut values = [queries[0].values; QUERIES];
    for query in 0..QUERIES {
        values[query] = queries[query].values;
        E::prepare(simd, values[query], shape, &mut whole[query]);
    }
    let prepared = Prepared { values, whole, ahead };
    let (mut largest, mut totals) = ([f32::NEG_INFINITY; LANES], [simd.splat(0.0); QUERIES]);
    output.fill(0.0);
    let longest = queries.iter().map(|query| query.positions).max().unwrap_or(0);
    for first in (0..longest).step_by(CHUNK) {
        let units = chunks.row(first / CHUNK);
        let n_blocks = (longest - first).div_ceil(POSITIONS_PER_BLOCK).min(BLOCKS_PER_CHUNK);
        let mut block = 0;
        while block < n_blocks {
            let blocks = &units[block * block_len..];
            if n_blocks - block >= BLOCKS {
                E::scores::<S, QUERIES, BLOCKS>(simd, &prepared, blocks, shape, block, scores);
                block += BLOCKS;
            } else {
                E::scores::<S, QUERIES, 1>(simd, &prepared, blocks, shape, block, scores);
                block += 1;
            }
        }
        let mut found = [Found { seen: 0, factor: 1.0, gain: 1.0 }; QUERIES];
        for query in 0..QUERIES {
            found[query].seen = queries[query].positions.saturating_sub(first).min(CHUNK);
        }
        let blocks = Blocks { units, shape, ahead };
        softmax(simd, (scores, weights), &mut found, &mut largest, &mut totals, blocks);
        let chunk = Chunk { weights: scores, whole_weights: weights, found, blocks };
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

/// Makes weights of the scores; those that a query does not see become 0. A block is taken for all queries before the
/// next one, since each step of one query waits for the step before.
///
/// Whole weights are measured by the largest of their chunk, so that a bit of them is lost at most, others by the largest so
/// far.
#[inline(always)]
fn softmax<S: Simd, E: Kept, const QUERIES: usize>(
    simd: S,
    (scores, whole_weights): (&mut [Scores; QUERIES], &mut [WholeWeights; QUERIES]),
    found: &mut [Found; QUERIES],
    largest: &mut [f32; LANES],
    totals: &mut [S::Floats; QUERIES],
    blocks: Blocks<'_, E>,
) {
    let (mut shortest, mut longest) = (CHUNK, 0);
    for found in &*found {
        (shortest, longest) = (shortest.min(found.seen), longest.max(found.seen));
    }
    // All queries see the whole of the first ones.
    let (seen_by_all, n_blocks) = (shortest / LANES, longest.div_ceil(LANES));
    let seen_in = |found: &Found, idx: usize| found.seen.saturating_sub(idx * LANES);

    let mut maxima = [simd.splat(f32::NEG_INFINITY); QUERIES];
    for idx in 0..n_blocks {
        for query in 0..QUERIES {
            let mut scores = simd.load(&scores[query].as_chunks::<LANES>().0[idx]);
            if idx >= seen_by_all {
                scores = simd.keep_first(scores, seen_in(&found[query], idx), f32::NEG_INFINITY);
            }
            // In this order, so that what is no number is none where the instruction takes the second of two.
            maxima[query] = simd.max(scores, maxima[query]);
        }
    }
    let before = *largest;
    let mut references = [0.0; LANES];
    each_maximum(simd, maxima, &mut references);
    let now = simd.max(simd.load(&before), simd.load(&references));
    simd.store(now, largest);
    let (mut factors, mut gains) = ([0.0; LANES], [1.0; LANES]);
    simd.store(exp2(simd, simd.sub(simd.load(&before), now)), &mut factors);
    if E::HAS_SCALES {
        simd.store(exp2(simd, simd.sub(simd.load(&references), now)), &mut gains);
    } else {
        references = *largest;
    }
    for query in 0..QUERIES {
        let found = &mut found[query];
        (found.factor, found.gain) = match found.seen {
            // Not even what is no number changes.
            0 => (1.0, 0.0),
            // The first chunk has nothing before it.
            _ if before[query] == f32::NEG_INFINITY => (0.0, gains[query]),
            _ => (factors[query], gains[query]),
        };
    }

    let mut sums = [simd.splat(0.0); QUERIES];
    for idx in 0..n_blocks {
        let units = &blocks.units[idx * blocks.shape.block_len::<E>()..];
        let scales = E::value_scales(simd, Blocks { units, ..blocks });
        for query in 0..QUERIES {
            let scores = &mut scores[query].as_chunks_mut::<LANES>().0[idx];
            let mut below = simd.sub(simd.load(scores), simd.splat(references[query]));
            if idx >= seen_by_all {
                // Others may be beyond 127.
                below = simd.keep_first(below, seen_in(&found[query], idx), f32::NEG_INFINITY);
            }
            let mut weights = exp2_up_to_127(simd, below);
            if idx >= seen_by_all {
                weights = simd.keep_first(weights, seen_in(&found[query], idx), 0.0);
            }
            match scales {
                Some(ValueScales { fractions, powers }) => {
                    sums[query] = simd.mul_add(weights, powers, sums[query]);
                    let whole_weights = &mut whole_weights[query];
                    whole_weights[idx] = simd.to_pairs(simd.mul(weights, fractions));
                }
                None => {
                    sums[query] = simd.add(sums[query], weights);
                    simd.store(weights, scores);
                }
            }
        }
    }
    for query in 0..QUERIES {
        let Found { factor, gain, .. } = found[query];
        let earlier = simd.mul(totals[query], simd.splat(factor));
        totals[query] = simd.mul_add(sums[query], simd.splat(gain), earlier);
    }
}

/// The maximum of each of these.
#[inline(always)]
fn each_maximum<S: Simd, const COUNT: usize>(simd: S, values: [S::Floats; COUNT], maxima: &mut [f32; LANES]) {
    let mut idx = 0;
    while idx + 1 < COUNT {
        [maxima[idx], maxima[idx + 1]] = simd.maxima([values[idx], values[idx + 1]]);
        idx += 2;
    }
    if idx < COUNT {
        maxima[idx] = simd.maximum(values[idx]);
    }
}

//! The attention stage: keys and values go to the cache, queries find what is there.

use super::{
    aligned::Aligned,
    batch::{Place, Places},
    cache::Slots,
    kernels::{
        Attend, BLOCK_LEN, Block, Cached, Isa, Kept, MAX_HEAD_DIM, Quantise, Query, RmsNorm, Scratch, Turn,
    },
    pool::{Tasks, Tiles},
    rotary::RotaryTable,
    view::{View, ViewMut},
};
use crate::model::{AttentionShape, CacheShape, HeadPath, Model, NodeId, Pairing};
use std::{cell::RefCell, f32::consts::LOG2_E};

/// Tokens of a tile: their queries share the keys and values they read. A few are two tiles for each head, so that
/// threads have as many.
fn tokens_per_tile(tokens: usize) -> usize {
    tokens.div_ceil(2).clamp(1, 4)
}

/// Queries that are prepared at once.
const MAX_QUERIES: usize = 6;

#[derive(Debug, thiserror::Error)]
#[error("heads are {head_dim} wide, more than {MAX_HEAD_DIM}")]
pub(in crate::backend) struct HeadTooWide {
    head_dim: usize,
}

/// Attention of one layer.
pub(super) struct Attention {
    layer: usize,
    shape: AttentionShape,
    query: HeadForm,
    key: HeadForm,
    /// Columns of the output where the queries of a key-value head begin, and the end.
    cuts: Vec<usize>,
}

/// What happens to each head of a query or key before it is used.
struct HeadForm {
    /// Weight and epsilon.
    norm: Option<(Vec<f32>, f32)>,
    pairing: Option<Pairing>,
}

/// What a share's tokens are turned with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) isa: Isa,
    pub(super) rotary: &'a RotaryTable,
    /// Of the share's tokens.
    pub(super) places: &'a Places,
}

/// Where the heads of each token are: matrices, and the first column in them.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub(super) rows: View<'a, f32>,
    pub(super) column: usize,
}

impl<'a> Heads<'a> {
    fn head(&self, token: usize, head: usize, head_dim: usize) -> &'a [f32] {
        &self.rows.row(token)[self.column + head * head_dim..][..head_dim]
    }
}

impl HeadForm {
    fn new(model: &Model, path: HeadPath) -> Self {
        let norm = path.norm.map(|(weight, epsilon)| (model.weight(weight).to_f32(), epsilon));
        Self { norm, pairing: path.pairing }
    }

    /// What becomes of a head at a position, times `scale`.
    fn apply(&self, context: Context<'_>, position: usize, head: &[f32], scale: f32, to: &mut [f32]) {
        let mut normed;
        let head = match &self.norm {
            Some((weight, epsilon)) => {
                normed = [0.0; MAX_HEAD_DIM];
                let floats = &mut normed[..head.len()];
                let norm = RmsNorm { input: head, weight, epsilon: *epsilon, floats, blocks: &mut [] };
                context.isa.run(norm);
                &normed[..head.len()]
            }
            None => head,
        };
        match self.pairing {
            Some(pairing) => {
                let [cosines, sines] = context.rotary.turns(position);
                context.isa.run(Turn { head, cosines, sines, pairing, scale, to });
            }
            None => to.iter_mut().zip(head).for_each(|(to, value)| *to = value * scale),
        }
    }
}

impl Attention {
    /// A layer's, of the nodes that are its query and its key; also the nodes whose values it is to be given.
    pub(super) fn new(
        model: &Model,
        layer: usize,
        [query, key]: [NodeId; 2],
        shape: AttentionShape,
    ) -> (Self, [NodeId; 2]) {
        let paths = [query, key].map(|node| model.graph.head_path(node));
        let [query, key] = paths.map(|path| HeadForm::new(model, path));
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        let cuts = (0..=kv_heads).map(|head| head * (heads / kv_heads) * head_dim).collect();
        (Self { layer, shape, query, key, cuts }, paths.map(|path| path.source))
    }

    /// Values in a row of its output.
    pub(super) fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// # Errors
    /// The heads of these keys and values are too wide.
    pub(super) fn check(shape: CacheShape) -> Result<(), HeadTooWide> {
        let head_dim = shape.head_dim;
        if head_dim > MAX_HEAD_DIM { Err(HeadTooWide { head_dim }) } else { Ok(()) }
    }

    pub(super) fn run<E: Kept>(
        &self,
        context: Context<'_>,
        pool: &mut impl Tasks,
        cache: &mut Slots<'_, E>,
        [queries, keys, values]: [Heads<'_>; 3],
        output: ViewMut<'_, f32>,
    ) {
        self.write(context, pool, cache, keys, values);
        let cache = &*cache;
        let tokens = tokens_per_tile(output.rows());
        pool.tiles(output, tokens, &self.cuts, |token, head, tile| {
            self.attend_tokens(context, cache, head, (queries, token), tile);
        });
    }

    /// As [`run`](Self::run), but rounded to blocks.
    pub(super) fn run_to_blocks<E: Kept>(
        &self,
        context: Context<'_>,
        pool: &mut impl Tasks,
        cache: &mut Slots<'_, E>,
        [queries, keys, values]: [Heads<'_>; 3],
        (output, block_cuts): (ViewMut<'_, Block>, &[usize]),
    ) {
        thread_local! {
            /// What a tile finds. Kept for the next one.
            static FOUND: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        self.write(context, pool, cache, keys, values);
        let cache = &*cache;
        let tokens = tokens_per_tile(output.rows());
        pool.tiles(output, tokens, block_cuts, |token, head, mut blocks| {
            FOUND.with_borrow_mut(|found| {
                let width = self.cuts[head + 1] - self.cuts[head];
                found.resize(blocks.rows() * width, 0.0);
                let tile = ViewMut::new(found, blocks.rows(), width);
                self.attend_tokens(context, cache, head, (queries, token), tile);
                for (row, values) in found.chunks_exact(width).enumerate() {
                    context.isa.run(Quantise { values, blocks: blocks.row(row) });
                }
            });
        });
    }

    /// Where the queries of a key-value head begin in an output of blocks, if all begin with a block.
    pub(super) fn block_cuts(&self) -> Option<Vec<usize>> {
        let whole = self.cuts.iter().all(|cut| cut.is_multiple_of(BLOCK_LEN));
        whole.then(|| self.cuts.iter().map(|cut| cut / BLOCK_LEN).collect())
    }

    fn write<E: Kept>(
        &self,
        context: Context<'_>,
        pool: &mut impl Tasks,
        cache: &mut Slots<'_, E>,
        keys: Heads<'_>,
        values: Heads<'_>,
    ) {
        let head_dim = self.shape.head_dim;
        cache.write(context.isa, pool, self.layer, context.places, |token, head, key| {
            let position = context.places.all()[token].position;
            self.key.apply(context, position, keys.head(token, head, head_dim), 1.0, key);
            values.head(token, head, head_dim)
        });
    }

    /// One key-value head's queries of a tile's tokens, of which `token` is the first.
    fn attend_tokens<E: Kept>(
        &self,
        context: Context<'_>,
        cache: &Slots<'_, E>,
        kv_head: usize,
        (queries, token): (Heads<'_>, usize),
        mut tile: ViewMut<'_, f32>,
    ) {
        let places = &context.places.all()[token..token + tile.rows()];
        let mut first = 0;
        for run in places.chunk_by(|left, right| left.slot == right.slot) {
            let rows = first..first + run.len();
            // The next slot of the tile, or the tile that comes after this one.
            let (next_head, next_token) = if rows.end < tile.rows() {
                (kv_head, token + rows.end)
            } else if kv_head + 1 < self.shape.kv_heads {
                (kv_head + 1, token)
            } else {
                (0, token + rows.end)
            };
            let mut cached = cache.read(self.layer, kv_head, run[0].slot);
            if let Some(next) = context.places.all().get(next_token)
                // What several tokens of a slot read is in the caches by the second tile.
                && (run.len() == 1 || next.slot != run[0].slot)
            {
                cached.ask_for(cache.read(self.layer, next_head, next.slot));
            }
            let tile = tile.tile(rows.clone(), 0..tile.columns());
            self.attend(context, cached, kv_head, run, (queries, token + first), tile);
            first = rows.end;
        }
    }

    /// One key-value head's queries of neighbouring tokens of one slot, of which `first` is the first.
    fn attend<E: Kept>(
        &self,
        context: Context<'_>,
        cached: Cached<'_, E>,
        kv_head: usize,
        places: &[Place],
        (queries, first): (Heads<'_>, usize),
        mut output: ViewMut<'_, f32>,
    ) {
        type QueryHeads = [f32; MAX_QUERIES * MAX_HEAD_DIM];
        thread_local! {
            /// Queries, what they find, and what is found on the way. Kept for the next ones: to clear it takes
            /// as long as to look at a few positions.
            static PREPARED: RefCell<(Aligned<[QueryHeads; 2]>, Scratch)> =
                const { RefCell::new((Aligned([[0.0; _]; 2]), Scratch::new())) };
        }
        let AttentionShape { heads, kv_heads, head_dim, scale } = self.shape;
        let group = heads / kv_heads;
        let padded_dim = cached.shape.padded_dim;

        let count = places.len() * group;
        PREPARED.with_borrow_mut(|(Aligned([turned, found]), scratch)| {
            for start in (0..count).step_by(MAX_QUERIES) {
                let these = start..(start + MAX_QUERIES).min(count);
                for (idx, to) in these.clone().zip(turned.chunks_exact_mut(head_dim)) {
                    let (token, head) = (idx / group, kv_head * group + idx % group);
                    let query = queries.head(first + token, head, head_dim);
                    self.query.apply(context, places[token].position, query, scale * LOG2_E, to);
                }
                let mut prepared = [Query { values: &turned[..head_dim], positions: 1 }; MAX_QUERIES];
                for ((idx, values), query) in
                    these.clone().zip(turned.chunks_exact(head_dim)).zip(&mut prepared)
                {
                    *query = Query { values, positions: places[idx / group].position + 1 };
                }
                let queries = &prepared[..these.len()];
                let found = &mut found[..these.len() * padded_dim];
                context.isa.run(Attend { queries, cached, output: found, scratch });
                for (idx, found) in these.zip(found.chunks_exact(padded_dim)) {
                    let (token, head) = (idx / group, idx % group);
                    output.row(token)[head * head_dim..][..head_dim].copy_from_slice(&found[..head_dim]);
                }
            }
        });
    }
}

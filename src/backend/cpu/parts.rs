//! Parts of a step by themselves, for a backend that computes the rest elsewhere: attention with its KV cache, and gates.

use super::{
    attention::{Attention, Context, HeadTooWide, Heads},
    batch::{Place, Places},
    cache::{Cache, NoMemory},
    kernels::{Gate, Isa},
    pool::{Tasks, Tiles},
    rotary::RotaryTable,
    view::{View, ViewMut},
};
use crate::{
    backend::{Limits, Slot},
    model::{Model, Node},
};

/// Attention of all layers of a model.
pub(in crate::backend) struct CachedAttention {
    isa: Isa,
    rotary: RotaryTable,
    layers: Vec<Attention>,
    cache: Cache,
    places: Places,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::backend) enum BadHeads {
    #[error(transparent)]
    TooWide(#[from] HeadTooWide),
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl CachedAttention {
    /// Keys and values are kept in `f32` if all matrices are floats or `decoded`, else as integers of 16 bits and of 8, or all of 8
    /// if the model's manifest says so.
    ///
    /// # Errors
    /// Heads too wide for the kernels, or no memory for the cache.
    pub(in crate::backend) fn new(model: &Model, limits: &Limits, decoded: bool) -> Result<Self, BadHeads> {
        let graph = &model.graph;
        Attention::check(graph.cache())?;
        let layers = graph.nodes().filter_map(|(_, node)| match *node {
            Node::Attention { layer, query, key, shape, .. } => {
                Some(Attention::new(model, layer, [query, key], shape).0)
            }
            _ => None,
        });
        Ok(Self {
            isa: Isa::best(),
            rotary: RotaryTable::new(graph.inverse_frequencies(), limits.context_len),
            layers: layers.collect(),
            cache: Cache::new(model, limits.slots, limits.context_len, decoded)?,
            places: Places::default(),
        })
    }

    /// The slot and position of each token of the step that comes next.
    pub(in crate::backend) fn begin_step(&mut self, places: impl Iterator<Item = (Slot, usize)>) {
        self.places.fill(places.map(|(slot, position)| Place { slot, position }));
    }

    /// Tokens of the step, and values that a layer's attention yields for each.
    pub(in crate::backend) fn output_shape(&self, layer: usize) -> [usize; 2] {
        [self.places.all().len(), self.layers[layer].width()]
    }

    /// The attention of one layer, as the graph has it from the last value that is not about heads on. Each source
    /// is a matrix with a row a token, and the column in it where the heads of queries, keys or values begin.
    ///
    /// # Panics
    /// If a matrix has not a row for each token of the step, or there is no such layer.
    pub(in crate::backend) fn attend(
        &mut self,
        layer: usize,
        tasks: &mut impl Tasks,
        sources: [(&[f32], usize); 3],
        output: &mut [f32],
    ) {
        let tokens = self.places.all().len();
        let sources = sources.map(|(values, column)| {
            let width = values.len() / tokens;
            assert_eq!(values.len(), tokens * width, "a row for each token");
            Heads { rows: View::new(values, tokens, width), column }
        });
        let width = output.len() / tokens;
        let output = ViewMut::new(output, tokens, width);
        let context = Context { isa: self.isa, rotary: &self.rotary, places: &self.places };
        let attention = &self.layers[layer];
        match &mut self.cache {
            Cache::Whole(cache) => attention.run(context, tasks, &mut cache.slots(), sources, output),
            Cache::Floats(cache) => attention.run(context, tasks, &mut cache.slots(), sources, output),
        }
    }

    /// Copies the first `len` positions of a slot to another.
    pub(in crate::backend) fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        self.cache.copy_prefix(from, to, len);
    }
}

/// `silu(gate) * up` of matrices that lie side by side in the rows of one, from the two columns on.
///
/// # Panics
/// If a matrix is not whole rows.
pub(in crate::backend) fn gate(
    tasks: &mut impl Tasks,
    (product, rows): (&[f32], usize),
    [gate, up]: [usize; 2],
    output: &mut [f32],
) {
    /// Fewer are done sooner than another thread has heard of them.
    const ROWS_PER_TASK: usize = 4;
    // None where no logits are wanted.
    if rows == 0 {
        return;
    }
    let (isa, width) = (Isa::best(), output.len() / rows);
    let product = View::new(product, rows, product.len() / rows);
    tasks.tiles(ViewMut::new(output, rows, width), ROWS_PER_TASK, &[0, width], |first, _, mut tile| {
        for row in 0..tile.rows() {
            let (from, to) = (product.row(first + row), tile.row(row));
            to.copy_from_slice(&from[gate..][..width]);
            isa.run(Gate { gate: to, up: &from[up..][..width] });
        }
    });
}

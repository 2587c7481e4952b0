//! The KV cache: keys and values of every slot, in memory that is asked for once and touched as
//! positions fill up.

use super::{
    batch::Place,
    kernels::{HeadShape, Isa, Keep, Kept, LANES, POSITIONS_PER_BLOCK},
    matrix::Matrix,
    view::ViewMut,
};
use crate::{
    backend::Slot,
    model::{CacheShape, Model},
};

/// Keys and values are kept as precisely as the matrices of the file are, or as its manifest says.
pub(super) enum Cache {
    /// Of a model with matrices of integers: as integers, too.
    Whole(KvCache<u32>),
    Floats(KvCache<f32>),
}

impl Cache {
    pub(super) fn new(
        model: &Model,
        slots: usize,
        context_len: usize,
        decoded: bool,
    ) -> Result<Self, NoMemory> {
        let shape = model.graph.cache();
        let rounded = model.matrices().any(|tensor| Matrix::takes_blocks(tensor, decoded));
        let head = HeadShape::new(shape.head_dim, model.key_bits);
        Ok(match rounded {
            true => Self::Whole(KvCache::new(shape, head, slots, context_len)?),
            false => Self::Floats(KvCache::new(shape, head, slots, context_len)?),
        })
    }

    /// Copies the first `len` positions; those that share their block come along.
    pub(super) fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        match self {
            Self::Whole(cache) => cache.copy_prefix(from, to, len),
            Self::Floats(cache) => cache.copy_prefix(from, to, len),
        }
    }
}

/// One layer's keys and values for each layer of the model.
pub(super) struct KvCache<E> {
    layers: Vec<Layer<E>>,
    shape: SlotShape,
    slots: usize,
    kv_heads: usize,
}

struct Layer<E> {
    units: Vec<E>,
    /// Where a cache line begins.
    start: usize,
}

/// The memory of one head of one slot.
#[derive(Clone, Copy)]
pub(super) struct SlotShape {
    pub(super) head: HeadShape,
    /// The context in blocks of positions.
    blocks: usize,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no memory for a KV cache of {slots} slots of {context_len} positions: ask for fewer (--slots, --context-len)"
)]
pub(in crate::backend) struct NoMemory {
    slots: usize,
    context_len: usize,
}

impl<E: Kept> KvCache<E> {
    fn new(shape: CacheShape, head: HeadShape, slots: usize, context_len: usize) -> Result<Self, NoMemory> {
        let CacheShape { layers, kv_heads, .. } = shape;
        let no_memory = NoMemory { slots, context_len };
        let blocks = context_len.div_ceil(POSITIONS_PER_BLOCK);
        let sizes = [blocks, head.block_len::<E>(), slots, kv_heads];
        let layer_len = sizes.into_iter().try_fold(1usize, usize::checked_mul);
        let layer_len = layer_len.and_then(|len| len.checked_add(LANES));
        // Asked for whole at first and given back: `vec!` of zeros takes fresh pages without writing to
        // them, but ends the process where there are none.
        let fits = |len: usize| Vec::<E>::new().try_reserve_exact(len).is_ok();
        let total = layer_len.and_then(|len| len.checked_mul(layers));
        let (Some(layer_len), true) = (layer_len, total.is_some_and(fits)) else { return Err(no_memory) };
        let layers = (0..layers).map(|_| Layer::new(layer_len)).collect();
        Ok(Self { layers, shape: SlotShape { head, blocks }, slots, kv_heads })
    }

    pub(super) fn shape(&self) -> SlotShape {
        self.shape
    }

    /// A row for each key-value head, in it the memory of each slot.
    pub(super) fn heads(&mut self, layer: usize) -> ViewMut<'_, E> {
        let Layer { units, start } = &mut self.layers[layer];
        ViewMut::new(&mut units[*start..], self.kv_heads, self.slots * self.shape.len::<E>())
    }

    /// The memory of one head of one slot.
    pub(super) fn slot(&self, layer: usize, head: usize, slot: Slot) -> &[E] {
        let Layer { units, start } = &self.layers[layer];
        &units[start + self.place(head, slot)..][..self.shape.len::<E>()]
    }

    /// Where the memory of one head of one slot begins in a layer's.
    fn place(&self, head: usize, slot: Slot) -> usize {
        (head * self.slots + slot.0) * self.shape.len::<E>()
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        let used = len.div_ceil(POSITIONS_PER_BLOCK) * self.shape.head.block_len::<E>();
        for head in 0..self.kv_heads {
            let [from, to] = [from, to].map(|slot| self.place(head, slot));
            for Layer { units, start } in &mut self.layers {
                units.copy_within(*start + from..*start + from + used, *start + to);
            }
        }
    }
}

impl<E: Kept> Layer<E> {
    /// `len` units, some of which lie before the start.
    fn new(len: usize) -> Self {
        const CACHE_LINE: usize = 64;
        let units = vec![E::default(); len];
        let start = units.as_ptr().align_offset(CACHE_LINE).min(LANES);
        Self { units, start }
    }
}

impl SlotShape {
    pub(super) fn len<E: Kept>(&self) -> usize {
        self.blocks * self.head.block_len::<E>()
    }

    /// Where in the memory of one head the block of a place begins.
    pub(super) fn block<E: Kept>(self, place: Place) -> usize {
        place.slot.0 * self.len::<E>() + place.position / POSITIONS_PER_BLOCK * self.head.block_len::<E>()
    }

    /// Keeps the key and the value of a position in its block, which `memory` begins with.
    pub(super) fn keep<E: Kept>(
        self,
        isa: Isa,
        (memory, ahead): (&mut [E], usize),
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let block = &mut memory[..self.head.block_len::<E>()];
        let shape = self.head;
        isa.run(Keep { key, value, block, shape, ahead, position: position % POSITIONS_PER_BLOCK });
    }
}

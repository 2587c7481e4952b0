//! The KV cache: keys and values of every slot, in memory that is asked for once and touched as
//! positions fill up.

use super::{
    kernels::{Element, HalfBits, LANES, POSITIONS_PER_BLOCK},
    view::ViewMut,
};
use crate::{backend::Slot, model::CacheShape};
use half::{
    f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

/// Heads are prepared in fixed memory.
pub(super) const MAX_HEAD_DIM: usize = 256;

/// Keys and values are kept as precisely as the rest is computed.
pub(super) enum Cache {
    Half(KvCache<HalfBits>),
    Single(KvCache<f32>),
}

impl Cache {
    pub(super) fn new(
        shape: CacheShape,
        slots: usize,
        context_len: usize,
        decoded: bool,
    ) -> Result<Self, NoMemory> {
        Ok(match decoded {
            true => Self::Single(KvCache::new(shape, slots, context_len)?),
            false => Self::Half(KvCache::new(shape, slots, context_len)?),
        })
    }

    /// Copies the first `len` positions; those that share their block of keys come along.
    pub(super) fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        match self {
            Self::Half(cache) => cache.copy_prefix(from, to, len),
            Self::Single(cache) => cache.copy_prefix(from, to, len),
        }
    }
}

/// One layer's keys and values for each layer of the model.
pub(super) struct KvCache<E> {
    layers: Vec<Vec<E>>,
    shape: SlotShape,
    slots: usize,
    kv_heads: usize,
}

/// Where things lie in the memory of one head of one slot: all keys, then all values.
#[derive(Clone, Copy)]
pub(super) struct SlotShape {
    head_dim: usize,
    /// `head_dim` filled up to whole vectors.
    pub(super) padded_dim: usize,
    /// The context filled up to whole blocks of positions.
    positions: usize,
}

/// What a key or value is rounded to.
pub(super) trait Cached: Element {
    const ZERO: Self;

    /// Rounds the values of a head into as many places.
    fn round(values: &[f32], to: &mut [Self]);
}

impl Cached for f32 {
    const ZERO: Self = 0.0;

    fn round(values: &[f32], to: &mut [Self]) {
        to.copy_from_slice(values);
    }
}

impl Cached for HalfBits {
    const ZERO: Self = 0;

    /// What is too large becomes the largest: an infinity would spoil its neighbours.
    fn round(values: &[f32], to: &mut [Self]) {
        const LARGEST: f32 = 65504.0;
        let mut bounded = [0.0; MAX_HEAD_DIM];
        let bounded = &mut bounded[..values.len()];
        for (to, value) in bounded.iter_mut().zip(values) {
            *to = value.clamp(-LARGEST, LARGEST);
        }
        // All at once: `half` looks up how with each call.
        to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(bounded);
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no memory for a KV cache of {slots} slots of {context_len} positions: ask for fewer (--slots, --context-len)"
)]
pub(in crate::backend) struct NoMemory {
    slots: usize,
    context_len: usize,
}

impl<E: Cached> KvCache<E> {
    fn new(shape: CacheShape, slots: usize, context_len: usize) -> Result<Self, NoMemory> {
        let CacheShape { layers, kv_heads, head_dim } = shape;
        let no_memory = NoMemory { slots, context_len };
        let positions = context_len.checked_next_multiple_of(POSITIONS_PER_BLOCK);
        let (Some(positions), padded_dim) = (positions, head_dim.next_multiple_of(LANES)) else {
            return Err(no_memory);
        };
        let sizes = [positions, head_dim + padded_dim, slots, kv_heads];
        let layer_len = sizes.into_iter().try_fold(1usize, usize::checked_mul);
        // Asked for whole at first and given back: `vec!` of zeros takes fresh pages without writing to
        // them, but ends the process where there are none.
        let fits = |len: usize| Vec::<E>::new().try_reserve_exact(len).is_ok();
        let total = layer_len.and_then(|len| len.checked_mul(layers));
        let (Some(layer_len), true) = (layer_len, total.is_some_and(fits)) else { return Err(no_memory) };
        let layers = (0..layers).map(|_| vec![E::ZERO; layer_len]).collect();
        Ok(Self { layers, shape: SlotShape { head_dim, padded_dim, positions }, slots, kv_heads })
    }

    pub(super) fn shape(&self) -> SlotShape {
        self.shape
    }

    /// A row for each key-value head, in it the memory of each slot.
    pub(super) fn heads(&mut self, layer: usize) -> ViewMut<'_, E> {
        ViewMut::new(&mut self.layers[layer], self.kv_heads, self.slots * self.shape.len())
    }

    /// The memory of one head of one slot.
    pub(super) fn slot(&self, layer: usize, head: usize, slot: Slot) -> &[E] {
        &self.layers[layer][(head * self.slots + slot.0) * self.shape.len()..][..self.shape.len()]
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        let SlotShape { head_dim, padded_dim, .. } = self.shape;
        let keys = 0..len.next_multiple_of(POSITIONS_PER_BLOCK) * head_dim;
        let values = self.shape.values_start()..self.shape.values_start() + len * padded_dim;
        for layer in &mut self.layers {
            for head in 0..self.kv_heads {
                let [from, to] = [from, to].map(|slot| (head * self.slots + slot.0) * self.shape.len());
                for part in [&keys, &values] {
                    layer.copy_within(from + part.start..from + part.end, to + part.start);
                }
            }
        }
    }
}

impl SlotShape {
    pub(super) fn len(&self) -> usize {
        self.positions * (self.head_dim + self.padded_dim)
    }

    fn values_start(&self) -> usize {
        self.positions * self.head_dim
    }

    /// Keys, `[position / 16, head_dim, 16]`, and values, `[position, padded_dim]`.
    pub(super) fn split<E>(self, slot: &[E]) -> (&[E], &[E]) {
        slot.split_at(self.values_start())
    }

    pub(super) fn write<E: Cached>(self, slot: &mut [E], position: usize, key: &[f32], value: &[f32]) {
        let (keys, values) = slot.split_at_mut(self.values_start());
        let (block, lane) = (position / POSITIONS_PER_BLOCK, position % POSITIONS_PER_BLOCK);
        let block =
            &mut keys[block * self.head_dim * POSITIONS_PER_BLOCK..][..self.head_dim * POSITIONS_PER_BLOCK];
        let mut rounded = [E::ZERO; MAX_HEAD_DIM];
        let rounded = &mut rounded[..self.head_dim];
        E::round(key, rounded);
        for (to, key) in block.chunks_exact_mut(POSITIONS_PER_BLOCK).zip(rounded) {
            to[lane] = *key;
        }
        E::round(value, &mut values[position * self.padded_dim..][..self.head_dim]);
    }
}

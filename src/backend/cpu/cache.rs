//! The KV cache: keys and values of every slot, in memory that is asked for once and touched as
//! positions fill up.
//!
//! A step reads a piece of it for each head of each sequence, one far from the other, so it is in huge pages: to look up a
//! small one takes as long as to read a part of the piece. For huge pages to be full, what is in use lies together, the
//! first [`CHUNK`] positions of all slots before the next: `[chunk, slot, layer, head]`, each the blocks of a chunk.

#![expect(unsafe_code, reason = "mapped bytes are read as numbers, and tasks write blocks of their own")]

use super::{
    batch::{Place, Places},
    kernels::{
        BLOCKS_PER_CHUNK, CHUNK, Cached, HeadShape, Isa, Keep, Kept, MAX_HEAD_DIM, POSITIONS_PER_BLOCK,
    },
    matrix::Matrix,
    packed::huge_pages,
    pool::Tasks,
    view::ViewMut,
};
use crate::{
    backend::Slot,
    model::{CacheShape, Model},
};
use memmap2::MmapMut;
use std::marker::PhantomData;

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

/// The keys and values of all slots.
pub(super) struct KvCache<E> {
    memory: MmapMut,
    layout: Layout,
    units: PhantomData<E>,
}

/// Those of all slots, or of one owner's.
pub(super) struct Slots<'a, E> {
    /// `[chunk, what is kept of it]`.
    units: ViewMut<'a, E>,
    layout: Layout,
    /// The owner of each slot, and who owns these.
    owned: Option<(&'a [usize], usize)>,
}

/// What lies where.
#[derive(Clone, Copy)]
struct Layout {
    layers: usize,
    kv_heads: usize,
    slots: usize,
    head: HeadShape,
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
        let layout = Layout { layers, kv_heads, slots, head };
        let sizes =
            [context_len.div_ceil(CHUNK), slots, layers, kv_heads, layout.chunk_len::<E>(), size_of::<E>()];
        let bytes = sizes.into_iter().try_fold(1usize, usize::checked_mul);
        let memory = bytes.and_then(|bytes| huge_pages(bytes).ok());
        let memory = memory.ok_or(NoMemory { slots, context_len })?;
        Ok(Self { memory, layout, units: PhantomData })
    }

    fn units(&mut self) -> &mut [E] {
        let (start, len) = (self.memory.as_mut_ptr().cast(), self.memory.len() / size_of::<E>());
        // SAFETY: a mapping begins with a page, and any four bytes are a `u32` and an `f32`, all that is kept; `&mut self`
        // lends them out once.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Those of all slots, which nobody else has meanwhile.
    pub(super) fn slots(&mut self) -> Slots<'_, E> {
        let layout = self.layout;
        let (units, columns) = (self.units(), layout.chunks_len::<E>());
        let chunks = units.len() / columns;
        Slots { units: ViewMut::new(units, chunks, columns), layout, owned: None }
    }

    /// Those of each of some owners.
    pub(super) fn split<'a>(
        &'a mut self,
        owner_of: &'a [usize],
        owners: usize,
    ) -> impl Iterator<Item = Slots<'a, E>> {
        let Slots { units, layout, .. } = self.slots();
        (0..owners).map(move |owner| {
            // SAFETY: a slot has one owner, and is read and written through no other's (`check`).
            let units = unsafe { units.tile_unchecked(0..units.rows(), 0..units.columns()) };
            Slots { units, layout, owned: Some((owner_of, owner)) }
        })
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        let layout = self.layout;
        let chunk_len = layout.chunk_len::<E>();
        for position in (0..len).step_by(CHUNK) {
            let used =
                (len - position).min(CHUNK).div_ceil(POSITIONS_PER_BLOCK) * layout.head.block_len::<E>();
            let [from, to] = [from, to].map(|slot| layout.unit::<E>(0, 0, Place { slot, position }));
            for offset in (0..layout.slot_len::<E>()).step_by(chunk_len) {
                self.units().copy_within(from + offset..from + offset + used, to + offset);
            }
        }
    }
}

impl<E: Kept> Slots<'_, E> {
    /// Else what is asked for would lie in another slot's memory.
    fn check(&self, layer: usize, head: usize, slot: Slot) {
        assert!(layer < self.layout.layers && head < self.layout.kv_heads, "no head {head} of layer {layer}");
        let owned = self.owned.is_none_or(|(owner_of, owner)| owner_of.get(slot.0) == Some(&owner));
        assert!(owned, "slot {} is another's", slot.0);
    }

    /// The keys and values of one head of one slot.
    ///
    /// # Panics
    /// If there is no such layer, head or slot, or the slot is not among these.
    pub(super) fn read(&self, layer: usize, head: usize, slot: Slot) -> Cached<'_, E> {
        self.check(layer, head, slot);
        let layout = self.layout;
        let (_, begin) = layout.block::<E>(layer, head, Place { slot, position: 0 });
        let chunks = self.units.view().tile(0..self.units.rows(), begin..begin + layout.chunk_len::<E>());
        Cached { chunks, shape: layout.head, ahead: 0 }
    }

    /// Keeps the key and the value of each token of a step for each head of a layer: `head_of` has the token and the head,
    /// fills in the key and gives the value.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub(super) fn write<'a>(
        &mut self,
        isa: Isa,
        pool: &mut impl Tasks,
        layer: usize,
        places: &Places,
        head_of: impl Fn(usize, usize, &mut [f32]) -> &'a [f32] + Sync,
    ) {
        let layout = self.layout;
        let Layout { kv_heads, head: shape, .. } = layout;
        let unit_of = |head: usize, token: usize| layout.unit::<E>(layer, head, places.all()[token]);
        // One token's are written sooner than another thread has heard of it.
        let heads_per_task = if places.all().len() == 1 { kv_heads } else { 1 };
        let tasks_per_part = kv_heads / heads_per_task;
        let units = &self.units;
        places.all().iter().for_each(|place| self.check(layer, 0, place.slot));
        // A thread's neighbouring tasks are of the same tokens, most of which it has computed itself.
        pool.run(tasks_per_part * places.parts().len(), &|idx| {
            let (part, first_head) = (idx / tasks_per_part, idx % tasks_per_part * heads_per_task);
            let tokens = places.part(part);
            let mut key = [0.0; MAX_HEAD_DIM];
            let key = &mut key[..shape.head_dim];
            for head in first_head..first_head + heads_per_task {
                for (nth, &token) in tokens.iter().enumerate() {
                    let value = head_of(token, head, key);
                    // After the last token comes the first one's next head.
                    let next = match tokens.get(nth + 1) {
                        Some(&token) => unit_of(head, token),
                        None => unit_of(head + 1, tokens[0]),
                    };
                    let ahead = next.wrapping_sub(unit_of(head, token)).wrapping_mul(size_of::<E>());
                    let (chunk, start) = layout.block::<E>(layer, head, places.all()[token]);
                    // SAFETY: each task runs once and has a part of the places, or a head, that no other has; no block of
                    // places is in two parts, and those of different places are different memory (`Layout::block`).
                    let mut block = unsafe {
                        units.tile_unchecked(chunk..chunk + 1, start..start + shape.block_len::<E>())
                    };
                    let (block, position) =
                        (block.row(0), places.all()[token].position % POSITIONS_PER_BLOCK);
                    isa.run(Keep { key, value, block, shape, ahead, position });
                }
            }
        });
    }
}

impl Layout {
    /// Units of one head's chunk.
    fn chunk_len<E: Kept>(self) -> usize {
        BLOCKS_PER_CHUNK * self.head.block_len::<E>()
    }

    /// Units of a slot's chunk.
    fn slot_len<E: Kept>(self) -> usize {
        self.layers * self.kv_heads * self.chunk_len::<E>()
    }

    /// Units of a chunk of all slots.
    fn chunks_len<E: Kept>(self) -> usize {
        self.slots * self.slot_len::<E>()
    }

    /// The chunk that the block of a place is in, and where in it that block begins. No two blocks overlap, if their
    /// layers and heads are those of the model.
    ///
    /// # Panics
    /// If there is no such slot.
    fn block<E: Kept>(self, layer: usize, head: usize, place: Place) -> (usize, usize) {
        let Place { slot, position } = place;
        assert!(slot.0 < self.slots, "the cache has {} slots", self.slots);
        let begin = slot.0 * self.slot_len::<E>()
            + (layer * self.kv_heads + head) * self.chunk_len::<E>()
            + position % CHUNK / POSITIONS_PER_BLOCK * self.head.block_len::<E>();
        (position / CHUNK, begin)
    }

    /// Where that is from the first chunk on.
    fn unit<E: Kept>(self, layer: usize, head: usize, place: Place) -> usize {
        let (chunk, begin) = self.block::<E>(layer, head, place);
        chunk * self.chunks_len::<E>() + begin
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pool::Alone, *};
    use crate::model::KeyBits;

    fn cache() -> KvCache<f32> {
        let shape = CacheShape { layers: 2, kv_heads: 3, head_dim: 5 };
        let head = HeadShape::new(shape.head_dim, KeyBits::Sixteen);
        KvCache::new(shape, head, 4, 2 * CHUNK + 1).unwrap()
    }

    /// Layers, heads and slots, and the positions with which blocks begin.
    fn blocks() -> impl Iterator<Item = (usize, usize, Place)> {
        let heads = (0..2).flat_map(|layer| (0..3).map(move |head| (layer, head)));
        let places = (0..4).flat_map(|slot| {
            let positions = (0..3 * CHUNK).step_by(POSITIONS_PER_BLOCK);
            positions.map(move |position| Place { slot: Slot(slot), position })
        });
        heads.flat_map(move |(layer, head)| places.clone().map(move |place| (layer, head, place)))
    }

    #[test]
    fn each_block_has_its_own_memory() {
        let mut cache = cache();
        let starts = blocks().map(|(layer, head, place)| cache.layout.unit::<f32>(layer, head, place));
        let mut starts: Vec<_> = starts.collect();
        starts.sort_unstable();
        let block_len = cache.layout.head.block_len::<f32>();
        assert!(starts.into_iter().eq((0..cache.units().len()).step_by(block_len)));
    }

    #[test]
    #[should_panic(expected = "the cache has 4 slots")]
    fn a_slot_that_is_none_has_no_memory() {
        cache().slots().read(0, 0, Slot(4));
    }

    #[test]
    #[should_panic(expected = "slot 0 is another's")]
    fn a_slot_of_another_owner_is_not_read() {
        let mut cache = cache();
        let [first, second]: [_; 2] = cache.split(&[0, 1, 0], 2).collect::<Vec<_>>().try_into().ok().unwrap();
        first.read(0, 0, Slot(2));
        second.read(0, 0, Slot(1));
        second.read(0, 0, Slot(0));
    }

    #[test]
    #[should_panic(expected = "slot 1 is another's")]
    fn a_slot_of_another_owner_is_not_written() {
        let (mut cache, mut places) = (cache(), Places::default());
        let mut first = cache.split(&[0, 1], 2).next().unwrap();
        places.fill([Place { slot: Slot(1), position: 0 }].into_iter());
        first.write(Isa::best(), &mut Alone, 0, &places, |_, _, _| &[0.0; 5]);
    }

    #[test]
    #[should_panic(expected = "no head 3 of layer 1")]
    fn a_head_that_is_none_has_no_memory() {
        cache().slots().read(1, 3, Slot(0));
    }

    #[test]
    fn a_prefix_is_copied_with_whole_blocks_and_no_more() {
        let mut cache = cache();
        for (idx, unit) in cache.units().iter_mut().enumerate() {
            *unit = idx as f32;
        }
        let len = CHUNK + POSITIONS_PER_BLOCK + 1;
        cache.copy_prefix(Slot(1), Slot(3), len);
        let layout = cache.layout;
        for (layer, head, place) in blocks() {
            let copied = place.slot == Slot(3) && place.position < len;
            let from = Place { slot: if copied { Slot(1) } else { place.slot }, ..place };
            let [here, there] = [place, from].map(|place| layout.unit::<f32>(layer, head, place));
            let block = &cache.units()[here..][..layout.head.block_len::<f32>()];
            assert!(block.iter().zip(there..).all(|(unit, idx)| *unit == idx as f32), "{place:?}");
        }
    }
}

//! The KV cache: memory that is had once, of which each step binds the part that it needs.

use crate::{backend::Slot, model::CacheShape};

/// Positions of a slot that are bound at least, and in multiples of which: the order of a softmax's sum is of as many
/// lanes, and must not depend on what is bound.
const MIN_BOUND_CONTEXT: usize = 64;
/// Of a length that a power of two is, what is bound grows in as many steps to the next.
const STEPS_PER_DOUBLING: usize = 2;

/// Keys and values of every slot, `[slots, kv_heads, bound_context, head_dim]` for each layer.
///
/// A step reads all positions of the slots that it binds, whatever they hold. So slots are kept no longer
/// than the longest sequence wants, and moved apart within the same memory when it grows: twice as often as a
/// length doubles.
pub(super) struct KvCache {
    layers: Vec<[Vec<f32>; 2]>,
    shape: CacheShape,
    slots: usize,
    context_len: usize,
    bound_context: usize,
    changes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("no memory for a KV cache of {slots} slots of {context_len} positions")]
pub(super) struct NoMemory {
    slots: usize,
    context_len: usize,
}

impl KvCache {
    pub(super) fn new(shape: CacheShape, slots: usize, context_len: usize) -> Result<Self, NoMemory> {
        let CacheShape { layers, kv_heads, head_dim } = shape;
        let layer_len = [slots, context_len, kv_heads, head_dim].into_iter().try_fold(1, usize::checked_mul);
        // Asked for whole at first and given back: `vec!` of zeros takes fresh pages without writing to
        // them, but ends the process where there are none.
        let fits = |len: usize| Vec::<f32>::new().try_reserve_exact(len).is_ok();
        let total = layer_len.and_then(|len| len.checked_mul(2 * layers));
        let (Some(layer_len), true) = (layer_len, total.is_some_and(fits)) else {
            return Err(NoMemory { slots, context_len });
        };
        let layers = (0..layers).map(|_| [vec![0.0; layer_len], vec![0.0; layer_len]]).collect();
        let bound_context = context_len.min(MIN_BOUND_CONTEXT);
        Ok(Self { layers, shape, slots, context_len, bound_context, changes: 0 })
    }

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Positions of each slot, as they are bound.
    pub(super) fn bound_context(&self) -> usize {
        self.bound_context
    }

    /// How often the cache was written to other than by a run: what was bound before is to be bound again.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Keys and values of a layer for `slots` slots from `first` on.
    pub(super) fn bound(&mut self, layer: usize, first: usize, slots: usize) -> [&mut [f32]; 2] {
        let slot_len = self.shape.kv_heads * self.bound_context * self.shape.head_dim;
        self.layers[layer].each_mut().map(|memory| &mut memory[first * slot_len..][..slots * slot_len])
    }

    /// Makes room for `longest` positions in every slot, and not many more if it can be; what the slots hold,
    /// `held` positions each, is kept.
    pub(super) fn fit(&mut self, longest: usize, held: &[usize]) {
        let step = longest.next_power_of_two() / (2 * STEPS_PER_DOUBLING);
        let wanted = longest.next_multiple_of(step.max(MIN_BOUND_CONTEXT)).min(self.context_len);
        // Shrinks late, so that a length that goes up and down does not move the cache each time.
        if wanted > self.bound_context || 4 * wanted <= self.bound_context {
            self.restride(wanted, held);
        }
    }

    fn restride(&mut self, to: usize, held: &[usize]) {
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        self.changes += 1;
        let from = std::mem::replace(&mut self.bound_context, to);
        let mut heads: Vec<usize> = (0..self.slots * kv_heads).collect();
        if to > from {
            // The last one first: it goes where nobody is.
            heads.reverse();
        }
        for memory in self.layers.iter_mut().flatten() {
            for &head in &heads {
                let start = head * from * head_dim;
                let kept = held[head / kv_heads].min(to) * head_dim;
                memory.copy_within(start..start + kept, head * to * head_dim);
            }
        }
    }

    pub(super) fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        self.changes += 1;
        let head_len = self.bound_context * head_dim;
        for memory in self.layers.iter_mut().flatten() {
            for head in 0..kv_heads {
                let source = (from.0 * kv_heads + head) * head_len;
                memory.copy_within(source..source + len * head_dim, (to.0 * kv_heads + head) * head_len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value that is held says where it is.
    fn mark(layer: usize, slot: usize, head: usize, position: usize) -> f32 {
        (((layer * 10 + slot) * 10 + head) * 10_000 + position) as f32
    }

    #[test]
    fn what_slots_hold_moves_with_them() {
        let shape = CacheShape { layers: 2, kv_heads: 2, head_dim: 3 };
        let held = [256, 0, 17];
        let mut cache = KvCache::new(shape, 3, 3000).unwrap();
        cache.fit(256, &[0; 3]);
        for layer in 0..2 {
            let context = cache.bound_context();
            let [keys, values] = cache.bound(layer, 0, 3);
            for memory in [keys, values] {
                for (at, head) in memory.chunks_exact_mut(context * 3).enumerate() {
                    for position in 0..held[at / 2] {
                        head[position * 3..][..3].fill(mark(layer, at / 2, at % 2, position));
                    }
                }
            }
        }
        for (longest, bound) in [(256, 256), (257, 384), (3000, 3000), (760, 3000), (300, 384), (90, 384)] {
            cache.fit(longest, &held);
            assert_eq!(cache.bound_context(), bound, "for {longest}");
            for (layer, slot) in [(0, 0), (1, 0), (0, 2), (1, 2)] {
                for memory in cache.bound(layer, slot, 1) {
                    for (head, memory) in memory.chunks_exact(bound * 3).enumerate() {
                        for position in 0..held[slot] {
                            assert_eq!(memory[position * 3..][..3], [mark(layer, slot, head, position); 3]);
                        }
                    }
                }
            }
        }
    }
}

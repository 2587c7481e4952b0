//! The KV cache, and attention over it.

use super::plan::Place;
use crate::{
    backend::Slot,
    model::{AttentionShape, CacheShape},
};
use rayon::prelude::*;

/// Keys and values of every slot, in memory that is asked for once and touched as positions fill up.
pub(super) struct KvCache {
    layers: Vec<LayerCache>,
    /// Values in one position of one head.
    head_dim: usize,
    kv_heads: usize,
    context_len: usize,
}

/// `[slots, kv_heads, context, head_dim]` each, so that a head's positions lie one after another.
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no memory for a KV cache of {slots} slots of {context_len} positions: ask for fewer (--slots, --context-len)"
)]
pub(super) struct NoMemory {
    slots: usize,
    context_len: usize,
}

impl KvCache {
    pub(super) fn new(shape: CacheShape, slots: usize, context_len: usize) -> Result<Self, NoMemory> {
        let CacheShape { layers, kv_heads, head_dim } = shape;
        let sizes = [slots, context_len, kv_heads, head_dim];
        let layer_len = sizes.into_iter().try_fold(1usize, usize::checked_mul);
        // Asked for whole at first and given back: `vec!` of zeros takes fresh pages without writing to
        // them, but ends the process where there are none.
        let fits = |len: usize| Vec::<f32>::new().try_reserve_exact(len).is_ok();
        let total = layer_len.and_then(|len| len.checked_mul(2 * layers));
        let (Some(layer_len), true) = (layer_len, total.is_some_and(fits)) else {
            return Err(NoMemory { slots, context_len });
        };
        let layer = |_| LayerCache { keys: vec![0.0; layer_len], values: vec![0.0; layer_len] };
        Ok(Self { layers: (0..layers).map(layer).collect(), head_dim, kv_heads, context_len })
    }

    pub(super) fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) {
        for head in 0..self.kv_heads {
            let source = self.head_start(from, head);
            let target = self.head_start(to, head);
            for layer in &mut self.layers {
                for cache in [&mut layer.keys, &mut layer.values] {
                    cache.copy_within(source..source + len * self.head_dim, target);
                }
            }
        }
    }

    /// Writes the tokens' keys and values (`[tokens, kv_heads * head_dim]`) at their places.
    pub(super) fn write(&mut self, layer: usize, keys: &[f32], values: &[f32], places: &[Place]) {
        let width = self.kv_heads * self.head_dim;
        for (token, place) in places.iter().enumerate() {
            for head in 0..self.kv_heads {
                let source = token * width + head * self.head_dim;
                let target = self.head_start(place.slot, head) + place.position * self.head_dim;
                let LayerCache { keys: cached_keys, values: cached_values } = &mut self.layers[layer];
                cached_keys[target..][..self.head_dim].copy_from_slice(&keys[source..][..self.head_dim]);
                cached_values[target..][..self.head_dim].copy_from_slice(&values[source..][..self.head_dim]);
            }
        }
    }

    /// What each token's query (`[tokens, heads * head_dim]`) finds up to its own position.
    ///
    /// Each head of each token is its own task and sums in the order of positions, so the result
    /// depends on what the slot holds and nothing else.
    pub(super) fn attend(
        &self,
        layer: usize,
        queries: &[f32],
        shape: &AttentionShape,
        places: &[Place],
    ) -> Vec<f32> {
        let &AttentionShape { heads, kv_heads, head_dim, scale } = shape;
        let LayerCache { keys, values } = &self.layers[layer];
        let mut attended = vec![0.0; queries.len()];
        let tasks =
            attended.par_chunks_exact_mut(head_dim).zip(queries.par_chunks_exact(head_dim)).enumerate();
        tasks.for_each_init(Vec::new, |scores, (idx, (attended, query))| {
            let (token, head) = (idx / heads, idx % heads);
            let start = self.head_start(places[token].slot, head / (heads / kv_heads));
            let len = (places[token].position + 1) * head_dim;
            attend_head(query, &keys[start..][..len], &values[start..][..len], scale, scores, attended);
        });
        attended
    }

    fn head_start(&self, slot: Slot, head: usize) -> usize {
        (slot.0 * self.kv_heads + head) * self.context_len * self.head_dim
    }
}

/// `softmax(query · keysᵀ * scale) · values` of one head; `attended` comes zeroed.
fn attend_head(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    scale: f32,
    scores: &mut Vec<f32>,
    attended: &mut [f32],
) {
    let head_dim = query.len();
    scores.clear();
    scores.extend(keys.chunks_exact(head_dim).map(|key| dot(query, key) * scale));
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for (weight, value) in scores.iter().zip(values.chunks_exact(head_dim)) {
        for (attended, value) in attended.iter_mut().zip(value) {
            *attended += weight * value;
        }
    }
    for attended in attended {
        *attended /= sum;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Separate sums, which the compiler may keep in one vector register.
    const LANES: usize = 8;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

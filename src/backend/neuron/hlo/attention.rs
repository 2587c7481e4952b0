//! Attention over the KV cache: written in place, read back up to the bucket's context.
//!
//! A layer's keys are one array, `[slots + 1, kv_heads, context, head_dim]`, and its values another. A token's
//! are written by a scatter of rows, as `neuronx-cc` is known to take it, and never by a block at a runtime
//! index, which would be moved where a padded row reaches past the end. Padding goes to the last slot, which
//! nobody reads.

use super::{
    bucket::Bucket,
    builder::{BuildError, ModuleBuilder, Output, Value},
    module::{Binary, Scalar, Stride, Unary},
};
use crate::model::AttentionShape;
use std::collections::BTreeMap;

/// What scores are where a token must not look. Finite, and far below any score: its exponential is zero.
const MASKED: f32 = -30_000.0;

pub(super) struct Attention {
    bucket: Bucket,
    positions: Value,
    /// The only row's slot, where there is one row.
    row_slot: Option<Value>,
    /// Rows of a layer's cache as a matrix that the tokens are written to, `[tokens * kv_heads]`.
    written: Value,
    /// Keys and values of each layer: the parameter at first, and what replaces it once it is written.
    caches: Vec<[Output; 2]>,
    /// By query heads a key-value head, which positions each query may see.
    masks: BTreeMap<usize, Value>,
}

impl Attention {
    /// Writes what all layers share. `caches` are parameters of one shape.
    pub(super) fn new(
        builder: &mut ModuleBuilder,
        bucket: Bucket,
        positions: Value,
        slots: Value,
        caches: Vec<[Output; 2]>,
    ) -> Result<Self, BuildError> {
        let row_slot = match bucket.slots {
            1 => {
                let first = builder.slice(slots, 0, Stride { start: 0, limit: 1, stride: 1 })?;
                Some(builder.reshape(first, &[])?)
            }
            _ => None,
        };
        let [_, kv_heads, context, _] = cache_dimensions(builder, &caches);
        let written = written_rows(builder, positions, slots, kv_heads, context)?;
        Ok(Self { bucket, positions, row_slot, written, caches, masks: BTreeMap::new() })
    }

    /// Puts keys and values (`[tokens, kv_heads * head_dim]`) into the layer's cache, and yields what each
    /// query (`[tokens, heads * head_dim]`) finds there.
    pub(super) fn attend(
        &mut self,
        builder: &mut ModuleBuilder,
        layer: usize,
        [query, key, value]: [Value; 3],
        shape: &AttentionShape,
    ) -> Result<Value, BuildError> {
        let &AttentionShape { heads, kv_heads, head_dim, scale } = shape;
        let Bucket { slots, width, context } = self.bucket;
        let keys = self.write(builder, layer, 0, key)?;
        let values = self.write(builder, layer, 1, value)?;

        // The queries that share a key-value head are the rows of one product.
        let group = heads / kv_heads;
        let query = builder.reshape(query, &[slots, width, kv_heads, group, head_dim])?;
        let query = builder.transpose(query, &[0, 2, 1, 3, 4])?;
        let query = builder.reshape(query, &[slots, kv_heads, width * group, head_dim])?;
        let query = builder.convert(query, builder.shape(keys).element)?;
        let scores = builder.dot(2, (query, 3), (keys, 3))?;

        let dimensions = [slots, kv_heads, width * group, context];
        let scale = builder.splat(Scalar::F32(scale), &dimensions)?;
        let scores = builder.binary(Binary::Multiply, scores, scale)?;
        let mask = self.mask(builder, kv_heads, group)?;
        let masked = builder.splat(Scalar::F32(MASKED), &dimensions)?;
        let scores = builder.select(mask, scores, masked)?;
        let weights = softmax(builder, scores, dimensions)?;

        let weights = builder.convert(weights, builder.shape(values).element)?;
        let attended = builder.dot(2, (weights, 3), (values, 2))?;
        let attended = builder.reshape(attended, &[slots, kv_heads, width, group, head_dim])?;
        let attended = builder.transpose(attended, &[0, 2, 1, 3, 4])?;
        builder.reshape(attended, &[slots * width, heads * head_dim])
    }

    /// The caches as the step leaves them.
    pub(super) fn into_outputs(self) -> impl Iterator<Item = Output> {
        self.caches.into_iter().flatten()
    }

    /// Writes the tokens' rows into one of the layer's arrays, and yields what the bucket reads of it,
    /// `[slots, kv_heads, context, head_dim]`.
    fn write(
        &mut self,
        builder: &mut ModuleBuilder,
        layer: usize,
        part: usize,
        rows: Value,
    ) -> Result<Value, BuildError> {
        let dimensions @ [all_slots, kv_heads, all_positions, head_dim] =
            cache_dimensions(builder, &self.caches);
        let cache = &mut self.caches[layer][part];
        let rows = builder.convert(rows, builder.shape(cache.value).element)?;
        let rows = builder.reshape(rows, &[self.bucket.tokens() * kv_heads, head_dim])?;
        let matrix = builder.reshape(cache.value, &[all_slots * kv_heads * all_positions, head_dim])?;
        let matrix = builder.scatter_rows(matrix, self.written, rows)?;
        cache.value = builder.reshape(matrix, &dimensions)?;

        let Bucket { slots, context, .. } = self.bucket;
        match self.row_slot {
            Some(slot) => {
                let zero = builder.constant(Scalar::S32(0))?;
                let sizes = [1, kv_heads, context, head_dim];
                builder.dynamic_slice(cache.value, &[slot, zero, zero, zero], &sizes)
            }
            None => {
                let slots = Stride { start: 0, limit: slots, stride: 1 };
                let read = builder.slice(cache.value, 0, slots)?;
                builder.slice(read, 2, Stride { start: 0, limit: context, stride: 1 })
            }
        }
    }

    /// Whether a query may see a position: up to its own. `[slots, kv_heads, width * group, context]`
    fn mask(
        &mut self,
        builder: &mut ModuleBuilder,
        kv_heads: usize,
        group: usize,
    ) -> Result<Value, BuildError> {
        if let Some(&mask) = self.masks.get(&group) {
            return Ok(mask);
        }
        let Bucket { slots, width, context } = self.bucket;
        let own = builder.broadcast(self.positions, &[slots * width, group], &[0])?;
        let own = builder.reshape(own, &[slots, width * group])?;
        let dimensions = [slots, kv_heads, width * group, context];
        let own = builder.broadcast(own, &dimensions, &[0, 2])?;
        let seen = builder.iota(&dimensions, 3)?;
        let mask = builder.less_or_equal(seen, own)?;
        self.masks.insert(group, mask);
        Ok(mask)
    }
}

fn cache_dimensions(builder: &ModuleBuilder, caches: &[[Output; 2]]) -> [usize; 4] {
    let dimensions = caches.first().map(|[keys, _]| builder.dimensions(keys.value));
    let dimensions = dimensions.and_then(|dimensions| dimensions.try_into().ok());
    dimensions.expect("a model has a layer, and its cache four dimensions")
}

/// Where each token's head lies in a cache as a matrix: `(slot * kv_heads + head) * context + position`.
fn written_rows(
    builder: &mut ModuleBuilder,
    positions: Value,
    slots: Value,
    kv_heads: usize,
    context: usize,
) -> Result<Value, BuildError> {
    let tokens = builder.dimensions(positions)[0];
    let integer = |size: usize| Scalar::S32(i32::try_from(size).unwrap_or(i32::MAX));
    let of_slot = builder.splat(integer(kv_heads * context), &[tokens])?;
    let slot_rows = builder.binary(Binary::Multiply, slots, of_slot)?;
    let token_rows = builder.binary(Binary::Add, slot_rows, positions)?;
    let both = [tokens, kv_heads];
    let token_rows = builder.broadcast(token_rows, &both, &[0])?;
    let head = builder.iota(&both, 1)?;
    let of_head = builder.splat(integer(context), &both)?;
    let head_rows = builder.binary(Binary::Multiply, head, of_head)?;
    let rows = builder.binary(Binary::Add, token_rows, head_rows)?;
    builder.reshape(rows, &[tokens * kv_heads])
}

/// Over the last dimension.
fn softmax(builder: &mut ModuleBuilder, scores: Value, dimensions: [usize; 4]) -> Result<Value, BuildError> {
    let most = builder.reduce(Binary::Maximum, scores, 3, f32::MIN)?;
    let most = builder.broadcast(most, &dimensions, &[0, 1, 2])?;
    let below = builder.binary(Binary::Subtract, scores, most)?;
    let exponentials = builder.unary(Unary::Exponential, below)?;
    let sum = builder.reduce(Binary::Add, exponentials, 3, 0.0)?;
    let sum = builder.broadcast(sum, &dimensions, &[0, 1, 2])?;
    builder.binary(Binary::Divide, exponentials, sum)
}

//! Attention over the KV cache, for all rows of a step at once, in standard operators.
//!
//! `ScatterND` writes the step's rows to the cache: where its input and its output are bound to the same memory, ONNX
//! Runtime copies nothing else. Then the queries are laid out as a grid, a slot by its row's positions, and each
//! sees the positions of its slot up to its own. Queries that share a key head are rows of one product. Where
//! everything is, the host says: an operator that would work it out costs a decode step more than the lookup.

use super::{
    builder::Builder,
    lower::{cache_names, names},
    model::{
        Attribute,
        Dimension::{Fixed, Named},
        ElementType, Operator,
    },
};
use crate::model::{AttentionShape, CacheShape};
use std::io::Write;

pub(super) struct GridAttention {
    cache_cells: String,
    query_cells: String,
    attended_cells: String,
    /// `[B, 1, G * S, C]`: 0 where a query sees a position, and minus infinity where it does not.
    mask: String,
    cache: CacheShape,
}

impl GridAttention {
    pub(super) fn new<W: Write>(builder: &mut Builder<W>, cache: CacheShape, heads: usize) -> Self {
        let integers = ElementType::I64;
        let (slots, queries, kv_heads) = (Named("B"), Named("G * S"), Fixed(cache.kv_heads));
        let context = builder.input(names::CONTEXT, integers, &[Named("C")]);
        let cache_cells = builder.input(names::CACHE_CELLS, integers, &[Named("T"), kv_heads, Fixed(3)]);
        let query_cells = builder.input(names::QUERY_CELLS, integers, &[slots, kv_heads, queries, Fixed(2)]);
        let attended_cells =
            builder.input(names::ATTENDED_CELLS, integers, &[Named("T"), Fixed(heads), Fixed(3)]);
        let last_seen = builder.input(names::LAST_SEEN, integers, &[slots, Fixed(1), queries, Fixed(1)]);

        let seen = builder.call("LessOrEqual", &[&context, &last_seen]);
        let (zero, hidden) = (builder.scalar("zero", 0.0), builder.scalar("hidden", f32::NEG_INFINITY));
        let mask = builder.call("Where", &[&seen, &zero, &hidden]);
        Self { cache_cells, query_cells, attended_cells, mask, cache }
    }

    /// Queries, keys and values are `[T, heads, head_dim]`; yields `[T, heads * head_dim]`.
    pub(super) fn attend<W: Write>(
        &self,
        builder: &mut Builder<W>,
        layer: usize,
        [query, key, value]: [&str; 3],
        shape: &AttentionShape,
    ) -> String {
        let &AttentionShape { heads, head_dim, scale, .. } = shape;
        let [keys, values] = cache_names(layer);
        let keys = self.write(builder, keys, key);
        let values = self.write(builder, values, value);

        let query = builder.call("GatherND", &[query, &self.query_cells]);
        // ONNX Runtime makes one operator of these three, and transposes nothing.
        let keys = builder.transpose(&keys, &[0, 1, 3, 2]);
        let scores = builder.call("MatMul", &[&query, &keys]);
        let scale = builder.scalar(&format!("scale_{scale:e}"), scale);
        let scores = builder.call("Mul", &[&scores, &scale]);
        let scores = builder.call("Add", &[&scores, &self.mask]);
        let weights = builder.call_with("Softmax", &[&scores], vec![("axis", Attribute::Integer(-1))]);
        let attended = builder.call("MatMul", &[&weights, &values]);
        let attended = builder.call("GatherND", &[&attended, &self.attended_cells]);
        builder.reshape(&attended, &[-1, (heads * head_dim) as i64])
    }

    /// Writes the step's rows to a layer's keys or values, and yields all of them.
    fn write<W: Write>(
        &self,
        builder: &mut Builder<W>,
        (before, written): (String, String),
        rows: &str,
    ) -> String {
        let shape = [Named("B"), Fixed(self.cache.kv_heads), Named("C"), Fixed(self.cache.head_dim)];
        builder.input(&before, ElementType::F32, &shape);
        let scatter = Operator::Standard("ScatterND");
        builder.node(scatter, &[&before, &self.cache_cells, rows], &[&written], Vec::new());
        builder.output(&written, &shape);
        written
    }
}

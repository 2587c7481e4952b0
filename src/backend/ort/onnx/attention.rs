//! Attention over the KV cache, for all rows of a step at once, in standard operators.
//!
//! The cache of a layer is a matrix with a row for each position of each head of each slot. `ScatterND`
//! writes the step's rows: where its input and its output are bound to the same memory, ONNX Runtime
//! copies nothing else. Then the tokens are laid out as a grid, a slot by its row's positions, and each
//! cell sees the positions of its slot up to its own.

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
    cache_rows: String,
    grid: String,
    cells: String,
    /// `[B, 1, S, C]`: 0 where a cell sees a position, and minus infinity where it does not.
    mask: String,
    shapes: Shapes,
    cache: CacheShape,
}

/// What values are reshaped to; `B` slots, `S` positions of each, `C` positions of the cache, `G` query
/// heads that share a key-value head.
struct Shapes {
    /// `[B, kv_heads, C, head_dim]`
    cache: String,
    /// `[B, S, kv_heads, G, head_dim]`
    query: String,
    /// `[B, kv_heads * G, S, C]`
    by_head: String,
    /// `[B, kv_heads, G * S, C]`
    by_kv_head: String,
    /// `[B, kv_heads, G, S, head_dim]`
    attended: String,
}

impl GridAttention {
    pub(super) fn new<W: Write>(builder: &mut Builder<W>, cache: CacheShape) -> Self {
        let integers = ElementType::I64;
        let context = builder.input(names::CONTEXT, integers, &[Named("C")]);
        let cache_rows = builder.input(names::CACHE_ROWS, integers, &[Named("T * kv_heads"), Fixed(1)]);
        let grid = builder.input(names::GRID, integers, &[Named("B * S")]);
        let cells = builder.input(names::CELLS, integers, &[Named("T")]);
        let last_seen =
            builder.input(names::LAST_SEEN, integers, &[Named("B"), Fixed(1), Named("S"), Fixed(1)]);

        let seen = builder.call("LessOrEqual", &[&context, &last_seen]);
        let (zero, hidden) = (builder.scalar("zero", 0.0), builder.scalar("hidden", f32::NEG_INFINITY));
        let mask = builder.call("Where", &[&seen, &zero, &hidden]);
        let shapes = Shapes::new(builder, &context, &last_seen, cache);
        Self { cache_rows, grid, cells, mask, shapes, cache }
    }

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

        let query = builder.call("Gather", &[query, &self.grid]);
        let query = builder.call("Reshape", &[&query, &self.shapes.query]);
        let query = builder.transpose(&query, &[0, 2, 3, 1, 4]);
        // Query heads that share a key head are rows of one product.
        let query = builder.reshape(&query, &[0, 0, -1, head_dim as i64]);
        // ONNX Runtime makes one operator of these three, and transposes nothing.
        let keys = builder.transpose(&keys, &[0, 1, 3, 2]);
        let scores = builder.call("MatMul", &[&query, &keys]);
        let scale = builder.scalar(&format!("scale_{scale:e}"), scale);
        let scores = builder.call("Mul", &[&scores, &scale]);
        let scores = builder.call("Reshape", &[&scores, &self.shapes.by_head]);
        let scores = builder.call("Add", &[&scores, &self.mask]);
        let weights = builder.call_with("Softmax", &[&scores], vec![("axis", Attribute::Integer(-1))]);
        let weights = builder.call("Reshape", &[&weights, &self.shapes.by_kv_head]);
        let attended = builder.call("MatMul", &[&weights, &values]);
        let attended = builder.call("Reshape", &[&attended, &self.shapes.attended]);
        let attended = builder.transpose(&attended, &[0, 3, 1, 2, 4]);
        let attended = builder.reshape(&attended, &[-1, (heads * head_dim) as i64]);
        builder.call("Gather", &[&attended, &self.cells])
    }

    /// Writes the step's rows to a layer's keys or values; all of them, `[B, kv_heads, C, head_dim]`.
    fn write<W: Write>(
        &self,
        builder: &mut Builder<W>,
        (before, written): (String, String),
        rows: &str,
    ) -> String {
        let matrix = [Named("B * kv_heads * C"), Fixed(self.cache.head_dim)];
        builder.input(&before, ElementType::F32, &matrix);
        let rows = builder.reshape(rows, &[-1, self.cache.head_dim as i64]);
        let scatter = Operator::Standard("ScatterND");
        builder.node(scatter, &[&before, &self.cache_rows, &rows], &[&written], Vec::new());
        builder.output(&written, &matrix);
        builder.call("Reshape", &[&written, &self.shapes.cache])
    }
}

impl Shapes {
    fn new<W: Write>(builder: &mut Builder<W>, context: &str, last_seen: &str, cache: CacheShape) -> Self {
        let dimensions = builder.call("Shape", &[last_seen]);
        let [slots, row_len] = [0, 2].map(|axis| {
            let axis = builder.integers(&[axis]);
            builder.call("Gather", &[&dimensions, &axis])
        });
        let context = builder.call("Shape", &[context]);
        let rest = builder.integers(&[-1]);
        let [kv_heads, head_dim] =
            [cache.kv_heads, cache.head_dim].map(|size| builder.integers(&[size as i64]));
        let mut shape =
            |sizes: &[&str]| builder.call_with("Concat", sizes, vec![("axis", Attribute::Integer(0))]);
        Self {
            cache: shape(&[&rest, &kv_heads, &context, &head_dim]),
            query: shape(&[&slots, &row_len, &kv_heads, &rest, &head_dim]),
            by_head: shape(&[&slots, &rest, &row_len, &context]),
            by_kv_head: shape(&[&slots, &kv_heads, &rest, &context]),
            attended: shape(&[&slots, &kv_heads, &rest, &row_len, &head_dim]),
        }
    }
}

//! What the architectures have in common: pre-norm layers of grouped-query attention and a gated
//! feed-forward network.
//!
//! Source: Touvron et al., LLaMA, arXiv:2302.13971, section 2.2.

use crate::model::{
    config::ModelConfig,
    graph::{AttentionShape, CacheShape, Graph, GraphBuilder, NodeId},
    weight_name::Part,
};

/// The whole model; `attention_inputs` writes the rotated query and key, and the value, of a layer's
/// normed input.
pub(super) fn decoder(
    config: &ModelConfig,
    attention_inputs: impl Fn(&mut GraphBuilder, NodeId) -> [NodeId; 3],
) -> Graph {
    let ModelConfig { layers, width, heads, kv_heads, head_dim, norm_epsilon, .. } = *config;
    let attention_shape = AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
    let cache = CacheShape { layers, kv_heads, head_dim };
    let mut graph = GraphBuilder::new(cache, config.rope.inverse_frequencies(head_dim));

    let mut hidden = graph.embedding(config.vocab_size, width);
    for layer in 0..layers {
        graph.enter(Some(layer));
        let normed = graph.rms_norm(hidden, Part::AttentionNorm, width, norm_epsilon);
        let inputs = attention_inputs(&mut graph, normed);
        let mut attended = graph.attention(inputs, attention_shape);
        if layer + 1 == layers {
            // Of this layer's other rows nobody reads more than their keys and values.
            (attended, hidden) = (graph.select_rows(attended), graph.select_rows(hidden));
        }
        let output = graph.linear(attended, Part::AttentionOutput, None, width);
        hidden = graph.add(hidden, output);

        let normed = graph.rms_norm(hidden, Part::FeedForwardNorm, width, norm_epsilon);
        let gate = graph.linear(normed, Part::Gate, None, config.feed_forward_width);
        let up = graph.linear(normed, Part::Up, None, config.feed_forward_width);
        let activated = graph.gated_activation(gate, up);
        let output = graph.linear(activated, Part::Down, None, width);
        hidden = graph.add(hidden, output);
    }
    graph.enter(None);
    let normed = graph.rms_norm(hidden, Part::FinalNorm, width, norm_epsilon);
    graph.head(normed, config.tied_head, config.vocab_size)
}

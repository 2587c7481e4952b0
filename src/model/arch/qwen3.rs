use super::decoder::decoder;
use crate::model::{config::ModelConfig, graph::Graph, weight_name::Part};

/// Source: `modeling_qwen3.py` of transformers.
pub(super) fn graph(config: &ModelConfig) -> Graph {
    let (pairing, head_dim, epsilon) = (config.rope.pairing, config.head_dim, config.norm_epsilon);
    decoder(config, |graph, input| {
        let query = graph.linear(input, Part::Query, None, config.query_width());
        let key = graph.linear(input, Part::Key, None, config.kv_width());
        let value = graph.linear(input, Part::Value, None, config.kv_width());
        let query = graph.rms_norm(query, Part::QueryNorm, head_dim, epsilon);
        let key = graph.rms_norm(key, Part::KeyNorm, head_dim, epsilon);
        [graph.rotary(query, pairing), graph.rotary(key, pairing), value]
    })
}

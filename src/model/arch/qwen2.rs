use super::decoder::decoder;
use crate::model::{config::ModelConfig, graph::Graph, weight_name::Part};

/// Source: `modeling_qwen2.py` of transformers.
pub(super) fn graph(config: &ModelConfig) -> Graph {
    let pairing = config.rope.pairing;
    decoder(config, |graph, input| {
        let query = graph.linear(input, Part::Query, Some(Part::QueryBias), config.query_width());
        let key = graph.linear(input, Part::Key, Some(Part::KeyBias), config.kv_width());
        let value = graph.linear(input, Part::Value, Some(Part::ValueBias), config.kv_width());
        [graph.rotary(query, pairing), graph.rotary(key, pairing), value]
    })
}

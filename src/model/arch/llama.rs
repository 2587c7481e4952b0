use super::decoder::decoder;
use crate::model::{config::ModelConfig, graph::Graph, weight_name::Part};

/// Source: `modeling_llama.py` of transformers.
pub(super) fn graph(config: &ModelConfig) -> Graph {
    let pairing = config.rope.pairing;
    decoder(config, |graph, input| {
        let query = graph.linear(input, Part::Query, None, config.query_width());
        let key = graph.linear(input, Part::Key, None, config.kv_width());
        let value = graph.linear(input, Part::Value, None, config.kv_width());
        [graph.rotary(query, pairing), graph.rotary(key, pairing), value]
    })
}

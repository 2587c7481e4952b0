//! The names of weights: ours, GGUF's and Hugging Face's.

use std::fmt;

/// A weight's part in a decoder-only model, whatever file it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Embedding,
    AttentionNorm,
    Query,
    QueryBias,
    QueryNorm,
    Key,
    KeyBias,
    KeyNorm,
    Value,
    ValueBias,
    AttentionOutput,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
    FinalNorm,
    Head,
}

/// One weight of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightName {
    pub part: Part,
    /// `None` outside the layers.
    pub layer: Option<usize>,
}

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    Gguf,
    HuggingFace,
}

impl WeightName {
    /// What the weight is called in a file.
    pub fn in_file(self, naming: Naming) -> String {
        let names = self.part.names();
        match (naming, self.layer) {
            (Naming::Gguf, None) => names.gguf.to_owned(),
            (Naming::Gguf, Some(layer)) => format!("blk.{layer}.{}", names.gguf),
            (Naming::HuggingFace, None) => names.hugging_face.to_owned(),
            (Naming::HuggingFace, Some(layer)) => format!("model.layers.{layer}.{}", names.hugging_face),
        }
    }
}

impl fmt::Display for WeightName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            None => f.write_str(self.part.names().canonical),
            Some(layer) => write!(f, "layers.{layer}.{}", self.part.names().canonical),
        }
    }
}

struct Names {
    canonical: &'static str,
    gguf: &'static str,
    hugging_face: &'static str,
}

impl Part {
    /// Source: `gguf-py/gguf/constants.py` of llama.cpp; `modeling_llama.py` of transformers.
    fn names(self) -> Names {
        let (canonical, gguf, hugging_face) = match self {
            Self::Embedding => ("embedding", "token_embd.weight", "model.embed_tokens.weight"),
            Self::AttentionNorm => ("attention.norm", "attn_norm.weight", "input_layernorm.weight"),
            Self::Query => ("attention.query", "attn_q.weight", "self_attn.q_proj.weight"),
            Self::QueryBias => ("attention.query.bias", "attn_q.bias", "self_attn.q_proj.bias"),
            Self::QueryNorm => ("attention.query.norm", "attn_q_norm.weight", "self_attn.q_norm.weight"),
            Self::Key => ("attention.key", "attn_k.weight", "self_attn.k_proj.weight"),
            Self::KeyBias => ("attention.key.bias", "attn_k.bias", "self_attn.k_proj.bias"),
            Self::KeyNorm => ("attention.key.norm", "attn_k_norm.weight", "self_attn.k_norm.weight"),
            Self::Value => ("attention.value", "attn_v.weight", "self_attn.v_proj.weight"),
            Self::ValueBias => ("attention.value.bias", "attn_v.bias", "self_attn.v_proj.bias"),
            Self::AttentionOutput => ("attention.output", "attn_output.weight", "self_attn.o_proj.weight"),
            Self::FeedForwardNorm => {
                ("feed_forward.norm", "ffn_norm.weight", "post_attention_layernorm.weight")
            }
            Self::Gate => ("feed_forward.gate", "ffn_gate.weight", "mlp.gate_proj.weight"),
            Self::Up => ("feed_forward.up", "ffn_up.weight", "mlp.up_proj.weight"),
            Self::Down => ("feed_forward.down", "ffn_down.weight", "mlp.down_proj.weight"),
            Self::FinalNorm => ("final_norm", "output_norm.weight", "model.norm.weight"),
            Self::Head => ("head", "output.weight", "lm_head.weight"),
        };
        Names { canonical, gguf, hugging_face }
    }
}

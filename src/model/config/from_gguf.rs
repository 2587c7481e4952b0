//! Reads the config in a GGUF file's metadata.
//!
//! Source: ggml/docs/gguf.md, "LLM"; `llama-model.cpp` for what is assumed when a key is missing.

use super::{FieldNames, Fields, ModelConfig, Rope, RopeScaling, brief};
use crate::model::{
    MetadataValue, ModelError, TensorType,
    gguf::GgufFile,
    weight_name::{Naming, Part, WeightName},
    weights::{ROPE_FACTORS, TensorFiles},
};

pub(in crate::model) fn from_gguf(gguf: &GgufFile, tensors: &TensorFiles) -> Result<ModelConfig, ModelError> {
    let metadata = &gguf.metadata;
    let path = gguf.file.path();
    let fields = Fields { path, get: &|key| metadata.get(key).cloned() };
    let architecture = fields.architecture("general.architecture")?;
    let key = |name: &str| format!("{}.{name}", architecture.name());

    if let Some(experts) = metadata.get(&key("expert_count")).filter(|count| count.as_u64() != Some(0)) {
        let reason = format!("{} experts: mixtures of experts are not supported", brief(experts));
        return Err(fields.fault(&key("expert_count"), reason));
    }
    let vocab_size = match metadata.get("tokenizer.ggml.tokens") {
        // Borrowed, not through `fields`: the vocabulary is long.
        Some(MetadataValue::Array(tokens)) if !tokens.is_empty() => tokens.len(),
        Some(other) => {
            return Err(fields.fault("tokenizer.ggml.tokens", format!("{} is no vocabulary", brief(other))));
        }
        None => fields.required_size(&key("vocab_size"))?,
    };
    let width = fields.required_size(&key("embedding_length"))?;
    let heads = fields.required_size(&key("attention.head_count"))?;
    let head_dim = match fields.size(&key("attention.key_length"))? {
        Some(head_dim) => head_dim,
        None => fields.evenly(width, heads, &key("attention.head_count"))?,
    };
    for same in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = fields.size(&key(same))?.filter(|&other| other != head_dim) {
            let reason =
                format!("{other} differs from the heads' width of {head_dim}, which is not supported");
            return Err(fields.fault(&key(same), reason));
        }
    }
    let pairing = architecture.pairing(Naming::Gguf);
    let config = ModelConfig {
        architecture,
        vocab_size,
        context_len: fields.required_size(&key("context_length"))?,
        layers: fields.required_size(&key("block_count"))?,
        width,
        feed_forward_width: fields.required_size(&key("feed_forward_length"))?,
        heads,
        kv_heads: fields.size(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        norm_epsilon: fields.required_positive(&key("attention.layer_norm_rms_epsilon"))? as f32,
        rope: Rope {
            theta: fields.positive(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            scaling: rope_scaling(&fields, &key, tensors, head_dim)?,
            pairing,
        },
        tied_head: !tensors.contains(WeightName { part: Part::Head, layer: None }),
    };
    let names = FieldNames {
        layers: &key("block_count"),
        kv_heads: &key("attention.head_count_kv"),
        head_dim: &key("attention.key_length"),
    };
    fields.check(&config, &names)?;
    Ok(config)
}

fn rope_scaling(
    fields: &Fields<'_>,
    key: &dyn Fn(&str) -> String,
    tensors: &TensorFiles,
    head_dim: usize,
) -> Result<RopeScaling, ModelError> {
    if let Some(tensor) = tensors.get(ROPE_FACTORS) {
        let fault = |reason: String| Err(fields.fault(&format!("tensor {ROPE_FACTORS}"), reason));
        if tensor.shape() != [head_dim / 2] || tensor.tensor_type() != TensorType::F32 {
            let (shape, tensor_type) = (tensor.shape(), tensor.tensor_type());
            return fault(format!("{tensor_type} {shape:?} is not F32 [{}]", head_dim / 2));
        }
        let divisors = tensor.to_f32();
        if !divisors.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0) {
            return fault("its values are not all above zero".to_owned());
        }
        return Ok(RopeScaling::Divisors(divisors));
    }
    let factor = match fields.positive(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        None => fields.positive(&key("rope.scale_linear"))?,
    };
    match fields.text(&key("rope.scaling.type"))?.as_deref() {
        Some("none") => Ok(RopeScaling::None),
        Some("linear") | None => {
            Ok(factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }))
        }
        Some(other) => {
            let reason = format!("`{other}` is not supported (supported: none, linear)");
            Err(fields.fault(&key("rope.scaling.type"), reason))
        }
    }
}

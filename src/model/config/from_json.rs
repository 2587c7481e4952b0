//! Reads the `config.json` of a Hugging Face folder.
//!
//! Source: `configuration_llama.py`, `configuration_qwen2.py` and `configuration_qwen3.py` of
//! transformers, for the names and for what is assumed when a field is missing.

use super::{FieldNames, Fields, ModelConfig, Rope, RopeScaling};
use crate::model::{Architecture, MetadataValue, ModelError, graph::Pairing, json};
use serde_json::Value;
use std::path::Path;

pub(in crate::model) fn from_folder(folder: &Path) -> Result<ModelConfig, ModelError> {
    let path = folder.join("config.json");
    let json: Value = json::read(&path)?;
    // A dot leads into an object.
    let get = |field: &str| scalar(field.split('.').try_fold(&json, |object, key| object.get(key))?);
    let fields = Fields { path: &path, get: &get };
    let architecture = fields.architecture("model_type")?;
    refuse_what_changes_the_graph(&fields, &json)?;

    let width = fields.required_size("hidden_size")?;
    let heads = fields.required_size("num_attention_heads")?;
    let head_dim = match (fields.size("head_dim")?, architecture) {
        (Some(head_dim), _) => head_dim,
        (None, Architecture::Qwen3) => 128,
        (None, _) => fields.evenly(width, heads, "num_attention_heads")?,
    };
    let config = ModelConfig {
        architecture,
        vocab_size: fields.required_size("vocab_size")?,
        context_len: fields.required_size("max_position_embeddings")?,
        layers: fields.required_size("num_hidden_layers")?,
        width,
        feed_forward_width: fields.required_size("intermediate_size")?,
        heads,
        kv_heads: fields.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        norm_epsilon: fields.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: rope(&fields, &json)?,
        tied_head: fields.flag("tie_word_embeddings")?,
    };
    let names =
        FieldNames { layers: "num_hidden_layers", kv_heads: "num_key_value_heads", head_dim: "head_dim" };
    fields.check(&config, &names)?;
    Ok(config)
}

fn scalar(value: &Value) -> Option<MetadataValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => MetadataValue::Bool(*flag),
        Value::String(text) => MetadataValue::String(text.clone()),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => MetadataValue::Unsigned(number),
            (None, Some(number)) => MetadataValue::Signed(number),
            // Beyond both: infinite where it does not fit, and so refused.
            (None, None) => MetadataValue::Float(number.as_f64().unwrap_or(f64::INFINITY)),
        },
        Value::Array(_) | Value::Object(_) => MetadataValue::Array(Vec::new()),
    })
}

fn refuse_what_changes_the_graph(fields: &Fields<'_>, json: &Value) -> Result<(), ModelError> {
    for field in ["attention_bias", "mlp_bias", "use_sliding_window"] {
        if fields.flag(field)? {
            return Err(fields.fault(field, "true is not supported"));
        }
    }
    if let Some(activation) = fields.text("hidden_act")?.filter(|activation| activation != "silu") {
        return Err(fields.fault("hidden_act", format!("`{activation}` is not supported (supported: silu)")));
    }
    if let Some(share) = fields.positive("partial_rotary_factor")?.filter(|share| *share != 1.0) {
        return Err(fields.fault("partial_rotary_factor", format!("{share} is not supported (supported: 1)")));
    }
    if json.get("quantization_config").is_some_and(|config| !config.is_null()) {
        let reason = "quantised checkpoints are read from GGUF files only";
        return Err(fields.fault("quantization_config", reason));
    }
    Ok(())
}

/// Newer files keep everything in `rope_parameters`, older ones split it in two.
fn rope(fields: &Fields<'_>, json: &Value) -> Result<Rope, ModelError> {
    let is_object = |name: &str| json.get(name).is_some_and(Value::is_object);
    let object = if is_object("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
    let key = |name: &str| format!("{object}.{name}");
    let theta = match fields.positive(&key("rope_theta"))? {
        Some(theta) => theta,
        None => fields.positive("rope_theta")?.unwrap_or(10_000.0),
    };
    // `type` is what the first files with scaling called it.
    let type_field = if fields.text(&key("rope_type"))?.is_some() { key("rope_type") } else { key("type") };
    let scaling = match fields.text(&type_field)?.as_deref() {
        None if is_object("rope_scaling") && object == "rope_scaling" => {
            return Err(fields.fault(&key("rope_type"), "is missing"));
        }
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: fields.required_positive(&key("factor"))? },
        Some("llama3") => llama3_scaling(fields, &key)?,
        Some(other) => {
            let reason = format!("`{other}` is not supported (supported: default, linear, llama3)");
            return Err(fields.fault(&type_field, reason));
        }
    };
    Ok(Rope { theta, scaling, pairing: Pairing::Halves })
}

fn llama3_scaling(fields: &Fields<'_>, key: &dyn Fn(&str) -> String) -> Result<RopeScaling, ModelError> {
    let low_freq_factor = fields.required_positive(&key("low_freq_factor"))?;
    let high_freq_factor = fields.required_positive(&key("high_freq_factor"))?;
    if high_freq_factor <= low_freq_factor {
        let reason = format!("{high_freq_factor} is not above low_freq_factor, {low_freq_factor}");
        return Err(fields.fault(&key("high_freq_factor"), reason));
    }
    Ok(RopeScaling::Llama3 {
        factor: fields.required_positive(&key("factor"))?,
        low_freq_factor,
        high_freq_factor,
        original_context_len: fields.required_positive(&key("original_max_position_embeddings"))?,
    })
}

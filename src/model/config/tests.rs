use super::*;
use serde_json::{Value, json};

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 100, "max_position_embeddings": 64, "num_hidden_layers": 2,
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"
    })
}

fn read(changes: &Value) -> Result<ModelConfig, String> {
    let mut json = llama();
    for (field, value) in changes.as_object().unwrap() {
        json[field] = value.clone();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
    from_folder(folder.path()).map_err(|error| error.to_string())
}

#[track_caller]
fn check_error(changes: Value, field: &str, says: &str) {
    let error = read(&changes).unwrap_err();
    assert!(error.contains(&format!("config.json: {field}: ")) && error.contains(says), "{error}");
}

#[test]
fn a_plain_config_is_read() {
    let config = read(&json!({})).unwrap();
    assert_eq!(config.head_dim, 8);
    assert_eq!(config.kv_width(), 16);
    assert_eq!(config.rope, Rope { theta: 10000.0, scaling: RopeScaling::None, pairing: Pairing::Halves });
    assert!(!config.tied_head);
}

#[test]
fn absurd_values_are_named() {
    check_error(json!({"model_type": "gemma"}), "model_type", "supported: llama, qwen2, qwen3");
    check_error(json!({"model_type": null}), "model_type", "missing");
    check_error(json!({"num_attention_heads": 0}), "num_attention_heads", "0 is not");
    check_error(json!({"num_attention_heads": 5}), "num_attention_heads", "evenly");
    check_error(json!({"num_key_value_heads": 3}), "num_key_value_heads", "evenly");
    check_error(json!({"hidden_size": -32}), "hidden_size", "-32 is not");
    check_error(json!({"hidden_size": 1u64 << 40}), "hidden_size", "is not a whole number");
    check_error(json!({"hidden_size": 12, "num_attention_heads": 4}), "head_dim", "odd");
    check_error(json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers", "more than");
    check_error(json!({"vocab_size": [1]}), "vocab_size", "is not");
    check_error(json!({"rms_norm_eps": -1.0}), "rms_norm_eps", "above zero");
    check_error(json!({"hidden_act": "gelu"}), "hidden_act", "gelu");
    check_error(json!({"attention_bias": true}), "attention_bias", "not supported");
    check_error(json!({"quantization_config": {}}), "quantization_config", "GGUF");
    check_error(json!({"rope_scaling": {"rope_type": "yarn"}}), "rope_scaling.rope_type", "yarn");
    check_error(json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor", "missing");
}

#[test]
fn rope_scaling_is_read_from_old_and_new_fields() {
    let linear = RopeScaling::Linear { factor: 4.0 };
    let old = read(&json!({"rope_scaling": {"type": "linear", "factor": 4}})).unwrap();
    assert_eq!(old.rope.scaling, linear);
    let new = json!({"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5e5}});
    let new = read(&new).unwrap();
    assert_eq!((new.rope.scaling, new.rope.theta), (linear, 5e5));
}

#[test]
fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_len: 8192.0,
    };
    let plain = Rope { theta: 5e5, scaling: RopeScaling::None, pairing: Pairing::Halves };
    let scaled = Rope { scaling, ..plain.clone() };
    let (plain, scaled) = (plain.inverse_frequencies(128), scaled.inverse_frequencies(128));
    assert_eq!(plain[0], scaled[0]);
    assert_eq!(plain[63] / 8.0, scaled[63]);
    let is_between = |&pair: &usize| scaled[pair] < plain[pair] && scaled[pair] > plain[pair] / 8.0;
    // Wavelengths from 8192 / 4 to 8192 / 1 positions, of 2π * 500000^(pair / 64).
    assert_eq!((0..64).filter(is_between).collect::<Vec<_>>(), [29, 30, 31, 32, 33, 34]);
}

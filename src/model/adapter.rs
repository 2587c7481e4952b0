//! LoRA adapters: two small matrices beside some of a base's weights, merged into them when they are
//! read: `W + scale · B · A`.
//!
//! Two forms are read, PEFT's (`adapter_config.json` and safetensors) and llama.cpp's (GGUF). Sources:
//! `peft/tuners/lora/layer.py`; `convert_lora_to_gguf.py` and `src/llama-adapter.cpp` of llama.cpp.
//! Absent: adapters that do more than add a product (DoRA, biases, whole modules), which are refused.

use super::{
    Model, ModelError, Pairing, Part, StoredTensor,
    gguf::GgufFile,
    json,
    weight_name::Naming,
    weights::{TensorFiles, Update},
};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const PEFT_CONFIG: &str = "adapter_config.json";
const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the base's own names.
const PEFT_PREFIX: &str = "base_model.model.";

/// An adapter's files: which weights it changes is only known beside a base.
pub(super) struct Adapter {
    /// The file or folder errors name.
    path: PathBuf,
    naming: Naming,
    scale: Scale,
    /// By the base's names for the weights.
    pairs: BTreeMap<String, Pair>,
    /// What the adapter says it is made for.
    architecture: Option<String>,
}

/// What the product is multiplied by.
enum Scale {
    /// The same rank everywhere.
    Peft { rank: usize, scale: f32 },
    /// `alpha / rank`, whatever each tensor's rank; 1 for an alpha of 0.
    Gguf { alpha: f32 },
}

#[derive(Default)]
struct Pair {
    a: Option<StoredTensor>,
    b: Option<StoredTensor>,
}

impl Adapter {
    /// Opens a PEFT folder, its safetensors file, or a GGUF file.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] names the option or the tensor that is not supported.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let is_gguf = !path.is_dir() && path.extension().is_some_and(|extension| extension == "gguf");
        if is_gguf { Self::from_gguf(path) } else { Self::from_peft(path) }
    }

    fn from_peft(path: &Path) -> Result<Self, ModelError> {
        let (folder, file) = match path.parent() {
            Some(folder) if !path.is_dir() => (folder, path.to_path_buf()),
            _ => (path, path.join(PEFT_WEIGHTS)),
        };
        let config_path = folder.join(PEFT_CONFIG);
        let config: Map<String, Value> = json::read(&config_path)?;
        let scale = peft_scale(&config).map_err(|(field, reason)| ModelError::Invalid {
            path: config_path,
            field: field.to_owned(),
            reason,
        })?;
        let mut adapter = Self {
            path: file,
            naming: Naming::HuggingFace,
            scale,
            pairs: BTreeMap::new(),
            architecture: None,
        };
        for tensor in TensorFiles::from_safetensors(&adapter.path)?.iter() {
            let module = |suffix| tensor.name().strip_prefix(PEFT_PREFIX)?.strip_suffix(suffix);
            let (a, b) = (module(".lora_A.weight"), module(".lora_B.weight"));
            adapter.add(
                a.map(|name| format!("{name}.weight")),
                b.map(|name| format!("{name}.weight")),
                tensor,
            )?;
        }
        Ok(adapter)
    }

    fn from_gguf(path: &Path) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let field = |key: &str| gguf.metadata.get(key);
        let text = |key: &str| field(key).and_then(|value| value.as_str());
        let fault = |key: &str, reason: String| ModelError::Invalid {
            path: path.to_path_buf(),
            field: key.to_owned(),
            reason,
        };
        for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            let found = text(key).unwrap_or("missing");
            if found != expected {
                return Err(fault(key, format!("it is {found}, of a LoRA adapter it is `{expected}`")));
            }
        }
        if field("adapter.alora.invocation_tokens").is_some() {
            let reason = "adapters that wait for an invocation are not supported".to_owned();
            return Err(fault("adapter.alora.invocation_tokens", reason));
        }
        let key = "adapter.lora.alpha";
        let alpha = field(key).and_then(|value| value.as_f64()).map(|alpha| alpha as f32);
        let alpha = alpha.filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or_else(|| fault(key, "it is no number".to_owned()))?;
        let mut adapter = Self {
            path: path.to_path_buf(),
            naming: Naming::Gguf,
            scale: Scale::Gguf { alpha },
            pairs: BTreeMap::new(),
            architecture: text("general.architecture").map(str::to_owned),
        };
        for tensor in TensorFiles::from_gguf(&gguf).iter() {
            let weight = |suffix| tensor.name().strip_suffix(suffix).map(str::to_owned);
            adapter.add(weight(".lora_a"), weight(".lora_b"), tensor)?;
        }
        Ok(adapter)
    }

    /// Takes a tensor that is the `a` or the `b` of the weight named.
    fn add(&mut self, a: Option<String>, b: Option<String>, tensor: &StoredTensor) -> Result<(), ModelError> {
        let tensor_of = |pair: &mut Pair| match (&a, &b) {
            (Some(_), _) => pair.a = Some(tensor.clone()),
            _ => pair.b = Some(tensor.clone()),
        };
        let Some(weight) = a.as_ref().or(b.as_ref()) else {
            let reason = "it is neither a LoRA's A nor its B, which is all that is supported".to_owned();
            return Err(self.fault(tensor.name(), reason));
        };
        tensor_of(self.pairs.entry(weight.clone()).or_default());
        Ok(())
    }

    /// What the adapter adds to each weight of the model, by the names of the adapter's own form.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] names the tensor that the model has no weight for, or whose shape is not
    /// the weight's.
    pub(super) fn updates(mut self, model: &Model) -> Result<Vec<(usize, Update)>, ModelError> {
        let architecture = model.config.architecture;
        if let Some(made_for) = &self.architecture
            && made_for != architecture.name()
        {
            let field = "general.architecture".to_owned();
            let reason = format!("made for `{made_for}`, the base is `{}`", architecture.name());
            return Err(ModelError::Invalid { path: self.path, field, reason });
        }
        if self.pairs.is_empty() {
            let reason = "it holds no tensor".to_owned();
            return Err(ModelError::Invalid { path: self.path, field: "adapter".to_owned(), reason });
        }
        let pairing = architecture.pairing(self.naming);
        let mut updates = Vec::with_capacity(self.pairs.len());
        for (idx, weight) in model.graph.weights().iter().enumerate() {
            let name = weight.name.in_file(self.naming);
            let Some(pair) = self.pairs.remove(&name) else { continue };
            let (rows, columns) = match weight.shape[..] {
                [rows, columns] if weight.name.part != Part::Embedding => (rows, columns),
                _ => {
                    return Err(
                        self.fault(&name, "only the weights of linear layers can be adapted".to_owned())
                    );
                }
            };
            let (a, b, scale) = self.matrices(&name, &pair, rows, columns)?;
            let mut b: Vec<f32> = b.to_f32().iter().map(|value| scale * value).collect();
            if matches!(weight.name.part, Part::Query | Part::Key) && pairing != model.config.rope.pairing {
                b = reordered(&b, rows, model.config.head_dim, model.config.rope.pairing);
            }
            updates.push((idx, Update::new(a.to_f32().into(), b.into())));
        }
        match self.pairs.keys().next() {
            Some(name) => Err(self.fault(name, format!("the base {} has no such weight", model.name))),
            None => Ok(updates),
        }
    }

    /// `A`, `[rank, columns]`, and `B`, `[rows, rank]`, and what their product is multiplied by.
    fn matrices<'a>(
        &self,
        name: &str,
        pair: &'a Pair,
        rows: usize,
        columns: usize,
    ) -> Result<(&'a StoredTensor, &'a StoredTensor, f32), ModelError> {
        let (Some(a), Some(b)) = (&pair.a, &pair.b) else {
            let missing = if pair.a.is_none() { "A" } else { "B" };
            return Err(self.fault(name, format!("its {missing} is missing")));
        };
        let rank = match self.scale {
            Scale::Peft { rank, .. } => rank,
            Scale::Gguf { .. } => a.shape().first().copied().unwrap_or(0),
        };
        if rank == 0 {
            return Err(self.fault(a.name(), "its rank is 0".to_owned()));
        }
        for (tensor, shape) in [(a, [rank, columns]), (b, [rows, rank])] {
            if tensor.shape() != shape {
                let reason =
                    format!("its shape is {:?}, {shape:?} fits the base and the rank", tensor.shape());
                return Err(self.fault(tensor.name(), reason));
            }
        }
        let scale = match self.scale {
            Scale::Peft { scale, .. } => scale,
            Scale::Gguf { alpha: 0.0 } => 1.0,
            Scale::Gguf { alpha } => alpha / rank as f32,
        };
        Ok((a, b, scale))
    }

    fn fault(&self, tensor: &str, reason: String) -> ModelError {
        ModelError::Invalid { path: self.path.clone(), field: format!("tensor {tensor}"), reason }
    }
}

/// Rows of `b` brought from the other pairing into this one.
fn reordered(b: &[f32], rows: usize, head_dim: usize, into: Pairing) -> Vec<f32> {
    let rank = b.len() / rows;
    let half = head_dim / 2;
    let from = |row: usize| {
        let (head, at) = (row / head_dim * head_dim, row % head_dim);
        head + match into {
            Pairing::Adjacent => at / 2 + at % 2 * half,
            Pairing::Halves => at % half * 2 + at / half,
        }
    };
    (0..rows).flat_map(|row| &b[from(row) * rank..][..rank]).copied().collect()
}

/// Reads what the product is multiplied by, once nothing else is asked for than a product.
fn peft_scale(config: &Map<String, Value>) -> Result<Scale, (&'static str, String)> {
    let method = config.get("peft_type").and_then(Value::as_str).unwrap_or("missing");
    if method != "LORA" {
        return Err(("peft_type", format!("it is {method}, only LORA is supported")));
    }
    const REFUSED: [&str; 13] = [
        "use_dora",
        "bias",
        "lora_bias",
        "modules_to_save",
        "fan_in_fan_out",
        "rank_pattern",
        "alpha_pattern",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "use_qalora",
        "alora_invocation_tokens",
        "arrow_config",
    ];
    let is_unset = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    for option in REFUSED {
        if let Some(value) = config.get(option).filter(|value| !is_unset(value)) {
            return Err((option, format!("{value} is not supported")));
        }
    }
    // These begin with another base than the one that is named.
    let start = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if ["pissa", "olora", "loftq", "corda"].iter().any(|method| start.starts_with(method)) {
        return Err(("init_lora_weights", format!("`{start}`, which changes the base, is not supported")));
    }
    let rank = config.get("r").and_then(Value::as_u64).and_then(|rank| usize::try_from(rank).ok());
    let rank = rank.filter(|&rank| rank > 0).ok_or(("r", "it is no rank".to_owned()))?;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
    let alpha = alpha.ok_or(("lora_alpha", "it is no number".to_owned()))?;
    let by_root = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let divisor = if by_root { (rank as f64).sqrt() } else { rank as f64 };
    Ok(Scale::Peft { rank, scale: (alpha / divisor) as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_more_than_a_product_is_refused() {
        let check = |option: &str, value: Value, says: Option<&str>| {
            let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"});
            config[option] = value;
            let said = peft_scale(config.as_object().unwrap()).err();
            assert_eq!(said.as_ref().map(|(field, _)| *field), says, "{option}: {said:?}");
        };
        check("use_dora", json!(false), None);
        check("use_dora", json!(true), Some("use_dora"));
        check("bias", json!("all"), Some("bias"));
        check("modules_to_save", json!([]), None);
        check("modules_to_save", json!(["lm_head"]), Some("modules_to_save"));
        check("rank_pattern", json!({"q_proj": 2}), Some("rank_pattern"));
        check("init_lora_weights", json!("gaussian"), None);
        check("init_lora_weights", json!("pissa_niter_16"), Some("init_lora_weights"));
        check("peft_type", json!("LOHA"), Some("peft_type"));
        check("r", json!(0), Some("r"));
        check("lora_alpha", json!("8"), Some("lora_alpha"));
    }

    #[test]
    fn scales() {
        let check = |config: Value, expected: f32| match peft_scale(config.as_object().unwrap()) {
            Ok(Scale::Peft { scale, .. }) => assert_eq!(scale, expected, "{config}"),
            _ => panic!("{config}"),
        };
        check(json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8}), 2.0);
        check(json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true}), 4.0);
    }

    #[test]
    fn rows_come_back_to_their_places() {
        let halves: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let adjacent = reordered(&halves, 12, 6, Pairing::Adjacent);
        let firsts: Vec<f32> = adjacent.iter().step_by(2).copied().collect();
        assert_eq!(firsts, [0., 6., 2., 8., 4., 10., 12., 18., 14., 20., 16., 22.]);
        assert_eq!(reordered(&adjacent, 12, 6, Pairing::Halves), halves);
    }
}

//! What a model's metadata says of its architecture, whichever kind of file said it.

mod from_gguf;
mod from_json;

pub(super) use from_gguf::from_gguf;
pub(super) use from_json::from_folder;

use super::{MetadataValue, ModelError, arch::Architecture, graph::Pairing};
use std::{f64::consts::TAU, path::Path};

/// The numbers that make an architecture a model. Checked: no zeros, heads divide evenly.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    /// Positions the model was trained for.
    pub context_len: usize,
    pub layers: usize,
    /// Width of the hidden state.
    pub width: usize,
    pub feed_forward_width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norm_epsilon: f32,
    pub rope: Rope,
    /// Whether the output head is the embedding's table.
    pub tied_head: bool,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
    pub pairing: Pairing,
}

/// How the rotary frequencies were stretched for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Long waves are stretched, short ones kept, those between blended.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context_len: f64,
    },
    /// A divisor for each frequency, as GGUF stores Llama 3's.
    Divisors(Vec<f32>),
}

impl ModelConfig {
    /// Width of a token's query.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of a token's key, and of its value.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Rope {
    /// Radians a position turns each pair by; `head_dim / 2` of them.
    ///
    /// Source: `modeling_rope_utils.py` of transformers; arXiv:2104.09864.
    pub(super) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|pair| self.theta.powf(-((2 * pair) as f64) / head_dim as f64));
        let scaled = plain.enumerate().map(|(pair, frequency)| match &self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Divisors(divisors) => frequency / f64::from(divisors[pair]),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => {
                let waves = original_context_len * frequency / TAU;
                let kept = ((waves - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        });
        scaled.map(|frequency| frequency as f32).collect()
    }
}

/// Far above any model; keeps products of two sizes within 64 bits and a graph's memory small.
const MAX_SIZE: u64 = 1 << 26;
const MAX_LAYERS: usize = 1024;

/// Typed access to metadata fields, with errors that name them.
struct Fields<'a> {
    path: &'a Path,
    get: &'a dyn Fn(&str) -> Option<MetadataValue>,
}

impl Fields<'_> {
    fn fault(&self, field: &str, reason: impl Into<String>) -> ModelError {
        ModelError::Invalid { path: self.path.to_path_buf(), field: field.to_owned(), reason: reason.into() }
    }

    /// A number of things: at least one.
    fn size(&self, field: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = (self.get)(field) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=MAX_SIZE) => Ok(Some(size as usize)),
            _ => {
                Err(self
                    .fault(field, format!("{} is not a whole number from 1 to {MAX_SIZE}", brief(&value))))
            }
        }
    }

    fn required_size(&self, field: &str) -> Result<usize, ModelError> {
        self.size(field)?.ok_or_else(|| self.fault(field, "is missing"))
    }

    /// A finite number above zero.
    fn positive(&self, field: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = (self.get)(field) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.fault(field, format!("{} is not a number above zero", brief(&value)))),
        }
    }

    fn required_positive(&self, field: &str) -> Result<f64, ModelError> {
        self.positive(field)?.ok_or_else(|| self.fault(field, "is missing"))
    }

    fn text(&self, field: &str) -> Result<Option<String>, ModelError> {
        let Some(value) = (self.get)(field) else { return Ok(None) };
        match value {
            MetadataValue::String(text) => Ok(Some(text)),
            other => Err(self.fault(field, format!("{} is not a string", brief(&other)))),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, ModelError> {
        match (self.get)(field) {
            None => Ok(false),
            Some(MetadataValue::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.fault(field, format!("{} is not true or false", brief(&other)))),
        }
    }

    fn architecture(&self, field: &str) -> Result<Architecture, ModelError> {
        let name = self.text(field)?.ok_or_else(|| self.fault(field, "is missing"))?;
        Architecture::from_name(&name).ok_or_else(|| {
            let supported = Architecture::ALL.map(Architecture::name).join(", ");
            self.fault(field, format!("`{name}` is not supported (supported: {supported})"))
        })
    }

    /// The width of a head where no field gives it.
    fn evenly(&self, width: usize, heads: usize, heads_field: &str) -> Result<usize, ModelError> {
        if !width.is_multiple_of(heads) {
            return Err(
                self.fault(heads_field, format!("{heads} heads do not divide a width of {width} evenly"))
            );
        }
        Ok(width / heads)
    }

    /// What the two kinds of files call the fields is for the message.
    fn check(&self, config: &ModelConfig, names: &FieldNames) -> Result<(), ModelError> {
        let &ModelConfig { layers, heads, kv_heads, head_dim, .. } = config;
        if layers > MAX_LAYERS {
            return Err(self.fault(names.layers, format!("{layers} is more than {MAX_LAYERS}")));
        }
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} key-value heads do not divide {heads} heads evenly");
            return Err(self.fault(names.kv_heads, reason));
        }
        if !head_dim.is_multiple_of(2) {
            let reason = format!("{head_dim} is odd, and rotary embedding needs pairs");
            return Err(self.fault(names.head_dim, reason));
        }
        Ok(())
    }
}

struct FieldNames<'a> {
    layers: &'a str,
    kv_heads: &'a str,
    head_dim: &'a str,
}

/// A value as an error message shows it, however long it is.
fn brief(value: &MetadataValue) -> String {
    const MAX_CHARS: usize = 60;
    match value {
        MetadataValue::Array(values) => format!("a list of {}", values.len()),
        MetadataValue::String(text) => format!("{:?}", text.chars().take(MAX_CHARS).collect::<String>()),
        MetadataValue::Unsigned(number) => number.to_string(),
        MetadataValue::Signed(number) => number.to_string(),
        MetadataValue::Float(number) => number.to_string(),
        MetadataValue::Bool(flag) => flag.to_string(),
    }
}

#[cfg(test)]
mod tests;

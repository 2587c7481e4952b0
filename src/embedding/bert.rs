//! BERT's encoder (Devlin et al., 2019) in the size of MiniLM-L6: `f32`, one text at a time, its hidden
//! states averaged and brought to length 1.

use crate::model::{ModelError, StoredTensor};
use candle_core::{D, Device, Error, Result, Tensor, bail};
use std::{collections::BTreeMap, path::Path, sync::OnceLock};

pub(super) const HIDDEN: usize = 384;
const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;
const LAYERS: usize = 6;
const HEADS: usize = 12;
const HEAD: usize = HIDDEN / HEADS;
const FEED_FORWARD: usize = 1_536;
const NORM_EPSILON: f64 = 1e-12;

pub(super) struct Bert {
    stored: Stored,
    /// Decoded when the first text comes: a server that is asked for no quiz does without.
    encoder: OnceLock<std::result::Result<Encoder, String>>,
}

/// The file's tensors: all that are needed, of the right shapes.
struct Stored(BTreeMap<String, StoredTensor>);

struct Encoder {
    /// `[positions, hidden]`, with what is added for a text that is no second one.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Queries, keys and values, side by side.
    attention: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    norm: Norm,
}

struct Linear {
    /// `[in, out]`
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

const WORDS: &str = "embeddings.word_embeddings.weight";

/// Every tensor that is read, and its shape.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let linear = |name: &str, inputs: usize, outputs: usize| {
        [(format!("{name}.weight"), vec![outputs, inputs]), (format!("{name}.bias"), vec![outputs])]
    };
    let norm = |name: &str| ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![HIDDEN]));
    let mut shapes = vec![
        (WORDS.to_owned(), vec![VOCABULARY, HIDDEN]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, HIDDEN]),
    ];
    shapes.extend(norm("embeddings.LayerNorm"));
    for layer in (0..LAYERS).map(|idx| format!("encoder.layer.{idx}")) {
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            shapes.extend(linear(&format!("{layer}.attention.{part}"), HIDDEN, HIDDEN));
        }
        shapes.extend(norm(&format!("{layer}.attention.output.LayerNorm")));
        shapes.extend(linear(&format!("{layer}.intermediate.dense"), HIDDEN, FEED_FORWARD));
        shapes.extend(linear(&format!("{layer}.output.dense"), FEED_FORWARD, HIDDEN));
        shapes.extend(norm(&format!("{layer}.output.LayerNorm")));
    }
    shapes
}

impl Bert {
    /// # Errors
    /// A tensor is missing, or has another shape than MiniLM's.
    pub(super) fn open(weights: &Path) -> std::result::Result<Self, ModelError> {
        Ok(Self { stored: Stored(StoredTensor::open_named(weights, &shapes())?), encoder: OnceLock::new() })
    }

    /// The mean of the tokens' hidden states, at length 1.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let encoder = self.encoder.get_or_init(|| self.stored.encoder().map_err(|error| error.to_string()));
        let encoder = encoder.as_ref().map_err(Error::msg)?;
        let mean = encoder.hidden(self.stored.words(tokens)?)?.mean(0)?;
        let len = mean.sqr()?.sum_all()?.sqrt()?;
        mean.broadcast_div(&len)?.to_vec1()
    }
}

impl Encoder {
    /// The tokens' hidden states, of what their words are by themselves: both `[tokens, hidden]`.
    fn hidden(&self, words: Tensor) -> Result<Tensor> {
        let mut hidden = self.norm.apply(&(&words + self.positions.narrow(0, 0, words.dim(0)?)?)?)?;
        for layer in &self.layers {
            hidden = layer.apply(&hidden)?;
        }
        Ok(hidden)
    }
}

impl Layer {
    /// `[tokens, hidden]` of the same.
    fn apply(&self, hidden: &Tensor) -> Result<Tensor> {
        let attended = self.attention_output.apply(&self.attend(hidden)?)?;
        let hidden = self.attention_norm.apply(&(hidden + attended)?)?;
        let fed = self.output.apply(&self.intermediate.apply(&hidden)?.gelu_erf()?)?;
        self.norm.apply(&(hidden + fed)?)
    }

    /// Every token looks at all of them.
    fn attend(&self, hidden: &Tensor) -> Result<Tensor> {
        let n = hidden.dim(0)?;
        let all = self.attention.apply(hidden)?.reshape((n, 3, HEADS, HEAD))?;
        let part = |idx: usize| all.narrow(1, idx, 1)?.squeeze(1)?.transpose(0, 1)?.contiguous();
        let (queries, keys, values) = (part(0)?, part(1)?, part(2)?);
        let scores = (queries.matmul(&keys.t()?)? / (HEAD as f64).sqrt())?;
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&values)?.transpose(0, 1)?.reshape((n, HIDDEN))
    }
}

impl Linear {
    fn apply(&self, input: &Tensor) -> Result<Tensor> {
        input.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn apply(&self, input: &Tensor) -> Result<Tensor> {
        let centred = input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scaled = centred.broadcast_div(&(variance + NORM_EPSILON)?.sqrt()?)?;
        scaled.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Stored {
    /// `[tokens, hidden]`
    fn words(&self, tokens: &[u32]) -> Result<Tensor> {
        let n = tokens.len();
        if n == 0 || n > POSITIONS {
            bail!("a text of {n} tokens; it may have from 1 to {POSITIONS}");
        }
        let mut rows = vec![0.0; n * HIDDEN];
        for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(HIDDEN)) {
            if *token as usize >= VOCABULARY {
                bail!("token {token} of a vocabulary of {VOCABULARY}");
            }
            self.0[WORDS].read_rows(*token as usize, row);
        }
        Tensor::from_vec(rows, (n, HIDDEN), &Device::Cpu)
    }

    fn encoder(&self) -> Result<Encoder> {
        let positions = self.get("embeddings.position_embeddings.weight")?;
        let types = self.get("embeddings.token_type_embeddings.weight")?;
        let layers = (0..LAYERS).map(|idx| self.layer(&format!("encoder.layer.{idx}")));
        Ok(Encoder {
            positions: positions.broadcast_add(&types.narrow(0, 0, 1)?)?,
            norm: self.norm("embeddings.LayerNorm")?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    fn layer(&self, name: &str) -> Result<Layer> {
        let part = |part: &str| self.linear(&format!("{name}.attention.self.{part}"));
        let parts = [part("query")?, part("key")?, part("value")?];
        let side_by_side =
            |of: fn(&Linear) -> &Tensor| Tensor::cat(&parts.each_ref().map(of), D::Minus1)?.contiguous();
        Ok(Layer {
            attention: Linear {
                weight: side_by_side(|linear| &linear.weight)?,
                bias: side_by_side(|linear| &linear.bias)?,
            },
            attention_output: self.linear(&format!("{name}.attention.output.dense"))?,
            attention_norm: self.norm(&format!("{name}.attention.output.LayerNorm"))?,
            intermediate: self.linear(&format!("{name}.intermediate.dense"))?,
            output: self.linear(&format!("{name}.output.dense"))?,
            norm: self.norm(&format!("{name}.output.LayerNorm"))?,
        })
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: self.get(&format!("{name}.weight"))?.t()?.contiguous()?,
            bias: self.get(&format!("{name}.bias"))?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm { weight: self.get(&format!("{name}.weight"))?, bias: self.get(&format!("{name}.bias"))? })
    }

    /// One of [`shapes`].
    fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = &self.0[name];
        Tensor::from_vec(tensor.to_f32(), tensor.shape(), &Device::Cpu)
    }
}

//! BERT's encoder (Devlin et al., 2019) in the size of MiniLM-L6: `f32`, one text at a time, its hidden
//! states averaged and brought to length 1.

use candle_core::{D, DType, Device, Result, Tensor, bail};
use std::collections::HashMap;

pub(super) const HIDDEN: usize = 384;
const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;
const LAYERS: usize = 6;
const HEADS: usize = 12;
const HEAD: usize = HIDDEN / HEADS;
const FEED_FORWARD: usize = 1_536;
const NORM_EPSILON: f64 = 1e-12;

pub(super) struct Bert {
    /// `[vocabulary, hidden]`
    words: Tensor,
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

/// The file's tensors, each asked for with its shape.
struct Tensors<'a>(&'a HashMap<String, Tensor>);

impl Bert {
    /// # Errors
    /// A tensor is missing, or has another shape than MiniLM's.
    pub(super) fn new(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let tensors = Tensors(tensors);
        let words = tensors.get("embeddings.word_embeddings.weight", &[VOCABULARY, HIDDEN])?;
        let positions = tensors.get("embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN])?;
        let types = tensors.get("embeddings.token_type_embeddings.weight", &[2, HIDDEN])?;
        let layers = (0..LAYERS).map(|idx| tensors.layer(&format!("encoder.layer.{idx}")));
        Ok(Self {
            words,
            positions: positions.broadcast_add(&types.narrow(0, 0, 1)?)?,
            norm: tensors.norm("embeddings.LayerNorm")?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// The mean of the tokens' hidden states, at length 1.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let n = tokens.len();
        if n == 0 || n > POSITIONS {
            bail!("a text of {n} tokens; it may have from 1 to {POSITIONS}");
        }
        let words = self.words.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        let mut hidden = self.norm.apply(&(words + self.positions.narrow(0, 0, n)?)?)?;
        for layer in &self.layers {
            hidden = layer.apply(&hidden)?;
        }
        let mean = hidden.mean(0)?;
        let len = mean.sqr()?.sum_all()?.sqrt()?;
        mean.broadcast_div(&len)?.to_vec1()
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

impl Tensors<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(tensor) = self.0.get(name) else { bail!("{name} is missing") };
        if tensor.dims() != shape {
            bail!("{name} has the shape {:?}; it should be {shape:?}", tensor.dims());
        }
        tensor.to_dtype(DType::F32)
    }

    fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.get(&format!("{name}.weight"), &[outputs, inputs])?.t()?.contiguous()?,
            bias: self.get(&format!("{name}.bias"), &[outputs])?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.get(&format!("{name}.weight"), &[HIDDEN])?,
            bias: self.get(&format!("{name}.bias"), &[HIDDEN])?,
        })
    }

    fn layer(&self, name: &str) -> Result<Layer> {
        let part = |part: &str| self.linear(&format!("{name}.attention.self.{part}"), HIDDEN, HIDDEN);
        let parts = [part("query")?, part("key")?, part("value")?];
        let side_by_side =
            |of: fn(&Linear) -> &Tensor| Tensor::cat(&parts.each_ref().map(of), D::Minus1)?.contiguous();
        Ok(Layer {
            attention: Linear {
                weight: side_by_side(|linear| &linear.weight)?,
                bias: side_by_side(|linear| &linear.bias)?,
            },
            attention_output: self.linear(&format!("{name}.attention.output.dense"), HIDDEN, HIDDEN)?,
            attention_norm: self.norm(&format!("{name}.attention.output.LayerNorm"))?,
            intermediate: self.linear(&format!("{name}.intermediate.dense"), HIDDEN, FEED_FORWARD)?,
            output: self.linear(&format!("{name}.output.dense"), FEED_FORWARD, HIDDEN)?,
            norm: self.norm(&format!("{name}.output.LayerNorm"))?,
        })
    }
}

//! The graph of a model as an HLO module for one bucket.
//!
//! Every node yields `f32`. What is multiplied by a matrix, and what the KV cache keeps, is rounded to the
//! [`Precision`]; products are summed in `f32`. So norms, rotation, softmax and logits are never rounded, and
//! the lowering that is all `f32` differs in nothing else.
//!
//! A program may be for several ranks, each with its part of the heads and of the feed-forward width, and of the
//! weights that belong to them: what a layer reads is split by its outputs, what it ends in by its inputs, and
//! the ranks' parts of that are added up. All else (embedding, norms, head) each rank has whole and computes for
//! itself, so that all have the logits. One program is for all ranks; only the weights differ.

use super::{
    attention::Attention,
    bucket::{BadBucket, Bucket, CachePlan, Family},
    builder::{BuildError, ModuleBuilder, Output, Value, replaced_name},
    draw::{DRAW_NUMBERS, WORD_TOKENS, draw, padded_vocab},
    module::{ArrayShape, Binary, ElementType, Module, Scalar, Stride, Unary},
    split::{Indivisible, check_ranks, split_dimension},
    verify::{Violation, verify},
};
use crate::model::{AttentionShape, Graph, Node, NodeId, Pairing, WeightId};
use serde::{Deserialize, Serialize};

/// How matrices and the KV cache are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What the device is made for.
    Bf16,
    /// For comparing with the reference, whose numbers it has but for the order of sums.
    F32,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// Who chooses the next token from logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// The program yields logits and no more.
    #[default]
    Host,
    /// It also draws a token from them for each of its rows; the logits need not be read then.
    Device,
}

impl Sampling {
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

/// How a model is written as programs, but for their shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub precision: Precision,
    /// Cores that share the model.
    pub ranks: usize,
    pub sampling: Sampling,
}

/// What the results are called that are no cache.
pub(in super::super) const LOGITS: &str = "logits";
pub(in super::super) const DRAWN: &str = "drawn";

/// A program, and what its inputs and outputs mean.
#[derive(Clone, Debug)]
pub struct Lowered {
    pub module: Module,
    /// In the order of the module's parameters.
    pub inputs: Vec<Input>,
    /// In the order of the module's results: the logits, what is drawn from them if the device does that, then the
    /// caches.
    pub outputs: Vec<String>,
}

/// What a parameter of a program is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub name: String,
    pub shape: ArrayShape,
    pub source: InputSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// Each token's id; 0 for padding.
    Tokens,
    /// Each token's position. Padded tokens have each one of its own.
    Positions,
    /// The slot that each token is written to: the row's own, or for padding the scratch slot, the last. A row
    /// of several slots is the slot of its own number; a single row is of the slot its first token names.
    Slots,
    /// The token whose logits are wanted.
    Selected,
    /// Of each row of several tokens, the one that a token is drawn after.
    DrawnAfter,
    /// Of each row, the tokens that may be drawn, a bit each, lowest first; none beyond the vocabulary.
    Allowed,
    /// Of each row, five numbers that the draw goes by: 1 / temperature, the logarithm of min-p, top-k, top-p, the uniform one.
    DrawNumbers,
    /// `[slots + 1, kv_heads, context, head_dim]`, updated in place. Begins as zeros: what has not been
    /// written yet is multiplied by zero.
    Cache,
    /// Cosines and sines of [`rotary_table`].
    Cosines,
    Sines,
    /// A matrix that an embedding reads is `[vocab, width]`, any other `[in, out]`: transposed. A rank has as much
    /// of the split dimension of the input as its number says, and all of a weight that has none.
    Weight {
        id: WeightId,
        transposed: bool,
        split: Option<usize>,
    },
}

impl InputSource {
    /// Written anew for every step, and each program's own; the others are shared by all programs.
    pub fn is_of_step(self) -> bool {
        matches!(self, Self::Tokens | Self::Positions | Self::Slots | Self::Selected) || self.is_of_draw()
    }

    /// What the device draws by. Only runs that draw write it, and so all of it is zero at first.
    pub fn is_of_draw(self) -> bool {
        matches!(self, Self::DrawnAfter | Self::Allowed | Self::DrawNumbers)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    #[error(transparent)]
    Bucket(#[from] BadBucket),
    #[error("a KV cache of {} slots of {} positions has more rows than 2^24, the last that the device counts", .0.slots, .0.context)]
    CacheTooLarge(CachePlan),
    #[error(transparent)]
    Ranks(#[from] Indivisible),
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What was written breaks a rule: a mistake of ours.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Writes the program of one bucket, and checks it.
///
/// # Errors
/// [`LowerError::Bucket`], [`LowerError::CacheTooLarge`]: the cache does not hold the bucket, or the device not
/// the cache. [`LowerError::Ranks`]: the model has no equal parts for them.
pub fn lower(
    graph: &Graph,
    plan: CachePlan,
    bucket: Bucket,
    variant: Variant,
) -> Result<Lowered, LowerError> {
    let ranks = variant.ranks;
    bucket.check(plan)?;
    check_ranks(graph, ranks)?;
    let rows = plan.slots.checked_add(1).and_then(|slots| slots.checked_mul(plan.context));
    let rows = rows.and_then(|rows| rows.checked_mul(graph.cache().kv_heads / ranks));
    if rows.is_none_or(|rows| rows > 1 << f32::MANTISSA_DIGITS) {
        return Err(LowerError::CacheTooLarge(plan));
    }
    let mut lowering = Lowering::new(graph, plan, bucket, variant)?;
    let mut values: Vec<Value> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes() {
        lowering.builder.enter(format!("{}.{}", kind(node), id.0));
        values.push(lowering.node(node, &values)?);
    }
    let logits = values.pop().expect("a graph ends in its head");
    let drawn = lowering.draw(logits)?;
    let named = |name: &str, value| Output { name: name.to_owned(), value, replaces: None };
    let drawn = drawn.map(|value| named(DRAWN, value));
    let of_step = [named(LOGITS, logits)].into_iter().chain(drawn);
    let outputs: Vec<Output> = of_step.chain(lowering.attention.into_outputs()).collect();
    let module = lowering.builder.finish(&outputs)?;
    verify(&module)?;
    let outputs = outputs.into_iter().map(|output| output.name).collect();
    Ok(Lowered { module, inputs: lowering.inputs, outputs })
}

/// Cosine or sine of what each position turns each pair of a head by, `[context, head_dim / 2]`.
///
/// The angle is rounded to `f32`, as the models were trained with.
pub fn rotary_table(graph: &Graph, context: usize, turn: fn(f64) -> f64) -> Vec<f32> {
    let angles = (0..context).flat_map(|position| {
        graph.inverse_frequencies().iter().map(move |frequency| position as f32 * frequency)
    });
    angles.map(|angle| turn(angle.into()) as f32).collect()
}

struct Lowering<'a> {
    graph: &'a Graph,
    bucket: Bucket,
    ranks: usize,
    element: ElementType,
    builder: ModuleBuilder,
    inputs: Vec<Input>,
    tokens: Value,
    selected: Option<Value>,
    draw: Option<DrawInputs>,
    /// Of each token's position, `[tokens, head_dim / 2]`.
    cosines: Value,
    sines: Value,
    attention: Attention,
    /// In the order of the graph's weights.
    weights: Vec<Value>,
}

/// What the device draws by.
struct DrawInputs {
    after: Option<Value>,
    allowed: Value,
    numbers: Value,
}

impl<'a> Lowering<'a> {
    /// Writes the parameters, and what all layers need of them.
    fn new(
        graph: &'a Graph,
        plan: CachePlan,
        bucket: Bucket,
        Variant { precision, ranks, sampling }: Variant,
    ) -> Result<Self, BuildError> {
        let element = match precision {
            Precision::Bf16 => ElementType::Bf16,
            Precision::F32 => ElementType::F32,
        };
        let mut builder = ModuleBuilder::new(&format!("{}.{bucket}", bucket.family().name()));
        builder.enter("inputs".to_owned());
        let mut parameters = Parameters { builder: &mut builder, inputs: Vec::new() };
        let token_count = bucket.tokens();
        let tokens = parameters.index("tokens", InputSource::Tokens, token_count, graph.vocab_size())?;
        let positions = parameters.index("positions", InputSource::Positions, token_count, plan.context)?;
        let slots = parameters.index("slots", InputSource::Slots, token_count, plan.slots + 1)?;
        let selected = match bucket.family() {
            Family::Prefill => {
                Some(parameters.index("selected", InputSource::Selected, bucket.logits(), token_count)?)
            }
            Family::Decode | Family::ShortRows => None,
        };
        let draw = match sampling {
            Sampling::Device => Some(DrawInputs::new(&mut parameters, graph.vocab_size(), bucket)?),
            Sampling::Host => None,
        };
        let cache = graph.cache();
        let cache_shape =
            ArrayShape::new(element, &[plan.slots + 1, cache.kv_heads / ranks, plan.context, cache.head_dim]);
        let mut caches = Vec::with_capacity(cache.layers);
        for layer in 0..cache.layers {
            let mut cache = |part: &str| {
                let name = format!("layers.{layer}.cache.{part}");
                let value =
                    parameters.array(&replaced_name(&name), InputSource::Cache, cache_shape.clone())?;
                Ok(Output { name, value, replaces: Some(value) })
            };
            caches.push([cache("keys")?, cache("values")?]);
        }
        let table = ArrayShape::new(ElementType::F32, &[plan.context, graph.inverse_frequencies().len()]);
        let cosines = parameters.array("rotary.cosines", InputSource::Cosines, table.clone())?;
        let sines = parameters.array("rotary.sines", InputSource::Sines, table)?;
        let ids = (0..graph.weights().len()).map(WeightId);
        let weights = ids.map(|id| parameters.weight(graph, id, element, ranks));
        let weights = weights.collect::<Result<_, _>>()?;
        let inputs = parameters.inputs;

        builder.enter("positions".to_owned());
        let cosines = builder.gather_rows(cosines, positions)?;
        let sines = builder.gather_rows(sines, positions)?;
        let attention = Attention::new(&mut builder, bucket, positions, slots, caches)?;
        Ok(Self {
            graph,
            bucket,
            ranks,
            element,
            builder,
            inputs,
            tokens,
            selected,
            draw,
            cosines,
            sines,
            attention,
            weights,
        })
    }

    fn node(&mut self, node: &Node, values: &[Value]) -> Result<Value, BuildError> {
        let value = |id: NodeId| values[id.0];
        match *node {
            Node::Embedding { table } => {
                let rows = self.builder.gather_rows(self.weights[table.0], self.tokens)?;
                self.builder.convert(rows, ElementType::F32)
            }
            Node::RmsNorm { input, weight, epsilon } => self.rms_norm(value(input), weight, epsilon),
            Node::Linear { input, weight, bias } => self.linear(value(input), weight, bias),
            Node::Head { input, weight } => self.linear(value(input), weight, None),
            Node::Rotary { input, head_dim, pairing } => self.rotary(value(input), head_dim, pairing),
            Node::Attention { layer, query, key, value: values, shape } => {
                let inputs = [value(query), value(key), value(values)];
                let AttentionShape { heads, kv_heads, .. } = shape;
                let shape =
                    AttentionShape { heads: heads / self.ranks, kv_heads: kv_heads / self.ranks, ..shape };
                self.attention.attend(&mut self.builder, layer, inputs, &shape)
            }
            Node::GatedActivation { gate, up } => {
                let gate = value(gate);
                let logistic = self.builder.unary(Unary::Logistic, gate)?;
                let activated = self.builder.binary(Binary::Multiply, gate, logistic)?;
                self.builder.binary(Binary::Multiply, activated, value(up))
            }
            Node::Add { left, right } => self.builder.binary(Binary::Add, value(left), value(right)),
            Node::SelectRows { input } => match self.selected {
                Some(selected) => self.builder.gather_rows(value(input), selected),
                None => Ok(value(input)),
            },
        }
    }

    /// A token for each of the bucket's rows, if the device draws.
    fn draw(&mut self, logits: Value) -> Result<Option<Value>, BuildError> {
        let Some(DrawInputs { after, allowed, numbers }) = self.draw.take() else { return Ok(None) };
        self.builder.enter("draw".to_owned());
        let logits = match after {
            Some(after) => self.builder.gather_rows(logits, after)?,
            None => logits,
        };
        draw(&mut self.builder, logits, allowed, numbers).map(Some)
    }

    /// Over each run of as many values as the weight has, as rows of their own.
    fn rms_norm(&mut self, input: Value, weight: WeightId, epsilon: f32) -> Result<Value, BuildError> {
        let builder = &mut self.builder;
        let whole = builder.dimensions(input);
        let weight = self.weights[weight.0];
        let run = builder.dimensions(weight)[0];
        let runs = whole.iter().product::<usize>() / run;
        let input = builder.reshape(input, &[runs, run])?;
        let squares = builder.binary(Binary::Multiply, input, input)?;
        let sum = builder.reduce(Binary::Add, squares, 1, 0.0)?;
        let count = builder.splat(Scalar::F32(run as f32), &[runs])?;
        let mean = builder.binary(Binary::Divide, sum, count)?;
        let epsilon = builder.splat(Scalar::F32(epsilon), &[runs])?;
        let mean = builder.binary(Binary::Add, mean, epsilon)?;
        let scale = builder.unary(Unary::Rsqrt, mean)?;
        let scale = builder.broadcast(scale, &[runs, run], &[0])?;
        let normed = builder.binary(Binary::Multiply, input, scale)?;
        let weight = builder.broadcast(weight, &[runs, run], &[1])?;
        let normed = builder.binary(Binary::Multiply, normed, weight)?;
        builder.reshape(normed, &whole)
    }

    fn linear(
        &mut self,
        input: Value,
        weight: WeightId,
        bias: Option<WeightId>,
    ) -> Result<Value, BuildError> {
        let builder = &mut self.builder;
        let input = builder.convert(input, self.element)?;
        let contracting = if is_transposed(self.graph, weight) { 0 } else { 1 };
        let product = builder.dot(0, (input, 1), (self.weights[weight.0], contracting))?;
        let product = match split_dimension(self.graph.weight(weight).name.part) {
            // Each rank has multiplied its part of the inputs.
            Some(1) => builder.sum_over_ranks(product, self.ranks)?,
            _ => product,
        };
        let Some(bias) = bias else { return Ok(product) };
        let bias = builder.broadcast(self.weights[bias.0], &builder.dimensions(product), &[1])?;
        builder.binary(Binary::Add, product, bias)
    }

    fn rotary(&mut self, input: Value, head_dim: usize, pairing: Pairing) -> Result<Value, BuildError> {
        let builder = &mut self.builder;
        let whole = builder.dimensions(input);
        let (tokens, pairs) = (self.bucket.tokens(), head_dim / 2);
        let by_pair = [tokens, whole[1] / head_dim, pairs];
        // The first and the second of a pair are neighbours along one dimension, and so they are put back.
        let (split, apart) = match pairing {
            Pairing::Halves => ([by_pair[0], by_pair[1], 2, pairs], 2),
            Pairing::Adjacent => ([by_pair[0], by_pair[1], pairs, 2], 3),
        };
        let split_input = builder.reshape(input, &split)?;
        let mut part = |start| {
            let part = Stride { start, limit: start + 1, stride: 1 };
            let part = builder.slice(split_input, apart, part)?;
            builder.reshape(part, &by_pair)
        };
        let (first, second) = (part(0)?, part(1)?);
        let cosines = builder.broadcast(self.cosines, &by_pair, &[0, 2])?;
        let sines = builder.broadcast(self.sines, &by_pair, &[0, 2])?;
        let mut multiply = |left, right| builder.binary(Binary::Multiply, left, right);
        let [along, against] = [multiply(first, cosines)?, multiply(second, sines)?];
        let [across, upward] = [multiply(first, sines)?, multiply(second, cosines)?];
        let first = builder.binary(Binary::Subtract, along, against)?;
        let second = builder.binary(Binary::Add, across, upward)?;
        let mut part_dimensions = split;
        part_dimensions[apart] = 1;
        let first = builder.reshape(first, &part_dimensions)?;
        let second = builder.reshape(second, &part_dimensions)?;
        let turned = builder.concatenate(&[first, second], apart)?;
        builder.reshape(turned, &whole)
    }
}

impl DrawInputs {
    fn new(parameters: &mut Parameters<'_>, vocab_size: usize, bucket: Bucket) -> Result<Self, BuildError> {
        let rows = bucket.slots;
        // The logits of a row are one line but for short rows.
        let after = match bucket.family() {
            Family::ShortRows => {
                Some(parameters.index("drawn.after", InputSource::DrawnAfter, rows, bucket.tokens())?)
            }
            Family::Decode | Family::Prefill => None,
        };
        let words = ArrayShape::new(ElementType::S32, &[rows, padded_vocab(vocab_size) / WORD_TOKENS]);
        let allowed = parameters.array("drawn.allowed", InputSource::Allowed, words)?;
        let numbers = ArrayShape::new(ElementType::F32, &[rows, DRAW_NUMBERS]);
        let numbers = parameters.array("drawn.numbers", InputSource::DrawNumbers, numbers)?;
        Ok(Self { after, allowed, numbers })
    }
}

/// The parameters as they are written, with what each is bound to.
struct Parameters<'a> {
    builder: &'a mut ModuleBuilder,
    inputs: Vec<Input>,
}

impl Parameters<'_> {
    /// A vector of integers below `limit`.
    fn index(
        &mut self,
        name: &str,
        source: InputSource,
        len: usize,
        limit: usize,
    ) -> Result<Value, BuildError> {
        let value = self.builder.index_parameter(name, len, 0..=limit as i64 - 1)?;
        self.inputs.push(Input { name: name.to_owned(), shape: self.builder.shape(value).clone(), source });
        Ok(value)
    }

    fn array(&mut self, name: &str, source: InputSource, shape: ArrayShape) -> Result<Value, BuildError> {
        let value = self.builder.parameter(name, &shape)?;
        self.inputs.push(Input { name: name.to_owned(), shape, source });
        Ok(value)
    }

    /// A matrix in the precision asked for; a vector, a norm's or a bias, in `f32`.
    fn weight(
        &mut self,
        graph: &Graph,
        id: WeightId,
        element: ElementType,
        ranks: usize,
    ) -> Result<Value, BuildError> {
        let weight = graph.weight(id);
        let transposed = is_transposed(graph, id);
        let mut dimensions = weight.shape.clone();
        let split = split_dimension(weight.name.part).filter(|_| ranks > 1);
        if let Some(dimension) = split {
            dimensions[dimension] /= ranks;
        }
        let split = split.map(|dimension| if transposed { 1 - dimension } else { dimension });
        if transposed {
            dimensions.reverse();
        }
        let element = if dimensions.len() == 1 { ElementType::F32 } else { element };
        let shape = ArrayShape::new(element, &dimensions);
        self.array(&weight.name.to_string(), InputSource::Weight { id, transposed, split }, shape)
    }
}

/// A matrix lies with its inputs outermost, unless rows of it are looked up.
fn is_transposed(graph: &Graph, id: WeightId) -> bool {
    let is_table = graph.nodes().any(|(_, node)| matches!(node, Node::Embedding { table } if *table == id));
    graph.weight(id).shape.len() == 2 && !is_table
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Embedding { .. } => "embedding",
        Node::RmsNorm { .. } => "rms_norm",
        Node::Linear { .. } => "linear",
        Node::Rotary { .. } => "rotary",
        Node::Attention { .. } => "attention",
        Node::GatedActivation { .. } => "gated_activation",
        Node::Add { .. } => "add",
        Node::SelectRows { .. } => "select_rows",
        Node::Head { .. } => "head",
    }
}

//! From the model's graph to an ONNX model.
//!
//! Every value between nodes is a matrix with a row a token, as in the graph: the tokens of all rows of a
//! step lie one after another, so that matrices are multiplied once a step, whatever the rows' lengths.

use super::{
    attention::GridAttention,
    builder::Builder,
    matrix::IntegerProducts,
    model::{
        Attribute,
        Dimension::{Fixed, Named},
        ElementType, Model as OnnxModel, Operator,
    },
};
use crate::model::{Graph, Model, Node, NodeId, Pairing, WeightId};
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// In which of two ways a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Standard operators alone, all numbers `f32`: what any implementation of ONNX reads.
    Portable,
    /// ONNX Runtime's own operators, and quantised matrices as the integers they are.
    Fast,
}

/// The names of the graph's inputs and outputs, beside those of the [cache](cache_names).
pub mod names {
    /// `[T]`: token ids.
    pub const TOKENS: &str = "tokens";
    /// `[T]`: each token's place in its sequence.
    pub const POSITIONS: &str = "positions";
    /// `[R]`: the tokens whose logits are wanted.
    pub const SELECTED: &str = "selected";
    /// `[R, vocab]`
    pub const LOGITS: &str = "logits";
    /// `[C]`: 0, 1, 2 and so on; a slot of the cache as it is bound has as many positions.
    pub const CONTEXT: &str = "context";
    /// `[T * kv_heads, 1]`: the row of the cache that each head of each token is written to.
    pub const CACHE_ROWS: &str = "cache_rows";
    /// `[B * S]`: the token in each cell of a grid of slots by row length; any token where there is none.
    pub const GRID: &str = "grid";
    /// `[T]`: each token's cell.
    pub const CELLS: &str = "cells";
    /// `[B, 1, S, 1]`: the last position that each cell of the grid sees.
    pub const LAST_SEEN: &str = "last_seen";
}

/// A layer's keys and values, `[B * kv_heads * C, head_dim]`: as they come in and as they go out, which
/// are to be the same memory.
pub fn cache_names(layer: usize) -> [(String, String); 2] {
    ["keys", "values"].map(|what| (format!("{what}.{layer}"), format!("{what}.{layer}.written")))
}

/// Writes a model for slots of up to `context_len` positions, its weights to `weights`.
///
/// # Errors
/// The weights cannot be written.
pub fn lower(model: &Model, context_len: usize, form: Form, weights: impl Write) -> io::Result<OnnxModel> {
    let mut builder = Builder::new(model.name.clone(), weights);
    let tokens = builder.input(names::TOKENS, ElementType::I64, &[Named("T")]);
    let positions = builder.input(names::POSITIONS, ElementType::I64, &[Named("T")]);
    let selected = builder.input(names::SELECTED, ElementType::I64, &[Named("R")]);
    let attention = GridAttention::new(&mut builder, model.graph.cache());
    let rotary = Rotary::new(&mut builder, &model.graph, context_len, form, &positions)?;
    let mut lowering = Lowering {
        model,
        form,
        builder,
        tokens,
        selected,
        rotary,
        attention,
        products: IntegerProducts::default(),
        normed: HashMap::new(),
        values: Vec::new(),
    };
    for (id, node) in model.graph.nodes() {
        let value = match lowering.normed.remove(&id) {
            Some(normed) => normed,
            None => lowering.node(id, node)?,
        };
        lowering.values.push(value);
    }
    let Lowering { mut builder, mut values, .. } = lowering;
    let logits = values.pop().expect("a graph has nodes, and the last one yields the logits");
    builder.node(Operator::Standard("Identity"), &[&logits], &[names::LOGITS], Vec::new());
    builder.output(names::LOGITS, &[Named("R"), Fixed(model.graph.vocab_size())]);
    builder.finish()
}

struct Lowering<'a, W> {
    model: &'a Model,
    form: Form,
    builder: Builder<W>,
    tokens: String,
    selected: String,
    rotary: Rotary,
    attention: GridAttention,
    products: IntegerProducts,
    /// Norms that were computed along with what they read.
    normed: HashMap<NodeId, String>,
    /// What each node of the graph is called.
    values: Vec<String>,
}

impl<W: Write> Lowering<'_, W> {
    fn value(&self, node: NodeId) -> String {
        self.values[node.0].clone()
    }

    fn node(&mut self, id: NodeId, node: &Node) -> io::Result<String> {
        let graph = &self.model.graph;
        Ok(match *node {
            Node::Embedding { table } => {
                let table = self.floats(table)?;
                self.builder.call("Gather", &[&table, &self.tokens])
            }
            Node::RmsNorm { input, weight, epsilon } => {
                let (width, group) = (graph.width(input), graph.weight(weight).shape[0]);
                let (input, weight) = (self.value(input), self.floats(weight)?);
                if group == width {
                    self.rms_norm(&input, &weight, epsilon)
                } else {
                    let runs = self.builder.reshape(&input, &[-1, group as i64]);
                    let normed = self.rms_norm(&runs, &weight, epsilon);
                    self.builder.reshape(&normed, &[-1, width as i64])
                }
            }
            Node::Linear { input, weight, bias } => {
                let product = self.matrix(input, weight)?;
                match bias {
                    None => product,
                    Some(bias) => {
                        let bias = self.floats(bias)?;
                        self.builder.call("Add", &[&product, &bias])
                    }
                }
            }
            Node::Head { input, weight } => self.matrix(input, weight)?,
            Node::Rotary { input, head_dim, pairing } => {
                let (width, input) = (graph.width(input), self.value(input));
                self.rotary.turn(&mut self.builder, &input, [width, head_dim], pairing)
            }
            Node::Attention { layer, query, key, value, shape } => {
                let [query, key, value] = [query, key, value].map(|node| self.value(node));
                self.attention.attend(&mut self.builder, layer, [&query, &key, &value], &shape)
            }
            Node::GatedActivation { gate, up } => {
                let (gate, up) = (self.value(gate), self.value(up));
                let sigmoid = self.builder.call("Sigmoid", &[&gate]);
                let activated = self.builder.call("Mul", &[&gate, &sigmoid]);
                self.builder.call("Mul", &[&activated, &up])
            }
            Node::Add { left, right } => {
                let (left, right) = (self.value(left), self.value(right));
                match self.norm_of(id) {
                    Some(norm) if self.form == Form::Fast => self.add_and_norm(&left, &right, norm)?,
                    _ => self.builder.call("Add", &[&left, &right]),
                }
            }
            Node::SelectRows { input } => {
                let input = self.value(input);
                self.builder.call("Gather", &[&input, &self.selected])
            }
        })
    }

    /// A weight decoded, of the shape it has.
    fn floats(&mut self, weight: WeightId) -> io::Result<String> {
        let name = self.model.graph.weight(weight).name.to_string();
        if self.builder.has_initializer(&name) {
            return Ok(name);
        }
        let tensor = self.model.weight(weight);
        self.builder.floats(&name, tensor.shape(), &tensor.to_f32())
    }

    fn matrix(&mut self, input: NodeId, weight: WeightId) -> io::Result<String> {
        let input = self.value(input);
        if self.form == Form::Fast {
            let (name, tensor) = (self.model.graph.weight(weight).name, self.model.weight(weight));
            let product = self.products.multiply(&mut self.builder, &name.to_string(), tensor, &input)?;
            if let Some(product) = product {
                return Ok(product);
            }
        }
        let weight = self.floats(weight)?;
        Ok(self.builder.call_with("Gemm", &[&input, &weight], vec![("transB", Attribute::Integer(1))]))
    }

    /// The norm of whole rows of a node's value, if there is one.
    fn norm_of(&self, read: NodeId) -> Option<Norm> {
        let graph = &self.model.graph;
        graph.nodes().find_map(|(id, node)| match *node {
            Node::RmsNorm { input, weight, epsilon }
                if input == read && graph.weight(weight).shape[0] == graph.width(read) =>
            {
                Some(Norm { id, weight, epsilon })
            }
            _ => None,
        })
    }

    fn add_and_norm(&mut self, left: &str, right: &str, norm: Norm) -> io::Result<String> {
        let weight = self.floats(norm.weight)?;
        let operator = "SkipSimplifiedLayerNormalization";
        let normed = self.builder.fresh(operator);
        let sum = format!("{normed}.sum");
        self.builder.node(
            Operator::Contrib(operator),
            &[left, right, &weight],
            // Between them are a mean and a deviation, which nobody wants.
            &[&normed, "", "", &sum],
            vec![("epsilon", Attribute::Float(norm.epsilon))],
        );
        self.normed.insert(norm.id, normed);
        Ok(sum)
    }

    fn rms_norm(&mut self, input: &str, weight: &str, epsilon: f32) -> String {
        let builder = &mut self.builder;
        let two = builder.scalar("two", 2.0);
        let epsilon = builder.scalar(&format!("epsilon_{epsilon:e}"), epsilon);
        let squares = builder.call("Pow", &[input, &two]);
        let mean =
            builder.call_with("ReduceMean", &[&squares], vec![("axes", Attribute::Integers(vec![-1]))]);
        let variance = builder.call("Add", &[&mean, &epsilon]);
        let deviation = builder.call("Sqrt", &[&variance]);
        let normed = builder.call("Div", &[input, &deviation]);
        builder.call("Mul", &[&normed, weight])
    }
}

/// A norm of whole rows.
struct Norm {
    id: NodeId,
    weight: WeightId,
    epsilon: f32,
}

/// Rotary position embedding: the cosines and sines of the step's tokens.
struct Rotary {
    form: Form,
    /// Portable: `[T, 1, head_dim / 2]`; fast: the tables of all positions.
    cosines: String,
    sines: String,
    /// Fast: `[1, T]`.
    positions: String,
}

impl Rotary {
    fn new<W: Write>(
        builder: &mut Builder<W>,
        graph: &Graph,
        context_len: usize,
        form: Form,
        positions: &str,
    ) -> io::Result<Self> {
        let pairs = graph.inverse_frequencies().len();
        let mut table = |name: &str, turn: fn(f64) -> f64| {
            let table: Vec<f32> = (0..context_len)
                .flat_map(|position| {
                    // The angle is rounded to f32, as the models were trained with.
                    let angle = move |frequency| f64::from(position as f32 * frequency);
                    graph.inverse_frequencies().iter().map(move |&frequency| turn(angle(frequency)) as f32)
                })
                .collect();
            builder.floats(name, &[context_len, pairs], &table)
        };
        let (cosines, sines) = (table("cosines", f64::cos)?, table("sines", f64::sin)?);
        Ok(match form {
            Form::Fast => {
                let positions = builder.reshape(positions, &[1, -1]);
                Self { form, cosines, sines, positions }
            }
            Form::Portable => {
                let [cosines, sines] = [cosines, sines].map(|table| {
                    let rows = builder.call("Gather", &[&table, positions]);
                    builder.reshape(&rows, &[-1, 1, pairs as i64])
                });
                Self { form, cosines, sines, positions: positions.to_owned() }
            }
        })
    }

    fn turn<W: Write>(
        &self,
        builder: &mut Builder<W>,
        input: &str,
        [width, head_dim]: [usize; 2],
        pairing: Pairing,
    ) -> String {
        let (width, head_dim) = (width as i64, head_dim as i64);
        if self.form == Form::Fast {
            let sequence = builder.reshape(input, &[1, -1, width]);
            let turned = builder.fresh("RotaryEmbedding");
            let interleaved = i64::from(pairing == Pairing::Adjacent);
            builder.node(
                Operator::Contrib("RotaryEmbedding"),
                &[&sequence, &self.positions, &self.cosines, &self.sines],
                &[&turned],
                vec![("interleaved", Attribute::Integer(interleaved))],
            );
            return builder.reshape(&turned, &[-1, width]);
        }
        // The two values of a pair come apart along `axis`, and are put together again there.
        let (apart, axis) = match pairing {
            Pairing::Adjacent => (vec![-1, width / head_dim, head_dim / 2, 2], 3),
            Pairing::Halves => (vec![-1, width / head_dim, 2, head_dim / 2], 2),
        };
        let pairs = builder.reshape(input, &apart);
        let [first, second] = [0, 1].map(|idx| {
            let idx = builder.integers(&[idx]);
            let half = builder.call_with("Gather", &[&pairs, &idx], vec![("axis", Attribute::Integer(axis))]);
            builder.reshape(&half, &[-1, width / head_dim, head_dim / 2])
        });
        let mut product = |value: &str, turn: &str| builder.call("Mul", &[value, turn]);
        let first_cosines = product(&first, &self.cosines);
        let second_sines = product(&second, &self.sines);
        let first_sines = product(&first, &self.sines);
        let second_cosines = product(&second, &self.cosines);
        let turned = [
            builder.call("Sub", &[&first_cosines, &second_sines]),
            builder.call("Add", &[&first_sines, &second_cosines]),
        ];
        let axes = builder.integers(&[axis]);
        let [first, second] = turned.map(|half| builder.call("Unsqueeze", &[&half, &axes]));
        let pairs = builder.call_with("Concat", &[&first, &second], vec![("axis", Attribute::Integer(axis))]);
        builder.reshape(&pairs, &[-1, width])
    }
}

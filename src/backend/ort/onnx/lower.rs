//! From the model's graph to an ONNX model.
//!
//! Every value between nodes is a matrix with a row a token, as in the graph: the tokens of all rows of a
//! step lie one after another, so that matrices are multiplied once a step, whatever the rows' lengths. Queries,
//! keys and values are `[T, heads, head_dim]`.

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
    collections::{HashMap, HashSet},
    io::{self, Write},
};

/// In which of three ways a model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Standard operators alone, all numbers `f32`: what any implementation of ONNX reads.
    Portable,
    /// ONNX Runtime's own operators, and quantised matrices as the integers they are.
    #[default]
    Fast,
    /// As [`Fast`](Self::Fast), but each matrix rounded anew to 4 bits, the output head too: less to read, and further
    /// from the model.
    Int4,
}

/// Who is to run a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// Anybody who has the form's operators: the cache comes in and goes out, with slots of up to so many positions.
    Elsewhere { context_len: usize },
    /// The backend, which brings some [operators](own) to ONNX Runtime and keeps the cache.
    Backend,
}

/// The operators that the backend brings to ONNX Runtime, and their attributes. Inputs and outputs are matrices of `f32`
/// with a row a token.
pub mod own {
    pub const DOMAIN: &str = "mondai";

    /// Attention of the [`LAYER`], and all that is about heads before it: from matrices that hold queries, keys and values
    /// from the three [`COLUMNS`] on. Which sequences the tokens are of it knows otherwise.
    pub const ATTENTION: &str = "Attention";
    /// `silu(gate) * up`, [`WIDTH`] values of each from the two [`COLUMNS`] of the input on.
    pub const GATED_ACTIVATION: &str = "GatedActivation";

    pub const LAYER: &str = "layer";
    pub const COLUMNS: &str = "columns";
    pub const WIDTH: &str = "width";
}

/// The names of the graph's inputs and outputs, beside those of the [cache](cache_names). For [`Runner::Backend`]
/// the inputs are tokens and selected tokens alone.
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
    /// `[T, kv_heads, 3]`: slot, head and position of the cache that each head of each token is written to.
    pub const CACHE_CELLS: &str = "cache_cells";
    /// `[B, kv_heads, G * S, 2]`: token and head of each query in a grid of slots by row length; any token where
    /// there is none. `G` query heads share a key-value head, and are rows of one product.
    pub const QUERY_CELLS: &str = "query_cells";
    /// `[T, heads, 3]`: where in that grid each head of each token is.
    pub const ATTENDED_CELLS: &str = "attended_cells";
    /// `[B, 1, G * S, 1]`: the last position that each query of the grid sees.
    pub const LAST_SEEN: &str = "last_seen";
}

/// A layer's keys and values, `[B, kv_heads, C, head_dim]`: as they come in and as they go out, which
/// are to be the same memory.
pub fn cache_names(layer: usize) -> [(String, String); 2] {
    ["keys", "values"].map(|what| (format!("{what}.{layer}"), format!("{what}.{layer}.written")))
}

/// Writes a model, its weights to `weights`.
///
/// # Errors
/// The weights cannot be written.
pub fn lower(model: &Model, form: Form, runner: Runner, weights: impl Write) -> io::Result<OnnxModel> {
    let mut builder = Builder::new(model.name.clone(), weights);
    let tokens = builder.input(names::TOKENS, ElementType::I64, &[Named("T")]);
    let selected = builder.input(names::SELECTED, ElementType::I64, &[Named("R")]);
    let (by_operators, heads) = match runner {
        Runner::Elsewhere { context_len } => {
            let by_operators = ByOperators::new(&mut builder, &model.graph, context_len, form)?;
            (Some(by_operators), heads(&model.graph))
        }
        Runner::Backend => (None, HashSet::new()),
    };
    let mut lowering = Lowering {
        model,
        heads,
        form,
        builder,
        tokens,
        selected,
        by_operators,
        columns: HashMap::new(),
        products: IntegerProducts::new(form),
        computed: HashMap::new(),
        values: Vec::new(),
    };
    for (id, node) in model.graph.nodes() {
        let value = match lowering.computed.remove(&id) {
            Some(computed) => computed,
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

/// The nodes whose values attention reads, a head at a time, and those on the way there.
fn heads(graph: &Graph) -> HashSet<NodeId> {
    let nodes: Vec<&Node> = graph.nodes().map(|(_, node)| node).collect();
    let mut heads = HashSet::new();
    for node in &nodes {
        let Node::Attention { query, key, value, .. } = **node else { continue };
        let mut found = vec![query, key, value];
        while let Some(id) = found.pop() {
            if heads.insert(id) && matches!(nodes[id.0], Node::Rotary { .. } | Node::RmsNorm { .. }) {
                found.extend(nodes[id.0].inputs());
            }
        }
    }
    heads
}

/// What attention by the model's operators needs.
struct ByOperators {
    rotary: Rotary,
    attention: GridAttention,
}

impl ByOperators {
    fn new<W: Write>(
        builder: &mut Builder<W>,
        graph: &Graph,
        context_len: usize,
        form: Form,
    ) -> io::Result<Self> {
        let positions = builder.input(names::POSITIONS, ElementType::I64, &[Named("T")]);
        let cache = graph.cache();
        let attention = GridAttention::new(builder, cache, cache.kv_heads * graph.shared_queries());
        let rotary = Rotary::new(builder, graph, context_len, form, &positions)?;
        Ok(Self { rotary, attention })
    }
}

struct Lowering<'a, W> {
    model: &'a Model,
    /// Of [`heads`]; none for the backend, which takes matrices and knows where heads are.
    heads: HashSet<NodeId>,
    form: Form,
    builder: Builder<W>,
    tokens: String,
    selected: String,
    /// `None` for the backend.
    by_operators: Option<ByOperators>,
    /// For the backend, of linear nodes that are joined and not taken apart: where in the product a node's values begin.
    columns: HashMap<NodeId, usize>,
    products: IntegerProducts,
    /// What was computed along with an earlier node: norms with what they read, products with others of one input.
    computed: HashMap<NodeId, String>,
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
                let group = graph.weight(weight).shape[0];
                if self.by_operators.is_none() && group != graph.width(input) {
                    return Ok(self.value(input));
                }
                let shape = self.shape(input);
                let (input, weight) = (self.value(input), self.floats(weight)?);
                if shape.last() == Some(&(group as i64)) {
                    self.rms_norm(&input, &weight, epsilon)
                } else {
                    let runs = self.builder.reshape(&input, &[-1, group as i64]);
                    let normed = self.rms_norm(&runs, &weight, epsilon);
                    self.builder.reshape(&normed, &shape)
                }
            }
            Node::Linear { input, .. } => self.linear(id, input)?,
            Node::Head { input, weight } => self.product(input, &[weight])?,
            Node::Rotary { input, head_dim, pairing } => {
                let (heads, input) = (graph.width(input) / head_dim, self.value(input));
                match &self.by_operators {
                    Some(by) => by.rotary.turn(&mut self.builder, &input, [heads, head_dim], pairing),
                    None => input,
                }
            }
            Node::Attention { layer, query, key, value, shape } => {
                let nodes = [query, key, value];
                let [query, key, value] = nodes.map(|node| self.value(node));
                let values = [&*query, &*key, &*value];
                match &self.by_operators {
                    Some(by) => by.attention.attend(&mut self.builder, layer, values, &shape),
                    None => self.own_attention(layer, nodes, values),
                }
            }
            Node::GatedActivation { gate, up } => {
                let columns = [gate, up].map(|node| self.columns.get(&node).map(|column| *column as i64));
                let (gate, up) = (self.value(gate), self.value(up));
                if let [Some(gate_column), Some(up_column)] = columns {
                    let attributes = vec![
                        (own::COLUMNS, Attribute::Integers(vec![gate_column, up_column])),
                        (own::WIDTH, Attribute::Integer(graph.width(id) as i64)),
                    ];
                    return Ok(self.own_operator(own::GATED_ACTIVATION, &[&gate], attributes));
                }
                let sigmoid = self.builder.call("Sigmoid", &[&gate]);
                let activated = self.builder.call("Mul", &[&gate, &sigmoid]);
                self.builder.call("Mul", &[&activated, &up])
            }
            Node::Add { left, right } => {
                let (left, right) = (self.value(left), self.value(right));
                match self.norm_of(id) {
                    Some(norm) if self.form != Form::Portable => self.add_and_norm(&left, &right, norm)?,
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

    /// What a node's value is reshaped to.
    fn shape(&self, node: NodeId) -> Vec<i64> {
        let (width, head_dim) = (self.model.graph.width(node), self.model.graph.cache().head_dim);
        match self.heads.contains(&node) {
            true => vec![-1, (width / head_dim) as i64, head_dim as i64],
            false => vec![-1, width as i64],
        }
    }

    fn own_attention(&mut self, layer: usize, nodes: [NodeId; 3], values: [&str; 3]) -> String {
        let column = |node| {
            let source = self.model.graph.head_path(node).source;
            self.columns.get(&source).copied().unwrap_or(0) as i64
        };
        let attributes = vec![
            (own::LAYER, Attribute::Integer(layer as i64)),
            (own::COLUMNS, Attribute::Integers(nodes.map(column).to_vec())),
        ];
        self.own_operator(own::ATTENTION, &values, attributes)
    }

    fn own_operator(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let value = self.builder.fresh(operator);
        self.builder.node(Operator::Own(operator), inputs, &[&value], attributes);
        value
    }

    /// A linear node, and with it those that are joined to it.
    fn linear(&mut self, id: NodeId, input: NodeId) -> io::Result<String> {
        let joined = self.joined(id, input);
        let (ids, parts): (Vec<NodeId>, Vec<Linear>) = joined.into_iter().unzip();
        let weights: Vec<WeightId> = parts.iter().map(|part| part.weight).collect();
        let mut product = self.product(input, &weights)?;
        if parts.iter().any(|part| part.bias.is_some()) {
            let bias = self.biases(&parts)?;
            product = self.builder.call("Add", &[&product, &bias]);
        }
        let sizes: Vec<i64> = ids.iter().map(|&id| self.shape(id)[1]).collect();
        if let [_, _, head_dim] = *self.shape(id) {
            product = self.builder.reshape(&product, &[-1, sizes.iter().sum(), head_dim]);
        }
        if ids.len() == 1 {
            return Ok(product);
        }
        if self.by_operators.is_none() && self.stay_together(&ids) {
            let mut column = 0;
            for (id, size) in ids.into_iter().zip(sizes) {
                self.columns.insert(id, column);
                self.computed.insert(id, product.clone());
                column += size as usize;
            }
            return Ok(self.computed.remove(&id).expect("a node is joined to itself"));
        }
        let names: Vec<String> = ids.iter().map(|id| format!("Linear_{}", id.0)).collect();
        let sizes = self.builder.integers(&sizes);
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let axis = vec![("axis", Attribute::Integer(1))];
        self.builder.node(Operator::Standard("Split"), &[&product, &sizes], &outputs, axis);
        self.computed.extend(ids.into_iter().zip(names));
        Ok(self.computed.remove(&id).expect("a node is joined to itself"))
    }

    /// Whether joined nodes need not be taken apart: who reads them takes a matrix and columns.
    fn stay_together(&self, ids: &[NodeId]) -> bool {
        let is_gate = |(_, node): (NodeId, &Node)| matches!(node, Node::GatedActivation { .. });
        let are_gates = || ids.len() == 2 && ids.iter().all(|id| self.readers(*id).all(is_gate));
        ids.iter().all(|id| self.is_attended_to(*id)) || are_gates()
    }

    fn readers(&self, id: NodeId) -> impl Iterator<Item = (NodeId, &Node)> {
        self.model.graph.nodes().filter(move |(_, node)| node.inputs().contains(&id))
    }

    /// Whether nobody reads a linear node but attention, and what is about heads before it.
    fn is_attended_to(&self, id: NodeId) -> bool {
        let mut readers = self.readers(id);
        readers.all(|(reader, node)| match node {
            Node::Attention { .. } => true,
            Node::Rotary { .. } | Node::RmsNorm { .. } => {
                self.model.graph.head_path(reader).source == id && self.is_attended_to(reader)
            }
            _ => false,
        })
    }

    /// The linear nodes that are multiplied at once with this one, the first of them: in ONNX Runtime, the time
    /// of a small product is not only in multiplying.
    fn joined(&self, id: NodeId, input: NodeId) -> Vec<(NodeId, Linear)> {
        let linear = |(id, node): (NodeId, &Node)| match *node {
            Node::Linear { input: read, weight, bias } if read == input => {
                Some((id, Linear { weight, bias }))
            }
            _ => None,
        };
        let mut all: Vec<(NodeId, Linear)> = self.model.graph.nodes().filter_map(linear).collect();
        let tensors: Vec<_> = all.iter().map(|(_, part)| self.model.weight(part.weight)).collect();
        let alike = all.iter().all(|(other, _)| self.heads.contains(other) == self.heads.contains(&id));
        if self.form != Form::Portable && alike && self.products.can_join(&tensors) {
            return all;
        }
        all.retain(|&(other, _)| other == id);
        all
    }

    fn product(&mut self, input: NodeId, weights: &[WeightId]) -> io::Result<String> {
        let input = self.value(input);
        if self.form != Form::Portable {
            let matrices: Vec<_> = weights
                .iter()
                .map(|&weight| (self.model.graph.weight(weight).name.to_string(), self.model.weight(weight)))
                .collect();
            if let Some(product) = self.products.multiply(&mut self.builder, &matrices, &input)? {
                return Ok(product);
            }
        }
        let [weight] = *weights else { unreachable!("only integers are joined") };
        let weight = self.floats(weight)?;
        Ok(self.builder.call_with("Gemm", &[&input, &weight], vec![("transB", Attribute::Integer(1))]))
    }

    /// The biases of products that are joined, 0 where there is none.
    fn biases(&mut self, parts: &[Linear]) -> io::Result<String> {
        let graph = &self.model.graph;
        let mut names = Vec::new();
        let mut biases = Vec::new();
        for part in parts {
            match part.bias {
                None => biases.resize(biases.len() + graph.weight(part.weight).shape[0], 0.0),
                Some(bias) => {
                    names.push(graph.weight(bias).name.to_string());
                    biases.extend(self.model.weight(bias).to_f32());
                }
            }
        }
        self.builder.floats(&names.join("+"), &[biases.len()], &biases)
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
        self.computed.insert(norm.id, normed);
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

/// What a linear node multiplies with and adds.
struct Linear {
    weight: WeightId,
    bias: Option<WeightId>,
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
    /// Fast: `[T, 1]`.
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
            Form::Fast | Form::Int4 => {
                let positions = builder.reshape(positions, &[-1, 1]);
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

    /// Turns `[T, heads, head_dim]`.
    fn turn<W: Write>(
        &self,
        builder: &mut Builder<W>,
        input: &str,
        [heads, head_dim]: [usize; 2],
        pairing: Pairing,
    ) -> String {
        if self.form != Form::Portable {
            // For the operator, each token is a sequence of heads that have one position.
            let each = builder.integers(&vec![1; heads]);
            let positions = builder.once("Mul", &[&self.positions, &each]);
            let turned = builder.fresh("RotaryEmbedding");
            let interleaved = i64::from(pairing == Pairing::Adjacent);
            builder.node(
                Operator::Contrib("RotaryEmbedding"),
                &[input, &positions, &self.cosines, &self.sines],
                &[&turned],
                vec![("interleaved", Attribute::Integer(interleaved))],
            );
            return turned;
        }
        let (heads, head_dim) = (heads as i64, head_dim as i64);
        // The two values of a pair come apart along `axis`, and are put together again there.
        let (apart, axis) = match pairing {
            Pairing::Adjacent => (vec![-1, heads, head_dim / 2, 2], 3),
            Pairing::Halves => (vec![-1, heads, 2, head_dim / 2], 2),
        };
        let pairs = builder.reshape(input, &apart);
        let [first, second] = [0, 1].map(|idx| {
            let idx = builder.integers(&[idx]);
            let half = builder.call_with("Gather", &[&pairs, &idx], vec![("axis", Attribute::Integer(axis))]);
            builder.reshape(&half, &[-1, heads, head_dim / 2])
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
        builder.reshape(&pairs, &[-1, heads, head_dim])
    }
}

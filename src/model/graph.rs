//! A decoder-only model as a small graph, written once and lowered by every backend.
//!
//! Each node names the nodes it reads, always earlier ones, and yields one matrix of `f32`: a row a
//! token, as wide as [`Graph::width`] says. There are as many rows as the step has tokens (`T`), and
//! after [`Node::SelectRows`] as many as it wants logits for (`R`). The graph says what is computed;
//! dtypes, memory, batching and where the KV cache lies are the backend's.

use super::weight_name::{Part, WeightName};
use std::fmt;

/// A model's computation, from token ids to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    nodes: Vec<Placed>,
    weights: Vec<Weight>,
    cache: CacheShape,
    /// Radians a position turns each pair of a head by; `head_dim / 2` of them, scaling included.
    inverse_frequencies: Vec<f32>,
}

/// The index of a node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The index of a weight in [`Graph::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub usize);

/// One step of the computation.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// The row of `table` (`[vocab, width]`) that each token's id names.
    Embedding { table: WeightId },
    /// `x / sqrt(mean(x²) + epsilon) * weight`, over each run of as many values as `weight` has: the
    /// whole row, or each head of it.
    RmsNorm { input: NodeId, weight: WeightId, epsilon: f32 },
    /// `x · weightᵀ + bias`; `weight` is `[out, in]`, `bias` `[out]`.
    Linear { input: NodeId, weight: WeightId, bias: Option<WeightId> },
    /// Turns the pairs of each head by the token's position times [`Graph::inverse_frequencies`].
    Rotary { input: NodeId, head_dim: usize, pairing: Pairing },
    /// Puts `key` and `value` into the layer's KV cache at the token's position, then yields
    /// `softmax(query · keysᵀ * scale) · values` over the slot's positions up to the token's own, a
    /// head at a time; `heads / kv_heads` neighbouring query heads share one key-value head.
    Attention { layer: usize, query: NodeId, key: NodeId, value: NodeId, shape: AttentionShape },
    /// `silu(gate) * up`, value by value, where `silu(x) = x / (1 + exp(-x))`.
    GatedActivation { gate: NodeId, up: NodeId },
    /// Value by value.
    Add { left: NodeId, right: NodeId },
    /// The rows of the positions whose logits are wanted, in order.
    SelectRows { input: NodeId },
    /// The logits, `x · weightᵀ`; the last node.
    Head { input: NodeId, weight: WeightId },
}

/// Which two values of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `2i` and `2i + 1`: llama models in GGUF files, whose query and key rows are permuted for it.
    Adjacent,
    /// `i` and `i + head_dim / 2`: everything else.
    Halves,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
}

/// What a KV cache holds of one position: a key and a value for each layer and key-value head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// What a query or key of attention comes from, and what is done to each of its heads on the way, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadPath {
    pub source: NodeId,
    /// Weight and epsilon of a norm.
    pub norm: Option<(WeightId, f32)>,
    pub pairing: Option<Pairing>,
}

/// A weight the graph reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    pub name: WeightName,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Placed {
    node: Node,
    width: usize,
    /// `None` before and after the layers.
    layer: Option<usize>,
}

impl Graph {
    /// All nodes, each after the ones it reads.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(idx, placed)| (NodeId(idx), &placed.node))
    }

    /// Values in a row of what a node yields.
    pub fn width(&self, node: NodeId) -> usize {
        self.nodes[node.0].width
    }

    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    pub fn weight(&self, weight: WeightId) -> &Weight {
        &self.weights[weight.0]
    }

    pub fn cache(&self) -> CacheShape {
        self.cache
    }

    /// Query heads that share a key-value head, in every layer.
    pub fn shared_queries(&self) -> usize {
        let shared = self.nodes.iter().find_map(|placed| match placed.node {
            Node::Attention { shape, .. } => Some(shape.heads / shape.kv_heads),
            _ => None,
        });
        shared.unwrap_or(1)
    }

    /// The way to a query or key that attention reads, back to the last node that is not about heads.
    pub fn head_path(&self, node: NodeId) -> HeadPath {
        let mut path = HeadPath { source: node, norm: None, pairing: None };
        loop {
            match self.nodes[path.source.0].node {
                Node::Rotary { input, pairing, .. } if path.pairing.is_none() && path.norm.is_none() => {
                    path.pairing = Some(pairing);
                    path.source = input;
                }
                Node::RmsNorm { input, weight, epsilon }
                    if path.norm.is_none() && self.weight(weight).shape[0] != self.width(input) =>
                {
                    path.norm = Some((weight, epsilon));
                    path.source = input;
                }
                _ => return path,
            }
        }
    }

    /// Radians a position turns each pair of a head by; `head_dim / 2` of them, scaling included.
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// Length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.nodes.last().map_or(0, |head| head.width)
    }
}

impl Node {
    /// The nodes it reads.
    pub fn inputs(&self) -> Vec<NodeId> {
        match *self {
            Self::Embedding { .. } => vec![],
            Self::RmsNorm { input, .. }
            | Self::Linear { input, .. }
            | Self::Rotary { input, .. }
            | Self::SelectRows { input }
            | Self::Head { input, .. } => vec![input],
            Self::Attention { query, key, value, .. } => vec![query, key, value],
            Self::GatedActivation { gate, up } => vec![gate, up],
            Self::Add { left, right } => vec![left, right],
        }
    }
}

/// Writes a graph node by node; the architectures' language.
///
/// Widths follow from the inputs, and the shapes of weights from the widths: whether the file agrees
/// is checked when its tensors are resolved.
pub(super) struct GraphBuilder {
    graph: Graph,
    layer: Option<usize>,
}

impl GraphBuilder {
    pub(super) fn new(cache: CacheShape, inverse_frequencies: Vec<f32>) -> Self {
        let graph = Graph { nodes: Vec::new(), weights: Vec::new(), cache, inverse_frequencies };
        Self { graph, layer: None }
    }

    /// Nodes and weights written from here on belong to `layer`.
    pub(super) fn enter(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }

    pub(super) fn embedding(&mut self, vocab_size: usize, width: usize) -> NodeId {
        let table = self.weight(Part::Embedding, vec![vocab_size, width]);
        self.node(Node::Embedding { table }, width)
    }

    /// A norm over each run of `group` values.
    pub(super) fn rms_norm(&mut self, input: NodeId, part: Part, group: usize, epsilon: f32) -> NodeId {
        let weight = self.weight(part, vec![group]);
        self.node(Node::RmsNorm { input, weight, epsilon }, self.graph.width(input))
    }

    pub(super) fn linear(&mut self, input: NodeId, part: Part, bias: Option<Part>, width: usize) -> NodeId {
        let weight = self.weight(part, vec![width, self.graph.width(input)]);
        let bias = bias.map(|part| self.weight(part, vec![width]));
        self.node(Node::Linear { input, weight, bias }, width)
    }

    pub(super) fn rotary(&mut self, input: NodeId, pairing: Pairing) -> NodeId {
        let head_dim = self.graph.cache.head_dim;
        self.node(Node::Rotary { input, head_dim, pairing }, self.graph.width(input))
    }

    /// Attention of the current layer.
    pub(super) fn attention(&mut self, [query, key, value]: [NodeId; 3], shape: AttentionShape) -> NodeId {
        let layer = self.layer.expect("attention is written inside a layer");
        let width = self.graph.width(query);
        self.node(Node::Attention { layer, query, key, value, shape }, width)
    }

    pub(super) fn gated_activation(&mut self, gate: NodeId, up: NodeId) -> NodeId {
        self.node(Node::GatedActivation { gate, up }, self.graph.width(gate))
    }

    pub(super) fn add(&mut self, left: NodeId, right: NodeId) -> NodeId {
        self.node(Node::Add { left, right }, self.graph.width(left))
    }

    pub(super) fn select_rows(&mut self, input: NodeId) -> NodeId {
        self.node(Node::SelectRows { input }, self.graph.width(input))
    }

    /// The last node; a tied head reads the embedding's table.
    pub(super) fn head(mut self, input: NodeId, tied: bool, vocab_size: usize) -> Graph {
        let is_table = |weight: &Weight| weight.name.part == Part::Embedding;
        let table = self.graph.weights.iter().position(is_table).map(WeightId).filter(|_| tied);
        let weight =
            table.unwrap_or_else(|| self.weight(Part::Head, vec![vocab_size, self.graph.width(input)]));
        self.node(Node::Head { input, weight }, vocab_size);
        self.graph
    }

    fn node(&mut self, node: Node, width: usize) -> NodeId {
        self.graph.nodes.push(Placed { node, width, layer: self.layer });
        NodeId(self.graph.nodes.len() - 1)
    }

    fn weight(&mut self, part: Part, shape: Vec<usize>) -> WeightId {
        let name = WeightName { part, layer: self.layer };
        self.graph.weights.push(Weight { name, shape });
        WeightId(self.graph.weights.len() - 1)
    }
}

/// One line a node; neighbouring layers that compute the same are written once.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "T = tokens of the step, R = positions whose logits are wanted")?;
        let blocks: Vec<&[Placed]> = self.nodes.chunk_by(|a, b| a.layer == b.layer).collect();
        let mut start = 0;
        let mut rest = blocks.as_slice();
        while let Some((first, others)) = rest.split_first() {
            let body = self.lines(start, first.len(), start);
            let repeats = others
                .iter()
                .enumerate()
                .take_while(|(nth, block)| {
                    let block_start = start + (nth + 1) * first.len();
                    block.len() == first.len() && self.lines(block_start, block.len(), block_start) == body
                })
                .count();
            match first[0].layer {
                Some(layer) if repeats > 0 => writeln!(f, "layers {layer} to {}, each", layer + repeats)?,
                Some(layer) => writeln!(f, "layer {layer}")?,
                None => {}
            }
            f.write_str(&self.lines(start, first.len(), 0))?;
            start += first.len() * (repeats + 1);
            rest = &others[repeats..];
        }
        Ok(())
    }
}

impl Graph {
    /// `len` nodes from `start` on, ids counted from `base`.
    fn lines(&self, start: usize, len: usize, base: usize) -> String {
        let mut selected = self.nodes[..start].iter().any(|placed| is_selection(&placed.node));
        let mut lines = String::new();
        for idx in start..start + len {
            let Placed { node, width, .. } = &self.nodes[idx];
            selected |= is_selection(node);
            let rows = if selected { 'R' } else { 'T' };
            let id = idx - base;
            let text = self.call(node, base);
            lines += &format!("  %{id:<4} [{rows}, {width}]  {text}\n");
        }
        lines
    }

    fn call(&self, node: &Node, base: usize) -> String {
        // A node before `base` is written as `%-1` and so on, which only comparisons see.
        let id = |node: &NodeId| format!("%{}", node.0 as isize - base as isize);
        let weight = |weight: &WeightId| {
            let Weight { name, shape } = self.weight(*weight);
            format!("{} {shape:?}", WeightName { layer: None, ..*name })
        };
        match node {
            Node::Embedding { table } => format!("embedding({})", weight(table)),
            Node::RmsNorm { input, weight: scale, epsilon } => {
                format!("rms_norm({}, {}, epsilon {epsilon:e})", id(input), weight(scale))
            }
            Node::Linear { input, weight: matrix, bias: None } => {
                format!("linear({}, {})", id(input), weight(matrix))
            }
            Node::Linear { input, weight: matrix, bias: Some(bias) } => {
                format!("linear({}, {}, {})", id(input), weight(matrix), weight(bias))
            }
            Node::Rotary { input, head_dim, pairing } => {
                let pairs = match pairing {
                    Pairing::Adjacent => "adjacent pairs",
                    Pairing::Halves => "pairs across halves",
                };
                format!("rotary({}, heads of {head_dim}, {pairs})", id(input))
            }
            Node::Attention { query, key, value, shape, .. } => {
                let AttentionShape { heads, kv_heads, head_dim, scale } = shape;
                let (query, key, value) = (id(query), id(key), id(value));
                format!(
                    "attention({query}, {key}, {value}, {heads}/{kv_heads} heads of {head_dim}, scale {scale})"
                )
            }
            Node::GatedActivation { gate, up } => format!("silu({}) * {}", id(gate), id(up)),
            Node::Add { left, right } => format!("{} + {}", id(left), id(right)),
            Node::SelectRows { input } => format!("select_rows({})", id(input)),
            Node::Head { input, weight: matrix } => format!("head({}, {})", id(input), weight(matrix)),
        }
    }
}

fn is_selection(node: &Node) -> bool {
    matches!(node, Node::SelectRows { .. })
}

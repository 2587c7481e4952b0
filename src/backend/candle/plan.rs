//! The graph with its weights at hand, and how a step runs through it.

use super::{attention::KvCache, matrix::MIN_ROWS, matrix::Matrix, rotary::RotaryTable};
use crate::{
    backend::{Logits, Row, Slot},
    model::{AttentionShape, Model, Node, NodeId, Pairing, StoredTensor, WeightId},
    text::TokenId,
};
use candle_core::{D, Device, Result, Storage, Tensor};
use rayon::prelude::*;

/// Where a token's key and value go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) position: usize,
}

/// The tokens of a step, one row of every matrix each.
///
/// A lone token is followed by a copy of itself that writes nothing and that nobody reads, and so is a
/// lone token whose logits are wanted: see [`MIN_ROWS`].
pub(super) struct Batch {
    tokens: Vec<TokenId>,
    places: Vec<Place>,
    /// How many tokens are real.
    token_count: usize,
    /// Tokens whose logits are wanted.
    selected: Vec<u32>,
    selected_count: usize,
}

impl Batch {
    pub(super) fn new(rows: &[Row<'_>]) -> Self {
        let (mut tokens, mut places, mut selected) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let first = tokens.len();
            selected.extend((first + row.logits_from..first + row.tokens.len()).map(|token| token as u32));
            tokens.extend(row.tokens);
            let positions = row.start..row.start + row.tokens.len();
            places.extend(positions.map(|position| Place { slot: row.slot, position }));
        }
        let (token_count, selected_count) = (tokens.len(), selected.len());
        fill_up(&mut tokens);
        fill_up(&mut places);
        fill_up(&mut selected);
        Self { tokens, places, token_count, selected, selected_count }
    }
}

fn fill_up<T: Copy>(rows: &mut Vec<T>) {
    if let Some(&last) = rows.last() {
        rows.resize(rows.len().max(MIN_ROWS), last);
    }
}

/// A lowered graph: nothing is looked up by name in a step.
pub(super) struct Plan {
    instructions: Vec<Instruction>,
    rotary: RotaryTable,
}

struct Instruction {
    operation: Operation,
    /// Values nobody reads after it.
    dead_after: Vec<NodeId>,
}

/// A node with its weights.
enum Operation {
    Embedding { table: StoredTensor },
    RmsNorm { input: NodeId, weight: Tensor, epsilon: f64 },
    Linear { input: NodeId, matrix: Matrix, bias: Option<Tensor> },
    Rotary { input: NodeId, pairing: Pairing },
    Attention { layer: usize, query: NodeId, key: NodeId, value: NodeId, shape: AttentionShape },
    GatedActivation { gate: NodeId, up: NodeId },
    Add { left: NodeId, right: NodeId },
    SelectRows { input: NodeId },
}

impl Plan {
    pub(super) fn lower(model: &Model, context_len: usize, stored: bool) -> Result<Self> {
        let graph = &model.graph;
        let mut last_readers = vec![None; graph.nodes().len()];
        for (id, node) in graph.nodes() {
            for input in node.inputs() {
                last_readers[input.0] = Some(id);
            }
        }
        let instructions = graph.nodes().map(|(id, node)| {
            let is_dead = |input: &NodeId| last_readers[input.0] == Some(id);
            let dead_after = node.inputs().into_iter().filter(is_dead).collect();
            Ok(Instruction { operation: lower_node(model, node, stored)?, dead_after })
        });
        let instructions = instructions.collect::<Result<_>>()?;
        let rotary = RotaryTable::new(graph.inverse_frequencies(), context_len);
        Ok(Self { instructions, rotary })
    }

    /// Runs one step and writes the logits of the selected tokens.
    pub(super) fn run(&self, batch: &Batch, cache: &mut KvCache, logits: &mut Logits) -> Result<()> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.instructions.len()];
        logits.resize(batch.selected_count);
        for (idx, Instruction { operation, dead_after }) in self.instructions.iter().enumerate() {
            if matches!(operation, Operation::SelectRows { .. }) && batch.selected.is_empty() {
                return Ok(());
            }
            let value = self.compute(operation, &values, batch, cache)?;
            for dead in dead_after {
                values[dead.0] = None;
            }
            values[idx] = Some(value);
        }
        let all = values.pop().flatten().expect("a graph has nodes, and the last one yields the logits");
        with_values(&all, |all| {
            let wanted = logits.as_mut_slice();
            wanted.copy_from_slice(&all[..wanted.len()]);
        })
    }

    fn compute(
        &self,
        operation: &Operation,
        values: &[Option<Tensor>],
        batch: &Batch,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let value =
            |id: NodeId| values[id.0].as_ref().expect("inputs come first and live to their last reader");
        match operation {
            Operation::Embedding { table } => embed(table, &batch.tokens),
            Operation::RmsNorm { input, weight, epsilon } => rms_norm(value(*input), weight, *epsilon),
            Operation::Linear { input, matrix, bias } => {
                let product = matrix.apply(value(*input))?;
                bias.as_ref().map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
            }
            Operation::Rotary { input, pairing } => {
                let input = value(*input);
                let mut rows = with_values(input, <[f32]>::to_vec)?;
                self.rotary.turn(&mut rows, &batch.places, *pairing);
                Tensor::from_vec(rows, input.shape(), &Device::Cpu)
            }
            Operation::Attention { layer, query, key, value: values, shape } => {
                let query = value(*query);
                let real = &batch.places[..batch.token_count];
                with_values(value(*key), |keys| {
                    with_values(value(*values), |values| cache.write(*layer, keys, values, real))
                })??;
                let attended = with_values(query, |query| cache.attend(*layer, query, shape, &batch.places))?;
                Tensor::from_vec(attended, query.shape(), &Device::Cpu)
            }
            Operation::GatedActivation { gate, up } => value(*gate).silu()? * value(*up),
            Operation::Add { left, right } => value(*left) + value(*right),
            Operation::SelectRows { input } => {
                let selected = Tensor::new(batch.selected.as_slice(), &Device::Cpu)?;
                value(*input).index_select(&selected, 0)
            }
        }
    }
}

fn lower_node(model: &Model, node: &Node, stored: bool) -> Result<Operation> {
    let vector = |weight: WeightId| {
        let tensor = model.weight(weight);
        Tensor::from_vec(tensor.to_f32(), tensor.shape(), &Device::Cpu)
    };
    let matrix = |weight: WeightId| Matrix::new(model.weight(weight), stored);
    Ok(match *node {
        Node::Embedding { table } => Operation::Embedding { table: model.weight(table).clone() },
        Node::RmsNorm { input, weight, epsilon } => {
            Operation::RmsNorm { input, weight: vector(weight)?, epsilon: epsilon.into() }
        }
        Node::Linear { input, weight, bias } => {
            Operation::Linear { input, matrix: matrix(weight)?, bias: bias.map(vector).transpose()? }
        }
        Node::Head { input, weight } => Operation::Linear { input, matrix: matrix(weight)?, bias: None },
        Node::Rotary { input, pairing, .. } => Operation::Rotary { input, pairing },
        Node::Attention { layer, query, key, value, shape } => {
            Operation::Attention { layer, query, key, value, shape }
        }
        Node::GatedActivation { gate, up } => Operation::GatedActivation { gate, up },
        Node::Add { left, right } => Operation::Add { left, right },
        Node::SelectRows { input } => Operation::SelectRows { input },
    })
}

fn embed(table: &StoredTensor, tokens: &[TokenId]) -> Result<Tensor> {
    let width = table.shape()[1];
    let mut rows = vec![0.0; tokens.len() * width];
    rows.par_chunks_exact_mut(width)
        .zip(tokens)
        .for_each(|(row, &token)| table.read_rows(token as usize, row));
    Tensor::from_vec(rows, (tokens.len(), width), &Device::Cpu)
}

/// Over each run of as many values as `weight` has.
fn rms_norm(input: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let runs = input.reshape(((), weight.elem_count()))?;
    let mean_square = runs.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = runs.broadcast_div(&(mean_square + epsilon)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.reshape(input.shape())
}

/// A contiguous tensor's numbers.
fn with_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a value of shape {:?} is not contiguous", tensor.shape());
    };
    match &*storage {
        Storage::Cpu(storage) => Ok(read(&storage.as_slice::<f32>()?[start..end])),
        _ => candle_core::bail!("a value is not in the CPU's memory"),
    }
}

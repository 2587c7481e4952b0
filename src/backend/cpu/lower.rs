//! From a graph to a plan: which nodes become one stage, and where their values lie.
//!
//! What is put together: linear layers that read the same rows; a linear layer and the addition of its
//! product; the two linear layers of a gated activation and the activation; the norm and the turning of
//! each head, and attention. A graph that does anything else with these nodes is refused.

use super::{
    attention::{Attention, HeadTooWide},
    matrix::Matrix,
    memory::{BlocksId, FloatsId, Forms, Memory},
    packed::PackedMemory,
    plan::{Head, Output, Plan, Select, Stage},
    pool::Pool,
    project::{GatedProjection, Projection},
    rotary::RotaryTable,
    shares::Shares,
};
use crate::model::{AttentionShape, Graph, Model, Node, NodeId, WeightId};
use std::mem::take;

#[derive(Debug, thiserror::Error)]
pub(super) enum LowerError {
    #[error("node {} of the graph, {node:?}, stands where this backend cannot compute it", .id.0)]
    Misplaced { id: NodeId, node: Node },
    #[error("no memory for the packed weights")]
    NoMemory(#[source] std::io::Error),
    #[error(transparent)]
    HeadTooWide(#[from] HeadTooWide),
}

/// How a model is to be lowered.
pub(super) struct Request<'a> {
    pub(super) model: &'a Model,
    /// Whether weights are decoded to `f32`.
    pub(super) decoded: bool,
    pub(super) context_len: usize,
    /// Rows that the stages' matrices need room for.
    pub(super) max_rows: usize,
}

pub(super) fn lower(request: &Request<'_>, pool: &mut Pool) -> Result<Plan, LowerError> {
    let &Request { model, decoded, context_len, max_rows } = request;
    let graph = &model.graph;
    Attention::check(graph.cache())?;
    let mut readers = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.nodes() {
        node.inputs().into_iter().for_each(|input| readers[input.0].push(id));
    }
    let values = vec![None; readers.len()];
    let unread = readers.iter().map(Vec::len).collect();
    let (floats, blocks, stages) = (Buffers::default(), Buffers::default(), Vec::new());
    let packed_sizes = model.matrices().map(|tensor| Matrix::packed_bytes(tensor, decoded));
    let packed = PackedMemory::new(packed_sizes).map_err(LowerError::NoMemory)?;
    let (layers, selects, head) = (Vec::new(), Vec::new(), None);
    let mut lowering = Lowering {
        model,
        decoded,
        packed,
        pool,
        readers,
        values,
        unread,
        floats,
        blocks,
        layers,
        selects,
        first_select: None,
        stages,
        head,
    };
    for (id, node) in graph.nodes() {
        lowering.node(id, node)?;
    }
    let Lowering { layers, selects, stages, head, floats, blocks, packed, pool, .. } = lowering;
    packed.finish().map_err(LowerError::NoMemory)?;
    let memory = |rows| Memory::new(rows, &floats.widths, &blocks.widths);
    Ok(Plan {
        layers,
        selects,
        last: stages,
        head: head.expect("a graph ends with its head"),
        rotary: RotaryTable::new(graph.inverse_frequencies(), context_len),
        shares: Shares::new(pool.threads(), max_rows, memory),
    })
}

struct Lowering<'a> {
    model: &'a Model,
    decoded: bool,
    packed: PackedMemory,
    pool: &'a mut Pool,
    /// Of each node.
    readers: Vec<Vec<NodeId>>,
    /// Of each node that has been computed at the end of the stages so far.
    values: Vec<Option<Value>>,
    /// Readers of each node that no stage computes yet.
    unread: Vec<usize>,
    floats: Buffers,
    blocks: Buffers,
    /// The stages before the first rows were selected.
    layers: Vec<Stage>,
    selects: Vec<Select>,
    /// The node that selected them.
    first_select: Option<NodeId>,
    /// The stages since then, or all so far.
    stages: Vec<Stage>,
    head: Option<Head>,
}

/// Where a node's value is.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    /// The matrix, and the first of the node's columns in it.
    floats: Option<(FloatsId, usize)>,
    blocks: Option<BlocksId>,
}

/// Matrices that values share one after another.
#[derive(Default)]
struct Buffers {
    widths: Vec<usize>,
    /// How many readers are still to come.
    unread: Vec<usize>,
}

impl Buffers {
    fn take(&mut self, width: usize, readers: usize) -> usize {
        let free = (0..self.widths.len()).find(|&idx| self.unread[idx] == 0 && self.widths[idx] == width);
        let idx = free.unwrap_or(self.widths.len());
        if idx == self.widths.len() {
            self.widths.push(width);
            self.unread.push(0);
        }
        self.unread[idx] = readers;
        idx
    }
}

impl Lowering<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn node_at(&self, id: NodeId) -> &Node {
        self.model.graph.nodes().nth(id.0).expect("ids come from the graph").1
    }

    fn misplaced(&self, id: NodeId) -> LowerError {
        LowerError::Misplaced { id, node: self.node_at(id).clone() }
    }

    /// Computes a node, unless another's stage has or will.
    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), LowerError> {
        if !self.has_its_rows(node) {
            return Err(self.misplaced(id));
        }
        if self.values[id.0].is_some() {
            return Ok(());
        }
        match *node {
            Node::Head { .. } if self.first_select.is_none() => return Err(self.misplaced(id)),
            Node::Embedding { table } => {
                let table = self.model.weight(table).clone();
                let output = self.take_floats(self.graph().width(id), self.readers[id.0].len());
                self.stages.push(Stage::Embed { table, output });
                self.set_floats(id, output, 0);
            }
            Node::RmsNorm { input, weight, epsilon } => {
                // A norm of each head belongs to the attention that reads it.
                if self.graph().weight(weight).shape[0] == self.graph().width(input) {
                    self.norm(id, input, weight, epsilon)?;
                }
            }
            Node::Linear { input, .. } => self.linear_layers(input)?,
            Node::Rotary { .. } => {}
            Node::Attention { layer, query, key, value, shape } => {
                self.attention(id, layer, [query, key, value], shape)?;
            }
            Node::GatedActivation { .. } | Node::Add { .. } => return Err(self.misplaced(id)),
            Node::SelectRows { input } => {
                let from = self.floats_of(input, id)?;
                let output = self.take_floats(self.graph().width(id), self.readers[id.0].len());
                if self.first_select.is_none() {
                    self.first_select = Some(id);
                    self.layers = take(&mut self.stages);
                }
                self.selects.push(Select { input: from, output });
                self.has_read(input);
                self.set_floats(id, output, 0);
            }
            Node::Head { input, weight } => {
                let forms = self.forms_of(input, id)?;
                let matrix = self.matrix(weight);
                let projection = Projection::new(vec![(matrix, None)], false, self.pool.threads());
                self.head = Some(Head { input: forms, projection });
                self.has_read(input);
            }
        }
        Ok(())
    }

    /// What comes before rows are selected is computed of all, and what comes after it of those alone. All are selected
    /// before any of them is computed with.
    fn has_its_rows(&self, node: &Node) -> bool {
        let Some(first) = self.first_select else { return true };
        let of_selected = |input: NodeId| input.0 >= first.0;
        match node {
            Node::Embedding { .. } | Node::Attention { .. } => false,
            Node::SelectRows { input } => {
                !of_selected(*input)
                    && self.stages.iter().all(|stage| matches!(stage, Stage::Quantise { .. }))
            }
            _ => node.inputs().into_iter().all(of_selected),
        }
    }

    fn norm(&mut self, id: NodeId, input: NodeId, weight: WeightId, epsilon: f32) -> Result<(), LowerError> {
        let from = self.floats_of(input, id)?;
        let (width, readers) = (self.graph().width(id), self.readers[id.0].len());
        let (wants_floats, wants_blocks) = self.wanted(id);
        let output = Forms {
            floats: wants_floats.then(|| self.take_floats(width, readers)),
            blocks: wants_blocks.then(|| self.take_blocks(width, readers)),
        };
        let weight = self.model.weight(weight).to_f32();
        self.stages.push(Stage::Norm { input: from, weight, epsilon, output });
        self.has_read(input);
        self.values[id.0] = Some(Value { floats: output.floats.map(|id| (id, 0)), blocks: output.blocks });
        Ok(())
    }

    /// All linear layers that read `input`.
    fn linear_layers(&mut self, input: NodeId) -> Result<(), LowerError> {
        let mut side_by_side = Vec::new();
        for id in self.readers[input.0].clone() {
            let Node::Linear { weight, bias, .. } = *self.node_at(id) else { continue };
            // Now or in another's stage: none of them is computed again.
            self.values[id.0] = Some(Value::default());
            match (self.sole_reader(id), bias) {
                (Some((reader, Node::GatedActivation { gate, up })), None) => {
                    let weights = [gate, up].map(|id| self.linear_weight(id, input));
                    let [Some(gate_weight), Some(up_weight)] = weights else {
                        return Err(self.misplaced(reader));
                    };
                    if id == gate {
                        self.gated(reader, input, [gate_weight, up_weight])?;
                    }
                }
                (Some((reader, Node::Add { left, right })), None) => {
                    let other = if left == id { right } else { left };
                    self.added(reader, input, weight, other)?;
                }
                _ => side_by_side.push(id),
            }
        }
        if side_by_side.is_empty() { Ok(()) } else { self.side_by_side(input, &side_by_side) }
    }

    fn sole_reader(&self, id: NodeId) -> Option<(NodeId, Node)> {
        match self.readers[id.0][..] {
            [reader] => Some((reader, self.node_at(reader).clone())),
            _ => None,
        }
    }

    /// The weight of a linear layer without bias that reads `input`.
    fn linear_weight(&self, id: NodeId, input: NodeId) -> Option<WeightId> {
        match *self.node_at(id) {
            Node::Linear { input: read, weight, bias: None } if read == input => Some(weight),
            _ => None,
        }
    }

    fn side_by_side(&mut self, input: NodeId, layers: &[NodeId]) -> Result<(), LowerError> {
        let forms = self.forms_of(input, layers[0])?;
        let (mut matrices, mut width, mut readers) = (Vec::new(), 0, 0);
        for &id in layers {
            let Node::Linear { weight, bias, .. } = *self.node_at(id) else { unreachable!("it is linear") };
            let bias = bias.map(|bias| self.model.weight(bias).to_f32());
            matrices.push((self.matrix(weight), bias));
            width += self.graph().width(id);
            readers += self.readers[id.0].len();
        }
        let output = self.take_floats(width, readers);
        let projection = Projection::new(matrices, false, self.pool.threads());
        self.stages.push(Stage::Project { input: forms, projection, output });
        let mut column = 0;
        for &id in layers {
            self.has_read(input);
            self.set_floats(id, output, column);
            column += self.graph().width(id);
        }
        Ok(())
    }

    /// The product is added to what the other operand's matrix holds; nobody else may read that later.
    fn added(
        &mut self,
        id: NodeId,
        input: NodeId,
        weight: WeightId,
        other: NodeId,
    ) -> Result<(), LowerError> {
        let forms = self.forms_of(input, id)?;
        let output = self.floats_of(other, id)?;
        if self.unread[other.0] != 1 || self.floats.widths[output.0] != self.graph().width(id) {
            return Err(self.misplaced(id));
        }
        let projection = Projection::new(vec![(self.matrix(weight), None)], true, self.pool.threads());
        self.stages.push(Stage::Project { input: forms, projection, output });
        self.has_read(input);
        self.has_read(other);
        self.floats.unread[output.0] = self.readers[id.0].len();
        self.set_floats(id, output, 0);
        Ok(())
    }

    fn gated(&mut self, id: NodeId, input: NodeId, weights: [WeightId; 2]) -> Result<(), LowerError> {
        let forms = self.forms_of(input, id)?;
        let [gate, up] = weights.map(|weight| self.matrix(weight));
        let projection = GatedProjection::new(gate, up, self.pool.threads());
        let block_cuts = Some(projection.block_cuts());
        self.push_stage(id, block_cuts, |output| Stage::Gate { input: forms, projection, output });
        self.has_read(input);
        self.has_read(input);
        Ok(())
    }

    fn attention(
        &mut self,
        id: NodeId,
        layer: usize,
        [query, key, value]: [NodeId; 3],
        shape: AttentionShape,
    ) -> Result<(), LowerError> {
        let (attention, [query, key]) = Attention::new(self.model, layer, [query, key], shape);
        let mut sources = [(FloatsId(0), 0); 3];
        for (source, input) in sources.iter_mut().zip([query, key, value]) {
            let value = self.values[input.0].and_then(|value| value.floats);
            *source = value.ok_or_else(|| self.misplaced(id))?;
        }
        let block_cuts = attention.block_cuts();
        self.push_stage(id, block_cuts, |output| Stage::Attend { attention, sources, output });
        [query, key, value].into_iter().for_each(|input| self.has_read(input));
        Ok(())
    }

    fn matrix(&mut self, weight: WeightId) -> Matrix {
        let tensor = self.model.weight(weight);
        let matrix = Matrix::pack(tensor, self.decoded, &mut self.packed, self.pool);
        // Nobody reads it again, but for the rows of a table of embeddings that is the head, too.
        tensor.let_go();
        matrix
    }

    /// Whether a node's readers want floats, and whether blocks.
    fn wanted(&self, id: NodeId) -> (bool, bool) {
        let takes_blocks = |reader: &NodeId| match *self.node_at(*reader) {
            Node::Linear { weight, .. } | Node::Head { weight, .. } => {
                Matrix::takes_blocks(self.model.weight(weight), self.decoded)
            }
            _ => false,
        };
        let readers = &self.readers[id.0];
        (readers.iter().any(|reader| !takes_blocks(reader)), readers.iter().any(takes_blocks))
    }

    fn take_floats(&mut self, width: usize, readers: usize) -> FloatsId {
        FloatsId(self.floats.take(width, readers))
    }

    fn take_blocks(&mut self, width: usize, readers: usize) -> BlocksId {
        BlocksId(self.blocks.take(width, readers))
    }

    /// A stage that writes a node's value in the form its readers want; as floats if it cannot write blocks.
    fn push_stage(
        &mut self,
        id: NodeId,
        block_cuts: Option<Vec<usize>>,
        stage: impl FnOnce(Output) -> Stage,
    ) {
        let (width, readers) = (self.graph().width(id), self.readers[id.0].len());
        match (self.wanted(id), block_cuts) {
            ((false, true), Some(cuts)) => {
                let output = self.take_blocks(width, readers);
                self.stages.push(stage(Output::Blocks { output, cuts }));
                self.values[id.0] = Some(Value { floats: None, blocks: Some(output) });
            }
            _ => {
                let output = self.take_floats(width, readers);
                self.stages.push(stage(Output::Floats(output)));
                self.set_floats(id, output, 0);
            }
        }
    }

    /// A stage has written a node's value as floats; if readers want blocks, another makes them.
    fn set_floats(&mut self, id: NodeId, floats: FloatsId, column: usize) {
        let whole = column == 0 && self.floats.widths[floats.0] == self.graph().width(id);
        let blocks = (whole && self.wanted(id).1).then(|| {
            let output = self.take_blocks(self.graph().width(id), self.readers[id.0].len());
            self.stages.push(Stage::Quantise { input: floats, output });
            output
        });
        self.values[id.0] = Some(Value { floats: Some((floats, column)), blocks });
    }

    /// One reader of a node has been computed.
    fn has_read(&mut self, id: NodeId) {
        self.unread[id.0] -= 1;
        let Some(Value { floats, blocks }) = self.values[id.0] else { return };
        if let Some((floats, _)) = floats {
            self.floats.unread[floats.0] -= 1;
        }
        if let Some(blocks) = blocks {
            self.blocks.unread[blocks.0] -= 1;
        }
    }

    /// The matrix that is `input`'s value, for `reader`.
    fn floats_of(&self, input: NodeId, reader: NodeId) -> Result<FloatsId, LowerError> {
        match self.values[input.0] {
            Some(Value { floats: Some((id, 0)), .. })
                if self.floats.widths[id.0] == self.graph().width(input) =>
            {
                Ok(id)
            }
            _ => Err(self.misplaced(reader)),
        }
    }

    /// The forms of `input`'s value that `reader`, a matrix product, may take.
    fn forms_of(&self, input: NodeId, reader: NodeId) -> Result<Forms, LowerError> {
        let floats = self.floats_of(input, reader).ok();
        let blocks = self.values[input.0].and_then(|value| value.blocks);
        let (wants_floats, wants_blocks) = self.wanted(input);
        if wants_floats && floats.is_none() || wants_blocks && blocks.is_none() {
            return Err(self.misplaced(reader));
        }
        Ok(Forms { floats, blocks })
    }
}

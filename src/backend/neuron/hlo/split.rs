//! How a model is divided among ranks: cores that run one program together, each with a part of the weights.
//!
//! Heads are divided, with the key-value heads that they share, and the width inside a feed-forward block. What
//! yields them is split by its outputs, what reads them by its inputs. A head is never cut in two, nor held twice:
//! a model has no more ranks than key-value heads.

use crate::model::{Graph, Node, NodeId, Part, WeightId};

/// A count of a model that is not a multiple of the number of ranks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ranks} cores cannot share the model: it has {count} {what}, which do not go into {ranks} equal parts; choose another --tensor-parallel, or leave it out: each core then has a replica of the model"
)]
pub struct Indivisible {
    pub ranks: usize,
    pub what: &'static str,
    pub count: usize,
}

/// The dimension of a weight, as the graph has it, that ranks have parts of. A vector's is its only one.
pub(super) fn split_dimension(part: Part) -> Option<usize> {
    match part {
        Part::Query
        | Part::QueryBias
        | Part::Key
        | Part::KeyBias
        | Part::Value
        | Part::ValueBias
        | Part::Gate
        | Part::Up => Some(0),
        Part::AttentionOutput | Part::Down => Some(1),
        Part::Embedding
        | Part::AttentionNorm
        | Part::QueryNorm
        | Part::KeyNorm
        | Part::FeedForwardNorm
        | Part::FinalNorm
        | Part::Head => None,
    }
}

/// # Errors
/// [`Indivisible`]: the first of the model's counts that has no equal parts for so many ranks.
pub(super) fn check_ranks(graph: &Graph, ranks: usize) -> Result<(), Indivisible> {
    let check = |what, count: usize| match ranks > 0 && count.is_multiple_of(ranks) {
        true => Ok(()),
        false => Err(Indivisible { ranks, what, count }),
    };
    for (_, node) in graph.nodes() {
        match *node {
            Node::Attention { shape, .. } => {
                check("key-value heads", shape.kv_heads)?;
                check("heads", shape.heads)?;
            }
            Node::GatedActivation { gate, .. } => check("feed-forward values", graph.width(gate))?,
            // A norm over more than a head would need the other ranks' values.
            Node::RmsNorm { input, weight, .. } if is_split(graph, input) => {
                check("norms of a query or key", graph.width(input) / run(graph, weight))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_split(graph: &Graph, input: NodeId) -> bool {
    let node = graph.nodes().nth(input.0).map(|(_, node)| node);
    matches!(node, Some(Node::Linear { weight, .. }) if split_dimension(graph.weight(*weight).name.part) == Some(0))
}

/// How many values a norm is over.
fn run(graph: &Graph, weight: WeightId) -> usize {
    graph.weight(weight).shape.first().copied().unwrap_or(1).max(1)
}

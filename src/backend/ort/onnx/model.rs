//! What an ONNX model is, as much of it as a decoder needs.
//!
//! Source: onnx/onnx.proto and docs/IR.md of ONNX; the fields' numbers are in `encode.rs`.

use super::lower::own;

/// A model: one graph, and the operator sets its nodes are from.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: String,
    pub nodes: Vec<Node>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
    pub initializers: Vec<Initializer>,
}

/// One operator applied to named values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub operator: Operator,
    /// An empty name leaves an optional one out.
    pub inputs: Vec<String>,
    /// As with inputs; the first one is there.
    pub outputs: Vec<String>,
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// An operator by the domain that defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Of ONNX itself, at [`OPSET`].
    Standard(&'static str),
    /// ONNX Runtime's own, of the domain [`CONTRIB_DOMAIN`].
    Contrib(&'static str),
    /// What the backend itself brings to ONNX Runtime, of the domain [`own::DOMAIN`].
    Own(&'static str),
}

impl Operator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Standard(name) | Self::Contrib(name) | Self::Own(name) => name,
        }
    }

    /// ONNX's own has no name.
    pub(super) fn domain(self) -> &'static str {
        match self {
            Self::Standard(_) => "",
            Self::Contrib(_) => CONTRIB_DOMAIN,
            Self::Own(_) => own::DOMAIN,
        }
    }
}

/// Old enough for any ONNX Runtime that the backend can load, which reads 17 since 1.12.
pub(super) const OPSET: i64 = 17;
/// The version of the format that came with [`OPSET`].
pub(super) const IR_VERSION: i64 = 8;
pub(super) const CONTRIB_DOMAIN: &str = "com.microsoft";

#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Integer(i64),
    Float(f32),
    Integers(Vec<i64>),
}

/// `TensorProto.DataType`, those that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    F32 = 1,
    U8 = 2,
    I32 = 6,
    I64 = 7,
}

impl ElementType {
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<Dimension>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Fixed(usize),
    /// The same size wherever the name stands.
    Named(&'static str),
}

/// A constant tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Initializer {
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<usize>,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// In the model itself, little-endian.
    Inline(Vec<u8>),
    /// In the weights file beside it.
    External { offset: u64, len: u64 },
}

//! An HLO module as plain data, one struct a message of `hlo.proto`: what is built, checked, written.
//!
//! It can express modules that break the rules, so that [`verify`](super::verify()) can be shown to find
//! them. Operations are those a decoder-only model needs, in the one form in which it needs them.
//!
//! Source: `xla/service/hlo.proto` and `xla/xla_data.proto` of OpenXLA.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

/// A whole program.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    pub name: String,
    /// Callees before callers; the entry is the last.
    pub computations: Vec<Computation>,
    pub entry_id: i64,
    pub entry_name: String,
    pub host_program_shape: ProgramShape,
    /// Outputs that take the place of a parameter.
    pub aliases: Vec<Alias>,
    /// By parameter number, the values that the host promises to stay within. Not written: the compiler
    /// has no place for it.
    pub promised: BTreeMap<usize, RangeInclusive<i64>>,
}

/// A function of arrays: the entry, or what a reduction or scatter applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Computation {
    pub id: i64,
    pub name: String,
    /// Each after its operands.
    pub instructions: Vec<Instruction>,
    pub program_shape: ProgramShape,
    pub root_id: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Unique in the module, not just in its computation.
    pub id: i64,
    pub name: String,
    pub operation: Operation,
    pub shape: Shape,
    pub operand_ids: Vec<i64>,
    /// The node of the model's graph that it is for; the compiler's messages repeat it.
    pub origin: String,
    pub frontend_attributes: BTreeMap<&'static str, String>,
}

/// The name that an entry parameter is bound by.
pub(super) const INPUT_NAME: &str = "neff_input_names";
/// The names that the outputs are bound by, with commas between.
pub(super) const OUTPUT_NAMES: &str = "neff_output_names";
/// What the name of a parameter that is updated in place ends in; its output is named without.
pub(in super::super) const ALIAS_SUFFIX: &str = ".must_alias_input";

/// What is computed, with its attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Parameter {
        number: usize,
    },
    Constant(Scalar),
    /// Counts up along a dimension.
    Iota {
        dimension: usize,
    },
    /// Dimension `i` of the operand becomes `dimensions[i]` of the result; the others repeat.
    Broadcast {
        dimensions: Vec<usize>,
    },
    Reshape,
    /// Dimension `i` of the result is `permutation[i]` of the operand.
    Transpose {
        permutation: Vec<usize>,
    },
    /// One range a dimension.
    Slice {
        ranges: Vec<Stride>,
    },
    /// The array, then the start in each dimension as a scalar.
    DynamicSlice {
        sizes: Vec<usize>,
    },
    Concatenate {
        dimension: usize,
    },
    Convert,
    Copy,
    Unary(Unary),
    Binary(Binary),
    /// `left <= right`
    LessOrEqual,
    /// Condition, where true, where false.
    Select,
    /// Matrix products, one for each index of the first `batch` dimensions of both operands.
    Dot {
        batch: usize,
        left_contracting: usize,
        right_contracting: usize,
    },
    /// Array and initial value.
    Reduce {
        dimensions: Vec<usize>,
        computation_id: i64,
    },
    /// The operands of all ranks of each group as one: the only exchange between cores.
    AllReduce {
        /// Its own in the module, from 1 on.
        channel_id: i64,
        /// By number.
        replica_groups: Vec<Vec<usize>>,
        computation_id: i64,
    },
    /// Rows of a matrix by a vector of their indices.
    GatherRows,
    /// A matrix, indices of its rows, and the rows to put there; no index may come twice.
    ScatterRows {
        computation_id: i64,
    },
    Tuple,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    F32(f32),
    S32(i32),
}

/// `start..limit` in steps of `stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    pub start: usize,
    pub limit: usize,
    pub stride: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Exponential,
    /// Natural.
    Log,
    Logistic,
    /// `1 / sqrt(x)`
    Rsqrt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
    Minimum,
    /// Of integers, bit by bit.
    And,
    /// Of integers, to the right by so many bits; zeros come in.
    ShiftRightLogical,
}

/// Of the types the device has, those a model needs. There is none of 64 bits: it would be cut to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    Pred,
    S32,
    F32,
    Bf16,
}

/// Of an array. All sizes are static; an empty list is a scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayShape {
    pub element: ElementType,
    /// Outermost first.
    pub dimensions: Vec<usize>,
    /// The layout: dimensions from the fastest-moving on.
    pub minor_to_major: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Array(ArrayShape),
    /// The results of an entry that has several.
    Tuple(Vec<ArrayShape>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramShape {
    pub parameters: Vec<(String, Shape)>,
    pub result: Shape,
}

/// The output that is written where a parameter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    pub output: usize,
    pub parameter: usize,
}

impl Module {
    /// The computation that is run; `None` if no computation has its id.
    pub fn entry(&self) -> Option<&Computation> {
        self.computations.iter().find(|computation| computation.id == self.entry_id)
    }
}

impl Operation {
    /// As `HloInstructionProto.opcode` has it.
    pub fn opcode(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "parameter",
            Self::Constant(_) => "constant",
            Self::Iota { .. } => "iota",
            Self::Broadcast { .. } => "broadcast",
            Self::Reshape => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Slice { .. } => "slice",
            Self::DynamicSlice { .. } => "dynamic-slice",
            Self::Concatenate { .. } => "concatenate",
            Self::Convert => "convert",
            Self::Copy => "copy",
            Self::Unary(Unary::Exponential) => "exponential",
            Self::Unary(Unary::Log) => "log",
            Self::Unary(Unary::Logistic) => "logistic",
            Self::Unary(Unary::Rsqrt) => "rsqrt",
            Self::Binary(binary) => binary.opcode(),
            Self::LessOrEqual => "compare",
            Self::Select => "select",
            Self::Dot { .. } => "dot",
            Self::Reduce { .. } => "reduce",
            Self::AllReduce { .. } => "all-reduce",
            Self::GatherRows => "gather",
            Self::ScatterRows { .. } => "scatter",
            Self::Tuple => "tuple",
        }
    }

    /// The computation it applies.
    pub fn computation_id(&self) -> Option<i64> {
        match *self {
            Self::Reduce { computation_id, .. }
            | Self::AllReduce { computation_id, .. }
            | Self::ScatterRows { computation_id } => Some(computation_id),
            _ => None,
        }
    }
}

impl Binary {
    pub fn opcode(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Subtract => "subtract",
            Self::Multiply => "multiply",
            Self::Divide => "divide",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
            Self::And => "and",
            Self::ShiftRightLogical => "shift-right-logical",
        }
    }
}

impl Scalar {
    pub fn element(self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::S32(_) => ElementType::S32,
        }
    }
}

impl ElementType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pred => "pred",
            Self::S32 => "s32",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Pred => 1,
            Self::Bf16 => 2,
            Self::S32 | Self::F32 => 4,
        }
    }
}

impl ArrayShape {
    /// Row-major, as all arrays are.
    pub fn new(element: ElementType, dimensions: &[usize]) -> Self {
        let minor_to_major = (0..dimensions.len()).rev().collect();
        Self { element, dimensions: dimensions.to_vec(), minor_to_major }
    }

    pub fn rank(&self) -> usize {
        self.dimensions.len()
    }

    /// `None` if they are more than can be counted.
    pub fn elements(&self) -> Option<usize> {
        self.dimensions.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }

    /// What such an array takes, in bytes, if it can be counted.
    pub fn bytes(&self) -> usize {
        self.elements().unwrap_or(usize::MAX).saturating_mul(self.element.size())
    }
}

impl Shape {
    /// `None` for a tuple.
    pub fn array(&self) -> Option<&ArrayShape> {
        match self {
            Self::Array(array) => Some(array),
            Self::Tuple(_) => None,
        }
    }

    /// The array, or the arrays of the tuple.
    pub fn arrays(&self) -> &[ArrayShape] {
        match self {
            Self::Array(array) => std::slice::from_ref(array),
            Self::Tuple(arrays) => arrays,
        }
    }
}

/// As HLO text writes it: `f32[4,8,64]`.
impl fmt::Display for ArrayShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.dimensions.iter().map(usize::to_string).collect();
        write!(f, "{}[{}]", self.element.name(), sizes.join(","))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(array) => array.fmt(f),
            Self::Tuple(arrays) => {
                let arrays: Vec<String> = arrays.iter().map(ArrayShape::to_string).collect();
                write!(f, "({})", arrays.join(", "))
            }
        }
    }
}

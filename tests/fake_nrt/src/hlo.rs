//! An `HloModuleProto` as it is read from a file: what its inputs and outputs are, and what it computes.
//!
//! A reader of its own, so that it judges mondai's encoder by nothing but the format. Numbers are the
//! fields' of `xla/service/hlo.proto` and `xla/xla_data.proto`.

use crate::proto::{Malformed, Message};
use std::collections::{BTreeMap, HashMap};

/// The suffix that Neuron's compiler expects of the name of an input which an output takes the place of.
pub const ALIAS_SUFFIX: &str = ".must_alias_input";

#[derive(Debug)]
pub struct Module {
    pub name: String,
    pub entry_name: String,
    pub entry_id: i64,
    pub has_host_program_shape: bool,
    pub computations: Vec<Computation>,
    pub aliases: Vec<Alias>,
}

#[derive(Debug)]
pub struct Computation {
    pub id: i64,
    pub name: String,
    pub root_id: i64,
    /// Operands before those who use them.
    pub instructions: Vec<Instruction>,
}

#[derive(Clone, Debug, Default)]
pub struct Instruction {
    pub id: i64,
    pub name: String,
    pub opcode: String,
    pub shape: Shape,
    pub operands: Vec<i64>,
    pub callees: Vec<i64>,
    pub parameter_number: usize,
    pub dimensions: Vec<usize>,
    pub slices: Vec<[usize; 3]>,
    pub custom_call_target: String,
    pub comparison: String,
    pub literal: Literal,
    pub gather: Gather,
    pub scatter: Scatter,
    pub attributes: BTreeMap<String, String>,
}

/// As much of a constant as is of use here: its integers, and whether a number in it is not finite.
#[derive(Clone, Debug, Default)]
pub struct Literal {
    pub integers: Vec<i64>,
    pub has_infinity: bool,
}

/// What says where a gather's slices come from, or those of a dynamic slice.
#[derive(Clone, Debug, Default)]
pub struct Gather {
    pub start_index_map: Vec<usize>,
    pub index_vector_dim: usize,
    pub slice_sizes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Scatter {
    pub update_window_dims: Vec<usize>,
    pub inserted_window_dims: Vec<usize>,
    pub to_operand_dims: Vec<usize>,
    pub index_vector_dim: usize,
    /// Whether the module promises that no place is written twice.
    pub is_unique: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Array(ArrayShape),
    Tuple(Vec<Shape>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrayShape {
    /// `PrimitiveType`
    pub element: i64,
    pub dimensions: Vec<usize>,
    pub minor_to_major: Option<Vec<usize>>,
    pub is_dynamic: bool,
}

/// An output that takes the place of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    pub output: usize,
    pub parameter: usize,
}

/// What a program is bound by: a name, and how much memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub shape: ArrayShape,
}

#[derive(Debug, thiserror::Error)]
pub enum BadModule {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Shape(String),
}

impl ArrayShape {
    /// Bytes of one element; `None` for what has no whole bytes or is not known here.
    pub fn element_bytes(&self) -> Option<usize> {
        match self.element {
            1 | 2 | 6 | 19..=20 | 23..=25 | 28..=29 => Some(1),
            3 | 7 | 10 | 16 => Some(2),
            4 | 8 | 11 => Some(4),
            5 | 9 | 12 | 15 => Some(8),
            18 => Some(16),
            _ => None,
        }
    }

    /// Bytes of the whole array, if they can be counted.
    pub fn bytes(&self) -> Option<usize> {
        self.dimensions
            .iter()
            .try_fold(self.element_bytes()?, |bytes, dimension| bytes.checked_mul(*dimension))
    }

    pub fn elements(&self) -> usize {
        self.dimensions.iter().product()
    }
}

impl Module {
    /// # Errors
    /// [`BadModule`] if the bytes are no module, or one without an entry, a parameter or a shape that it needs.
    pub fn read(bytes: &[u8]) -> Result<Self, BadModule> {
        let proto = Message::read(bytes)?;
        let mut aliases = Vec::new();
        if let Some(proto) = proto.message(8)? {
            for entry in proto.messages(1) {
                let entry = entry?;
                let output = sizes(&entry, 1)?.first().copied().unwrap_or(0);
                aliases.push(Alias { output, parameter: size(entry.integer(2))? });
            }
        }
        let computations = proto.messages(3).map(|proto| read_computation(&proto?));
        Ok(Module {
            name: proto.text(1)?.to_owned(),
            entry_name: proto.text(2)?.to_owned(),
            entry_id: proto.integer(6),
            has_host_program_shape: proto.has(4),
            computations: computations.collect::<Result<_, _>>()?,
            aliases,
        })
    }

    pub fn entry(&self) -> Result<&Computation, BadModule> {
        let entry = self.computations.iter().find(|computation| computation.id == self.entry_id);
        entry.ok_or_else(|| BadModule::Shape("no computation has the id of the entry".into()))
    }

    /// What each parameter of the entry is bound by, in the order of their numbers.
    ///
    /// Its name is the attribute `neff_input_names`, or `input0`, `input1` and so on.
    pub fn inputs(&self) -> Result<Vec<Binding>, BadModule> {
        let parameters = self.entry()?.instructions.iter().filter(|i| i.opcode == "parameter");
        let by_number: BTreeMap<usize, &Instruction> = parameters.map(|i| (i.parameter_number, i)).collect();
        if !by_number.keys().copied().eq(0..by_number.len()) {
            return Err(BadModule::Shape("the parameters are not numbered from 0".into()));
        }
        let binding = |(number, parameter): (usize, &Instruction)| {
            let name = parameter.attributes.get("neff_input_names").cloned();
            let shape = parameter.shape.array().cloned();
            let shape = shape.ok_or_else(|| BadModule::Shape(format!("parameter {number} is a tuple")))?;
            Ok(Binding { name: name.unwrap_or_else(|| format!("input{number}")), shape })
        };
        by_number.into_iter().map(binding).collect()
    }

    /// What each result is bound by, in the order of the root's tuple.
    ///
    /// Their names are the root's attribute `neff_output_names`, or `output0`, `output1` and so on.
    pub fn outputs(&self) -> Result<Vec<Binding>, BadModule> {
        let root = self.entry()?.root()?;
        let shapes = match &root.shape {
            Shape::Array(_) => vec![&root.shape],
            Shape::Tuple(shapes) => shapes.iter().collect(),
        };
        let names: Vec<String> = match root.attributes.get("neff_output_names") {
            Some(names) => names.split(',').map(str::to_owned).collect(),
            None => (0..shapes.len()).map(|number| format!("output{number}")).collect(),
        };
        if names.len() != shapes.len() {
            return Err(BadModule::Shape(format!("{} results have {} names", shapes.len(), names.len())));
        }
        let binding = |(name, shape): (String, &Shape)| {
            let shape = shape.array().cloned();
            let shape = shape.ok_or_else(|| BadModule::Shape(format!("the result {name} is a tuple")))?;
            Ok(Binding { name, shape })
        };
        names.into_iter().zip(shapes).map(binding).collect()
    }

    /// Whether it exchanges data with other cores.
    pub fn has_collectives(&self) -> bool {
        const COLLECTIVES: [&str; 6] = [
            "all-reduce",
            "all-gather",
            "reduce-scatter",
            "all-to-all",
            "collective-permute",
            "collective-broadcast",
        ];
        let mut instructions = self.computations.iter().flat_map(|computation| &computation.instructions);
        instructions.any(|instruction| COLLECTIVES.contains(&instruction.opcode.as_str()))
    }
}

impl Computation {
    pub fn root(&self) -> Result<&Instruction, BadModule> {
        let root = self.instructions.iter().find(|instruction| instruction.id == self.root_id);
        root.ok_or_else(|| {
            BadModule::Shape(format!("{} has no instruction with the id of its root", self.name))
        })
    }

    pub fn by_id(&self) -> HashMap<i64, &Instruction> {
        self.instructions.iter().map(|instruction| (instruction.id, instruction)).collect()
    }
}

impl Default for Shape {
    fn default() -> Self {
        Shape::Tuple(Vec::new())
    }
}

impl Shape {
    pub fn array(&self) -> Option<&ArrayShape> {
        match self {
            Shape::Array(array) => Some(array),
            Shape::Tuple(_) => None,
        }
    }

    /// The arrays it holds, however deep.
    pub fn arrays(&self) -> Vec<&ArrayShape> {
        match self {
            Shape::Array(array) => vec![array],
            Shape::Tuple(shapes) => shapes.iter().flat_map(Shape::arrays).collect(),
        }
    }
}

fn read_computation(proto: &Message) -> Result<Computation, BadModule> {
    Ok(Computation {
        id: proto.integer(5),
        name: proto.text(1)?.to_owned(),
        root_id: proto.integer(6),
        instructions: proto.messages(2).map(|proto| read_instruction(&proto?)).collect::<Result<_, _>>()?,
    })
}

fn read_instruction(proto: &Message) -> Result<Instruction, BadModule> {
    let name = proto.text(1)?.to_owned();
    let Some(shape) = proto.message(3)? else {
        return Err(BadModule::Shape(format!("{name} has no shape")));
    };
    let mut attributes = BTreeMap::new();
    if let Some(proto) = proto.message(68)? {
        for entry in proto.messages(1) {
            let entry = entry?;
            attributes.insert(entry.text(1)?.to_owned(), entry.text(2)?.to_owned());
        }
    }
    let mut slices = Vec::new();
    for slice in proto.messages(17) {
        let slice = slice?;
        slices.push([size(slice.integer(1))?, size(slice.integer(2))?, size(slice.integer(3))?]);
    }
    let mut gather = Gather { slice_sizes: sizes(proto, 20)?, ..Gather::default() };
    if let Some(numbers) = proto.message(33)? {
        gather = Gather {
            start_index_map: sizes(&numbers, 3)?,
            index_vector_dim: size(numbers.integer(4))?,
            slice_sizes: sizes(proto, 34)?,
        };
    }
    let mut scatter = Scatter::default();
    if let Some(numbers) = proto.message(48)? {
        scatter = Scatter {
            update_window_dims: sizes(&numbers, 1)?,
            inserted_window_dims: sizes(&numbers, 2)?,
            to_operand_dims: sizes(&numbers, 3)?,
            index_vector_dim: size(numbers.integer(4))?,
            is_unique: proto.integer(69) != 0,
        };
    }
    Ok(Instruction {
        id: proto.integer(35),
        opcode: proto.text(2)?.to_owned(),
        shape: read_shape(&shape)?,
        operands: proto.integers(36)?,
        callees: proto.integers(38)?,
        parameter_number: size(proto.integer(9))?,
        dimensions: sizes(proto, 14)?,
        slices,
        custom_call_target: proto.text(28)?.to_owned(),
        comparison: proto.text(63)?.to_owned(),
        literal: proto.message(8)?.map(|proto| read_literal(&proto)).transpose()?.unwrap_or_default(),
        gather,
        scatter,
        attributes,
        name,
    })
}

fn read_literal(proto: &Message) -> Result<Literal, BadModule> {
    // Where the exponent's bits are all ones and the fraction's are not, it is no number, which is as bad.
    let halves = |field, exponent: u16| {
        proto
            .bytes(field)
            .as_chunks::<2>()
            .0
            .iter()
            .any(|half| u16::from_le_bytes(*half) & exponent == exponent)
    };
    let has_infinity =
        proto.floats(8).iter().any(|value| !value.is_finite()) || halves(11, 0x7c00) || halves(13, 0x7f80);
    let mut integers = proto.integers(4)?;
    integers.extend(proto.integers(2)?); // preds
    // An `int32` below zero stands as 64 bits, an `int32` of another writer perhaps as 32.
    let integers = integers.into_iter().map(|value| i64::from(value as i32)).collect();
    Ok(Literal { integers, has_infinity })
}

fn read_shape(proto: &Message) -> Result<Shape, BadModule> {
    const TUPLE: i64 = 13;
    let element = proto.integer(2);
    if element == TUPLE {
        let shapes = proto.messages(4).map(|proto| read_shape(&proto?));
        return shapes.collect::<Result<_, _>>().map(Shape::Tuple);
    }
    let minor_to_major = match proto.message(5)? {
        Some(layout) => Some(sizes(&layout, 1)?),
        None => None,
    };
    let is_dynamic = proto.integers(6)?.iter().any(|dynamic| *dynamic != 0);
    Ok(Shape::Array(ArrayShape { element, dimensions: sizes(proto, 3)?, minor_to_major, is_dynamic }))
}

fn sizes(proto: &Message, field: u32) -> Result<Vec<usize>, BadModule> {
    proto.integers(field)?.into_iter().map(size).collect()
}

fn size(value: i64) -> Result<usize, BadModule> {
    usize::try_from(value).map_err(|_| BadModule::Shape(format!("{value} stands where a size belongs")))
}

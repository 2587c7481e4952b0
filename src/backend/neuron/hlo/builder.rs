//! Writes a module instruction by instruction; each one's shape is inferred as it is written.

use super::{
    infer::{infer, infer_tuple},
    module::{
        ALIAS_SUFFIX, Alias, ArrayShape, Binary, Computation, ElementType, INPUT_NAME, Instruction, Module,
        OUTPUT_NAMES, Operation, ProgramShape, Scalar, Shape, Stride, Unary,
    },
};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// An instruction of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(usize);

/// An instruction that does not fit its operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write the HLO of {origin}: {opcode}: {reason}")]
pub struct BuildError {
    origin: String,
    opcode: &'static str,
    reason: String,
}

type Built = Result<Value, BuildError>;

/// What a reduction or scatter applies to two scalars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Applied {
    Reduction(Binary),
    /// The second: a scatter that replaces.
    Replacement,
}

/// A result of the program, and what it is bound by.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) value: Value,
    /// The parameter whose place it takes.
    pub(super) replaces: Option<Value>,
}

pub(super) struct ModuleBuilder {
    name: String,
    applied: BTreeMap<(Applied, ElementType), i64>,
    computations: Vec<Computation>,
    entry: Vec<Instruction>,
    parameter_names: Vec<String>,
    promised: BTreeMap<usize, RangeInclusive<i64>>,
    /// All-reduces so far.
    channels: i64,
    origin: String,
    next_id: i64,
}

impl ModuleBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            applied: BTreeMap::new(),
            computations: Vec::new(),
            entry: Vec::new(),
            parameter_names: Vec::new(),
            promised: BTreeMap::new(),
            channels: 0,
            origin: String::new(),
            next_id: 1,
        }
    }

    /// What the instructions written from here on are for.
    pub(super) fn enter(&mut self, origin: String) {
        self.origin = origin;
    }

    pub(super) fn shape(&self, value: Value) -> &ArrayShape {
        self.entry[value.0].shape.array().expect("only the root is a tuple, and it is written last")
    }

    pub(super) fn dimensions(&self, value: Value) -> Vec<usize> {
        self.shape(value).dimensions.clone()
    }

    pub(super) fn parameter(&mut self, name: &str, shape: &ArrayShape) -> Built {
        let number = self.parameter_names.len();
        self.parameter_names.push(name.to_owned());
        let value = self.write(Operation::Parameter { number }, &[], shape)?;
        self.entry[value.0].frontend_attributes.insert(INPUT_NAME, name.to_owned());
        Ok(value)
    }

    /// A vector of integers that the host keeps in a range.
    pub(super) fn index_parameter(&mut self, name: &str, len: usize, range: RangeInclusive<i64>) -> Built {
        self.promised.insert(self.parameter_names.len(), range);
        self.parameter(name, &ArrayShape::new(ElementType::S32, &[len]))
    }

    pub(super) fn constant(&mut self, scalar: Scalar) -> Built {
        self.write(Operation::Constant(scalar), &[], &ArrayShape::new(scalar.element(), &[]))
    }

    /// The same number everywhere.
    pub(super) fn splat(&mut self, scalar: Scalar, dimensions: &[usize]) -> Built {
        let constant = self.constant(scalar)?;
        self.broadcast(constant, dimensions, &[])
    }

    pub(super) fn iota(&mut self, dimensions: &[usize], dimension: usize) -> Built {
        self.write(Operation::Iota { dimension }, &[], &ArrayShape::new(ElementType::S32, dimensions))
    }

    /// Dimension `i` of the operand becomes `mapping[i]` of the result.
    pub(super) fn broadcast(&mut self, operand: Value, dimensions: &[usize], mapping: &[usize]) -> Built {
        let shape = ArrayShape::new(self.shape(operand).element, dimensions);
        self.write(Operation::Broadcast { dimensions: mapping.to_vec() }, &[operand], &shape)
    }

    pub(super) fn reshape(&mut self, operand: Value, dimensions: &[usize]) -> Built {
        if self.shape(operand).dimensions == dimensions {
            return Ok(operand);
        }
        let shape = ArrayShape::new(self.shape(operand).element, dimensions);
        self.write(Operation::Reshape, &[operand], &shape)
    }

    pub(super) fn transpose(&mut self, operand: Value, permutation: &[usize]) -> Built {
        self.derive(Operation::Transpose { permutation: permutation.to_vec() }, &[operand])
    }

    /// A part of one dimension, and all of the others.
    pub(super) fn slice(&mut self, operand: Value, dimension: usize, part: Stride) -> Built {
        let whole = |&size: &usize| Stride { start: 0, limit: size, stride: 1 };
        let mut ranges: Vec<Stride> = self.shape(operand).dimensions.iter().map(whole).collect();
        if ranges.get(dimension) == Some(&part) {
            return Ok(operand);
        }
        if let Some(range) = ranges.get_mut(dimension) {
            *range = part;
        }
        self.derive(Operation::Slice { ranges }, &[operand])
    }

    pub(super) fn dynamic_slice(&mut self, operand: Value, starts: &[Value], sizes: &[usize]) -> Built {
        let operands = [&[operand], starts].concat();
        self.derive(Operation::DynamicSlice { sizes: sizes.to_vec() }, &operands)
    }

    pub(super) fn concatenate(&mut self, operands: &[Value], dimension: usize) -> Built {
        self.derive(Operation::Concatenate { dimension }, operands)
    }

    /// The operand itself if it is of that type.
    pub(super) fn convert(&mut self, operand: Value, element: ElementType) -> Built {
        let shape = self.shape(operand);
        if shape.element == element {
            return Ok(operand);
        }
        let shape = ArrayShape::new(element, &shape.dimensions);
        self.write(Operation::Convert, &[operand], &shape)
    }

    pub(super) fn unary(&mut self, unary: Unary, operand: Value) -> Built {
        self.derive(Operation::Unary(unary), &[operand])
    }

    pub(super) fn binary(&mut self, binary: Binary, left: Value, right: Value) -> Built {
        self.derive(Operation::Binary(binary), &[left, right])
    }

    /// `left <= right`
    pub(super) fn less_or_equal(&mut self, left: Value, right: Value) -> Built {
        self.derive(Operation::LessOrEqual, &[left, right])
    }

    pub(super) fn select(&mut self, condition: Value, when_true: Value, when_false: Value) -> Built {
        self.derive(Operation::Select, &[condition, when_true, when_false])
    }

    /// Products over one dimension of each, summed in `f32`.
    pub(super) fn dot(&mut self, batch: usize, left: (Value, usize), right: (Value, usize)) -> Built {
        let operation = Operation::Dot { batch, left_contracting: left.1, right_contracting: right.1 };
        self.write(operation, &[left.0, right.0], &ArrayShape::new(ElementType::F32, &[]))
    }

    /// `binary` over one dimension of an array of `f32`, beginning with `initial`.
    pub(super) fn reduce(&mut self, binary: Binary, operand: Value, dimension: usize, initial: f32) -> Built {
        let computation_id = self.applied(Applied::Reduction(binary), ElementType::F32);
        let initial = self.constant(Scalar::F32(initial))?;
        self.derive(Operation::Reduce { dimensions: vec![dimension], computation_id }, &[operand, initial])
    }

    /// Of `f32`, the sum of what so many ranks have, on all of them; the operand itself if there is one.
    pub(super) fn sum_over_ranks(&mut self, operand: Value, ranks: usize) -> Built {
        if ranks == 1 {
            return Ok(operand);
        }
        let computation_id = self.applied(Applied::Reduction(Binary::Add), ElementType::F32);
        self.channels += 1;
        let (channel_id, replica_groups) = (self.channels, vec![(0..ranks).collect()]);
        self.derive(Operation::AllReduce { channel_id, replica_groups, computation_id }, &[operand])
    }

    pub(super) fn gather_rows(&mut self, matrix: Value, indices: Value) -> Built {
        self.derive(Operation::GatherRows, &[matrix, indices])
    }

    /// The matrix with some rows replaced; no index may come twice.
    pub(super) fn scatter_rows(&mut self, matrix: Value, indices: Value, rows: Value) -> Built {
        let computation_id = self.applied(Applied::Replacement, self.shape(matrix).element);
        self.derive(Operation::ScatterRows { computation_id }, &[matrix, indices, rows])
    }

    /// The module that yields these.
    pub(super) fn finish(mut self, outputs: &[Output]) -> Result<Module, BuildError> {
        let values: Vec<Value> = outputs.iter().map(|output| output.value).collect();
        self.enter("outputs".to_owned());
        let root = match values.as_slice() {
            [only] => self.derive(Operation::Copy, &[*only])?,
            _ => self.tuple(&values),
        };
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        self.entry[root.0].frontend_attributes.insert(OUTPUT_NAMES, names.join(","));

        let aliases = outputs.iter().enumerate().filter_map(|(idx, output)| {
            let Operation::Parameter { number } = self.entry[output.replaces?.0].operation else {
                return None;
            };
            Some(Alias { output: idx, parameter: number })
        });
        let aliases = aliases.collect();
        let entry_name = format!("{}.entry", self.name);
        let entry_id = self.computations.len() as i64 + 1;
        let entry = computation(entry_id, entry_name.clone(), self.entry, &self.parameter_names);
        let host_program_shape = entry.program_shape.clone();
        self.computations.push(entry);
        Ok(Module {
            name: self.name,
            computations: self.computations,
            entry_id,
            entry_name,
            host_program_shape,
            aliases,
            promised: self.promised,
        })
    }

    fn tuple(&mut self, values: &[Value]) -> Value {
        let shapes: Vec<&ArrayShape> = values.iter().map(|&value| self.shape(value)).collect();
        let shape = infer_tuple(&shapes);
        let operand_ids = values.iter().map(|value| self.entry[value.0].id).collect();
        let instruction = self.instruction(Operation::Tuple, operand_ids, shape, self.origin.clone());
        self.entry.push(instruction);
        Value(self.entry.len() - 1)
    }

    /// An instruction whose shape follows from its operands.
    fn derive(&mut self, operation: Operation, operands: &[Value]) -> Built {
        self.write(operation, operands, &ArrayShape::new(ElementType::F32, &[]))
    }

    fn write(&mut self, operation: Operation, operands: &[Value], declared: &ArrayShape) -> Built {
        let shapes: Vec<&ArrayShape> = operands.iter().map(|&operand| self.shape(operand)).collect();
        let shape = infer(&operation, &shapes, declared).map_err(|reason| BuildError {
            origin: self.origin.clone(),
            opcode: operation.opcode(),
            reason,
        })?;
        let operand_ids = operands.iter().map(|operand| self.entry[operand.0].id).collect();
        let instruction = self.instruction(operation, operand_ids, Shape::Array(shape), self.origin.clone());
        self.entry.push(instruction);
        Ok(Value(self.entry.len() - 1))
    }

    /// The computation that applies it to scalars of that type; written once.
    fn applied(&mut self, applied: Applied, element: ElementType) -> i64 {
        if let Some(&id) = self.applied.get(&(applied, element)) {
            return id;
        }
        let scalar = Shape::Array(ArrayShape::new(element, &[]));
        let mut instructions: Vec<Instruction> = (0..2)
            .map(|number| {
                self.instruction(Operation::Parameter { number }, vec![], scalar.clone(), String::new())
            })
            .collect();
        let [left, right] = [instructions[0].id, instructions[1].id];
        let (name, root) = match applied {
            Applied::Reduction(binary) => (binary.opcode(), (Operation::Binary(binary), vec![left, right])),
            Applied::Replacement => ("replace", (Operation::Copy, vec![right])),
        };
        instructions.push(self.instruction(root.0, root.1, scalar, String::new()));
        let id = self.computations.len() as i64 + 1;
        let name = format!("{name}.{}", element.name());
        let parameter_names = ["left".to_owned(), "right".to_owned()];
        self.computations.push(computation(id, name, instructions, &parameter_names));
        self.applied.insert((applied, element), id);
        id
    }

    fn instruction(
        &mut self,
        operation: Operation,
        operand_ids: Vec<i64>,
        shape: Shape,
        origin: String,
    ) -> Instruction {
        let id = self.next_id;
        self.next_id += 1;
        let name = format!("{}.{id}", operation.opcode());
        Instruction { id, name, operation, shape, operand_ids, origin, frontend_attributes: BTreeMap::new() }
    }
}

/// The last instruction is the root.
fn computation(
    id: i64,
    name: String,
    instructions: Vec<Instruction>,
    parameter_names: &[String],
) -> Computation {
    let is_parameter =
        |instruction: &&Instruction| matches!(instruction.operation, Operation::Parameter { .. });
    let shapes = instructions.iter().filter(is_parameter).map(|parameter| parameter.shape.clone());
    let parameters = parameter_names.iter().cloned().zip(shapes).collect();
    let root = instructions.last().expect("a computation computes something");
    let (root_id, result) = (root.id, root.shape.clone());
    Computation { id, name, instructions, program_shape: ProgramShape { parameters, result }, root_id }
}

/// What a parameter that `output` replaces must be called.
pub(super) fn replaced_name(output: &str) -> String {
    format!("{output}{ALIAS_SUFFIX}")
}

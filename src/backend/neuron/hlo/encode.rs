//! A module as the bytes of an `HloModuleProto`.
//!
//! Numbers are the fields' of `xla/service/hlo.proto` and `xla/xla_data.proto`. There is nothing in the
//! bytes but the module: no time, no path, and maps in the order of their keys.

use super::module::{
    Alias, ArrayShape, Computation, ElementType, Instruction, Module, Operation, ProgramShape, Scalar, Shape,
};
use crate::backend::protobuf::Message;

impl Module {
    /// The serialised `HloModuleProto`; the same module is always the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut proto = Message::default();
        proto.text(1, &self.name);
        proto.text(2, &self.entry_name);
        for computation in &self.computations {
            proto.message(3, |proto| write_computation(proto, computation));
        }
        proto.message(4, |proto| write_program_shape(proto, &self.host_program_shape));
        proto.integer(6, self.entry_id);
        if !self.aliases.is_empty() {
            let in_tuple = self.host_program_shape.result.array().is_none();
            proto.message(8, |proto| {
                for alias in &self.aliases {
                    proto.message(1, |proto| write_alias(proto, alias, in_tuple));
                }
            });
        }
        proto.into_bytes()
    }
}

fn write_alias(proto: &mut Message, alias: &Alias, in_tuple: bool) {
    const MUST_ALIAS: i64 = 2;
    // An index into the result: the empty one is the result itself.
    proto.sizes(1, in_tuple.then_some(alias.output));
    proto.integer(2, alias.parameter as i64);
    proto.integer(4, MUST_ALIAS);
}

fn write_computation(proto: &mut Message, computation: &Computation) {
    proto.text(1, &computation.name);
    for instruction in &computation.instructions {
        proto.message(2, |proto| write_instruction(proto, instruction));
    }
    proto.message(4, |proto| write_program_shape(proto, &computation.program_shape));
    proto.integer(5, computation.id);
    proto.integer(6, computation.root_id);
}

fn write_instruction(proto: &mut Message, instruction: &Instruction) {
    proto.text(1, &instruction.name);
    proto.text(2, instruction.operation.opcode());
    proto.message(3, |proto| write_shape(proto, &instruction.shape));
    if !instruction.origin.is_empty() {
        // OpMetadata.op_name
        proto.message(7, |proto| proto.text(2, &instruction.origin));
    }
    write_attributes(proto, instruction);
    proto.integer(35, instruction.id);
    proto.integers(36, instruction.operand_ids.iter().copied());
    proto.integers(38, instruction.operation.computation_id());
    if let Operation::ScatterRows { .. } = instruction.operation {
        proto.message(48, |proto| {
            proto.sizes(1, [1]); // update_window_dims
            proto.sizes(2, [0]); // inserted_window_dims
            proto.sizes(3, [0]); // scatter_dims_to_operand_dims
            proto.integer(4, 1); // index_vector_dim
        });
    }
    if let Operation::AllReduce { replica_groups, .. } = &instruction.operation {
        for group in replica_groups {
            proto.message(49, |proto| proto.sizes(1, group.iter().copied()));
        }
    }
    if instruction.operation == Operation::LessOrEqual {
        proto.text(63, "LE");
    }
    if !instruction.frontend_attributes.is_empty() {
        proto.message(68, |proto| {
            for (key, value) in &instruction.frontend_attributes {
                proto.message(1, |entry| {
                    entry.text(1, key);
                    entry.text(2, value);
                });
            }
        });
    }
    proto.boolean(69, matches!(instruction.operation, Operation::ScatterRows { .. }));
}

/// The attributes up to the instruction's own id, in the order of their fields.
fn write_attributes(proto: &mut Message, instruction: &Instruction) {
    match &instruction.operation {
        Operation::Constant(scalar) => proto.message(8, |proto| write_scalar(proto, *scalar)),
        Operation::Parameter { number } => proto.integer(9, *number as i64),
        Operation::Iota { dimension } | Operation::Concatenate { dimension } => {
            proto.sizes(14, [*dimension]);
        }
        Operation::Broadcast { dimensions }
        | Operation::Reduce { dimensions, .. }
        | Operation::Transpose { permutation: dimensions } => proto.sizes(14, dimensions.iter().copied()),
        Operation::Slice { ranges } => {
            for range in ranges {
                proto.message(17, |proto| {
                    proto.integer(1, range.start as i64);
                    proto.integer(2, range.limit as i64);
                    proto.integer(3, range.stride as i64);
                });
            }
        }
        Operation::DynamicSlice { sizes } => proto.sizes(20, sizes.iter().copied()),
        Operation::AllReduce { channel_id, .. } => proto.integer(26, *channel_id),
        Operation::Dot { batch, left_contracting, right_contracting } => {
            proto.message(30, |proto| {
                proto.sizes(1, [*left_contracting]);
                proto.sizes(2, [*right_contracting]);
                proto.sizes(3, 0..*batch);
                proto.sizes(4, 0..*batch);
            });
        }
        Operation::GatherRows => {
            proto.message(33, |proto| {
                proto.sizes(1, [1]); // offset_dims
                proto.sizes(2, [0]); // collapsed_slice_dims
                proto.sizes(3, [0]); // start_index_map
                proto.integer(4, 1); // index_vector_dim
            });
            let row = instruction.shape.arrays()[0].dimensions[1..].iter().copied();
            proto.sizes(34, std::iter::once(1).chain(row)); // gather_slice_sizes
        }
        _ => {}
    }
}

fn write_scalar(proto: &mut Message, scalar: Scalar) {
    proto.message(1, |proto| write_array_shape(proto, &ArrayShape::new(scalar.element(), &[])));
    match scalar {
        Scalar::S32(value) => proto.integers(4, [value.into()]),
        Scalar::F32(value) => proto.floats(8, &[value]),
    }
}

fn write_program_shape(proto: &mut Message, shape: &ProgramShape) {
    for (_, parameter) in &shape.parameters {
        proto.message(1, |proto| write_shape(proto, parameter));
    }
    proto.message(2, |proto| write_shape(proto, &shape.result));
    for (name, _) in &shape.parameters {
        proto.text(3, name);
    }
}

fn write_shape(proto: &mut Message, shape: &Shape) {
    const TUPLE: i64 = 13;
    match shape {
        Shape::Array(array) => write_array_shape(proto, array),
        Shape::Tuple(arrays) => {
            proto.integer(2, TUPLE);
            for array in arrays {
                proto.message(4, |proto| write_array_shape(proto, array));
            }
        }
    }
}

fn write_array_shape(proto: &mut Message, shape: &ArrayShape) {
    proto.integer(2, primitive_type(shape.element));
    proto.sizes(3, shape.dimensions.iter().copied());
    proto.message(5, |layout| {
        layout.sizes(1, shape.minor_to_major.iter().copied());
        layout.integer(16, 1); // tail_padding_alignment_in_elements
    });
    proto.integers(6, shape.dimensions.iter().map(|_| 0)); // is_dynamic_dimension
}

/// `PrimitiveType` of `xla_data.proto`.
fn primitive_type(element: ElementType) -> i64 {
    match element {
        ElementType::Pred => 1,
        ElementType::S32 => 4,
        ElementType::F32 => 11,
        ElementType::Bf16 => 16,
    }
}

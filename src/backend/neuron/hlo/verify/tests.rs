//! A sound module, broken in every way that the rules name.

use super::*;
use crate::backend::neuron::hlo::{
    builder::{ModuleBuilder, Output, replaced_name},
    module::{Alias, Binary, ElementType, Scalar},
};

/// Rows of a table by index, normed in a way, written into a cache that is updated in place.
fn sound() -> Module {
    let mut builder = ModuleBuilder::new("small");
    let ids = builder.index_parameter("ids", 3, 0..=9).unwrap();
    let rows = builder.index_parameter("rows", 3, 0..=4).unwrap();
    let cache_shape = ArrayShape::new(ElementType::Bf16, &[5, 4]);
    let cache = builder.parameter(&replaced_name("cache"), &cache_shape).unwrap();
    let table = builder.parameter("table", &ArrayShape::new(ElementType::Bf16, &[10, 4])).unwrap();
    let gathered = builder.gather_rows(table, ids).unwrap();
    let wide = builder.convert(gathered, ElementType::F32).unwrap();
    let sum = builder.reduce(Binary::Add, wide, 1, 0.0).unwrap();
    let sum = builder.sum_over_ranks(sum, 2).unwrap();
    let sum = builder.broadcast(sum, &[3, 4], &[0]).unwrap();
    let logits = builder.binary(Binary::Divide, wide, sum).unwrap();
    let written = builder.scatter_rows(cache, rows, gathered).unwrap();
    let outputs = [
        Output { name: "logits".to_owned(), value: logits, replaces: None },
        Output { name: "cache".to_owned(), value: written, replaces: Some(cache) },
    ];
    builder.finish(&outputs).unwrap()
}

/// Breaks the module and expects that rule; `Rule`'s fields are not compared.
#[track_caller]
fn check(expected: &Rule, place: &str, break_it: impl FnOnce(&mut Module)) {
    let mut module = sound();
    break_it(&mut module);
    let violation = verify(&module).expect_err("the module is broken");
    let same = std::mem::discriminant(&violation.rule) == std::mem::discriminant(expected);
    assert!(same && violation.place == place, "{violation}");
}

fn entry(module: &mut Module) -> &mut Computation {
    module.computations.last_mut().unwrap()
}

/// The entry's instruction of that opcode; they have one each, or the first is meant.
fn of<'a>(module: &'a mut Module, opcode: &str) -> &'a mut Instruction {
    let instructions = &mut entry(module).instructions;
    instructions.iter_mut().find(|instruction| instruction.operation.opcode() == opcode).unwrap()
}

fn name_of(opcode: &str) -> String {
    of(&mut sound(), opcode).name.clone()
}

#[test]
fn a_sound_module_passes() {
    assert_eq!(verify(&sound()), Ok(()));
}

/// What XLA on a CPU accepts and the Neuron compiler does not: the reason for this room.
#[test]
fn ids_that_start_again_in_each_computation_are_found() {
    // The first of the second computation.
    let second = sound().computations[1].instructions[0].name.clone();
    check(&Rule::IdTaken(0), &second, |module| {
        for computation in &mut module.computations {
            let first = computation.instructions[0].id;
            for instruction in &mut computation.instructions {
                instruction.id -= first - 1;
                instruction.operand_ids.iter_mut().for_each(|id| *id -= first - 1);
            }
            computation.root_id -= first - 1;
        }
    });
}

#[test]
fn ids_of_64_bits_are_found() {
    check(&Rule::IdSize(0), &name_of("tuple"), |module| {
        let high = 1 << 33;
        of(module, "tuple").id += high;
        entry(module).root_id += high;
    });
    check(&Rule::IdSize(0), &name_of("gather"), |module| of(module, "gather").id = 1 << 31);
    check(&Rule::IdSize(0), &name_of("gather"), |module| of(module, "gather").id = 0);
    check(&Rule::IdSize(0), "small.entry", |module| {
        entry(module).id = 1 << 40;
        module.entry_id = 1 << 40;
    });
}

#[test]
fn a_reduction_of_two_arrays_is_found() {
    check(&Rule::ReduceOfSeveral(0), &name_of("reduce"), |module| {
        let operands = &mut of(module, "reduce").operand_ids;
        *operands = [operands[0], operands[0], operands[1], operands[1]].to_vec();
    });
}

#[test]
fn an_index_that_may_be_out_of_range_is_found() {
    let gather = name_of("gather");
    check(&Rule::IndexRange { actual: String::new(), limit: 0 }, &gather, |module| {
        module.promised.insert(0, 0..=10);
    });
    check(&Rule::IndexRange { actual: String::new(), limit: 0 }, &gather, |module| {
        module.promised.insert(0, -1..=9);
    });
    check(&Rule::IndexRange { actual: String::new(), limit: 0 }, &name_of("scatter"), |module| {
        module.promised.remove(&1);
    });
}

#[test]
fn indices_are_followed_through_arithmetic() {
    let indexed = |least: i64, most: i64, factor: i32, addend: i32, rows: usize| {
        let mut builder = ModuleBuilder::new("m");
        let ids = builder.index_parameter("ids", 2, least..=most).unwrap();
        let table = builder.parameter("table", &ArrayShape::new(ElementType::F32, &[rows, 4])).unwrap();
        let factor = builder.splat(Scalar::S32(factor), &[2]).unwrap();
        let product = builder.binary(Binary::Multiply, ids, factor).unwrap();
        let addend = builder.splat(Scalar::S32(addend), &[2]).unwrap();
        let index = builder.binary(Binary::Add, product, addend).unwrap();
        let value = builder.gather_rows(table, index).unwrap();
        let output = Output { name: "rows".to_owned(), value, replaces: None };
        verify(&builder.finish(&[output]).unwrap()).map_err(|violation| violation.rule)
    };
    assert_eq!(indexed(0, 3, 5, 2, 18), Ok(()));
    let out = |actual: &str, limit| Err(Rule::IndexRange { actual: actual.to_owned(), limit });
    assert_eq!(indexed(0, 3, 5, 2, 17), out("2 to 17", 17));
    assert_eq!(indexed(0, 3, -1, 2, 18), out("-1 to 2", 18));
    assert_eq!(indexed(0, 3, -1, 3, 4), Ok(()));
    assert_eq!(indexed(0, 3, 1 << 23, 0, 1 << 26), Err(Rule::IntegerRange(format!("0 to {}", 3 << 23))));
}

#[test]
fn what_xla_finds_too_is_found_here_first() {
    let gather = name_of("gather");
    check(&Rule::Name, &gather, |module| of(module, "tuple").name = name_of("gather"));
    check(&Rule::Name, "a,b", |module| of(module, "gather").name = "a,b".to_owned());
    check(&Rule::Name, "add.f32", |module| {
        let name = module.computations[0].name.clone();
        module.computations[1].name = name;
    });
    check(&Rule::OperandOrder(0), &gather, |module| {
        let instructions = &mut entry(module).instructions;
        let at = instructions.iter().position(|instruction| instruction.name == gather).unwrap();
        let early = instructions.remove(at);
        instructions.insert(0, early);
    });
    check(&Rule::OperandOrder(0), &gather, |module| of(module, "gather").operand_ids[1] = 999);
    check(&Rule::Root, "small.entry", |module| entry(module).root_id -= 1);
    check(&Rule::Entry, "small.entry", |module| module.entry_id += 1);
    check(&Rule::Entry, "other", |module| module.entry_name = "other".to_owned());
    check(&Rule::ProgramShape, "small.entry", |module| {
        module.host_program_shape.parameters.pop();
    });
    check(&Rule::ProgramShape, "small.entry", |module| {
        entry(module).program_shape.parameters.swap(0, 2);
    });
    check(&Rule::ParameterNumbers, "small.entry", |module| {
        of(module, "parameter").operation = Operation::Parameter { number: 7 };
    });
    check(&Rule::Operation(String::new()), &name_of("reduce"), |module| {
        of(module, "reduce").operand_ids.pop();
    });
}

#[test]
fn callees_come_before_callers_and_fit_them() {
    let reduce = name_of("reduce");
    check(&Rule::CalleeOrder(0), &reduce, |module| module.computations.swap(0, 2));
    check(&Rule::Applied, &reduce, |module| {
        // That of bf16, which is the scatter's.
        let other = module.computations[1].id;
        of(module, "reduce").operation = Operation::Reduce { dimensions: vec![1], computation_id: other };
    });
    check(&Rule::Unused, "spare", |module| {
        let mut spare = module.computations[0].clone();
        spare.name = "spare".to_owned();
        spare.id = 90;
        spare.root_id += 100;
        for instruction in &mut spare.instructions {
            instruction.id += 100;
            instruction.name += ".spare";
            instruction.operand_ids.iter_mut().for_each(|id| *id += 100);
        }
        module.computations.insert(0, spare);
    });
}

#[test]
fn shapes_follow_from_operands_and_lie_row_major() {
    let convert = name_of("convert");
    let shape = |element, dimensions: &[usize]| Shape::Array(ArrayShape::new(element, dimensions));
    check(&Rule::Shape { actual: String::new(), expected: String::new() }, &convert, |module| {
        of(module, "convert").shape = shape(ElementType::F32, &[4, 3]);
    });
    check(&Rule::Layout(String::new()), &convert, |module| {
        let mut array = ArrayShape::new(ElementType::F32, &[3, 4]);
        array.minor_to_major.reverse();
        of(module, "convert").shape = Shape::Array(array);
    });
    check(&Rule::Layout(String::new()), &convert, |module| {
        let mut array = ArrayShape::new(ElementType::F32, &[3, 4]);
        array.minor_to_major.clear();
        of(module, "convert").shape = Shape::Array(array);
    });
    check(&Rule::Layout(String::new()), &convert, |module| {
        of(module, "convert").shape = shape(ElementType::F32, &[0, 4]);
    });
    check(&Rule::Operation(String::new()), &name_of("constant"), |module| {
        of(module, "constant").operation = Operation::Constant(Scalar::F32(f32::NEG_INFINITY));
    });
    check(&Rule::Tuple, &convert, |module| {
        of(module, "convert").shape = Shape::Tuple(vec![ArrayShape::new(ElementType::F32, &[3, 4])]);
    });
}

#[test]
fn ranks_meet_in_one_group_over_a_channel_of_its_own_and_add_up() {
    let exchange = name_of("all-reduce");
    let with = |channel: i64, groups: Vec<Vec<usize>>| {
        move |module: &mut Module| {
            let Operation::AllReduce { channel_id, replica_groups, .. } =
                &mut of(module, "all-reduce").operation
            else {
                unreachable!("it is the one of that opcode")
            };
            (*channel_id, *replica_groups) = (channel, groups);
        }
    };
    check(&Rule::Channel, &exchange, with(0, vec![vec![0, 1]]));
    check(&Rule::Channel, &exchange, with(1 << 31, vec![vec![0, 1]]));
    for groups in [vec![], vec![vec![0]], vec![vec![1, 0]], vec![vec![0, 2]], vec![vec![0, 1], vec![2, 3]]] {
        check(&Rule::ReplicaGroups, &exchange, with(1, groups));
    }
    let second = |module: &mut Module| {
        let mut second = of(module, "all-reduce").clone();
        (second.id, second.name) = (900, "second".to_owned());
        let (first, second_id) = (of(module, "all-reduce").id, second.id);
        let user = entry(module).instructions.iter_mut().find(|user| user.operand_ids.contains(&first));
        let user = user.unwrap();
        user.operand_ids = vec![second_id];
        second.operand_ids = vec![first];
        let at = entry(module).instructions.iter().position(|of| of.id == first).unwrap();
        entry(module).instructions.insert(at + 1, second);
    };
    check(&Rule::Channel, "second", second);
    check(&Rule::ReplicaGroups, "second", |module| {
        second(module);
        let instructions = &mut entry(module).instructions;
        let second = instructions.iter_mut().find(|of| of.name == "second").unwrap();
        let Operation::AllReduce { channel_id, replica_groups, .. } = &mut second.operation else {
            unreachable!("it is a copy of one")
        };
        (*channel_id, *replica_groups) = (2, vec![vec![0, 1, 2, 3]]);
    });
    check(&Rule::NoSum, &exchange, |module| {
        module.computations[0].instructions.last_mut().unwrap().operation =
            Operation::Binary(Binary::Maximum);
    });
    check(&Rule::Operation(String::new()), &exchange, |module| {
        let of_ids = of(module, "parameter").id;
        of(module, "all-reduce").operand_ids = vec![of_ids];
    });
}

#[test]
fn every_value_reaches_the_result() {
    // The scatter takes the old cache for the new rows: the gathered rows still reach the logits.
    check(&Rule::Unused, &name_of("scatter"), |module| {
        let cache = of(module, "parameter").id + 2;
        of(module, "tuple").operand_ids[1] = cache;
    });
}

#[test]
fn a_parameter_is_not_an_output_as_it_came() {
    // Both the cache and its update reach the result, but the output is the parameter.
    check(&Rule::BareParameter, &name_of("parameter"), |module| {
        let ids = of(module, "parameter").clone();
        let root = of(module, "tuple");
        root.operand_ids.push(ids.id);
        let names = root.frontend_attributes.get_mut(OUTPUT_NAMES).unwrap();
        names.push_str(",ids.again");
        let Shape::Tuple(arrays) = &mut root.shape else { unreachable!("the root is a tuple") };
        arrays.extend_from_slice(ids.shape.arrays());
        let result = root.shape.clone();
        entry(module).program_shape.result = result.clone();
        module.host_program_shape.result = result;
    });
}

#[test]
fn inputs_and_outputs_have_names_of_their_own() {
    check(&Rule::BoundNames, &name_of("parameter"), |module| {
        of(module, "parameter").frontend_attributes.clear();
    });
    check(&Rule::BoundNames, &name_of("gather"), |module| {
        of(module, "gather").frontend_attributes.insert(INPUT_NAME, "gather".to_owned());
    });
    check(&Rule::BoundNames, "small.entry", |module| {
        of(module, "tuple").frontend_attributes.insert(OUTPUT_NAMES, "logits".to_owned());
    });
    check(&Rule::BoundNames, "small.entry", |module| {
        of(module, "tuple").frontend_attributes.insert(OUTPUT_NAMES, "logits,ids".to_owned());
    });
}

#[test]
fn an_alias_is_of_one_shape_and_name() {
    check(&Rule::Alias, "logits", |module| module.aliases[0].output = 0);
    check(&Rule::Alias, "cache", |module| module.aliases[0].parameter = 3);
    check(&Rule::Alias, "cache", |module| {
        let twice = module.aliases[0];
        module.aliases.push(twice);
    });
    check(&Rule::Alias, "cache.must_alias_input", |module| module.aliases.clear());
    check(&Rule::Alias, "small.entry", |module| module.aliases.push(Alias { output: 9, parameter: 0 }));
}

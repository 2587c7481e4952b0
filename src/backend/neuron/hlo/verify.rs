//! Whether a module keeps the rules of the Neuron compiler, which are stricter than XLA's own.
//!
//! XLA on a CPU accepts ids that start again in each computation, ids of 64 bits, reductions of several
//! arrays at once and indices out of range; `neuronx-cc` or the device does not. So every module is
//! checked here before anything else sees it.

use super::{
    infer::{infer, infer_tuple},
    module::{
        ALIAS_SUFFIX, ArrayShape, Binary, Computation, INPUT_NAME, Instruction, Module, OUTPUT_NAMES,
        Operation, ProgramShape, Shape,
    },
    ranges::check_ranges,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A rule that a module breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HLO module: {place}: {rule}")]
pub struct Violation {
    /// The instruction or computation.
    pub place: String,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("the id {0} is not from 1 to 2^31 - 1")]
    IdSize(i64),
    #[error("the id {0} is taken elsewhere in the module")]
    IdTaken(i64),
    #[error("the name is empty, taken, or has other characters than letters, digits, `.`, `_` and `-`")]
    Name,
    #[error("operand {0} does not come before it in its computation")]
    OperandOrder(i64),
    #[error("computation {0} does not come before the one that applies it")]
    CalleeOrder(i64),
    #[error("the entry is not the last computation, or not under the id and name that the module gives")]
    Entry,
    #[error("the root is not the last instruction")]
    Root,
    #[error("the program shape is not that of its parameters and root")]
    ProgramShape,
    #[error("parameters are not numbered from 0, each once")]
    ParameterNumbers,
    #[error("{0} has no dense row-major layout, or a dimension of no elements")]
    Layout(String),
    #[error("its shape is {actual}; its operands make it {expected}")]
    Shape { actual: String, expected: String },
    #[error("{0}")]
    Operation(String),
    #[error("it reduces {0} arrays at once; the compiler takes one")]
    ReduceOfSeveral(usize),
    #[error("what it applies is not a function of two scalars of its type")]
    Applied,
    #[error("a tuple is not the entry's root, or holds fewer than two arrays")]
    Tuple,
    #[error("the result does not depend on it, so that the compiler may drop it")]
    Unused,
    #[error("an output is a parameter as it came; there must be a copy between")]
    BareParameter,
    #[error("the names that inputs and outputs are bound by are missing, taken, or not one for each")]
    BoundNames,
    #[error("it takes the place of a parameter that is not there, is taken, or has another shape or name")]
    Alias,
    #[error("its channel is not from 1 to 2^31 - 1, or another's in the module")]
    Channel,
    #[error("it is not over one group of ranks 0, 1 and so on, two at least, and the same as the others")]
    ReplicaGroups,
    #[error("it does not add up what the ranks have")]
    NoSum,
    #[error("its index may be {actual}; the array has {limit}")]
    IndexRange { actual: String, limit: usize },
    #[error("its numbers may be {0}: integers are exact up to 2^24 on the device")]
    IntegerRange(String),
}

/// Ids are 32 bits wide in the compiler.
const MAX_ID: i64 = i32::MAX as i64;

/// Checks everything that does not depend on what a compiler is capable of.
///
/// # Errors
/// The first rule that is broken.
pub fn verify(module: &Module) -> Result<(), Violation> {
    check_ids_and_names(module)?;
    let mut seen = BTreeMap::new();
    for computation in &module.computations {
        check_computation(computation, &seen)?;
        seen.insert(computation.id, computation);
    }
    check_collectives(module)?;
    check_entry(module)
}

fn violation<T>(place: &str, rule: Rule) -> Result<T, Violation> {
    Err(Violation { place: place.to_owned(), rule })
}

fn ensure(holds: bool, place: &str, rule: Rule) -> Result<(), Violation> {
    if holds { Ok(()) } else { violation(place, rule) }
}

fn check_ids_and_names(module: &Module) -> Result<(), Violation> {
    let (mut computation_ids, mut instruction_ids) = (HashSet::new(), HashSet::new());
    let (mut computation_names, mut instruction_names) = (HashSet::new(), HashSet::new());
    for computation in &module.computations {
        check_id(&computation.name, computation.id, &mut computation_ids)?;
        check_name(&computation.name, &mut computation_names)?;
        for instruction in &computation.instructions {
            check_id(&instruction.name, instruction.id, &mut instruction_ids)?;
            check_name(&instruction.name, &mut instruction_names)?;
        }
    }
    check_name(&module.name, &mut HashSet::new())
}

fn check_id(place: &str, id: i64, taken: &mut HashSet<i64>) -> Result<(), Violation> {
    ensure((1..=MAX_ID).contains(&id), place, Rule::IdSize(id))?;
    ensure(taken.insert(id), place, Rule::IdTaken(id))
}

fn check_name<'a>(name: &'a str, taken: &mut HashSet<&'a str>) -> Result<(), Violation> {
    ensure(is_plain(name) && taken.insert(name), name, Rule::Name)
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.chars().all(plain)
}

/// One computation by itself; `callees` are those before it.
fn check_computation(
    computation: &Computation,
    callees: &BTreeMap<i64, &Computation>,
) -> Result<(), Violation> {
    let Some(root) = computation.instructions.last() else { return violation(&computation.name, Rule::Root) };
    ensure(root.id == computation.root_id, &computation.name, Rule::Root)?;
    let mut before: HashMap<i64, &Instruction> = HashMap::new();
    for instruction in &computation.instructions {
        let operands = instruction.operand_ids.iter().map(|id| match before.get(id) {
            Some(operand) => Ok(*operand),
            None => violation(&instruction.name, Rule::OperandOrder(*id)),
        });
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        for shape in instruction.shape.arrays() {
            check_layout(&instruction.name, shape)?;
        }
        check_shape(instruction, &operands)?;
        check_applied(instruction, callees)?;
        before.insert(instruction.id, instruction);
    }
    check_all_used(computation)?;
    check_program_shape(computation)
}

fn check_layout(place: &str, shape: &ArrayShape) -> Result<(), Violation> {
    let row_major = shape.minor_to_major.iter().copied().eq((0..shape.rank()).rev());
    let dense = shape.elements().is_some_and(|elements| elements > 0 && i64::try_from(elements).is_ok());
    ensure(row_major && dense, place, Rule::Layout(shape.to_string()))
}

fn check_shape(instruction: &Instruction, operands: &[&Instruction]) -> Result<(), Violation> {
    let place = &instruction.name;
    let arrays: Option<Vec<&ArrayShape>> = operands.iter().map(|operand| operand.shape.array()).collect();
    let Some(arrays) = arrays else { return violation(place, Rule::Tuple) };
    if let Operation::Reduce { .. } = instruction.operation
        && operands.len() > 2
    {
        return violation(place, Rule::ReduceOfSeveral(operands.len() / 2));
    }
    let expected = match (&instruction.operation, &instruction.shape) {
        (Operation::Tuple, _) => infer_tuple(&arrays),
        (operation, Shape::Array(declared)) => match infer(operation, &arrays, declared) {
            Ok(array) => Shape::Array(array),
            Err(reason) => return violation(place, Rule::Operation(reason)),
        },
        (_, Shape::Tuple(_)) => return violation(place, Rule::Tuple),
    };
    let [actual, expected_text] = [instruction.shape.to_string(), expected.to_string()];
    ensure(instruction.shape == expected, place, Rule::Shape { actual, expected: expected_text })
}

/// What a reduction, over ranks too, or a scatter applies takes two scalars of the array's type and yields one.
fn check_applied(instruction: &Instruction, callees: &BTreeMap<i64, &Computation>) -> Result<(), Violation> {
    let Some(id) = instruction.operation.computation_id() else { return Ok(()) };
    let Some(callee) = callees.get(&id) else { return violation(&instruction.name, Rule::CalleeOrder(id)) };
    let scalar = instruction.shape.array().map(|array| Shape::Array(ArrayShape::new(array.element, &[])));
    let ProgramShape { parameters, result } = &callee.program_shape;
    let fits = parameters.len() == 2 && parameters.iter().all(|(_, shape)| Some(shape) == scalar.as_ref());
    ensure(fits && Some(result) == scalar.as_ref(), &instruction.name, Rule::Applied)
}

/// Ranks run one program and wait for each other at each exchange: it has to be one that all of them come to.
fn check_collectives(module: &Module) -> Result<(), Violation> {
    let mut channels = HashSet::new();
    let mut first = None;
    for instruction in module.computations.iter().flat_map(|computation| &computation.instructions) {
        let Operation::AllReduce { channel_id, replica_groups, computation_id } = &instruction.operation
        else {
            continue;
        };
        let place = &instruction.name;
        let own = (1..=MAX_ID).contains(channel_id) && channels.insert(channel_id);
        ensure(own, place, Rule::Channel)?;
        let all = match replica_groups.as_slice() {
            [group] => group.len() > 1 && group.iter().copied().eq(0..group.len()),
            _ => false,
        };
        let same = first.get_or_insert(replica_groups) == &replica_groups;
        ensure(all && same, place, Rule::ReplicaGroups)?;
        let applied = module.computations.iter().find(|computation| computation.id == *computation_id);
        let root = applied.and_then(|applied| applied.instructions.last());
        let adds = root.is_some_and(|root| root.operation == Operation::Binary(Binary::Add));
        ensure(adds, place, Rule::NoSum)?;
    }
    Ok(())
}

/// What scatter applies leaves the old value unused, so a parameter of such a function may be.
fn check_all_used(computation: &Computation) -> Result<(), Violation> {
    let is_leaf =
        |instruction: &Instruction| instruction.shape.arrays().iter().all(|shape| shape.rank() == 0);
    let of_scalars = computation.instructions.iter().all(is_leaf);
    let mut used = BTreeSet::from([computation.root_id]);
    for instruction in computation.instructions.iter().rev() {
        let excused = of_scalars && matches!(instruction.operation, Operation::Parameter { .. });
        ensure(excused || used.contains(&instruction.id), &instruction.name, Rule::Unused)?;
        used.extend(&instruction.operand_ids);
    }
    Ok(())
}

fn check_program_shape(computation: &Computation) -> Result<(), Violation> {
    let mut parameters = BTreeMap::new();
    let mut count = 0;
    for instruction in &computation.instructions {
        if let Operation::Parameter { number } = instruction.operation {
            parameters.insert(number, instruction);
            count += 1;
        }
    }
    ensure(parameters.keys().copied().eq(0..count), &computation.name, Rule::ParameterNumbers)?;
    let shapes: Vec<&Shape> = parameters.values().map(|parameter| &parameter.shape).collect();
    let declared: Vec<&Shape> = computation.program_shape.parameters.iter().map(|(_, shape)| shape).collect();
    let root = computation.instructions.last().map(|root| &root.shape);
    let agrees = shapes == declared && root == Some(&computation.program_shape.result);
    ensure(agrees, &computation.name, Rule::ProgramShape)
}

/// What holds of the entry alone, and of the module's own fields.
fn check_entry(module: &Module) -> Result<(), Violation> {
    let place = &module.entry_name;
    let last = module.computations.last();
    let entry = last.filter(|entry| entry.id == module.entry_id && &entry.name == place);
    let Some(entry) = entry else { return violation(place, Rule::Entry) };
    ensure(module.host_program_shape == entry.program_shape, place, Rule::ProgramShape)?;
    let applied: BTreeSet<i64> = module
        .computations
        .iter()
        .flat_map(|computation| &computation.instructions)
        .filter_map(|instruction| instruction.operation.computation_id())
        .collect();
    for computation in &module.computations {
        let used = computation.id == entry.id || applied.contains(&computation.id);
        ensure(used, &computation.name, Rule::Unused)?;
        let inner_root = computation.instructions.last().filter(|_| computation.id != entry.id);
        ensure(inner_root.is_none_or(|root| root.shape.array().is_some()), place, Rule::Tuple)?;
    }
    let outputs = outputs(entry)?;
    let names = check_bound_names(entry, outputs.len())?;
    check_aliases(module, entry, &outputs, &names)?;
    for output in outputs {
        let bare = matches!(output.operation, Operation::Parameter { .. });
        ensure(!bare, &output.name, Rule::BareParameter)?;
    }
    check_ranges(entry, &module.promised)
}

/// The instructions that yield the results: the root, or what its tuple holds.
fn outputs(entry: &Computation) -> Result<Vec<&Instruction>, Violation> {
    let Some((root, before)) = entry.instructions.split_last() else { return Ok(Vec::new()) };
    if let Some(inner) = before.iter().find(|instruction| instruction.shape.array().is_none()) {
        return violation(&inner.name, Rule::Tuple);
    }
    if root.operation != Operation::Tuple {
        return Ok(vec![root]);
    }
    ensure(root.operand_ids.len() > 1, &root.name, Rule::Tuple)?;
    let by_id: HashMap<i64, &Instruction> =
        before.iter().map(|instruction| (instruction.id, instruction)).collect();
    Ok(root.operand_ids.iter().filter_map(|id| by_id.get(id).copied()).collect())
}

/// The names inputs are bound by, in the order of parameters, and those of outputs.
struct BoundNames<'a> {
    inputs: BTreeMap<usize, &'a str>,
    outputs: Vec<&'a str>,
}

fn check_bound_names(entry: &Computation, output_count: usize) -> Result<BoundNames<'_>, Violation> {
    let mut names = BoundNames { inputs: BTreeMap::new(), outputs: Vec::new() };
    let mut taken = HashSet::new();
    for instruction in &entry.instructions {
        let name = instruction.frontend_attributes.get(INPUT_NAME);
        match (&instruction.operation, name) {
            (Operation::Parameter { number }, Some(name))
                if is_plain(name) && taken.insert(name.as_str()) =>
            {
                names.inputs.insert(*number, name);
            }
            (Operation::Parameter { .. }, _) | (_, Some(_)) => {
                return violation(&instruction.name, Rule::BoundNames);
            }
            _ => {}
        }
    }
    let root = entry.instructions.last().and_then(|root| root.frontend_attributes.get(OUTPUT_NAMES));
    names.outputs = root.map(|root| root.split(',').collect()).unwrap_or_default();
    let distinct = names.outputs.iter().all(|name| is_plain(name) && taken.insert(name));
    ensure(distinct && names.outputs.len() == output_count, &entry.name, Rule::BoundNames)?;
    Ok(names)
}

fn check_aliases(
    module: &Module,
    entry: &Computation,
    outputs: &[&Instruction],
    names: &BoundNames<'_>,
) -> Result<(), Violation> {
    let (mut aliased_outputs, mut aliased_parameters) = (BTreeSet::new(), BTreeSet::new());
    for alias in &module.aliases {
        let parameter = entry.program_shape.parameters.get(alias.parameter);
        let [input, output] = [names.inputs.get(&alias.parameter), names.outputs.get(alias.output)];
        let same_shape = match (parameter, outputs.get(alias.output)) {
            (Some((_, parameter)), Some(output)) => *parameter == output.shape,
            _ => false,
        };
        let same_name = match (input, output) {
            (Some(input), Some(output)) => input.strip_suffix(ALIAS_SUFFIX) == Some(*output),
            _ => false,
        };
        let first = aliased_outputs.insert(alias.output) && aliased_parameters.insert(alias.parameter);
        let place = output.copied().unwrap_or(&module.entry_name);
        ensure(same_shape && same_name && first, place, Rule::Alias)?;
    }
    for (number, name) in &names.inputs {
        let promised = name.ends_with(ALIAS_SUFFIX);
        ensure(promised == aliased_parameters.contains(number), name, Rule::Alias)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

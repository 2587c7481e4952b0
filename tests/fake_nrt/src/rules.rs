//! What Neuron's compiler refuses of a module that XLA on a CPU takes.
//!
//! Written from the compiler's documentation and public reports, and apart from mondai's own verifier. The
//! codes are the compiler's where a public source gives one.

use crate::hlo::{ArrayShape, BadModule, Computation, Instruction, Module};
use std::collections::HashSet;

/// The operators that the stand-in lists and takes.
#[rustfmt::skip]
pub const OPERATORS: &[&str] = &[
    "abs", "add", "all-gather", "all-reduce", "all-to-all", "and", "bitcast-convert", "broadcast", "call", "ceil",
    "clamp", "compare", "concatenate", "constant", "convert", "convolution", "copy", "cosine", "custom-call",
    "divide", "dot", "dynamic-slice", "dynamic-update-slice", "exponential", "exponential-minus-one", "floor",
    "gather", "get-tuple-element", "iota", "is-finite", "log", "log-plus-one", "logistic", "map", "maximum",
    "minimum", "multiply", "negate", "not", "or", "optimization-barrier", "pad", "parameter", "partition-id",
    "power", "reduce", "reduce-scatter", "reduce-window", "remainder", "replica-id", "reshape", "reverse", "rng",
    "round-nearest-even", "rsqrt", "scatter", "select", "select-and-scatter", "shift-left",
    "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "slice", "sort", "sqrt", "subtract", "tan",
    "tanh", "transpose", "tuple", "while", "xor",
];

/// # Errors
/// The first rule that is broken, as the compiler would word it.
pub fn check(module: &Module) -> Result<(), String> {
    check_ids(module)?;
    for computation in &module.computations {
        check_computation(computation)?;
    }
    check_entry(module)
}

fn refuse<T>(code: &str, place: &str, what: impl std::fmt::Display) -> Result<T, String> {
    Err(format!("[{code}] {place}: {what}"))
}

fn check_ids(module: &Module) -> Result<(), String> {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let mut computation_names = HashSet::new();
    for computation in &module.computations {
        if !computation_names.insert(&computation.name) {
            return refuse("NCC_EVRF064", &computation.name, "another computation has this name");
        }
        for Instruction { id, name, .. } in &computation.instructions {
            if *id > i64::from(i32::MAX) || *id < 0 {
                return refuse("NCC_EVRF064", name, format_args!("Instruction with id > INT_MAX: {id}"));
            }
            if !ids.insert(id) {
                return refuse(
                    "NCC_EVRF064",
                    name,
                    format_args!("the id {id} is taken elsewhere in the module"),
                );
            }
            if !names.insert(name) {
                return refuse("NCC_EVRF064", name, "another instruction has this name");
            }
        }
    }
    Ok(())
}

fn check_computation(computation: &Computation) -> Result<(), String> {
    let mut before = HashSet::new();
    for instruction in &computation.instructions {
        if let Some(operand) = instruction.operands.iter().find(|id| !before.contains(*id)) {
            let what = format_args!("its operand {operand} does not come before it");
            return refuse("NCC_EVRF064", &instruction.name, what);
        }
        before.insert(instruction.id);
        for shape in instruction.shape.arrays() {
            check_shape(&instruction.name, shape)?;
        }
        check_operation(instruction)?;
    }
    Ok(())
}

fn check_shape(place: &str, shape: &ArrayShape) -> Result<(), String> {
    match shape.element {
        5 | 9 | 12 | 15 | 18 => refuse("NCC_EVRF004", place, "it has a 64-bit type"),
        23..=25 => refuse("NCC_EVRF005", place, "FNUZ types are not supported"),
        20 => refuse("NCC_EVRF051", place, "F8E4M3FN is not supported on this target"),
        _ if shape.is_dynamic => refuse("NCC_EMOD025", place, "its shape is dynamic"),
        _ => {
            let row_major = (0..shape.dimensions.len()).rev();
            if shape.minor_to_major.as_ref().is_some_and(|layout| layout.iter().copied().eq(row_major)) {
                return Ok(());
            }
            refuse("NCC_EVRF064", place, "it has no dense row-major layout")
        }
    }
}

fn check_operation(instruction: &Instruction) -> Result<(), String> {
    let Instruction { name, opcode, .. } = instruction;
    if !OPERATORS.contains(&opcode.as_str()) {
        return refuse("NCC_EVRF001", name, format_args!("Operator {opcode} is not supported"));
    }
    if opcode == "reduce" && instruction.operands.len() > 2 {
        let what = "Reduce operation with multiple operand tensors is not supported";
        return refuse("NCC_ISPP027", name, what);
    }
    if opcode == "custom-call" && !instruction.custom_call_target.starts_with("AwsNeuron") {
        let what = format_args!("the custom call {} is not known", instruction.custom_call_target);
        return refuse("NCC_EHCA005", name, what);
    }
    if instruction.literal.has_infinity {
        // Not the compiler's own rule: on trn1 an infinity becomes NaN in a transpose that it makes by matmul.
        return refuse("SIMULATED", name, "a constant is not finite: use a finite number in masks");
    }
    Ok(())
}

/// What is said of the inputs and outputs: that they can be bound by name, and that none may vanish.
fn check_entry(module: &Module) -> Result<(), String> {
    let place = &module.entry_name;
    if !module.has_host_program_shape {
        return refuse("NCC_EVRF064", place, "host_program_shape is missing");
    }
    let malformed = |error: BadModule| format!("[NCC_EVRF064] {place}: {error}");
    let entry = module.entry().map_err(malformed)?;
    if entry.name != *place || module.computations.last().is_none_or(|last| last.id != entry.id) {
        return refuse("NCC_EVRF064", place, "the entry is not the last computation, or has another name");
    }
    let (inputs, outputs) = (module.inputs().map_err(malformed)?, module.outputs().map_err(malformed)?);
    let mut names = HashSet::new();
    for binding in inputs.iter().chain(&outputs) {
        if binding.name.len() > 255 || binding.name.contains(',') || !names.insert(&binding.name) {
            return refuse("NCC_EVRF064", &binding.name, "the name is too long, taken, or has a comma");
        }
    }
    for alias in &module.aliases {
        let (Some(input), Some(output)) = (inputs.get(alias.parameter), outputs.get(alias.output)) else {
            return refuse("NCC_EVRF064", place, "an alias is of a parameter or an output that is not there");
        };
        if input.shape != output.shape {
            return refuse("NCC_EVRF064", &output.name, "it has another shape than the parameter it aliases");
        }
    }
    check_used(entry)
}

fn check_used(entry: &Computation) -> Result<(), String> {
    let used: HashSet<i64> = entry.instructions.iter().flat_map(|i| i.operands.iter().copied()).collect();
    let unused = |i: &&Instruction| i.opcode == "parameter" && i.id != entry.root_id && !used.contains(&i.id);
    if let Some(parameter) = entry.instructions.iter().find(unused) {
        // The real one drops it from the NEFF without a word, and nothing can be bound to its name.
        return refuse("SIMULATED", &parameter.name, "the parameter is not used, and would be dropped");
    }
    let root = entry.root().map_err(|error| error.to_string())?;
    let by_id = entry.by_id();
    let outputs =
        if root.opcode == "tuple" { root.operands.as_slice() } else { std::slice::from_ref(&root.id) };
    for output in outputs.iter().filter_map(|id| by_id.get(id)) {
        if output.opcode == "parameter" {
            return refuse(
                "SIMULATED",
                &output.name,
                "an output is a parameter as it came: put a copy between",
            );
        }
    }
    Ok(())
}

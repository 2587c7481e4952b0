//! Running a program.

use super::refuse;
use crate::{
    faults::Action,
    group::Group,
    hlo::Binding,
    memory::Tensor,
    program::{Program, Ran, RankTensors},
    runtime::{self, Guard, Model, Running},
    status::Status,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const NAME: &str = "nrt_execute";
/// A thread as Rust makes them has 2 MiB, on which the real library was seen to overflow.
const MIN_STACK: usize = 4 << 20;

/// What an execution is of.
struct Bound {
    model: usize,
    core: usize,
    program: Arc<Program>,
    inputs: Vec<Arc<Tensor>>,
    outputs: Vec<Arc<Tensor>>,
    group: Option<(Arc<Group>, usize)>,
    /// How long to wait for the other ranks.
    timeout: Duration,
}

#[unsafe(no_mangle)]
extern "C" fn nrt_execute(model: usize, input_set: usize, output_set: usize) -> Status {
    execute(model, input_set, output_set).err().unwrap_or(Status::SUCCESS)
}

fn execute(model: usize, input_set: usize, output_set: usize) -> Result<(), Status> {
    let mut guard = runtime::lock();
    let fault = guard.count_call(NAME)?;
    guard.halves = fault == Some(Action::HalfSize);
    check_stack(&mut guard);
    let bound = bind(&mut guard, model, input_set, output_set)?;
    let (id, turn) = begin(&mut guard, &bound)?;
    // The core is this call's from here on, whatever becomes of it: a program that hangs keeps it.
    drop(guard);
    let result = {
        let _turn = turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        suffer_and_run(&bound, fault)
    };
    let mut guard = runtime::lock();
    if let Some(core) = guard.cores.get_mut(bound.core) {
        core.running.retain(|running| running.id != id);
        core.is_lost |= result == Err(Status::EXEC_UNIT_UNRECOVERABLE);
    }
    runtime::changed();
    result
}

/// Enters it among the running, and says whose turn to wait for.
fn begin(guard: &mut Guard, bound: &Bound) -> Result<(u64, Arc<std::sync::Mutex<()>>), Status> {
    let id = guard.begin_execution();
    if guard.cores[bound.core].is_lost {
        return refuse(NAME, Status::EXEC_UNIT_UNRECOVERABLE, "the core was lost before");
    }
    if !guard.cores[bound.core].running.is_empty() {
        guard.violation(format!("{NAME}: core {} is executing already", bound.core));
    }
    let tensors = bound.inputs.iter().chain(&bound.outputs).cloned().collect();
    let core = &mut guard.cores[bound.core];
    core.running.push(Running { id, model: bound.model, tensors });
    Ok((id, Arc::clone(&core.turn)))
}

fn suffer_and_run(bound: &Bound, fault: Option<Action>) -> Result<(), Status> {
    let (mut makes_nan, mut before) = (false, None);
    let mut after = Ok(());
    if let Some(action) = fault {
        let guard = runtime::suffer(runtime::lock(), action)?;
        drop(guard);
        match action {
            Action::Return(status) if action.happens_after(NAME) => after = Err(status),
            Action::Return(status) => return Err(status),
            Action::Nan => makes_nan = true,
            Action::NanInPlace => {
                before = Some(in_place(bound).map(|(tensor, _)| tensor.bytes().to_vec()).collect())
            }
            Action::Hang | Action::Delay(_) | Action::HalfSize => {}
        }
    }
    let began = Instant::now();
    let ran = run(bound)?;
    if makes_nan {
        plain_floats(bound).for_each(|(tensor, _)| fill_with_nan(tensor));
    }
    let before: Vec<Vec<u8>> = before.unwrap_or_default();
    in_place(bound).zip(before).for_each(|((tensor, width), before)| tensor.spoil(&before, width));
    let reports_nan = record(ran, began.elapsed());
    if reports_nan && plain_floats(bound).any(|(tensor, element)| tensor.has_nan(element)) {
        return Err(Status::EXEC_COMPLETED_WITH_NUM_ERR);
    }
    after
}

fn run(bound: &Bound) -> Result<Ran, Status> {
    match bound.program.check_indices(&bound.inputs) {
        Err(why) => return refuse(NAME, Status::EXEC_OOB, why),
        Ok(repeated) => {
            repeated.into_iter().for_each(|what| runtime::lock().violation(format!("{NAME}: {what}")))
        }
    }
    let tensors = RankTensors { inputs: bound.inputs.clone(), outputs: bound.outputs.clone() };
    if let Some((group, rank)) = &bound.group {
        return group.execute(*rank, tensors, bound.timeout);
    }
    let ran = bound.program.execute(&[tensors]).or_else(|error| refuse(NAME, Status::FAILURE, error))?;
    Ok(ran.into_iter().next().unwrap_or_default())
}

fn record(ran: Ran, duration: Duration) -> bool {
    let mut guard = runtime::lock();
    guard.executed(ran, duration);
    guard.settings.as_ref().is_some_and(|settings| settings.reports_nan)
}

/// `PrimitiveType`s: of 16 bits, of 32, and of 16 in the other form.
const FLOATS: [i64; 3] = [10, 11, 16];

/// Outputs that take no input's place and are of floats, and of which.
fn plain_floats(bound: &Bound) -> impl Iterator<Item = (&Tensor, i64)> {
    let outputs = bound.outputs.iter().zip(&bound.program.outputs).enumerate();
    outputs.filter_map(|(number, (tensor, Binding { shape, .. }))| {
        let is_plain = bound.program.aliased_input(number).is_none() && FLOATS.contains(&shape.element);
        is_plain.then_some((&**tensor, shape.element))
    })
}

/// Outputs of floats that take an input's place, and the bytes of one float.
fn in_place(bound: &Bound) -> impl Iterator<Item = (&Tensor, usize)> {
    let outputs = bound.outputs.iter().zip(&bound.program.outputs).enumerate();
    outputs.filter_map(|(number, (tensor, Binding { shape, .. }))| {
        let width = if shape.element == FLOATS[1] { 4 } else { 2 };
        let is_kept = bound.program.aliased_input(number).is_some() && FLOATS.contains(&shape.element);
        is_kept.then_some((&**tensor, width))
    })
}

fn fill_with_nan(tensor: &Tensor) {
    // SAFETY: the tensor's own bytes, which are nobody else's while the program runs.
    unsafe { tensor.start().write_bytes(0xff, tensor.size) };
}

/// The tensors that the sets have for what the program wants.
fn bind(guard: &mut Guard, model: usize, input_set: usize, output_set: usize) -> Result<Bound, Status> {
    let Model { program, group, core, .. } = guard.model(NAME, model)?;
    let inputs = members(guard, input_set, core, &program.inputs)?;
    let outputs = members(guard, output_set, core, &program.outputs)?;
    for (number, output) in outputs.iter().enumerate() {
        let name = &program.outputs[number].name;
        let aliased = program.aliased_input(number);
        if let Some(input) = aliased
            && !inputs[input].is_same_place(output)
        {
            guard.violation(format!(
                "{NAME}: {name} is not bound to the tensor of the input whose place it takes"
            ));
            return Err(Status::EXEC_BAD_INPUT);
        }
        let mut inputs = inputs.iter().enumerate();
        let shared_input = inputs.any(|(input, tensor)| Some(input) != aliased && tensor.overlaps(output));
        if shared_input || outputs[..number].iter().any(|other| other.overlaps(output)) {
            guard.violation(format!("{NAME}: {name} shares memory with another input or output"));
            return Err(Status::EXEC_BAD_INPUT);
        }
    }
    let timeout = guard.settings.as_ref().map(|settings| settings.exec_timeout).unwrap_or_default();
    Ok(Bound { model, core, program, inputs, outputs, group, timeout })
}

fn members(
    guard: &mut Guard,
    set: usize,
    core: usize,
    bindings: &[Binding],
) -> Result<Vec<Arc<Tensor>>, Status> {
    let members = &guard.set(NAME, set)?.tensors;
    let handles: Vec<Option<usize>> =
        bindings.iter().map(|binding| members.get(&binding.name).copied()).collect();
    let mut tensors = Vec::with_capacity(bindings.len());
    for (Binding { name, shape }, handle) in bindings.iter().zip(handles) {
        let Some(handle) = handle else {
            return refuse(NAME, Status::EXEC_BAD_INPUT, format_args!("{name} is not in the set"));
        };
        let tensor = guard.tensor(NAME, handle)?;
        let size = guard.size(tensor.size);
        if Some(size) != shape.bytes() {
            let why = format!("{name} has {} bytes, and the tensor {size}", shape.bytes().unwrap_or(0));
            return refuse(NAME, Status::EXEC_BAD_INPUT, why);
        }
        if tensor.core.is_some_and(|other| other != core) {
            return refuse(NAME, Status::INVALID, format_args!("{name} is in another core's memory"));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn check_stack(guard: &mut Guard) {
    if let Some(bytes) = stack_bytes().filter(|bytes| *bytes < MIN_STACK) {
        guard.violation(format!("{NAME}: the calling thread's stack of {bytes} bytes is too small"));
    }
}

/// The whole stack of the calling thread.
fn stack_bytes() -> Option<usize> {
    // SAFETY: attributes are initialised by the call that reads them, and destroyed once.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let (mut start, mut size) = (std::ptr::null_mut(), 0);
        let found = libc::pthread_attr_getstack(&attributes, &mut start, &mut size) == 0;
        libc::pthread_attr_destroy(&mut attributes);
        found.then_some(size)
    }
}

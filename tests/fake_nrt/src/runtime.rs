//! What the library knows: its state, every live handle, what was called how often and what was done wrong.
//!
//! One lock holds all of it. It is let go of while a program compiles or runs, and while a call is late or
//! hangs on purpose.

use crate::{
    abi::info::TensorInfos,
    faults::{Action, Fault},
    group::{Group, Meeting},
    handles::Handles,
    memory::{Meter, Tensor},
    program::{Program, Ran},
    settings::Settings,
    status::Status,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `nrt_init` has not been called.
    #[default]
    Start,
    Open,
    Closed,
}

#[derive(Default)]
pub(crate) struct Runtime {
    pub(crate) phase: Phase,
    /// From `nrt_init` on.
    pub(crate) settings: Option<Settings>,
    pub(crate) tensors: Handles<Arc<Tensor>>,
    pub(crate) sets: Handles<TensorSet>,
    pub(crate) models: Handles<Model>,
    pub(crate) infos: Handles<TensorInfos>,
    pub(crate) cores: Vec<Core>,
    pub(crate) host_memory: Arc<Meter>,
    faults: Vec<Fault>,
    calls: BTreeMap<&'static str, u64>,
    injected: u64,
    violations: Vec<String>,
    violation_count: u64,
    executions: Executions,
    pub(crate) transfers: Transfers,
    unchecked_indices: Vec<String>,
    meetings: Vec<Meeting>,
    executions_begun: u64,
    /// Grows with each reset, which frees those who hang.
    epoch: u64,
}

/// By the name that a program has for it.
#[derive(Default)]
pub(crate) struct TensorSet {
    pub(crate) tensors: HashMap<String, usize>,
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) program: Arc<Program>,
    /// The group that it runs in and its rank, if it runs in one.
    pub(crate) group: Option<(Arc<Group>, usize)>,
    /// Index inside the visible set.
    pub(crate) core: usize,
    /// Of its NEFF, in device memory.
    pub(crate) bytes: usize,
}

/// One that this process may use.
#[derive(Default)]
pub(crate) struct Core {
    pub(crate) memory: Arc<Meter>,
    /// Held by whoever executes: the device runs one program at a time.
    pub(crate) turn: Arc<Mutex<()>>,
    /// Those that have been asked for and have not returned.
    pub(crate) running: Vec<Running>,
    /// After a status that no execution comes back from.
    pub(crate) is_lost: bool,
}

pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) model: usize,
    pub(crate) tensors: Vec<Arc<Tensor>>,
}

#[derive(Default)]
struct Executions {
    completed: u64,
    seconds: f64,
    inputs_copied: u64,
    in_place: u64,
    copied_back: u64,
}

/// Bytes that the caller has moved between its memory and tensors.
#[derive(Default)]
pub(crate) struct Transfers {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

static RUNTIME: LazyLock<Mutex<Runtime>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();
/// As many are kept word for word; the rest are counted.
const KEPT_VIOLATIONS: usize = 200;

pub(crate) type Guard = MutexGuard<'static, Runtime>;

pub(crate) fn lock() -> Guard {
    RUNTIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Lets others in until something has changed.
fn wait(guard: Guard) -> Guard {
    CHANGED.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub(crate) fn changed() {
    CHANGED.notify_all();
}

/// Waits, with the lock let go of, while the fault has it so; a hang ends with the next reset.
pub(crate) fn suffer(mut guard: Guard, action: Action) -> Result<Guard, Status> {
    let epoch = guard.epoch;
    match action {
        Action::Hang => {
            while guard.epoch == epoch {
                guard = wait(guard);
            }
            Err(Status::TIMEOUT)
        }
        Action::Delay(delay) => {
            let until = Instant::now() + delay;
            while let Some(rest) =
                until.checked_duration_since(Instant::now()).filter(|rest| *rest > Duration::ZERO)
            {
                guard = CHANGED.wait_timeout(guard, rest).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
            Ok(guard)
        }
        Action::Return(_) | Action::Nan => Ok(guard),
    }
}

/// Waits until no running program reads or writes the tensor, as the library does; it is the caller's fault.
pub(crate) fn wait_until_free(mut guard: Guard, function: &str, tensor: &Tensor) -> Guard {
    if guard.is_in_use(tensor) {
        guard.violation(format!("{function}: a tensor that a running program uses"));
    }
    while guard.is_in_use(tensor) {
        guard = wait(guard);
    }
    guard
}

/// Waits until all ranks of the program have come to load it, for ever if need be, and says which group it is.
pub(crate) fn meet(
    mut guard: Guard,
    function: &str,
    program: &Arc<Program>,
    rank: usize,
) -> Result<(Guard, Arc<Group>), Status> {
    let epoch = guard.epoch;
    let group = guard.join(function, program, rank)?;
    while guard.meetings.iter().any(|meeting| Arc::ptr_eq(&meeting.group, &group)) {
        guard = wait(guard);
        if guard.epoch != epoch {
            return Err(Status::TIMEOUT);
        }
    }
    Ok((guard, group))
}

impl Runtime {
    /// Comes to the meeting of a program's ranks, which is over once all have come.
    fn join(&mut self, function: &str, program: &Arc<Program>, rank: usize) -> Result<Arc<Group>, Status> {
        let found = self.meetings.iter().position(|meeting| Arc::ptr_eq(meeting.group.program(), program));
        let at = found.unwrap_or_else(|| {
            self.meetings.push(Meeting { group: Group::new(Arc::clone(program)), arrived: BTreeSet::new() });
            self.meetings.len() - 1
        });
        if !self.meetings[at].arrived.insert(rank) {
            self.violation(format!("{function}: rank {rank} is being loaded already"));
            return Err(Status::INVALID);
        }
        let group = Arc::clone(&self.meetings[at].group);
        if self.meetings[at].arrived.len() == program.ranks {
            self.meetings.remove(at);
            changed();
        }
        Ok(group)
    }

    /// Counts a call, and says what fault has it.
    ///
    /// # Errors
    /// If the library is not open.
    pub(crate) fn count_call(&mut self, function: &'static str) -> Result<Option<Action>, Status> {
        let count = self.count(function);
        self.check_open(function)?;
        let fault = self.faults.iter().find_map(|fault| fault.of_call(function, count));
        self.injected += u64::from(fault.is_some());
        Ok(fault)
    }

    /// Counts one that may be made at any time.
    pub(crate) fn count(&mut self, function: &'static str) -> u64 {
        let count = self.calls.entry(function).or_default();
        *count += 1;
        *count
    }

    /// What fault has the call that was just counted, of one that may be made at any time.
    pub(crate) fn fault_of(&mut self, function: &'static str, count: u64) -> Option<Action> {
        let fault = self.faults.iter().find_map(|fault| fault.of_call(function, count));
        self.injected += u64::from(fault.is_some());
        fault
    }

    pub(crate) fn check_open(&mut self, function: &str) -> Result<(), Status> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Start => {
                self.violation(format!("{function}: called before nrt_init"));
                Err(Status::UNINITIALIZED)
            }
            Phase::Closed => {
                self.violation(format!("{function}: called after nrt_close"));
                Err(Status::CLOSED)
            }
        }
    }

    /// Something that the header forbids, whether or not the library would have noticed.
    pub(crate) fn violation(&mut self, what: String) {
        eprintln!("fake_nrt: violation: {what}");
        self.violation_count += 1;
        if self.violations.len() < KEPT_VIOLATIONS {
            self.violations.push(what);
        }
    }

    fn bad_handle(&mut self, function: &str, kind: &str, handle: usize) -> Status {
        self.violation(format!("{function}: {handle:#x} is no {kind}, or one that was freed"));
        Status::INVALID_HANDLE
    }

    pub(crate) fn tensor(&mut self, function: &str, handle: usize) -> Result<Arc<Tensor>, Status> {
        let found = self.tensors.get(handle).cloned();
        found.ok_or_else(|| self.bad_handle(function, "tensor", handle))
    }

    pub(crate) fn model(&mut self, function: &str, handle: usize) -> Result<Model, Status> {
        let found = self.models.get(handle).cloned();
        found.ok_or_else(|| self.bad_handle(function, "model", handle))
    }

    pub(crate) fn set(&mut self, function: &str, handle: usize) -> Result<&mut TensorSet, Status> {
        if self.sets.get(handle).is_none() {
            return Err(self.bad_handle(function, "tensor set", handle));
        }
        self.sets.get_mut(handle).ok_or(Status::INVALID_HANDLE)
    }

    pub(crate) fn free_tensor(&mut self, function: &str, handle: usize) {
        let Some(tensor) = self.tensors.remove(handle) else {
            self.bad_handle(function, "tensor", handle);
            return;
        };
        if self.sets.values().any(|set| set.tensors.values().any(|member| *member == handle)) {
            self.violation(format!("{function}: {:?} is still in a tensor set", tensor.name));
        }
        if self.is_in_use(&tensor) {
            self.violation(format!("{function}: {:?} is used by a running program", tensor.name));
        }
    }

    pub(crate) fn destroy_set(&mut self, function: &str, handle: usize) {
        if self.sets.remove(handle).is_none() {
            self.bad_handle(function, "tensor set", handle);
        }
    }

    pub(crate) fn unload(&mut self, function: &str, handle: usize) -> Result<(), Status> {
        let Some(model) = self.models.remove(handle) else {
            return Err(self.bad_handle(function, "model", handle));
        };
        if self.cores.iter().flat_map(|core| &core.running).any(|running| running.model == handle) {
            self.violation(format!("{function}: {} is being executed", model.program.name));
        }
        if let Some(core) = self.cores.get(model.core) {
            core.memory.give_back(model.bytes);
        }
        Ok(())
    }

    pub(crate) fn is_in_use(&self, tensor: &Tensor) -> bool {
        let mut running = self.cores.iter().flat_map(|core| &core.running);
        running.any(|running| running.tensors.iter().any(|used| used.overlaps(tensor)))
    }

    pub(crate) fn begin_execution(&mut self) -> u64 {
        self.executions_begun += 1;
        self.executions_begun
    }

    pub(crate) fn executed(&mut self, ran: Ran, duration: Duration) {
        let executions = &mut self.executions;
        executions.completed += 1;
        executions.seconds += duration.as_secs_f64();
        executions.inputs_copied += ran.inputs_copied;
        executions.in_place += ran.in_place;
        executions.copied_back += ran.copied_back;
    }

    pub(crate) fn loaded(&mut self, program: &Program) {
        let names = program.indices.unchecked.iter().map(|name| format!("{}: {name}", program.name));
        let new: Vec<String> = names.filter(|name| !self.unchecked_indices.contains(name)).collect();
        self.unchecked_indices.extend(new);
    }

    pub(crate) fn read_faults(&mut self, settings: &Settings) {
        let known: Vec<Fault> = self.faults.clone();
        self.faults.extend(settings.faults.iter().filter(|fault| !known.contains(fault)).cloned());
    }

    /// Opens the library anew, with nothing of what was before but the counts.
    pub(crate) fn open(&mut self, settings: Settings) {
        self.tensors.clear();
        self.sets.clear();
        self.models.clear();
        self.infos.clear();
        self.cores = settings.visible.clone().map(|_| Core::default()).collect();
        self.host_memory = Arc::default();
        self.settings = Some(settings);
        self.phase = Phase::Open;
    }

    pub(crate) fn close(&mut self) {
        let live = [self.tensors.len(), self.sets.len(), self.models.len(), self.infos.len()];
        if live != [0; 4] {
            let [tensors, sets, models, infos] = live;
            self.violation(format!(
                "nrt_close: {tensors} tensors, {sets} tensor sets, {models} models and {infos} tensor infos are left"
            ));
        }
        if self.cores.iter().any(|core| !core.running.is_empty()) {
            self.violation("nrt_close: a program is running".into());
        }
        self.phase = Phase::Closed;
    }

    /// Adds faults whose calls are counted from now; none at all takes away those there are.
    pub(crate) fn inject(&mut self, text: &str) -> Result<(), String> {
        let mut faults = Fault::parse_all(text)?;
        for fault in &mut faults {
            let so_far = self.calls.get(fault.function()).copied().unwrap_or(0);
            fault.after(so_far);
        }
        if faults.is_empty() {
            self.faults.clear();
        }
        self.faults.extend(faults);
        Ok(())
    }

    /// As if the library had just been loaded. Those who hang return.
    pub(crate) fn reset(&mut self) {
        *self = Runtime { epoch: self.epoch + 1, ..Runtime::default() };
    }

    pub(crate) fn report(&self) -> Value {
        let Executions { completed, seconds, inputs_copied, in_place, copied_back } = self.executions;
        let core =
            |core: &Core| json!({ "bytes_in_use": core.memory.used(), "most_bytes": core.memory.most() });
        json!({
            "simulated": true,
            "phase": format!("{:?}", self.phase).to_lowercase(),
            "calls": self.calls,
            "faults_injected": self.injected,
            "live": {
                "tensors": self.tensors.len(),
                "tensor_sets": self.sets.len(),
                "models": self.models.len(),
                "tensor_infos": self.infos.len(),
            },
            "cores": self.cores.iter().map(core).collect::<Vec<_>>(),
            "host_bytes_in_use": self.host_memory.used(),
            "executions": {
                "completed": completed,
                "seconds": seconds,
                "inputs_copied": inputs_copied,
                "outputs_in_place": in_place,
                "outputs_copied_back": copied_back,
            },
            "transfers": { "bytes_read": self.transfers.read, "bytes_written": self.transfers.written },
            "ranks_waiting_to_load": self.meetings.iter().map(|meeting| meeting.arrived.len()).sum::<usize>(),
            "unchecked_indices": self.unchecked_indices,
            "violation_count": self.violation_count,
            "violations": self.violations,
        })
    }

    /// Writes the report where the settings want it.
    pub(crate) fn write_report(&self) {
        let Some(path) = self.settings.as_ref().and_then(|settings| settings.report.as_ref()) else { return };
        if let Err(error) = fs::write(path, format!("{:#}\n", self.report())) {
            eprintln!("fake_nrt: cannot write {}: {error}", path.display());
        }
    }
}

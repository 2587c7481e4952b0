//! What a core's thread does: everything that lies on the core, and the runs of its programs.

use super::artifact::Program;
use super::core::{CoreError, StepBuffer};
use super::draws::{DrawTensors, Drawing, NoToken};
use super::hlo::{
    ALIAS_SUFFIX, ArrayShape, Bucket, CachePlan, DRAWN, ElementType, Family, InputSource, LOGITS,
};
use super::layout::CacheLayout;
use super::nrt::{
    LoadedProgram, NrtError, Numbering, Rank, Remedy, Runtime, Tensor, TensorInfo, TensorSet, Usage,
};
use super::step::{Piece, Planner, Run};
use super::target::Target;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A core that is busy is asked again this often, this long apart.
const RETRIES: u32 = 200;
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// Steps that fail are the requests' the first times, and the core's when none has succeeded in between.
const MAX_FAILURES: u32 = 8;

/// What a thread is started with.
pub(super) struct Setup {
    /// As the process numbers its cores.
    pub(super) core: usize,
    /// How many the process is to use.
    pub(super) cores: usize,
    /// Among the cores of its replica.
    pub(super) rank: Rank,
    pub(super) library: Option<PathBuf>,
    pub(super) target: Target,
    pub(super) plan: CachePlan,
    pub(super) layout: CacheLayout,
    pub(super) vocab_size: usize,
    pub(super) programs: Arc<[Program]>,
}

pub(super) struct Worker {
    setup: Setup,
    // Before the runtime, which is closed last.
    programs: Vec<Loaded>,
    /// Constants and caches, by the names of the inputs that they are bound to.
    shared: HashMap<String, Rc<Tensor>>,
    /// Keys and values of each layer.
    caches: Vec<Rc<Tensor>>,
    runtime: Arc<Runtime>,
    planner: Planner,
    staging: Staging,
    failures: u32,
}

/// A program with everything that it is bound to.
struct Loaded {
    inputs: TensorSet,
    outputs: TensorSet,
    tokens: Rc<Tensor>,
    positions: Rc<Tensor>,
    slots: Rc<Tensor>,
    selected: Option<Rc<Tensor>>,
    logits: Rc<Tensor>,
    drawing: Option<Drawing>,
    program: LoadedProgram,
}

/// A run's integers, as they are written to the core.
#[derive(Default)]
struct Staging {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    slots: Vec<i32>,
}

impl Worker {
    /// Opens the runtime and makes room for the cache.
    pub(super) fn open(setup: Setup) -> Result<Self, CoreError> {
        let core = setup.core;
        let runtime =
            Runtime::open(setup.library.as_deref()).map_err(|error| CoreError::open(core, error))?;
        check_device(&setup, &runtime)?;
        let buckets = setup.programs.iter().map(|program| program.bucket).collect();
        let planner = Planner::new(buckets, setup.plan.slots, setup.plan.context)
            .map_err(|error| CoreError::open(core, error))?;
        let mut worker = Self {
            programs: Vec::with_capacity(setup.programs.len()),
            shared: HashMap::new(),
            caches: Vec::new(),
            runtime,
            planner,
            staging: Staging::default(),
            failures: 0,
            setup,
        };
        worker.allocate()?;
        Ok(worker)
    }

    pub(super) fn simulated(&self) -> bool {
        self.runtime.version().simulated()
    }

    /// Makes room for what all programs share, and clears the cache: memory holds anything at first.
    fn allocate(&mut self) -> Result<(), CoreError> {
        let programs = Arc::clone(&self.setup.programs);
        let Some(first) = programs.first() else { return Ok(()) };
        for input in first.inputs.iter().filter(|input| !input.source.is_of_step()) {
            let tensor = self.tensor(&input.name, &input.shape)?;
            if input.source == InputSource::Cache {
                self.call(tensor.zero(0, tensor.size()))?;
                self.caches.push(Rc::clone(&tensor));
            }
            self.shared.insert(input.name.clone(), tensor);
        }
        Ok(())
    }

    pub(super) fn constant(&mut self, name: &str, bytes: &[u8]) -> Result<(), CoreError> {
        match self.shared.get(name) {
            Some(tensor) if tensor.size() == bytes.len() => self.call(tensor.write(0, bytes)),
            _ => Err(self.refuse(format!("no program has an input {name} of {} bytes", bytes.len()))),
        }
    }

    /// Loads every program and binds it: all ranks in the same order, as each load waits for the others.
    pub(super) fn load(&mut self) -> Result<(), CoreError> {
        let programs = Arc::clone(&self.setup.programs);
        for program in programs.iter() {
            let neff = std::fs::read(&program.neff)
                .map_err(|error| self.refuse(format!("cannot read {}: {error}", program.neff.display())))?;
            let Setup { core, rank, .. } = self.setup;
            let loaded = self.call(LoadedProgram::load(&self.runtime, core, rank, &neff));
            let loaded =
                loaded.map_err(|error| self.refuse(format!("{}: {error}", program.neff.display())))?;
            let loaded = self.bind(program, loaded)?;
            self.programs.push(loaded);
        }
        Ok(())
    }

    fn bind(&self, program: &Program, loaded: LoadedProgram) -> Result<Loaded, CoreError> {
        let infos = self.call(loaded.tensors())?;
        let names = Names { program, infos: &infos };
        let mut inputs = self.call(TensorSet::new(&self.runtime))?;
        let mut outputs = self.call(TensorSet::new(&self.runtime))?;
        let mut bound: HashMap<&str, Rc<Tensor>> = HashMap::new();
        for (idx, input) in program.inputs.iter().enumerate() {
            let tensor = match self.shared.get(&input.name) {
                Some(shared) => Rc::clone(shared),
                None if input.source.is_of_step() => self.tensor(&input.name, &input.shape)?,
                None => {
                    let reason = "has an input that the first program lacks; run `mondai compile` again";
                    return Err(self.refuse(format!("{} {reason}: {}", program.neff.display(), input.name)));
                }
            };
            let name = names.find(Usage::Input, idx, &input.name, &input.shape);
            self.call(inputs.add(name.map_err(|reason| self.refuse(reason))?, &tensor))?;
            bound.insert(&input.name, tensor);
        }
        let mut yielded: HashMap<&str, Rc<Tensor>> = HashMap::new();
        for (idx, output) in program.outputs.iter().enumerate() {
            let replaced = output.replaces.as_deref().and_then(|name| bound.get(name));
            let tensor = match replaced {
                Some(tensor) => Rc::clone(tensor),
                None => self.tensor(&output.name, &output.shape)?,
            };
            yielded.insert(&output.name, Rc::clone(&tensor));
            let name = names.find(Usage::Output, idx, &output.name, &output.shape);
            self.call(outputs.add(name.map_err(|reason| self.refuse(reason))?, &tensor))?;
        }
        names.check_types();
        let of = |source| {
            let input = program.inputs.iter().find(|input| input.source == source)?;
            bound.get(input.name.as_str()).map(Rc::clone)
        };
        let logits = yielded.remove(LOGITS);
        let step = (of(InputSource::Tokens), of(InputSource::Positions), of(InputSource::Slots), logits);
        let (Some(tokens), Some(positions), Some(slots), Some(logits)) = step else {
            let reason = "it lacks tokens, positions, slots or logits; run `mondai compile` again";
            return Err(self.refuse(format!("{}: {reason}", program.neff.display())));
        };
        let selected = of(InputSource::Selected);
        let draw = (of(InputSource::Allowed), of(InputSource::DrawNumbers), yielded.remove(DRAWN));
        let drawing = match draw {
            (Some(allowed), Some(numbers), Some(drawn)) => {
                let tensors = DrawTensors { after: of(InputSource::DrawnAfter), allowed, numbers, drawn };
                Some(self.call(Drawing::new(tensors, program.bucket, self.setup.vocab_size))?)
            }
            _ => None,
        };
        Ok(Loaded { inputs, outputs, tokens, positions, slots, selected, logits, drawing, program: loaded })
    }

    /// Runs a step's rows and fills its logits, and its tokens where they are drawn here.
    pub(super) fn step(&mut self, step: &mut StepBuffer) -> Result<(), CoreError> {
        let ran = self.run_all(step);
        self.failures = if ran.is_ok() { 0 } else { self.failures + 1 };
        match ran {
            Err(last) if self.failures == MAX_FAILURES => {
                let core = self.setup.core;
                Err(CoreError::Repeated { core, times: MAX_FAILURES, last: Box::new(last) })
            }
            ran => ran,
        }
    }

    fn run_all(&mut self, step: &mut StepBuffer) -> Result<(), CoreError> {
        for &(slot, from) in &step.cleared {
            self.clear(slot, from)?;
        }
        if self.is_read() {
            let wanted: usize = step.rows.iter().map(|row| row.len - row.logits_from).sum();
            step.logits.resize(wanted * self.setup.vocab_size, 0.0);
            step.draws.begin();
        }
        self.planner.plan(&step.rows);
        let run_tokens = |run: &Run| self.planner.bucket(run.program).tokens();
        let ran: usize = self.planner.runs.iter().map(run_tokens).sum();
        step.padded = ran - step.tokens.len();
        let mut read = Ok(());
        for run in 0..self.planner.runs.len() {
            self.run(run, step)?;
            if self.is_read() && read.is_ok() {
                // If that goes wrong, the other ranks do not know, and wait for this one in the next run.
                read = self.read(run, step);
            }
        }
        read
    }

    /// All ranks compute the same logits.
    fn is_read(&self) -> bool {
        self.setup.rank.rank == 0
    }

    fn run(&mut self, run: usize, step: &StepBuffer) -> Result<(), CoreError> {
        let run = self.planner.runs[run].clone();
        let bucket = self.planner.bucket(run.program);
        let pieces = &self.planner.pieces[run.pieces];
        self.staging.fill(bucket, self.setup.plan, pieces, step);
        let program = &mut self.programs[run.program];
        let core = self.setup.core;
        let call = |result: Result<(), NrtError>| result.map_err(|error| CoreError::Call { core, error });
        call(program.tokens.write_integers(&self.staging.tokens))?;
        call(program.positions.write_integers(&self.staging.positions))?;
        call(program.slots.write_integers(&self.staging.slots))?;
        if let (Some(selected), [piece]) = (&program.selected, pieces) {
            call(selected.write_integers(&[integer(piece.len - 1)]))?;
        }
        if let Some(drawing) = &mut program.drawing {
            call(drawing.write(pieces, &step.rows, &step.draws))?;
        }
        call(execute(program))
    }

    /// Reads what logits a run has of those that are wanted, and what it drew.
    fn read(&mut self, run: usize, step: &mut StepBuffer) -> Result<(), CoreError> {
        let run = self.planner.runs[run].clone();
        let (program, bucket) = (&mut self.programs[run.program], self.planner.bucket(run.program));
        let (pieces, core) = (&self.planner.pieces[run.pieces], self.setup.core);
        for piece in pieces {
            read_logits(program, bucket, piece, step, self.setup.vocab_size)
                .map_err(|error| error.of(core))?;
        }
        let Some(drawing) = &mut program.drawing else { return Ok(()) };
        drawing.read(pieces, &step.rows, &mut step.draws).map_err(|error| match error {
            NoToken::Call(error) => CoreError::Call { core, error },
            NoToken::NotANumber { slot } => CoreError::NotANumber { core, slot },
            NoToken::OutOfRange { slot } => CoreError::NoToken { core, slot },
        })
    }

    /// Zeros what a slot holds from a position on.
    fn clear(&self, slot: usize, from: usize) -> Result<(), CoreError> {
        for cache in &self.caches {
            for at in self.setup.layout.stretches(slot, from..self.setup.layout.context) {
                self.call(cache.zero(at.start, at.len()))?;
            }
        }
        Ok(())
    }

    pub(super) fn copy_prefix(&mut self, from: usize, to: usize, len: usize) -> Result<(), CoreError> {
        let layout = self.setup.layout;
        for cache in &self.caches {
            // What a slot has past its prefix stays there: it may be no number.
            for (from, to) in layout.stretches(from, 0..len).zip(layout.stretches(to, 0..len)) {
                self.call(cache.copy_within(from.start, to.start, from.len()))?;
            }
        }
        Ok(())
    }

    /// What a slot holds of each cache, one after another, each head by head.
    pub(super) fn read_prefix(&self, slot: usize, len: usize, bytes: &mut Vec<u8>) -> Result<(), CoreError> {
        let layout = self.setup.layout;
        bytes.resize(layout.prefix_bytes(len) * self.caches.len(), 0);
        let mut left = bytes.as_mut_slice();
        for cache in &self.caches {
            for at in layout.stretches(slot, 0..len) {
                let (stretch, rest) = left.split_at_mut(at.len());
                self.call(cache.read(at.start, stretch))?;
                left = rest;
            }
        }
        Ok(())
    }

    pub(super) fn write_prefix(&mut self, slot: usize, len: usize, bytes: &[u8]) -> Result<(), CoreError> {
        let mut left = bytes;
        for cache in &self.caches {
            for at in self.setup.layout.stretches(slot, 0..len) {
                let (stretch, rest) = left.split_at(at.len());
                self.call(cache.write(at.start, stretch))?;
                left = rest;
            }
        }
        Ok(())
    }

    fn tensor(&self, name: &str, shape: &ArrayShape) -> Result<Rc<Tensor>, CoreError> {
        self.call(Tensor::allocate(&self.runtime, self.setup.core, shape.bytes(), name)).map(Rc::new)
    }

    fn call<T>(&self, result: Result<T, NrtError>) -> Result<T, CoreError> {
        result.map_err(|error| CoreError::Call { core: self.setup.core, error })
    }

    fn refuse(&self, reason: String) -> CoreError {
        CoreError::Open { core: self.setup.core, reason }
    }
}

/// Executes, again while the core is busy.
fn execute(program: &mut Loaded) -> Result<(), NrtError> {
    let Loaded { program, inputs, outputs, .. } = program;
    for _ in 0..RETRIES {
        match program.execute(inputs, outputs) {
            Err(error) if error.remedy() == Remedy::Retry => thread::sleep(RETRY_AFTER),
            ended => return ended,
        }
    }
    program.execute(inputs, outputs)
}

/// Why a piece's logits cannot be had.
enum NoLogits {
    Call(NrtError),
    NotANumber { slot: usize },
}

impl NoLogits {
    fn of(self, core: usize) -> CoreError {
        match self {
            Self::Call(error) => CoreError::Call { core, error },
            Self::NotANumber { slot } => CoreError::NotANumber { core, slot },
        }
    }
}

/// Reads the rows of logits that are wanted of a piece to their place in the step's.
fn read_logits(
    program: &Loaded,
    bucket: Bucket,
    piece: &Piece,
    step: &mut StepBuffer,
    vocab_size: usize,
) -> Result<(), NoLogits> {
    let row = step.rows[piece.row];
    let first = row.logits_from.max(piece.from);
    let count = (piece.from + piece.len).saturating_sub(first);
    if count == 0 {
        // Nobody asks, and a number that is none would be found only by whoever goes on from here.
        let mut probe = [0.0];
        if bucket.family() == Family::Prefill {
            program.logits.read_floats(0, &mut probe).map_err(NoLogits::Call)?;
        }
        return if probe[0].is_nan() { Err(NoLogits::NotANumber { slot: row.slot }) } else { Ok(()) };
    }
    let line = match bucket.family() {
        Family::Prefill => 0,
        Family::Decode | Family::ShortRows => bucket.line(row.slot) * bucket.width + first - piece.from,
    };
    let before: usize = step.rows[..piece.row].iter().map(|row| row.len - row.logits_from).sum();
    let place = (before + first - row.logits_from) * vocab_size;
    let logits = &mut step.logits[place..][..count * vocab_size];
    program.logits.read_floats(line * vocab_size, logits).map_err(NoLogits::Call)?;
    match logits.iter().any(|logit| logit.is_nan()) {
        true => Err(NoLogits::NotANumber { slot: row.slot }),
        false => Ok(()),
    }
}

fn integer(number: usize) -> i32 {
    i32::try_from(number).expect("the lowering allows no index that large")
}

impl Staging {
    /// The integers of a run: its pieces' tokens, and padding, of which each has a position of its own in the
    /// scratch slot.
    fn fill(&mut self, bucket: Bucket, plan: CachePlan, pieces: &[Piece], step: &StepBuffer) {
        let Self { tokens, positions, slots } = self;
        let len = bucket.tokens();
        [&mut *tokens, &mut *positions, &mut *slots].into_iter().for_each(Vec::clear);
        tokens.resize(len, 0);
        positions.extend((0..len).map(integer));
        slots.resize(len, integer(plan.slots));
        for piece in pieces {
            let row = step.rows[piece.row];
            let before: usize = step.rows[..piece.row].iter().map(|row| row.len).sum();
            let of_piece = bucket.line(row.slot) * bucket.width..;
            let place = of_piece.start..of_piece.start + piece.len;
            tokens[place.clone()].copy_from_slice(&step.tokens[before + piece.from..][..piece.len]);
            let first = row.start + piece.from;
            positions[place.clone()].iter_mut().zip(first..).for_each(|(to, at)| *to = integer(at));
            slots[place].fill(integer(row.slot));
        }
    }
}

/// The names by which a compiled program knows its inputs and outputs.
struct Names<'a> {
    program: &'a Program,
    infos: &'a [TensorInfo],
}

impl<'a> Names<'a> {
    /// The name of an input or output: ours, ours without the mark of one that is replaced, or its number.
    fn find(&self, usage: Usage, idx: usize, name: &str, shape: &ArrayShape) -> Result<&'a str, String> {
        let numbered = match usage {
            Usage::Input => format!("input{idx}"),
            Usage::Output => format!("output{idx}"),
        };
        let names = [name, name.trim_end_matches(ALIAS_SUFFIX), &numbered];
        let find = |name: &&str| self.infos.iter().find(|info| info.usage == usage && info.name == **name);
        let file = self.program.neff.display();
        let Some(info) = names.iter().find_map(find) else {
            let known: Vec<_> =
                self.infos.iter().filter(|info| info.usage == usage).map(|info| &*info.name).collect();
            return Err(format!("{file} has no {usage:?} {name}; it has {}", known.join(", ")));
        };
        match shape.bytes() {
            size if size == info.size => Ok(&info.name),
            size => Err(format!("{file}: its {usage:?} {name} has {} bytes, not {size}", info.size)),
        }
    }

    /// Sizes are right, and the types are ours to know: that they are told otherwise is worth a line.
    fn check_types(&self) {
        let Program { inputs, outputs, neff, .. } = self.program;
        let inputs = inputs.iter().map(|input| (Usage::Input, &input.name, input.shape.element));
        let outputs = outputs.iter().map(|output| (Usage::Output, &output.name, output.shape.element));
        let told = |(usage, name, element): (Usage, &String, ElementType)| {
            let info = self.infos.iter().find(|info| info.usage == usage && info.name == *name)?;
            Some((element.name(), info.dtype))
        };
        let types: Vec<_> = inputs.chain(outputs).filter_map(told).collect();
        if Numbering::of(types.iter().copied()).is_none() {
            tracing::warn!(program = %neff.display(), "the runtime tells types that are not the program's");
        }
    }
}

/// The core is there, its memory may suffice, and the programs are for chips of its kind.
fn check_device(setup: &Setup, runtime: &Runtime) -> Result<(), CoreError> {
    let refuse = |reason| Err(CoreError::Open { core: setup.core, reason });
    match runtime.visible_cores() {
        Ok(visible) if visible < setup.cores => {
            return refuse(format!(
                "{} cores are asked for, and this process may use {visible}; see --cores and NEURON_RT_VISIBLE_CORES",
                setup.cores
            ));
        }
        Ok(_) => {}
        Err(error) => return refuse(error.to_string()),
    }
    if let Some(family) = runtime.family()
        && !family.runs(setup.target)
    {
        return refuse(format!(
            "the programs are compiled for {}, and this is {family}; run `mondai compile --target {family}` for this model",
            setup.target
        ));
    }
    let needed = needed_bytes(&setup.programs);
    if let Some(memory) = runtime.memory(setup.core)
        && memory.limit > 0
        && needed > memory.limit.saturating_sub(memory.used)
    {
        return refuse(format!(
            "weights, KV cache and logits take {} MiB, and of its {} MiB {} are taken; compile for fewer --slots, a shorter --context-len or more cores together, with --tensor-parallel",
            needed >> 20,
            memory.limit >> 20,
            memory.used >> 20
        ));
    }
    Ok(())
}

/// What the tensors of a set of programs take: those that they share once.
fn needed_bytes(programs: &[Program]) -> usize {
    let inputs = |of: &Program| of.inputs.iter().map(|input| input.shape.bytes()).sum::<usize>();
    let logits = |of: &Program| {
        let own = of.outputs.iter().filter(|output| output.replaces.is_none());
        own.map(|output| output.shape.bytes()).sum::<usize>()
    };
    programs.first().map_or(0, inputs) + programs.iter().map(logits).sum::<usize>()
}

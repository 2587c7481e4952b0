//! What a core's thread does: it opens the runtime, loads the programs, and runs them for each step.

use super::artifact::Program;
use super::core::{CoreError, StepBuffer};
use super::draws::NoToken;
use super::hlo::{Bucket, CachePlan};
use super::layout::CacheLayout;
use super::loaded::Loaded;
use super::memory::Memory;
use super::nrt::{NrtError, Rank, Runtime};
use super::step::{Piece, Planner, Run};
use super::target::Target;
use std::path::PathBuf;
use std::sync::Arc;

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
    programs: Vec<Loaded>,
    pub(super) memory: Memory,
    planner: Planner,
    staging: Staging,
    failures: u32,
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
        let inputs = setup.programs.first().map_or(&[][..], |program| &program.inputs);
        let memory = Memory::allocate(runtime, core, setup.layout, inputs)?;
        let programs = Vec::with_capacity(setup.programs.len());
        Ok(Self { setup, programs, memory, planner, staging: Staging::default(), failures: 0 })
    }

    pub(super) fn simulated(&self) -> bool {
        self.memory.runtime.version().simulated()
    }

    /// Loads every program and binds it: all ranks in the same order, as each load waits for the others.
    pub(super) fn load(&mut self) -> Result<(), CoreError> {
        let Setup { programs, rank, vocab_size, .. } = &self.setup;
        for program in programs.iter() {
            self.programs.push(Loaded::load(program, *rank, &self.memory, *vocab_size)?);
        }
        Ok(())
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
            self.memory.clear(slot, from)?;
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
        call(program.execute())
    }

    /// Reads what logits a run has of those that are wanted, and what it drew.
    fn read(&mut self, run: usize, step: &mut StepBuffer) -> Result<(), CoreError> {
        let run = self.planner.runs[run].clone();
        let (program, bucket) = (&mut self.programs[run.program], self.planner.bucket(run.program));
        let (pieces, core) = (&self.planner.pieces[run.pieces], self.setup.core);
        for piece in pieces {
            program.read_logits(bucket, piece, step, self.setup.vocab_size)?;
        }
        let Some(drawing) = &mut program.drawing else { return Ok(()) };
        drawing.read(pieces, &step.rows, &mut step.draws).map_err(|error| match error {
            NoToken::Call(error) => CoreError::Call { core, error },
            NoToken::NotANumber { slot } => CoreError::NotANumber { core, slot },
            NoToken::OutOfRange { slot } => CoreError::NoToken { core, slot },
        })
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

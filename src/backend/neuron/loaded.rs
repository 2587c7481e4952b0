//! A program on a core, with the memory it is bound to.

use super::artifact::Program;
use super::core::{CoreError, StepBuffer};
use super::draws::{DrawTensors, Drawing};
use super::hlo::{ALIAS_SUFFIX, ArrayShape, Bucket, DRAWN, ElementType, Family, InputSource, LOGITS};
use super::memory::Memory;
use super::nrt::{LoadedProgram, NrtError, Numbering, Rank, Remedy, Tensor, TensorInfo, TensorSet, Usage};
use super::step::Piece;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

/// A core that is busy is asked again this often, this long apart.
const RETRIES: u32 = 200;
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// A program with everything that it is bound to.
pub(super) struct Loaded {
    core: usize,
    inputs: TensorSet,
    outputs: TensorSet,
    pub(super) tokens: Rc<Tensor>,
    pub(super) positions: Rc<Tensor>,
    pub(super) slots: Rc<Tensor>,
    pub(super) selected: Option<Rc<Tensor>>,
    logits: Rc<Tensor>,
    pub(super) drawing: Option<Drawing>,
    program: LoadedProgram,
}

impl Loaded {
    /// Loads a program and binds it to what all of them share, and to memory of its own for the rest.
    pub(super) fn load(
        program: &Program,
        rank: Rank,
        memory: &Memory,
        vocab_size: usize,
    ) -> Result<Self, CoreError> {
        let neff = std::fs::read(&program.neff)
            .map_err(|error| memory.refuse(format!("cannot read {}: {error}", program.neff.display())))?;
        let loaded = memory.call(LoadedProgram::load(&memory.runtime, memory.core, rank, &neff));
        let loaded = loaded.map_err(|error| memory.refuse(format!("{}: {error}", program.neff.display())))?;
        Self::bind(program, loaded, memory, vocab_size)
    }

    fn bind(
        program: &Program,
        loaded: LoadedProgram,
        memory: &Memory,
        vocab_size: usize,
    ) -> Result<Self, CoreError> {
        let infos = memory.call(loaded.tensors())?;
        let names = Names { program, infos: &infos };
        let mut inputs = memory.call(TensorSet::new(&memory.runtime))?;
        let mut outputs = memory.call(TensorSet::new(&memory.runtime))?;
        let mut bound: HashMap<&str, Rc<Tensor>> = HashMap::new();
        for (idx, input) in program.inputs.iter().enumerate() {
            let tensor = match memory.shared(&input.name) {
                Some(shared) => Rc::clone(shared),
                None if input.source.is_of_step() => memory.tensor(&input.name, &input.shape)?,
                None => {
                    let reason = "has an input that the first program lacks; run `mondai compile` again";
                    return Err(memory.refuse(format!(
                        "{} {reason}: {}",
                        program.neff.display(),
                        input.name
                    )));
                }
            };
            let name = names.find(Usage::Input, idx, &input.name, &input.shape);
            memory.call(inputs.add(name.map_err(|reason| memory.refuse(reason))?, &tensor))?;
            bound.insert(&input.name, tensor);
        }
        let mut yielded: HashMap<&str, Rc<Tensor>> = HashMap::new();
        for (idx, output) in program.outputs.iter().enumerate() {
            let replaced = output.replaces.as_deref().and_then(|name| bound.get(name));
            let tensor = match replaced {
                Some(tensor) => Rc::clone(tensor),
                None => memory.tensor(&output.name, &output.shape)?,
            };
            yielded.insert(&output.name, Rc::clone(&tensor));
            let name = names.find(Usage::Output, idx, &output.name, &output.shape);
            memory.call(outputs.add(name.map_err(|reason| memory.refuse(reason))?, &tensor))?;
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
            return Err(memory.refuse(format!("{}: {reason}", program.neff.display())));
        };
        let selected = of(InputSource::Selected);
        let draw = (of(InputSource::Allowed), of(InputSource::DrawNumbers), yielded.remove(DRAWN));
        let drawing = match draw {
            (Some(allowed), Some(numbers), Some(drawn)) => {
                let tensors = DrawTensors { after: of(InputSource::DrawnAfter), allowed, numbers, drawn };
                Some(memory.call(Drawing::new(tensors, program.bucket, vocab_size))?)
            }
            _ => None,
        };
        let core = memory.core;
        Ok(Self {
            core,
            inputs,
            outputs,
            tokens,
            positions,
            slots,
            selected,
            logits,
            drawing,
            program: loaded,
        })
    }

    /// Executes, again while the core is busy.
    pub(super) fn execute(&mut self) -> Result<(), NrtError> {
        let Self { program, inputs, outputs, .. } = self;
        for _ in 0..RETRIES {
            match program.execute(inputs, outputs) {
                Err(error) if error.remedy() == Remedy::Retry => thread::sleep(RETRY_AFTER),
                ended => return ended,
            }
        }
        program.execute(inputs, outputs)
    }

    /// Reads the rows of logits that are wanted of a piece to their place in the step's.
    pub(super) fn read_logits(
        &self,
        bucket: Bucket,
        piece: &Piece,
        step: &mut StepBuffer,
        vocab_size: usize,
    ) -> Result<(), CoreError> {
        let core = self.core;
        let read = |first, logits: &mut [f32]| {
            self.logits.read_floats(first, logits).map_err(|error| CoreError::Call { core, error })
        };
        let row = step.rows[piece.row];
        let first = row.logits_from.max(piece.from);
        let count = (piece.from + piece.len).saturating_sub(first);
        if count == 0 {
            // Nobody asks, and a number that is none would be found only by whoever goes on from here.
            let mut probe = [0.0];
            if bucket.family() == Family::Prefill {
                read(0, &mut probe)?;
            }
            return if probe[0].is_nan() {
                Err(CoreError::NotANumber { core, slot: row.slot })
            } else {
                Ok(())
            };
        }
        let line = match bucket.family() {
            Family::Prefill => 0,
            Family::Decode | Family::ShortRows => bucket.line(row.slot) * bucket.width + first - piece.from,
        };
        let before: usize = step.rows[..piece.row].iter().map(|row| row.len - row.logits_from).sum();
        let place = (before + first - row.logits_from) * vocab_size;
        let logits = &mut step.logits[place..][..count * vocab_size];
        read(line * vocab_size, logits)?;
        match logits.iter().any(|logit| logit.is_nan()) {
            true => Err(CoreError::NotANumber { core, slot: row.slot }),
            false => Ok(()),
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

//! Cores behind one [`Backend`]: each has a replica of the model, or as many together as the programs are for, and
//! each replica its share of the slots.
//!
//! Neighbouring slots are in different replicas, so that a few requests are spread over them. A step's rows run on
//! all their cores at once. A replica that is lost takes its slots with it; the
//! others go on.

use super::artifact::Artifact;
use super::core::{CoreError, Job, StepBuffer};
use super::hlo::{ArrayShape, Input, InputSource, Sampling};
use super::layout::CacheLayout;
use super::nrt::Rank;
use super::options::Progress;
use super::replica::Replica;
use super::step::StepRow;
use super::values::Constant;
use super::worker::Setup;
use crate::backend::{
    Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot,
    rules::{self, Held},
};
use crate::model::Model;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub(crate) const NAME: &str = "neuron";

/// See the [module](self).
pub(crate) struct NeuronBackend {
    limits: Limits,
    replicas: Vec<Replica>,
    held: Held,
    /// A prefix on its way from one replica to another, by rank.
    prefix: Vec<Vec<u8>>,
}

/// Why a step did not run.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Rule(#[from] rules::BrokenRule),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error("core {core} of this process is lost, and its slots until the server is started again")]
    Lost { core: usize },
}

impl NeuronBackend {
    /// Opens the artifact, starts a thread for each core, and gives each the weights and the programs.
    ///
    /// # Errors
    /// [`BackendError::Open`]: no programs, or of another model, context or target; no library, no device, too few
    /// cores, too little memory. Each says what to do.
    pub(crate) fn open(model: &Model, options: &OpenOptions) -> Result<Self, BackendError> {
        Self::prepare(model, options).map_err(|source| BackendError::Open { backend: NAME, source })
    }

    fn prepare(model: &Model, options: &OpenOptions) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let device = &options.device;
        let folder = device.folder(&model.name)?;
        let artifact = Artifact::open(&folder, model)?;
        let (plan, ranks, cores) = (artifact.plan, artifact.variant.ranks, device.cores.max(1));
        if !cores.is_multiple_of(ranks) {
            return Err(OtherCores { folder, asked: cores, ranks }.into());
        }
        let (replicas, compiled) = (cores / ranks, plan.slots * (cores / ranks));
        let slots = device.slots.unwrap_or(compiled);
        if slots > compiled {
            let compile = slots.div_ceil(replicas);
            return Err(OtherSlots { folder, asked: slots, compiled, replicas, compile }.into());
        }
        let context_len = if options.context_len == 0 { plan.context } else { options.context_len };
        let asked = OpenOptions { slots, context_len, ..options.clone() };
        let mut limits = rules::limits(NAME, model, &asked)?;
        limits.draws = artifact.variant.sampling == Sampling::Device;
        if limits.context_len > plan.context {
            return Err(OtherContext { folder, asked: limits.context_len, compiled: plan.context }.into());
        }
        let programs: Arc<[_]> = artifact.programs.into();
        let inputs = programs.first().map(|program| program.inputs.as_slice()).unwrap_or_default();
        let cache = inputs.iter().find(|input| input.source == InputSource::Cache);
        let Some(layout) = cache.and_then(|input| layout(&input.shape)) else {
            return Err(
                CoreError::open(0, "the programs have no KV cache; run `mondai compile` again").into()
            );
        };
        let setup = |core: usize| Setup {
            core,
            cores,
            rank: Rank { rank: (core % ranks) as u32, ranks: ranks as u32 },
            library: device.library.clone(),
            target: artifact.target,
            plan,
            layout,
            vocab_size: limits.vocab_size,
            programs: Arc::clone(&programs),
        };
        let mut replicas = Vec::with_capacity(replicas);
        for first in (0..cores).step_by(ranks) {
            let replica = Replica::open((first..first + ranks).map(setup), plan.slots, device.patience)?;
            limits.simulated |= replica.simulated;
            replicas.push(replica);
        }
        let mut backend = Self { held: Held::nothing(limits.slots), limits, replicas, prefix: Vec::new() };
        let constants = inputs.iter().filter_map(|input| Constant::of(model, plan, input));
        let is_constant = |input: &&Input| !input.source.is_of_step() && input.source != InputSource::Cache;
        let bytes = inputs.iter().filter(is_constant).map(|input| input.shape.bytes()).sum();
        backend.upload_all(constants, bytes, ranks, &device.progress)?;
        backend.load(ranks)?;
        Ok(backend)
    }

    /// Gives every core the constants, which have so many bytes on each.
    fn upload_all<'a>(
        &mut self,
        constants: impl Iterator<Item = Constant<'a>>,
        bytes: usize,
        ranks: usize,
        progress: &Progress,
    ) -> Result<(), CoreError> {
        let (began, mut done) = (Instant::now(), 0);
        tracing::info!(cores = self.replicas.len() * ranks, bytes, "each core gets the weights");
        for constant in constants {
            progress.tell(done, bytes);
            self.upload(&constant.input.name, &constant, ranks)?;
            done += constant.input.shape.bytes();
        }
        progress.tell(done, bytes);
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "each core has the weights");
        Ok(())
    }

    /// Gives every core its part of a constant.
    fn upload(&mut self, name: &str, constant: &Constant<'_>, ranks: usize) -> Result<(), CoreError> {
        let name: Arc<str> = name.into();
        let different = if constant.is_shared() { 1 } else { ranks };
        let parts: Vec<Arc<[u8]>> = (0..different).map(|rank| constant.bytes(rank).into()).collect();
        let job = |rank: usize| Job::Constant {
            name: Arc::clone(&name),
            bytes: Arc::clone(&parts[rank % parts.len()]),
        };
        self.replicas.iter_mut().try_for_each(|replica| replica.begin(job))?;
        self.replicas.iter_mut().try_for_each(Replica::begun)
    }

    /// Has every core load the programs: the ranks of a replica at the same time, as each load waits for the
    /// others, and one replica after another where the library would take its ranks for the other's.
    fn load(&mut self, ranks: usize) -> Result<(), CoreError> {
        let together = if ranks == 1 { self.replicas.len() } else { 1 };
        for replicas in self.replicas.chunks_mut(together) {
            replicas.iter_mut().try_for_each(|replica| replica.begin(|_| Job::Load))?;
            replicas.iter_mut().try_for_each(Replica::begun)?;
        }
        Ok(())
    }

    /// Which replica has a slot, and as which of its own.
    fn place(&self, slot: Slot) -> (usize, usize) {
        (slot.0 % self.replicas.len(), slot.0 / self.replicas.len())
    }

    fn step(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), StepError> {
        self.held.begin_step(&self.limits, rows)?;
        self.deal(rows)?;
        logits.resize(rows.iter().map(|row| row.tokens.len() - row.logits_from).sum());
        logits.resize_drawn(rows.iter().filter(|row| row.draw.is_some()).count());
        let mut ran = Ok(());
        for replica in self.replicas.iter_mut().filter(|replica| !replica.rows.is_empty()) {
            ran = ran.and(replica.begin_step());
        }
        // Every replica that was asked is heard, whatever the others say, and all of them within one step's time.
        let began = Instant::now();
        for replica in self.replicas.iter_mut().filter(|replica| !replica.rows.is_empty()) {
            if replica.is_lost() {
                continue;
            }
            match replica.end_step(began) {
                Ok(()) => put(rows, &replica.rows, replica.ran(), logits),
                Err(error) => ran = ran.and(Err(error)),
            }
        }
        ran?;
        self.held.end_step(rows);
        Ok(())
    }

    /// Gives each replica its rows.
    fn deal(&mut self, rows: &[Row<'_>]) -> Result<(), StepError> {
        for replica in &mut self.replicas {
            replica.rows.clear();
            let buffer = replica.buffer();
            buffer.rows.clear();
            buffer.tokens.clear();
            buffer.draws.clear();
        }
        for (idx, row) in rows.iter().enumerate() {
            let (replica, slot) = self.place(row.slot);
            let replica = self.living(replica)?;
            replica.rows.push(idx);
            let buffer = replica.buffer();
            let &Row { start, logits_from, tokens, .. } = row;
            buffer.rows.push(StepRow { slot, start, len: tokens.len(), logits_from });
            // The rules have let through none outside the vocabulary.
            buffer.tokens.extend(tokens.iter().map(|&token| token as i32));
            buffer.draws.push(row.draw.as_ref(), row.allowed);
        }
        Ok(())
    }

    fn copy(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), StepError> {
        self.held.begin_copy(&self.limits, from, to, len)?;
        if len == 0 {
            return Ok(());
        }
        let ((source, from), (target, to_slot)) = (self.place(from), self.place(to));
        if source == target {
            self.living(target)?.copy_prefix(from, to_slot, len)?;
        } else {
            let mut parts = std::mem::take(&mut self.prefix);
            self.living(source)?.read_prefix(from, len, &mut parts)?;
            self.living(target)?.write_prefix(to_slot, len, &mut parts)?;
            self.prefix = parts;
        }
        self.held.end_copy(to, len);
        Ok(())
    }

    fn living(&mut self, replica: usize) -> Result<&mut Replica, StepError> {
        let replica = &mut self.replicas[replica];
        if replica.is_lost() { Err(StepError::Lost { core: replica.number() }) } else { Ok(replica) }
    }

    /// As the engine must know of it: the device, some of its slots, or this step alone is lost.
    fn report(&mut self, error: StepError) -> BackendError {
        let is_number = !matches!(&error, StepError::Core(error) if error.is_not_a_number());
        let source = error.into();
        if self.replicas.iter().all(Replica::is_lost) {
            return BackendError::DeviceLost { backend: NAME, source };
        }
        let newly = |replica: &Replica| replica.is_lost() && !replica.reported;
        if !self.replicas.iter().any(newly) {
            return match is_number {
                true => BackendError::Step { backend: NAME, source },
                false => BackendError::NotANumber { backend: NAME, source },
            };
        }
        let slots = (0..self.limits.slots)
            .map(Slot)
            .filter(|&slot| newly(&self.replicas[self.place(slot).0]))
            .collect();
        self.replicas.iter_mut().for_each(|replica| replica.reported = replica.is_lost());
        BackendError::SlotsLost { backend: NAME, slots, source }
    }
}

impl Drop for NeuronBackend {
    fn drop(&mut self) {
        // All of them at once: each frees what it has.
        self.replicas.iter_mut().for_each(Replica::close);
    }
}

/// Of a rank's cache, `[slots + 1, kv_heads, context, head_dim]`.
fn layout(cache: &ArrayShape) -> Option<CacheLayout> {
    let &[_, kv_heads, context, head_dim] = cache.dimensions.as_slice() else { return None };
    Some(CacheLayout { kv_heads, context, row_bytes: head_dim * cache.element.size() })
}

/// Puts a replica's logits and tokens where the step's rows have theirs.
fn put(rows: &[Row<'_>], of_replica: &[usize], buffer: &StepBuffer, logits: &mut Logits) {
    let mut done = 0;
    let mut drawn = buffer.draws.drawn.iter();
    for &idx in of_replica {
        let wanted = |row: &Row<'_>| row.tokens.len() - row.logits_from;
        let place: usize = rows[..idx].iter().map(wanted).sum();
        for offset in 0..wanted(&rows[idx]) {
            let row = logits.row_mut(place + offset);
            row.copy_from_slice(&buffer.logits[done * row.len()..][..row.len()]);
            done += 1;
        }
        if rows[idx].draw.is_some() {
            let place = rows[..idx].iter().filter(|row| row.draw.is_some()).count();
            logits.drawn_mut()[place] = *drawn.next().expect("a row that asked for a token has one");
        }
    }
}

impl Backend for NeuronBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        self.step(rows, logits).map_err(|error| self.report(error))
    }

    fn padded_tokens(&self) -> usize {
        let of_step = self.replicas.iter().filter(|replica| !replica.rows.is_empty());
        of_step.map(|replica| replica.ran().padded).sum()
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.copy(from, to, len).map_err(|error| self.report(error))
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "a context of {asked} is asked for, and the programs in {folder} are for {compiled}; leave --context-len out, or run `mondai compile --context-len {asked}`"
)]
struct OtherContext {
    folder: PathBuf,
    asked: usize,
    compiled: usize,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{asked} slots are asked for, and the programs in {folder} have {compiled}, on {replicas} replicas of the model; leave --slots out, or run `mondai compile --slots {compile}`"
)]
struct OtherSlots {
    folder: PathBuf,
    asked: usize,
    compiled: usize,
    replicas: usize,
    /// Of each replica.
    compile: usize,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{asked} cores are asked for, and the programs in {folder} are for {ranks} together; give --cores a multiple of that, such as --cores 0-{}, or run `mondai compile` with another --tensor-parallel",
    .ranks - 1
)]
struct OtherCores {
    folder: PathBuf,
    asked: usize,
    ranks: usize,
}

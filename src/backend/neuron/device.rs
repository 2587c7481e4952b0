//! Cores behind one [`Backend`]: each has a replica of the model, and its share of the slots.
//!
//! Neighbouring slots are on different cores, so that a few requests are spread over them. A step's rows run on all their cores at once. A core that is lost takes its slots with it; the
//! others go on.

use super::artifact::{Artifact, default_folder};
use super::core::{Answer, Core, CoreError, Job, StepBuffer};
use super::hlo::Precision;
use super::layout::CacheLayout;
use super::step::StepRow;
use super::target::Target;
use super::values::constant_values;
use super::worker::Setup;
use crate::backend::{Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot, rules};
use crate::model::Model;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "neuron";

/// What only this backend asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The Neuron runtime library; none: where its package puts it.
    pub library: Option<PathBuf>,
    /// The folder of compiled programs; none: the model's own, in the folder of models.
    pub programs: Option<PathBuf>,
    pub models_dir: PathBuf,
    /// How many cores to use, of those that the process may.
    pub cores: usize,
    pub patience: Patience,
}

/// How long a core may take before it is taken to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To open the runtime, or to load all programs.
    pub opening: Duration,
    pub step: Duration,
    /// To free what it has, when the backend closes.
    pub closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(600),
            step: Duration::from_secs(60),
            closing: Duration::from_secs(20),
        }
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            library: None,
            programs: None,
            models_dir: "models".into(),
            cores: 1,
            patience: Patience::default(),
        }
    }
}

/// See the [module](self).
pub(crate) struct NeuronBackend {
    limits: Limits,
    replicas: Vec<Replica>,
    held: Vec<usize>,
    /// A prefix on its way from one core to another.
    prefix: Vec<u8>,
}

struct Replica {
    core: Core,
    /// `None` while the thread has it.
    buffer: Option<StepBuffer>,
    /// Which rows of the step are this core's.
    rows: Vec<usize>,
    /// The engine knows that the core is lost.
    reported: bool,
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
        let folder = match &device.programs {
            Some(folder) => folder.clone(),
            None => programs_folder(&device.models_dir, &model.name)?,
        };
        let artifact = Artifact::open(&folder, model)?;
        let plan = artifact.plan;
        let cores = device.cores.max(1);
        let asked = OpenOptions { slots: plan.slots * cores, ..options.clone() };
        if ![asked.slots, OpenOptions::default().slots].contains(&options.slots) {
            tracing::warn!(
                asked = options.slots,
                compiled = asked.slots,
                "the programs have slots of their own"
            );
        }
        let asked = match options.context_len {
            0 => OpenOptions { context_len: plan.context, ..asked },
            _ => asked,
        };
        let mut limits = rules::limits(NAME, model, &asked)?;
        if limits.context_len > plan.context {
            return Err(OtherContext { folder, asked: limits.context_len, compiled: plan.context }.into());
        }
        let cache = model.graph.cache();
        let element = match artifact.precision {
            Precision::Bf16 => 2,
            Precision::F32 => 4,
        };
        let row_bytes = cache.head_dim * element;
        let layout = CacheLayout { kv_heads: cache.kv_heads, context: plan.context, row_bytes };
        let programs: Arc<[_]> = artifact.programs.into();
        let mut replicas = Vec::with_capacity(cores);
        // The first initialises the library for all, and what is wrong with it is told once.
        for core in 0..cores {
            let setup = Setup {
                core,
                cores,
                library: device.library.clone(),
                target: artifact.target,
                plan,
                layout,
                vocab_size: limits.vocab_size,
                programs: Arc::clone(&programs),
            };
            let mut core = Core::start(setup, device.patience)?;
            let Answer::Opened { simulated } = core.opening_answer()? else {
                unreachable!("a thread says first that it is open")
            };
            limits.simulated |= simulated;
            replicas.push(Replica {
                core,
                buffer: Some(StepBuffer::default()),
                rows: Vec::new(),
                reported: false,
            });
        }
        let mut backend = Self { held: vec![0; limits.slots], limits, replicas, prefix: Vec::new() };
        for input in programs.first().map(|program| program.inputs.as_slice()).unwrap_or_default() {
            if let Some(bytes) = constant_values(model, plan, input) {
                tracing::debug!(name = input.name, bytes = bytes.len(), "a weight goes to every core");
                let (name, bytes): (Arc<str>, Arc<[u8]>) = (input.name.as_str().into(), bytes.into());
                backend.on_all(|| Job::Constant { name: Arc::clone(&name), bytes: Arc::clone(&bytes) })?;
            }
        }
        backend.on_all(|| Job::Load)?;
        Ok(backend)
    }

    /// Has every core do a job of opening, at the same time.
    fn on_all(&mut self, job: impl Fn() -> Job) -> Result<(), CoreError> {
        self.replicas.iter_mut().try_for_each(|replica| replica.core.ask(job()))?;
        self.replicas.iter_mut().try_for_each(|replica| replica.core.opening_answer().map(drop))
    }

    /// Which core has a slot, and as which of its own.
    fn place(&self, slot: Slot) -> (usize, usize) {
        (slot.0 % self.replicas.len(), slot.0 / self.replicas.len())
    }

    fn step(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), StepError> {
        rules::check_rows(&self.limits, &self.held, rows)?;
        self.deal(rows)?;
        for row in rows {
            self.held[row.slot.0] = row.start;
        }
        logits.resize(rows.iter().map(|row| row.tokens.len() - row.logits_from).sum());
        let mut asked = Ok(());
        for replica in self.replicas.iter_mut().filter(|replica| !replica.rows.is_empty()) {
            let buffer = replica.buffer.take().unwrap_or_default();
            asked = asked.and(replica.core.ask(Job::Step(buffer)));
        }
        // Every core that was asked is heard, whatever the others say, and all of them within one step's time.
        let began = Instant::now();
        let mut ran = asked;
        for replica in self.replicas.iter_mut().filter(|replica| !replica.rows.is_empty()) {
            if replica.core.is_lost() {
                continue;
            }
            match replica.core.answer(began) {
                Ok(Answer::Step(buffer, result)) => {
                    let buffer = replica.buffer.insert(buffer);
                    match result {
                        Ok(()) => put(rows, &replica.rows, buffer, logits),
                        Err(error) => ran = ran.and(Err(error)),
                    }
                }
                Ok(_) => unreachable!("a step is answered by a step"),
                Err(error) => ran = ran.and(Err(error)),
            }
        }
        ran?;
        for row in rows {
            self.held[row.slot.0] = row.start + row.tokens.len();
        }
        Ok(())
    }

    /// Gives each core its rows.
    fn deal(&mut self, rows: &[Row<'_>]) -> Result<(), StepError> {
        for replica in &mut self.replicas {
            replica.rows.clear();
            let buffer = replica.buffer.get_or_insert_default();
            buffer.rows.clear();
            buffer.tokens.clear();
        }
        for (idx, row) in rows.iter().enumerate() {
            let (core, slot) = self.place(row.slot);
            let replica = &mut self.replicas[core];
            if replica.core.is_lost() {
                return Err(StepError::Lost { core });
            }
            replica.rows.push(idx);
            let buffer = replica.buffer.get_or_insert_default();
            let &Row { start, logits_from, tokens, .. } = row;
            buffer.rows.push(StepRow { slot, start, len: tokens.len(), logits_from });
            // The rules have let through none outside the vocabulary.
            buffer.tokens.extend(tokens.iter().map(|&token| token as i32));
        }
        Ok(())
    }

    fn copy(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), StepError> {
        rules::check_copy(&self.limits, &self.held, from, to, len)?;
        self.held[to.0] = 0;
        if len == 0 {
            return Ok(());
        }
        let ((from_core, from), (to_core, to_slot)) = (self.place(from), self.place(to));
        if from_core == to_core {
            self.ask(to_core, Job::CopyPrefix { from, to: to_slot, len })?;
        } else {
            let bytes = std::mem::take(&mut self.prefix);
            let Answer::Prefix(bytes) = self.ask(from_core, Job::ReadPrefix { slot: from, len, bytes })?
            else {
                unreachable!("a prefix is answered by a prefix")
            };
            if let Answer::Prefix(bytes) =
                self.ask(to_core, Job::WritePrefix { slot: to_slot, len, bytes })?
            {
                self.prefix = bytes;
            }
        }
        self.held[to.0] = len;
        Ok(())
    }

    fn ask(&mut self, core: usize, job: Job) -> Result<Answer, StepError> {
        let replica = &mut self.replicas[core];
        if replica.core.is_lost() {
            return Err(StepError::Lost { core });
        }
        replica.core.ask(job)?;
        Ok(replica.core.answer(Instant::now())?)
    }

    /// As the engine must know of it: the device, some of its slots, or this step alone is lost.
    fn report(&mut self, error: StepError) -> BackendError {
        let source = error.into();
        if self.replicas.iter().all(|replica| replica.core.is_lost()) {
            return BackendError::DeviceLost { backend: NAME, source };
        }
        let newly = |replica: &Replica| replica.core.is_lost() && !replica.reported;
        if !self.replicas.iter().any(newly) {
            return BackendError::Step { backend: NAME, source };
        }
        let slots = (0..self.limits.slots)
            .map(Slot)
            .filter(|&slot| newly(&self.replicas[self.place(slot).0]))
            .collect();
        self.replicas.iter_mut().for_each(|replica| replica.reported = replica.core.is_lost());
        BackendError::SlotsLost { backend: NAME, slots, source }
    }
}

impl Drop for NeuronBackend {
    fn drop(&mut self) {
        // All of them at once: each frees what it has.
        self.replicas.iter_mut().for_each(|replica| replica.core.close());
    }
}

/// Puts a core's logits where the step's rows have theirs.
fn put(rows: &[Row<'_>], of_core: &[usize], buffer: &StepBuffer, logits: &mut Logits) {
    let mut done = 0;
    for &idx in of_core {
        let wanted = |row: &Row<'_>| row.tokens.len() - row.logits_from;
        let place: usize = rows[..idx].iter().map(wanted).sum();
        for offset in 0..wanted(&rows[idx]) {
            let row = logits.row_mut(place + offset);
            row.copy_from_slice(&buffer.logits[done * row.len()..][..row.len()]);
            done += 1;
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
        of_step.filter_map(|replica| replica.buffer.as_ref()).map(|buffer| buffer.padded).sum()
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
enum NoFolder {
    #[error(
        "the model {model} is not compiled: there is nothing in {folder}; run `mondai compile --model {model} --target inf2`, or whichever the device is"
    )]
    None { model: String, folder: PathBuf },
    #[error(
        "the model {model} is compiled for {targets}; name one of the folders in {folder} with --neuron-programs"
    )]
    Several { model: String, folder: PathBuf, targets: String },
}

/// The model's programs, if they are for one target.
fn programs_folder(models_dir: &Path, model: &str) -> Result<PathBuf, NoFolder> {
    let folders = Target::ALL.iter().map(|&target| (target, default_folder(models_dir, model, target)));
    let mut folders: Vec<_> = folders.filter(|(_, folder)| folder.is_dir()).collect();
    let folder = models_dir.join(model).join("neuron");
    let model = model.to_owned();
    match folders.len() {
        0 => Err(NoFolder::None { model, folder }),
        1 => Ok(folders.remove(0).1),
        _ => {
            let targets: Vec<_> = folders.iter().map(|(target, _)| target.to_string()).collect();
            Err(NoFolder::Several { model, folder, targets: targets.join(", ") })
        }
    }
}

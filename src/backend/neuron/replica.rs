//! One replica of the model: the cores that hold it together, each a rank of its programs.
//!
//! A job is every rank's, and they are at it at the same time: a program of several ranks is loaded, and runs, once
//! all of them have come. So a rank that is lost takes the replica with it, and that is found as soon as it is
//! known, while the others still wait for it. All ranks compute the same logits, and draw
//! the same tokens; the first's are read.

use super::core::{Answer, Core, CoreError, Job, StepBuffer};
use super::options::Patience;
use super::worker::Setup;
use std::time::{Duration, Instant};

/// While one rank is waited for, the others are looked at this often.
const GLANCE: Duration = Duration::from_millis(20);

pub(super) struct Replica {
    /// By rank.
    cores: Vec<Core>,
    /// What each core answered to the last job.
    heard: Vec<Option<Result<Answer, CoreError>>>,
    /// Each rank's, alike but for the logits and the tokens drawn; taken while its thread has it.
    buffers: Vec<StepBuffer>,
    /// Which rows of the step are this replica's.
    pub(super) rows: Vec<usize>,
    /// The engine knows that the replica is lost.
    pub(super) reported: bool,
    pub(super) simulated: bool,
    /// Slots that may hold what is no number, which would spoil whatever looks over it, even where it counts for
    /// nothing. A step that failed may have written such on any core; or found it, and then an earlier one wrote
    /// it, nobody knows where. So what is not kept of the slot is zeroed before it is used again.
    poisoned: Vec<bool>,
    patience: Patience,
}

impl Replica {
    /// Starts a thread for each core, which opens the runtime there: one after another, as the first of all
    /// initialises the library, and what is wrong with it is told once.
    pub(super) fn open(
        setups: impl Iterator<Item = Setup>,
        slots: usize,
        patience: Patience,
    ) -> Result<Self, CoreError> {
        let (mut cores, mut simulated) = (Vec::new(), false);
        for setup in setups {
            let core = Core::start(setup, patience.closing)?;
            match core.hear(patience.opening) {
                Some(Ok(Answer::Opened { simulated: of_core })) => simulated |= of_core,
                Some(Ok(_)) => unreachable!("a thread says first that it is open"),
                Some(Err(error)) => return Err(error),
                None => return Err(CoreError::Hung { core: core.number(), limit: patience.opening }),
            }
            cores.push(core);
        }
        Ok(Self {
            heard: cores.iter().map(|_| None).collect(),
            buffers: cores.iter().map(|_| StepBuffer::default()).collect(),
            cores,
            rows: Vec::new(),
            reported: false,
            simulated,
            poisoned: vec![false; slots],
            patience,
        })
    }

    /// The core of the first rank.
    pub(super) fn number(&self) -> usize {
        self.cores[0].number()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.cores.iter().any(Core::has_ended)
    }

    /// Gives every rank its job of opening.
    pub(super) fn begin(&mut self, mut job: impl FnMut(usize) -> Job) -> Result<(), CoreError> {
        let mut cores = self.cores.iter_mut().enumerate();
        let asked = cores.try_for_each(|(rank, core)| core.ask(job(rank)));
        asked.map_err(|error| self.lose(error))
    }

    /// Waits for what a job of opening came to.
    pub(super) fn begun(&mut self) -> Result<(), CoreError> {
        self.hear(Instant::now(), self.patience.opening)?;
        self.check()
    }

    /// The rows of the next step, to be filled.
    pub(super) fn buffer(&mut self) -> &mut StepBuffer {
        &mut self.buffers[0]
    }

    /// The last step, with its logits and the tokens drawn.
    pub(super) fn ran(&self) -> &StepBuffer {
        &self.buffers[0]
    }

    /// Has every rank run the step that [`buffer`](Self::buffer) holds.
    pub(super) fn begin_step(&mut self) -> Result<(), CoreError> {
        for idx in 0..self.buffers.len() {
            let (before, from_here) = self.buffers.split_at_mut(idx);
            let buffer = &mut from_here[0];
            if let Some(first) = before.first() {
                buffer.rows.clone_from(&first.rows);
                buffer.tokens.clone_from(&first.tokens);
                buffer.draws.ask_as(&first.draws);
            }
            let poisoned = buffer.rows.iter().filter(|row| self.poisoned[row.slot]);
            buffer.cleared.clear();
            buffer.cleared.extend(poisoned.map(|row| (row.slot, row.start)));
        }
        let mut asked = Ok(());
        for (core, buffer) in self.cores.iter_mut().zip(&mut self.buffers) {
            asked = asked.and(core.ask(Job::Step(std::mem::take(buffer))));
        }
        asked.map_err(|error| self.lose(error))
    }

    /// Waits for what the step came to that began then.
    pub(super) fn end_step(&mut self, began: Instant) -> Result<(), CoreError> {
        self.hear(began, self.patience.step)?;
        let mut ran = Ok(());
        for (buffer, heard) in self.buffers.iter_mut().zip(&mut self.heard) {
            match heard.take() {
                Some(Ok(Answer::Step(of_core, result))) => {
                    *buffer = of_core;
                    ran = ran.and(result);
                }
                Some(Err(error)) => ran = ran.and(Err(error)),
                _ => unreachable!("a step is answered by a step"),
            }
        }
        for row in &self.buffers[0].rows {
            self.poisoned[row.slot] = ran.is_err();
        }
        ran
    }

    pub(super) fn copy_prefix(&mut self, from: usize, to: usize, len: usize) -> Result<(), CoreError> {
        self.all(|_| Job::CopyPrefix { from, to, len })
    }

    /// Fills `parts`, one for each rank, with what a slot holds of the first positions.
    pub(super) fn read_prefix(
        &mut self,
        slot: usize,
        len: usize,
        parts: &mut Vec<Vec<u8>>,
    ) -> Result<(), CoreError> {
        parts.resize_with(self.cores.len(), Vec::new);
        self.all(|rank| Job::ReadPrefix { slot, len, bytes: std::mem::take(&mut parts[rank]) })?;
        self.take_back(parts);
        Ok(())
    }

    /// Puts what another replica's [`read_prefix`](Self::read_prefix) has read into a slot.
    pub(super) fn write_prefix(
        &mut self,
        slot: usize,
        len: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CoreError> {
        self.all(|rank| Job::WritePrefix { slot, len, bytes: std::mem::take(&mut parts[rank]) })?;
        self.take_back(parts);
        Ok(())
    }

    /// The memory that went along with the last job.
    fn take_back(&mut self, parts: &mut [Vec<u8>]) {
        for (heard, part) in self.heard.iter_mut().zip(parts) {
            if let Some(Ok(Answer::Prefix(bytes))) = heard.take() {
                *part = bytes;
            }
        }
    }

    /// Has every rank do a job, and waits for it.
    fn all(&mut self, job: impl FnMut(usize) -> Job) -> Result<(), CoreError> {
        self.begin(job)?;
        self.hear(Instant::now(), self.patience.step)?;
        self.check()
    }

    /// # Errors
    /// The first that a rank has answered.
    fn check(&mut self) -> Result<(), CoreError> {
        let failed = self.heard.iter_mut().find(|heard| matches!(heard, Some(Err(_))));
        match failed.and_then(Option::take) {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until every rank has answered, so long after it was asked.
    ///
    /// # Errors
    /// One is lost, and the replica with it.
    fn hear(&mut self, asked: Instant, limit: Duration) -> Result<(), CoreError> {
        self.heard.fill_with(|| None);
        while let Some(awaited) = self.heard.iter().position(Option::is_none) {
            let left = limit.saturating_sub(asked.elapsed());
            for rank in awaited..self.cores.len() {
                if self.heard[rank].is_some() {
                    continue;
                }
                let wait = if rank == awaited { left.min(GLANCE) } else { Duration::ZERO };
                match self.cores[rank].hear(wait) {
                    Some(Err(error)) if error.loses_core() => return Err(self.lose(error)),
                    answer => self.heard[rank] = answer,
                }
            }
            if left.is_zero() && self.heard[awaited].is_none() {
                let core = self.cores[awaited].number();
                return Err(self.lose(CoreError::Hung { core, limit }));
            }
        }
        Ok(())
    }

    /// Has the threads end as soon as they can.
    pub(super) fn close(&mut self) {
        self.cores.iter_mut().for_each(Core::close);
    }

    /// The other ranks would wait for the one that is lost.
    fn lose(&mut self, error: CoreError) -> CoreError {
        self.close();
        error
    }
}

//! One NeuronCore: a thread that alone talks to it, and the handle that the backend has on that thread.
//!
//! Everything that lies on the core is made, used and freed by its thread, whose stack is large: the library
//! needs more than the 2 MiB that a thread has by default (aws-neuron-sdk issue 673). A call that never returns
//! is noticed by whoever waits for the thread, and costs this core, not the process.

use super::draws::Draws;
use super::nrt::{NrtError, Remedy};
use super::step::StepRow;
use super::worker::{Setup, Worker};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Of address space; what is not used is not taken.
const STACK_BYTES: usize = 128 << 20;

/// What a thread is asked to do. It answers each job once.
pub(super) enum Job {
    /// Keep these bytes as the constant of this name.
    Constant {
        name: Arc<str>,
        bytes: Arc<[u8]>,
    },
    /// All constants are there: load the programs.
    Load,
    Step(StepBuffer),
    CopyPrefix {
        from: usize,
        to: usize,
        len: usize,
    },
    ReadPrefix {
        slot: usize,
        len: usize,
        bytes: Vec<u8>,
    },
    WritePrefix {
        slot: usize,
        len: usize,
        bytes: Vec<u8>,
    },
}

pub(super) enum Answer {
    /// The job is done.
    Done,
    /// The runtime is open.
    Opened { simulated: bool },
    /// The step with its logits and tokens if the core is the first of its replica, and whether they are good.
    Step(StepBuffer, Result<(), CoreError>),
    /// Of [`Job::ReadPrefix`] and [`Job::WritePrefix`], whose memory goes back and forth.
    Prefix(Vec<u8>),
}

/// A step's rows on one core. Goes to the thread and comes back, so that no step allocates.
#[derive(Debug, Default)]
pub(super) struct StepBuffer {
    pub(super) rows: Vec<StepRow>,
    /// Slots that are zeroed first, from a position on.
    pub(super) cleared: Vec<(usize, usize)>,
    /// Of all rows, one after another.
    pub(super) tokens: Vec<i32>,
    /// `[wanted, vocab_size]`, in the rows' order.
    pub(super) logits: Vec<f32>,
    pub(super) draws: Draws,
    /// Tokens that were run beside the rows'.
    pub(super) padded: usize,
}

/// What a core cannot do.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CoreError {
    #[error("core {core} of this process: {error}")]
    Call { core: usize, error: NrtError },
    #[error("core {core} of this process: a logit of slot {slot} is not a number")]
    NotANumber { core: usize, slot: usize },
    #[error("core {core} of this process: what it drew for slot {slot} is no token")]
    NoToken { core: usize, slot: usize },
    #[error("core {core} of this process has not answered for {limit:?}; see `mondai doctor neuron`")]
    Hung { core: usize, limit: Duration },
    #[error("core {core} of this process: its thread ended, which is a mistake of mondai's")]
    Ended { core: usize },
    #[error("core {core} of this process failed {times} times in a row")]
    Repeated {
        core: usize,
        times: u32,
        #[source]
        last: Box<CoreError>,
    },
    #[error("core {core} of this process: {reason}")]
    Open { core: usize, reason: String },
}

impl CoreError {
    /// Nothing can be asked of the core any more.
    pub(super) fn loses_core(&self) -> bool {
        match self {
            Self::Call { error, .. } => match error.remedy() {
                Remedy::Retry | Remedy::FailRequest | Remedy::Shrink => false,
                Remedy::LoseCore | Remedy::GiveUp => true,
            },
            Self::NotANumber { .. } | Self::NoToken { .. } => false,
            Self::Hung { .. } | Self::Ended { .. } | Self::Repeated { .. } | Self::Open { .. } => true,
        }
    }

    /// Something that is no number lies in the cache, or did when the step ran.
    pub(super) fn is_not_a_number(&self) -> bool {
        matches!(self, Self::NotANumber { .. } | Self::NoToken { .. })
    }

    pub(super) fn open(core: usize, reason: impl ToString) -> Self {
        Self::Open { core, reason: reason.to_string() }
    }
}

/// The handle on a core's thread.
pub(super) struct Core {
    number: usize,
    jobs: Option<SyncSender<Job>>,
    answers: Receiver<Result<Answer, CoreError>>,
    thread: Option<JoinHandle<()>>,
    /// How long the thread may take to end.
    closing: Duration,
}

impl Core {
    /// Starts the thread, which opens the runtime and makes room for the cache. The first answer says whether it
    /// could.
    pub(super) fn start(setup: Setup, closing: Duration) -> Result<Self, CoreError> {
        let number = setup.core;
        // One job at a time, and so one answer.
        let (jobs, inbox) = sync_channel(1);
        let (outbox, answers) = sync_channel(1);
        let run = move || {
            let worker = match Worker::open(setup) {
                Ok(worker) => worker,
                Err(error) => return drop(outbox.send(Err(error))),
            };
            let opened = Answer::Opened { simulated: worker.simulated() };
            if outbox.send(Ok(opened)).is_ok() {
                serve(worker, &inbox, &outbox);
            }
        };
        let thread = thread::Builder::new().name(format!("neuron-core-{number}")).stack_size(STACK_BYTES);
        let thread = thread.spawn(run).map_err(|error| CoreError::open(number, error))?;
        Ok(Self { number, jobs: Some(jobs), answers, thread: Some(thread), closing })
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn has_ended(&self) -> bool {
        self.jobs.is_none()
    }

    /// Gives the thread a job. Each is answered before the next is given.
    pub(super) fn ask(&mut self, job: Job) -> Result<(), CoreError> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(CoreError::Ended { core: self.number }) }
    }

    /// What the job came to, if that is known within so long.
    pub(super) fn hear(&self, wait: Duration) -> Option<Result<Answer, CoreError>> {
        match self.answers.recv_timeout(wait) {
            Ok(Ok(Answer::Step(_, Err(error)))) if error.loses_core() => Some(Err(error)),
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(CoreError::Ended { core: self.number })),
        }
    }

    /// Has the thread end as soon as it can. It frees what it has: no other program will run on the core.
    pub(super) fn close(&mut self) {
        self.jobs = None;
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
        let hangs = Instant::now() + self.closing;
        loop {
            // Answers that nobody waits for, then the thread's end.
            match self.answers.recv_timeout(hangs.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::error!(core = self.number, "the core's thread does not end and is left alone");
                    return;
                }
            }
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(core = self.number, "the core's thread panicked");
        }
    }
}

fn serve(mut worker: Worker, jobs: &Receiver<Job>, answers: &SyncSender<Result<Answer, CoreError>>) {
    while let Ok(job) = jobs.recv() {
        let answer = match job {
            Job::Constant { name, bytes } => worker.memory.constant(&name, &bytes).map(|()| Answer::Done),
            Job::Load => worker.load().map(|()| Answer::Done),
            Job::Step(mut buffer) => {
                let result = worker.step(&mut buffer);
                Ok(Answer::Step(buffer, result))
            }
            Job::CopyPrefix { from, to, len } => {
                worker.memory.copy_prefix(from, to, len).map(|()| Answer::Done)
            }
            Job::ReadPrefix { slot, len, mut bytes } => {
                worker.memory.read_prefix(slot, len, &mut bytes).map(|()| Answer::Prefix(bytes))
            }
            Job::WritePrefix { slot, len, bytes } => {
                worker.memory.write_prefix(slot, len, &bytes).map(|()| Answer::Prefix(bytes))
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

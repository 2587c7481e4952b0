//! The engine's public face: the handle requests go in by, and the stream their tokens come back on.

use super::sequence::Sequence;
use super::shared::Shared;
use super::thread::EngineThread;
use super::{EngineError, SequenceRequest, TokenEvent};
use crate::backend::{Backend, Limits};
use crate::metrics::Metrics;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// How the engine queues and plans.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Requests that may wait for a slot.
    pub max_queued: usize,
    /// Tokens one step may have; long prompts are cut to fit beside the running replies. The backend's
    /// own limit holds too.
    pub max_step_tokens: usize,
    /// Tokens of one reply that one step may guess ahead, to be thrown away unless they are chosen; 0: none.
    /// What a reply says does not depend on it. A backend that draws tokens itself has none.
    pub max_draft_tokens: usize,
    /// A step that takes longer than this counts as stalled.
    pub stall_limit: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_queued: 256,
            max_step_tokens: 512,
            max_draft_tokens: 7,
            stall_limit: Duration::from_secs(60),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineHealth {
    Ready,
    /// A step has been running for this long, more than the stall limit.
    Stalled {
        since: Duration,
    },
    Draining,
    Lost {
        reason: String,
    },
}

/// A handle on the engine thread; clones share it. Dropping the last one drains and stops it, and waits
/// for that.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    options: EngineOptions,
    shared: Arc<Shared>,
    /// `None` only while dropping: the thread ends when this is gone and its work is done.
    submissions: Option<mpsc::Sender<Sequence>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread that owns `backend`.
    pub fn start(backend: Box<dyn Backend>, options: EngineOptions, metrics: Arc<Metrics>) -> Self {
        let limits = backend.limits().clone();
        let shared = Arc::new(Shared::new());
        let (sender, receiver) = mpsc::channel();
        let engine = EngineThread::new(backend, &options, receiver, Arc::clone(&shared), metrics);
        let thread = std::thread::Builder::new()
            .name("mondai-engine".into())
            .spawn(move || engine.run())
            .expect("the system can start one more thread");
        let inner = Inner { limits, options, shared, submissions: Some(sender), thread: Some(thread) };
        Self { inner: Arc::new(inner) }
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Queues a request; never blocks.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::PromptTooLong`], [`EngineError::ShuttingDown`],
    /// [`EngineError::BackendLost`]; [`EngineError::Sequence`]: the prompt is empty or holds a token outside
    /// the vocabulary.
    pub fn submit(&self, request: SequenceRequest) -> Result<TokenStream, EngineError> {
        let Inner { limits, options, shared, submissions, .. } = &*self.inner;
        if let Some(lost) = shared.lost() {
            return Err(lost);
        }
        if shared.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        check_tokens(&request, limits)?;
        if !shared.enter(limits.slots + options.max_queued) {
            let queued = options.max_queued;
            return Err(EngineError::QueueFull { queued, retry_after: shared.retry_after(queued) });
        }
        // Not bounded by itself, but by the reply's budget.
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stream =
            TokenStream { events, stop: Arc::clone(&stop), shared: Arc::clone(shared), ended: false };
        let sequence = Sequence::new(request, limits.context_len, sender, stop);
        let submissions = submissions.as_ref().expect("it is there until the last handle is dropped");
        match submissions.send(sequence) {
            Ok(()) => Ok(stream),
            Err(_) => Err(lost_or_ended(shared)),
        }
    }

    /// Whether the engine can take work, judged by forward progress.
    pub fn health(&self) -> EngineHealth {
        self.inner.shared.health(self.inner.options.stall_limit)
    }

    /// Refuses new work; what was accepted is finished.
    pub fn drain(&self) {
        self.inner.shared.drain();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics; there is nothing to learn from its end.
            let _ = thread.join();
        }
    }
}

fn check_tokens(request: &SequenceRequest, limits: &Limits) -> Result<(), EngineError> {
    let SequenceRequest { prompt, given, .. } = request;
    let invalid = |reason| Err(EngineError::Sequence { reason });
    if prompt.is_empty() {
        return invalid("the prompt is empty".to_owned());
    }
    if prompt.len() + given.len().max(1) > limits.context_len {
        return Err(EngineError::PromptTooLong {
            prompt_tokens: prompt.len(),
            context_len: limits.context_len,
        });
    }
    match prompt.iter().chain(given).find(|&&token| token as usize >= limits.vocab_size) {
        Some(token) => invalid(format!("token {token} is outside the vocabulary of {}", limits.vocab_size)),
        None => Ok(()),
    }
}

fn lost_or_ended(shared: &Shared) -> EngineError {
    let ended = || EngineError::BackendLost { reason: "the engine thread has ended".into() };
    shared.lost().unwrap_or_else(ended)
}

/// One request's events. Dropping it cancels the request within one step.
pub struct TokenStream {
    events: UnboundedReceiver<TokenEvent>,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    ended: bool,
}

impl TokenStream {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        if self.ended {
            return None;
        }
        // The thread ends every stream it knows; one that it never took in ends here.
        let event =
            self.events.recv().await.unwrap_or_else(|| TokenEvent::Failed(lost_or_ended(&self.shared)));
        self.ended = matches!(event, TokenEvent::Finished(_) | TokenEvent::Failed(_));
        Some(event)
    }

    /// Ends the sequence where it is, as a stop token would; `Finished` still comes.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

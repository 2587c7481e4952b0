//! The engine thread: the loop that owns the backend, and what it does when something fails.

use super::scheduler::{PlannedRow, Scheduler, SequenceId};
use super::sequence::{End, Sequence, Yielded, failed};
use super::shared::{CompletionRate, Shared};
use super::{EngineError, EngineOptions, FinishReason};
use crate::backend::{Backend, BackendError, Draw, Logits, Row, Slot};
use crate::metrics::Metrics;
use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

pub(super) struct EngineThread {
    backend: Box<dyn Backend>,
    /// The backend draws tokens, where it is asked to.
    draws: bool,
    logits: Logits,
    scheduler: Scheduler,
    sequences: HashMap<SequenceId, Sequence>,
    n_submitted: u64,
    submissions: Receiver<Sequence>,
    completions: CompletionRate,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

/// The backend is gone for good.
struct Lost {
    reason: String,
}

/// Why rows could not be run.
enum RunError {
    Lost(Lost),
    /// These slots are gone for good; the backend can go on with the others.
    Slots {
        slots: Vec<Slot>,
        reason: String,
    },
    /// These rows failed; the backend can go on.
    Rows {
        reason: String,
        /// What their slots held may be to blame.
        inherited: bool,
    },
}

impl EngineThread {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        options: &EngineOptions,
        submissions: Receiver<Sequence>,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let draws = backend.limits().draws;
        // A draft is checked by the logits of every place.
        let max_draft_tokens = if draws { 0 } else { options.max_draft_tokens };
        Self {
            draws,
            logits: Logits::new(backend.limits().vocab_size),
            scheduler: Scheduler::new(backend.limits(), options.max_step_tokens, max_draft_tokens),
            backend,
            sequences: HashMap::new(),
            n_submitted: 0,
            submissions,
            completions: CompletionRate::new(Instant::now()),
            shared,
            metrics,
        }
    }

    /// Serves until all handles are gone and all work is done, or the backend is lost.
    pub(super) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason = match served {
            Ok(Ok(())) => return,
            Ok(Err(lost)) => lost.reason,
            Err(panic) => format!("the engine thread panicked: {}", panic_message(&*panic)),
        };
        tracing::error!(reason, "the backend is lost");
        self.shared.lose(reason.clone());
        for (_, sequence) in self.sequences.drain() {
            let error = EngineError::BackendLost { reason: reason.clone() };
            sequence.end(End::Failed(error), Instant::now(), &self.metrics);
        }
        self.metrics.engine_queue(0, 0);
    }

    fn serve(&mut self) -> Result<(), Lost> {
        while self.take_submissions() {
            self.shared.step_begins();
            self.end_called_off();
            self.copy_prefixes()?;
            self.metrics.engine_queue(self.scheduler.n_waiting(), self.scheduler.n_running());
            self.step()?;
        }
        Ok(())
    }

    /// Waits for a request only when there is nothing else to do; `false` when there never will be.
    fn take_submissions(&mut self) -> bool {
        if self.sequences.is_empty() {
            self.metrics.engine_queue(0, 0);
            self.shared.idles();
            let Ok(submission) = self.submissions.recv() else { return false };
            self.completions.resume(Instant::now());
            self.shared.step_begins();
            self.accept(submission);
        }
        loop {
            match self.submissions.try_recv() {
                Ok(submission) => self.accept(submission),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn accept(&mut self, mut sequence: Sequence) {
        let id = SequenceId(self.n_submitted);
        self.n_submitted += 1;
        let begun = guard(|| sequence.begin());
        self.sequences.insert(id, sequence);
        match begun {
            Ok(Ok((tokens, logits_from))) => self.scheduler.submit(id, tokens, logits_from),
            Ok(Err(end)) => self.report_and_end(id, end),
            Err(panic) => self.end(id, failed(panic)),
        }
    }

    fn end_called_off(&mut self) {
        let called_off = |(&id, sequence): (_, &Sequence)| sequence.called_off().map(|end| (id, end));
        let ends: Vec<_> = self.sequences.iter().filter_map(called_off).collect();
        for (id, end) in ends {
            self.end(id, end);
        }
    }

    /// Admits what can be admitted. A copy that fails costs the reuse, not the sequence.
    fn copy_prefixes(&mut self) -> Result<(), Lost> {
        while let Some(copy) = self.scheduler.admit() {
            match run_backend(|| self.backend.copy_prefix(copy.from, copy.to, copy.len)) {
                Ok(()) => {}
                Err(RunError::Lost(lost)) => return Err(lost),
                Err(RunError::Slots { slots, reason }) => {
                    self.scheduler.forget(copy.to);
                    self.lose(&slots, &reason);
                }
                Err(RunError::Rows { reason, .. }) => {
                    tracing::warn!(reason, "a prefix could not be copied and is computed again");
                    self.scheduler.forget(copy.to);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Lost> {
        let mut rows = self.scheduler.plan();
        self.prepare_masks(&mut rows);
        if rows.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        for row in &rows {
            let sequence = self.sequences.get_mut(&row.id).expect("rows are planned for known sequences");
            sequence.start(row.start, now, &self.metrics);
            sequence.count_drafted(row.n_drafted, &self.metrics);
        }
        match self.extend(&rows) {
            Ok(()) => self.commit(&rows),
            Err(RunError::Lost(lost)) => return Err(lost),
            // The other rows are planned again.
            Err(RunError::Slots { slots, reason }) => self.lose(&slots, &reason),
            Err(RunError::Rows { reason, inherited }) if rows.len() == 1 && rows[0].n_drafted == 0 => {
                self.fail_row(rows[0].id, reason, inherited);
            }
            Err(RunError::Rows { reason, .. }) => {
                tracing::warn!(
                    reason,
                    rows = rows.len(),
                    "a step failed and is repeated row by row, undrafted"
                );
                for row in &rows {
                    // What nobody chose may have failed.
                    let row = [self.scheduler.undraft(row)];
                    match self.extend(&row) {
                        Ok(()) => self.commit(&row),
                        Err(RunError::Lost(lost)) => return Err(lost),
                        Err(RunError::Slots { slots, reason }) => {
                            self.lose(&slots, &reason);
                            return Ok(());
                        }
                        Err(RunError::Rows { reason, inherited }) => {
                            self.fail_row(row[0].id, reason, inherited);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A backend that knows beforehand which tokens may come computes less, and where it draws it has to. A sequence
    /// that cannot say so ends, and its row with it.
    fn prepare_masks(&mut self, rows: &mut Vec<PlannedRow>) {
        let masked = rows.iter().filter(|row| asks_once(row)).map(|row| (row.id, ())).collect();
        let prepare = |sequence: &mut Sequence, ()| sequence.prepare_mask();
        for (id, prepared) in share_out(&mut *self.backend, &mut self.sequences, masked, prepare) {
            if let Err(reason) = prepared {
                self.fail(id, reason);
                rows.retain(|row| row.id != id);
            }
        }
    }

    fn extend(&mut self, planned: &[PlannedRow]) -> Result<(), RunError> {
        let tokens: Vec<_> = planned.iter().map(|row| self.scheduler.tokens(row)).collect();
        let rows: Vec<Row<'_>> = planned
            .iter()
            .zip(&tokens)
            .map(|(row, tokens)| {
                let draw = draw(&self.sequences, row).filter(|_| self.draws);
                let sequence = self.sequences.get(&row.id).filter(|_| asks_once(row));
                Row {
                    slot: row.slot,
                    start: row.start,
                    tokens,
                    logits_from: if draw.is_some() { row.len } else { row.logits_from },
                    allowed: sequence.and_then(|sequence| sequence.allowed(draw.is_some())),
                    draw,
                }
            })
            .collect();
        let wanted = |row: &Row<'_>| row.tokens.len() - row.logits_from;
        let (n_logits, n_draws) =
            (rows.iter().map(wanted).sum::<usize>(), rows.iter().filter(|row| row.draw.is_some()).count());
        let began = Instant::now();
        run_backend(|| self.backend.extend(&rows, &mut self.logits))?;
        let n_tokens: usize = planned.iter().map(|row| row.len - row.n_drafted).sum();
        let n_prompt: usize = planned.iter().map(|row| row.n_prompt).sum();
        self.metrics.engine_step(began.elapsed(), rows.len(), n_prompt, n_tokens - n_prompt);
        self.metrics.step_padded(self.backend.padded_tokens());

        let (given, drawn) = (self.logits.len(), self.logits.drawn().len());
        if (given, drawn) != (n_logits, n_draws) {
            let reason = format!(
                "the backend gave {given} rows of logits and {drawn} tokens for {n_logits} and {n_draws}"
            );
            return Err(RunError::Rows { reason, inherited: false });
        }
        Ok(())
    }

    /// The rows have run: each sequence at its end chooses on, as far as its row's drafts are right.
    fn commit(&mut self, rows: &[PlannedRow]) {
        rows.iter().for_each(|row| self.scheduler.computed(row));
        for (id, chosen) in self.choose(rows) {
            match chosen {
                Ok((n_known, end)) => self.go_on(id, n_known, end),
                Err(reason) => self.fail(id, reason),
            }
        }
    }

    /// Returns how many fresh tokens each sequence had before, which the scheduler knows, and whether it is at its end.
    fn choose(&mut self, rows: &[PlannedRow]) -> Vec<Done<(usize, Option<FinishReason>)>> {
        let mut drawn = self.logits.drawn().to_vec().into_iter();
        let mut logits = self.logits.rows_mut();
        let yielded = rows.iter().filter(|row| asks(row)).map(|row| {
            let yielded = match draw(&self.sequences, row).filter(|_| self.draws) {
                Some(_) => Yielded::Token(drawn.next().expect("as many are drawn as were asked for")),
                None => Yielded::Logits(logits.by_ref().take(row.len - row.logits_from).collect()),
            };
            (row.id, (yielded, self.scheduler.drafts(row)))
        });
        let yielded = yielded.collect();
        share_out(&mut *self.backend, &mut self.sequences, yielded, |sequence, (yielded, drafts)| {
            let n_known = sequence.n_fresh();
            Ok((n_known, sequence.advance(yielded, drafts)?))
        })
    }

    /// Has a sequence's fresh tokens without the first `n_known` computed, where they were not drafted, and sends all.
    fn go_on(&mut self, id: SequenceId, n_known: usize, end: Option<FinishReason>) {
        let sequence = self.sequences.get_mut(&id).expect("rows are planned for known sequences");
        if !sequence.is_given() {
            let fresh = sequence.fresh_tokens(n_known);
            // Nothing comes after the last token of all: it needs no row, and no draft of it is worth one.
            let fresh = &fresh[..fresh.len() - usize::from(end.is_some())];
            let n_accepted =
                fresh.iter().filter(|new| self.scheduler.push(id, new.token, new.forced)).count();
            sequence.count_accepted(n_accepted, &self.metrics);
        }
        match end {
            Some(reason) => self.report_and_end(id, End::Finished(reason)),
            None if sequence.is_given() => {}
            None => sequence.report(Instant::now(), &self.metrics),
        }
    }

    fn report_and_end(&mut self, id: SequenceId, end: End) {
        let sequence = self.sequences.get_mut(&id).expect("only known sequences end");
        sequence.report(Instant::now(), &self.metrics);
        self.end(id, end);
    }

    fn lose(&mut self, slots: &[Slot], reason: &str) {
        tracing::error!(reason, slots = slots.len(), "slots are lost");
        for &slot in slots {
            if let Some(id) = self.scheduler.lose(slot) {
                self.end(id, failed(reason.to_owned()));
            }
        }
        self.metrics.lost_slots(slots.len());
    }

    /// A row failed that ran alone. Its sequence ends, unless it may have failed for what it took over.
    fn fail_row(&mut self, id: SequenceId, reason: String, inherited: bool) {
        if inherited && self.scheduler.start_over(id) {
            tracing::warn!(reason, sequence = id.0, "a sequence starts over, and takes nothing over");
            self.sequences.get_mut(&id).expect("rows are planned for known sequences").start_over();
        } else {
            self.fail(id, reason);
        }
    }

    fn fail(&mut self, id: SequenceId, reason: String) {
        tracing::warn!(reason, sequence = id.0, "a sequence failed");
        self.end(id, failed(reason));
    }

    /// Frees the slot and the place in the queue first: who hears of the end may count on both.
    fn end(&mut self, id: SequenceId, end: End) {
        let sequence = self.sequences.remove(&id).expect("a sequence ends once");
        match end {
            End::Failed(_) => self.scheduler.discard(id),
            End::Finished(FinishReason::Stop | FinishReason::Length) | End::Cancelled => {
                self.scheduler.finish(id)
            }
        }
        self.shared.leave();
        let now = Instant::now();
        self.completions.record(now, &self.shared);
        sequence.end(end, now, &self.metrics);
    }
}

/// What a backend that draws is to draw for a row.
fn draw(sequences: &HashMap<SequenceId, Sequence>, row: &PlannedRow) -> Option<Draw> {
    sequences.get(&row.id).filter(|_| asks(row)).and_then(Sequence::draw)
}

/// Whether a token is to be chosen after the row, or weighed in it.
fn asks(row: &PlannedRow) -> bool {
    row.logits_from < row.len
}

/// Whether it asks for what follows its last token alone. A mask is of one place: behind a draft, others hold.
fn asks_once(row: &PlannedRow) -> bool {
    row.logits_from + 1 == row.len
}

/// What came of a sequence's work, or why it cannot go on.
type Done<T> = (SequenceId, Result<T, String>);

/// Does a piece of work of each of these sequences. None hangs on another's, so the backend's threads share them out.
fn share_out<W: Send, T: Send + Sync>(
    backend: &mut dyn Backend,
    sequences: &mut HashMap<SequenceId, Sequence>,
    work: Vec<(SequenceId, W)>,
    run: impl Fn(&mut Sequence, W) -> Result<T, String> + Sync,
) -> Vec<Done<T>> {
    let mut sequences: HashMap<_, _> = sequences.iter_mut().collect();
    let tasks: Vec<_> = work
        .into_iter()
        .map(|(id, work)| {
            let sequence = sequences.remove(&id).expect("rows are planned for known sequences, one for each");
            // One task's alone, which the compiler cannot see.
            (id, Mutex::new(Some((sequence, work))), OnceLock::new())
        })
        .collect();
    backend.share_out(tasks.len(), &|idx| {
        let (_, work, done) = &tasks[idx];
        let taken = work.lock().ok().and_then(|mut work| work.take());
        let (sequence, work) = taken.expect("each is run once");
        let _ = done.set(guard(|| run(sequence, work)).flatten());
    });
    tasks.into_iter().map(|(id, _, done)| (id, done.into_inner().expect("all have run"))).collect()
}

/// Runs code that must not end the thread; a panic becomes its message.
fn guard<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic may leave half done is dropped with its sequence, or written anew by the next step.
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| format!("panicked: {}", panic_message(&*panic)))
}

fn run_backend(call: impl FnOnce() -> Result<(), BackendError>) -> Result<(), RunError> {
    match guard(call) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ BackendError::DeviceLost { .. })) => {
            Err(RunError::Lost(Lost { reason: chain(&error) }))
        }
        Ok(Err(error)) => {
            let reason = chain(&error);
            Err(match error {
                BackendError::SlotsLost { slots, .. } => RunError::Slots { slots, reason },
                BackendError::NotANumber { .. } => RunError::Rows { reason, inherited: true },
                _ => RunError::Rows { reason, inherited: false },
            })
        }
        Err(panic) => Err(RunError::Rows { reason: format!("the backend {panic}"), inherited: false }),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

//! A backend for tests: it replays chosen tokens, makes up the others, and fails on command.
//!
//! Its logits are a function of all the tokens a slot holds, so that any mistake in slots, positions or
//! copies changes the reply. Every call is held strictly to the rules of [`Backend`]; what breaks them
//! is an error, and is kept for [`ScriptedControl::violations`], where the engine's own patience with
//! failing steps cannot hide it.

use super::rules::{BrokenRule, check_copy, check_rows};
use super::{Backend, BackendError, Limits, Logits, Row, Slot};
use crate::text::TokenId;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

const NAME: &str = "scripted";
/// Logit of a scripted token; made-up logits stay within [-SPREAD, SPREAD).
const SCRIPTED_LOGIT: f32 = 100.0;
const SPREAD: f32 = 6.0;

/// See the [module](self).
pub struct ScriptedBackend {
    limits: Limits,
    slots: Vec<Vec<TokenId>>,
    control: ScriptedControl,
}

/// The test's hold on a [`ScriptedBackend`] that an engine owns. Clones share it.
#[derive(Clone, Default)]
pub struct ScriptedControl {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    scripts: Vec<Script>,
    token_faults: Vec<(TokenId, Fault)>,
    step_faults: VecDeque<Fault>,
    copy_faults: VecDeque<Fault>,
    /// Steps wait while this is true and no permit is left.
    held: bool,
    n_permits: usize,
    n_blocked: usize,
    calls: Vec<Call>,
    violations: Vec<String>,
}

struct Script {
    after: Vec<TokenId>,
    reply: Vec<TokenId>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Step,
    Panic,
    DeviceLost,
    /// The step succeeds, with logits of NaN.
    NotANumber,
    /// The backend itself finds that a logit is none.
    FoundNotANumber,
}

/// A call that was made, as far as it is of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Extend(Vec<CalledRow>),
    CopyPrefix { from: Slot, to: Slot, len: usize },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalledRow {
    pub slot: Slot,
    pub start: usize,
    pub tokens: Vec<TokenId>,
    pub logits: usize,
}

impl ScriptedBackend {
    pub fn new(limits: Limits) -> Self {
        Self { slots: vec![Vec::new(); limits.slots], limits, control: ScriptedControl::default() }
    }

    /// Limits that are small enough to be met in tests.
    pub fn small_limits() -> Limits {
        Limits {
            backend: NAME,
            simulated: true,
            slots: 4,
            context_len: 256,
            vocab_size: 64,
            max_step_rows: 4,
            max_step_tokens: 64,
            draws: false,
        }
    }

    pub fn control(&self) -> ScriptedControl {
        self.control.clone()
    }

    fn held(&self) -> Vec<usize> {
        self.slots.iter().map(Vec::len).collect()
    }
}

impl Backend for ScriptedBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        let called = |row: &Row<'_>| CalledRow {
            slot: row.slot,
            start: row.start,
            tokens: row.tokens.to_vec(),
            logits: row.tokens.len() - row.logits_from.min(row.tokens.len()),
        };
        let legal = check_rows(&self.limits, &self.held(), rows);
        self.control.pass(Call::Extend(rows.iter().map(called).collect()), legal)?;
        let mut state = self.control.lock();
        let of_step = state.step_faults.pop_front();
        let of_token = |row: &Row<'_>| {
            state.token_faults.iter().find(|(token, _)| row.tokens.contains(token)).map(|&(_, fault)| fault)
        };
        let faults: Vec<_> = rows.iter().map(|row| of_step.or_else(|| of_token(row))).collect();
        drop(state);
        for row in rows {
            self.slots[row.slot.0].truncate(row.start); // lost even when the step fails
        }
        for &fault in faults.iter().flatten() {
            strike(fault)?;
        }

        let state = self.control.lock();
        let n_logits = rows.iter().map(|row| row.tokens.len() - row.logits_from).sum();
        logits.resize(n_logits);
        let mut logits_idx = 0;
        for (row, fault) in rows.iter().zip(faults) {
            let resident = &mut self.slots[row.slot.0];
            for (idx, &token) in row.tokens.iter().enumerate() {
                resident.push(token);
                if idx >= row.logits_from {
                    state.write_logits(resident, logits.row_mut(logits_idx));
                    if fault == Some(Fault::NotANumber) {
                        logits.row_mut(logits_idx).fill(f32::NAN);
                    }
                    // As a backend may that computes no others.
                    if let Some(words) = row.allowed.filter(|_| idx + 1 == row.tokens.len()) {
                        let is_allowed = |id: usize| words[id / 32] >> (id % 32) & 1 == 1;
                        let logits = logits.row_mut(logits_idx).iter_mut().enumerate();
                        logits
                            .filter(|(id, _)| !is_allowed(*id))
                            .for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                    }
                    logits_idx += 1;
                }
            }
        }
        Ok(())
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        let legal = check_copy(&self.limits, &self.held(), from, to, len);
        self.control.pass(Call::CopyPrefix { from, to, len }, legal)?;
        let fault = self.control.lock().copy_faults.pop_front();
        self.slots[to.0].clear();
        if let Some(fault) = fault {
            strike(fault)?;
        }
        let copied = self.slots[from.0][..len].to_vec();
        self.slots[to.0] = copied;
        Ok(())
    }

    /// Each on a thread of its own, the last one first: nothing may hang on their order.
    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| (0..tasks).rev().for_each(|idx| drop(scope.spawn(move || task(idx)))));
    }
}

impl ScriptedControl {
    /// After tokens that end with `after`, the best next tokens are those of `reply`, one by one. Of several
    /// scripts that fit, the one with the longest `after` speaks; where none fits, the tokens are made up.
    pub fn reply(&self, after: &[TokenId], reply: &[TokenId]) {
        self.lock().scripts.push(Script { after: after.to_vec(), reply: reply.to_vec() });
    }

    /// Every step with a row that writes `token` fails so, repeated or not.
    pub fn fault_on_token(&self, token: TokenId, fault: Fault) {
        self.lock().token_faults.push((token, fault));
    }

    /// The next step fails so, or the one after those already told to.
    pub fn fault_on_next_step(&self, fault: Fault) {
        self.lock().step_faults.push_back(fault);
    }

    pub fn fault_on_next_copy(&self, fault: Fault) {
        self.lock().copy_faults.push_back(fault);
    }

    /// From now on calls wait at their beginning, until the hold is dropped.
    pub fn hold(&self) -> Hold {
        self.lock().held = true;
        Hold { control: self.clone() }
    }

    /// All calls so far, the one that waits included.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Calls that broke the rules of [`Backend`]; a test that uses an engine ends with a look at it.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The beginning of every call: it is noted, waits if it must, and is refused if it breaks the rules.
    fn pass(&self, call: Call, legal: Result<(), BrokenRule>) -> Result<(), BackendError> {
        let mut state = self.lock();
        state.calls.push(call);
        state.n_blocked += 1;
        self.shared.changed.notify_all();
        let mut state = self.wait_while(state, |state| state.held && state.n_permits == 0);
        state.n_blocked -= 1;
        state.n_permits = state.n_permits.saturating_sub(1);
        legal.map_err(|broken| {
            state.violations.push(broken.to_string());
            BackendError::Step { backend: NAME, source: broken.into() }
        })
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.shared.changed.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// A test that panicked while it looked must not hide its own message behind a poisoned lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls wait while this lives; a test that fails lets them go too.
#[must_use]
pub struct Hold {
    control: ScriptedControl,
}

impl Hold {
    /// Blocks until a call waits.
    pub fn wait(&self) {
        let blocked = self.control.wait_while(self.control.lock(), |state| state.n_blocked == 0);
        drop(blocked);
    }

    /// Lets the waiting call through, and blocks until the next one waits.
    pub fn let_one_through(&self) {
        let mut state = self.control.lock();
        let n_calls = state.calls.len();
        state.n_permits += 1;
        self.control.shared.changed.notify_all();
        let next =
            self.control.wait_while(state, |state| state.calls.len() <= n_calls || state.n_blocked == 0);
        drop(next);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.control.lock();
        state.held = false;
        state.n_permits = 0;
        self.control.shared.changed.notify_all();
    }
}

impl State {
    fn write_logits(&self, resident: &[TokenId], row: &mut [f32]) {
        let seed = resident.iter().fold(0, |hash, &token| mix(hash ^ u64::from(token)));
        for (id, logit) in row.iter_mut().enumerate() {
            let unit = (mix(seed ^ id as u64) >> 40) as f32 / (1 << 24) as f32;
            *logit = (unit * 2.0 - 1.0) * SPREAD;
        }
        let spoken =
            self.scripts.iter().filter_map(|script| Some((script.after.len(), script.next(resident)?)));
        if let Some((_, token)) = spoken.max_by_key(|&(specificity, _)| specificity) {
            row[token as usize] = SCRIPTED_LOGIT;
        }
    }
}

impl Script {
    /// The next token, where `resident` ends with `after` and the beginning of `reply`.
    fn next(&self, resident: &[TokenId]) -> Option<TokenId> {
        let said = |n: &usize| {
            let after = resident.strip_suffix(&self.reply[..*n]);
            after.is_some_and(|after| after.ends_with(&self.after))
        };
        (0..self.reply.len()).rev().find(said).map(|n| self.reply[n])
    }
}

fn strike(fault: Fault) -> Result<(), BackendError> {
    match fault {
        Fault::Step => Err(BackendError::Step { backend: NAME, source: "told to fail".into() }),
        Fault::Panic => panic!("told to panic"),
        Fault::DeviceLost => {
            Err(BackendError::DeviceLost { backend: NAME, source: "told to be lost".into() })
        }
        Fault::FoundNotANumber => {
            Err(BackendError::NotANumber { backend: NAME, source: "told to find no number".into() })
        }
        Fault::NotANumber => Ok(()),
    }
}

/// Steele, Lea and Flood's SplitMix64, one step of it.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

//! The rules of [`Backend`](super::Backend)'s verbs and options, checked alike for every device.

use super::{Limits, OpenOptions, Row, Slot};
use crate::{model::Model, text::TokenId};

/// A context longer than this is opened only when asked for: the KV cache takes memory for all of it.
const DEFAULT_CONTEXT_LEN: usize = 2048;

/// Why options do not fit a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadOptions {
    #[error("a context of {asked} is longer than the model's {limit}")]
    PastModel { asked: usize, limit: usize },
    #[error("there must be at least one slot, and one token a step")]
    Nothing,
}

/// What a model on a CPU is prepared for with these options.
pub(super) fn limits(
    backend: &'static str,
    model: &Model,
    options: &OpenOptions,
) -> Result<Limits, BadOptions> {
    let limit = model.config.context_len;
    let context_len = match options.context_len {
        0 => limit.min(DEFAULT_CONTEXT_LEN),
        asked if asked <= limit => asked,
        asked => return Err(BadOptions::PastModel { asked, limit }),
    };
    if options.slots == 0 || options.max_step_tokens == 0 {
        return Err(BadOptions::Nothing);
    }
    Ok(Limits {
        backend,
        simulated: false,
        slots: options.slots,
        context_len,
        vocab_size: model.graph.vocab_size(),
        max_step_rows: options.slots,
        max_step_tokens: options.max_step_tokens,
        draws: false,
    })
}

/// Which rule a call breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BrokenRule {
    #[error("{actual} rows (1 to {limit} are allowed)")]
    Rows { actual: usize, limit: usize },
    #[error("{actual} tokens over all rows ({limit} are allowed)")]
    Tokens { actual: usize, limit: usize },
    #[error("{slot:?} does not exist (there are {slots})")]
    NoSuchSlot { slot: Slot, slots: usize },
    #[error("{slot:?} appears twice")]
    SlotTwice { slot: Slot },
    #[error("{slot:?} holds {held} positions, not {asked}")]
    NotHeld { slot: Slot, held: usize, asked: usize },
    #[error("the row of {slot:?} has no tokens")]
    Empty { slot: Slot },
    #[error("the row of {slot:?} asks for logits from token {from} of {len}")]
    LogitsFrom { slot: Slot, from: usize, len: usize },
    #[error("the row of {slot:?} asks for a token, and this backend draws none")]
    NoDraws { slot: Slot },
    #[error("{slot:?} would hold {asked} positions ({limit} are allowed)")]
    PastContext { slot: Slot, asked: usize, limit: usize },
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    NoSuchToken { token: TokenId, vocab_size: usize },
}

/// How many positions each slot holds. What is not done is not held: a step or copy that fails in the middle
/// leaves what was there before it and is sure to be whole.
pub(super) struct Held(Vec<usize>);

impl Held {
    pub(super) fn nothing(slots: usize) -> Self {
        Self(vec![0; slots])
    }

    /// Checks a step's rows; until the step is done their slots hold what the rows keep.
    pub(super) fn begin_step(&mut self, limits: &Limits, rows: &[Row<'_>]) -> Result<(), BrokenRule> {
        check_rows(limits, &self.0, rows)?;
        for row in rows {
            self.0[row.slot.0] = row.start;
        }
        Ok(())
    }

    pub(super) fn end_step(&mut self, rows: &[Row<'_>]) {
        for row in rows {
            self.0[row.slot.0] = row.start + row.tokens.len();
        }
    }

    /// Checks a copy; until it is done its target holds nothing.
    pub(super) fn begin_copy(
        &mut self,
        limits: &Limits,
        from: Slot,
        to: Slot,
        len: usize,
    ) -> Result<(), BrokenRule> {
        check_copy(limits, &self.0, from, to, len)?;
        self.0[to.0] = 0;
        Ok(())
    }

    pub(super) fn end_copy(&mut self, to: Slot, len: usize) {
        self.0[to.0] = len;
    }
}

/// Checks the rows of a step; `held` is how many positions each slot holds.
pub(super) fn check_rows(limits: &Limits, held: &[usize], rows: &[Row<'_>]) -> Result<(), BrokenRule> {
    if rows.is_empty() || rows.len() > limits.max_step_rows {
        return Err(BrokenRule::Rows { actual: rows.len(), limit: limits.max_step_rows });
    }
    let tokens = rows.iter().map(|row| row.tokens.len()).sum();
    if tokens > limits.max_step_tokens {
        return Err(BrokenRule::Tokens { actual: tokens, limit: limits.max_step_tokens });
    }
    for (idx, row) in rows.iter().enumerate() {
        if rows[..idx].iter().any(|other| other.slot == row.slot) {
            return Err(BrokenRule::SlotTwice { slot: row.slot });
        }
        check_row(limits, held, row)?;
    }
    Ok(())
}

fn check_row(limits: &Limits, held: &[usize], row: &Row<'_>) -> Result<(), BrokenRule> {
    let &Row { slot, start, tokens, logits_from, draw, .. } = row;
    check_held(limits, held, slot, start)?;
    if tokens.is_empty() {
        return Err(BrokenRule::Empty { slot });
    }
    if logits_from > tokens.len() {
        return Err(BrokenRule::LogitsFrom { slot, from: logits_from, len: tokens.len() });
    }
    if draw.is_some() && !limits.draws {
        return Err(BrokenRule::NoDraws { slot });
    }
    let asked = start + tokens.len();
    if asked > limits.context_len {
        return Err(BrokenRule::PastContext { slot, asked, limit: limits.context_len });
    }
    match tokens.iter().find(|&&token| token as usize >= limits.vocab_size) {
        Some(&token) => Err(BrokenRule::NoSuchToken { token, vocab_size: limits.vocab_size }),
        None => Ok(()),
    }
}

/// Checks a copy of the first `len` positions of a slot.
pub(super) fn check_copy(
    limits: &Limits,
    held: &[usize],
    from: Slot,
    to: Slot,
    len: usize,
) -> Result<(), BrokenRule> {
    check_held(limits, held, from, len)?;
    check_held(limits, held, to, 0)?;
    if from == to { Err(BrokenRule::SlotTwice { slot: from }) } else { Ok(()) }
}

fn check_held(limits: &Limits, held: &[usize], slot: Slot, asked: usize) -> Result<(), BrokenRule> {
    match held.get(slot.0) {
        None => Err(BrokenRule::NoSuchSlot { slot, slots: limits.slots }),
        Some(&held) if asked > held => Err(BrokenRule::NotHeld { slot, held, asked }),
        Some(_) => Ok(()),
    }
}

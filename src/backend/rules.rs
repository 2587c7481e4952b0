//! The rules of [`Backend`](super::Backend)'s verbs, checked alike for every device.

use super::{Limits, Row, Slot};
use crate::text::TokenId;

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
    #[error("{slot:?} would hold {asked} positions ({limit} are allowed)")]
    PastContext { slot: Slot, asked: usize, limit: usize },
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    NoSuchToken { token: TokenId, vocab_size: usize },
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
    let &Row { slot, start, tokens, logits_from } = row;
    check_held(limits, held, slot, start)?;
    if tokens.is_empty() {
        return Err(BrokenRule::Empty { slot });
    }
    if logits_from > tokens.len() {
        return Err(BrokenRule::LogitsFrom { slot, from: logits_from, len: tokens.len() });
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

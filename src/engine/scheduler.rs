//! Who computes what in the next step. Values in, values out: no clock, channel, thread or backend.
//!
//! The caller repeats: [`admit`](Scheduler::admit) until it asks for no more copies,
//! [`plan`](Scheduler::plan), run the rows, report each as [`computed`](Scheduler::computed), and
//! [`push`](Scheduler::push) what its sequence chose.
//!
//! - **Order.** First come, first served: nobody is admitted before who came earlier, and prompts are
//!   computed in order of admission. Every reply gets a row in every step as long as rows and tokens
//!   last (the longest unserved first); when a prompt is being computed, one row and one token are
//!   kept back for it, so neither side can starve the other.
//! - **Prefix reuse.** A slot remembers the tokens in its KV cache after its sequence has ended. A
//!   newcomer takes over the longest prefix it shares with any slot: in place from a free one, by a
//!   copy from a busy one, or from a free one that would lose more than it keeps. Otherwise it gets the
//!   free slot that was of use least recently.
//! - **Starting over.** What a sequence takes over may be no good, and shows only in its own first logits. Its row is
//!   then planned [again](Scheduler::start_over), from its first token on.
//! - **Drafts.** A reply's row may go on with tokens that nobody chose yet, where they are likely enough
//!   ([`Drafter`]). Where [`push`](Scheduler::push) is then given the same ones, they need no row any more, and the
//!   logits after them are there already. Drafts never take the place of anything else in a step.
//! - **Waiting for a prefix.** When a prompt now being computed shares [`WORTH_REUSING`] or more tokens
//!   beyond what any slot holds by now, the head of the queue waits for it instead of computing them a
//!   second time. It waits for admitted prompts only, which come before it in every step anyway, and
//!   until the shared part is there or its owner has left: never longer than those prompts take.

use super::draft::Drafter;
use crate::backend::{Limits, Slot};
use crate::text::TokenId;
use std::borrow::Cow;
use std::collections::VecDeque;

/// A shared prefix shorter than this is computed again: a copy or a wait costs more than it saves. (vLLM
/// shares whole blocks of 16 tokens.)
const WORTH_REUSING: usize = 16;
/// Rows of logits one step may have, if it has no more rows of tokens: they take some 200 KB each, and
/// given replies want one for each token.
const MAX_STEP_LOGITS: usize = 64;

/// Names a sequence for as long as the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// See the [module](self).
pub(crate) struct Scheduler {
    max_step_rows: usize,
    max_step_tokens: usize,
    context_len: usize,
    drafter: Drafter,
    /// Of one reply in one step.
    max_draft_tokens: usize,
    waiting: VecDeque<Waiting>,
    slots: Vec<SlotState>,
    /// Counts admissions, rows and releases: the order of things, not their time.
    tick: u64,
}

struct Waiting {
    id: SequenceId,
    tokens: Vec<TokenId>,
    logits_from: usize,
}

struct SlotState {
    /// All tokens of the sequence that holds the slot, or of the last one that did.
    tokens: Vec<TokenId>,
    /// How many of them are in the KV cache.
    n_resident: usize,
    /// Drafted tokens that the planned row has after them; once it has run, those not yet accepted.
    drafts: VecDeque<TokenId>,
    holder: Option<Holder>,
    /// When the tokens were of use last: released, or copied.
    used_at: u64,
    /// The backend has lost it: nobody gets it again.
    lost: bool,
}

struct Holder {
    id: SequenceId,
    /// Tokens it came with; those after them are its reply.
    prompt_len: usize,
    /// Of them, the first whose logits are wanted.
    logits_from: usize,
    admitted_at: u64,
    planned_at: u64,
    /// The slot that its beginning is a copy of.
    copied_from: Option<usize>,
    started_over: bool,
}

/// A copy that must be made before the next step; report a failed one by [`Scheduler::forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixCopy {
    pub(crate) from: Slot,
    pub(crate) to: Slot,
    pub(crate) len: usize,
}

/// One row of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedRow {
    pub(crate) id: SequenceId,
    pub(crate) slot: Slot,
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The first of its tokens whose logits are wanted, `len` for none. Of most sequences that is the last
    /// token alone: its logits choose the next one.
    pub(crate) logits_from: usize,
    /// How many of its tokens are of the prompt.
    pub(crate) n_prompt: usize,
    /// How many of its tokens, the last ones, are drafted.
    pub(crate) n_drafted: usize,
}

impl Scheduler {
    pub(crate) fn new(limits: &Limits, max_step_tokens: usize, max_draft_tokens: usize) -> Self {
        let empty = || SlotState {
            tokens: Vec::new(),
            n_resident: 0,
            drafts: VecDeque::new(),
            holder: None,
            used_at: 0,
            lost: false,
        };
        Self {
            max_step_rows: limits.max_step_rows,
            max_step_tokens: max_step_tokens.clamp(1, limits.max_step_tokens),
            context_len: limits.context_len,
            drafter: Drafter::new(),
            max_draft_tokens,
            waiting: VecDeque::new(),
            slots: std::iter::repeat_with(empty).take(limits.slots).collect(),
            tick: 0,
        }
    }

    /// Puts a sequence at the end of the queue. The queue's bound is kept at the engine's door, where a
    /// refusal need not wait for a step.
    ///
    /// The logits of `prompt[logits_from..]` are wanted, the last token's always.
    pub(crate) fn submit(&mut self, id: SequenceId, prompt: Vec<TokenId>, logits_from: usize) {
        debug_assert!(logits_from < prompt.len());
        self.waiting.push_back(Waiting { id, tokens: prompt, logits_from });
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.holder.is_some()).count()
    }

    /// Moves the head of the queue to a free slot, again and again, up to the first that needs a copy.
    /// Call it until it returns `None`.
    pub(crate) fn admit(&mut self) -> Option<PrefixCopy> {
        while let Some(head) = self.waiting.front() {
            let placement = self.place(&head.tokens[..head.logits_from])?;
            let Waiting { id, tokens: prompt, logits_from } =
                self.waiting.pop_front().expect("the queue has a head");
            self.tick += 1;
            if let Some(from) = placement.copy_from {
                self.slots[from].used_at = self.tick;
            }
            let slot = &mut self.slots[placement.slot];
            let prompt_len = prompt.len();
            slot.tokens = prompt;
            slot.drafts.clear();
            slot.n_resident = placement.n_shared;
            slot.holder = Some(Holder {
                id,
                prompt_len,
                logits_from,
                admitted_at: self.tick,
                planned_at: self.tick,
                copied_from: placement.copy_from,
                started_over: false,
            });
            if let Some(from) = placement.copy_from {
                return Some(PrefixCopy {
                    from: Slot(from),
                    to: Slot(placement.slot),
                    len: placement.n_shared,
                });
            }
        }
        None
    }

    /// The slot's KV cache does not hold what was expected: all of its tokens are computed again.
    pub(crate) fn forget(&mut self, slot: Slot) {
        let slot = &mut self.slots[slot.0];
        slot.n_resident = 0;
        if slot.holder.is_none() {
            slot.tokens.clear();
            slot.used_at = 0;
        }
    }

    /// The rows of the next step; none when nothing is running.
    pub(crate) fn plan(&mut self) -> Vec<PlannedRow> {
        let (mut prompts, mut replies) = (Vec::new(), Vec::new());
        for (idx, slot) in self.slots.iter().enumerate() {
            if let Some(holder) = &slot.holder {
                if slot.n_resident < holder.prompt_len {
                    prompts.push((holder.admitted_at, idx));
                } else {
                    replies.push((holder.planned_at, idx));
                }
            }
        }
        prompts.sort_unstable();
        replies.sort_unstable();

        let mut rows = Vec::with_capacity(self.slots.len().min(self.max_step_rows));
        let mut tokens_left = self.max_step_tokens;
        let mut logits_left = MAX_STEP_LOGITS.max(self.max_step_rows);
        let kept_for_prompts = usize::from(!prompts.is_empty());
        let for_replies = replies.into_iter().map(|reply| (reply, kept_for_prompts));
        let for_prompts = prompts.into_iter().map(|prompt| (prompt, 0));
        for ((_, idx), kept_back) in for_replies.chain(for_prompts) {
            if rows.len() + kept_back >= self.max_step_rows || tokens_left <= kept_back {
                continue;
            }
            // What stands before the first logits counts for none; one is kept for each row to come.
            let first = self.slots[idx].before_logits();
            let max_logits = (logits_left + rows.len() + 1).saturating_sub(self.max_step_rows).max(1);
            let row = self.row(idx, (tokens_left - kept_back).min(first + max_logits));
            tokens_left -= row.len;
            logits_left -= row.len - row.logits_from;
            rows.push(row);
        }
        self.add_drafts(&mut rows, tokens_left.min(logits_left));
        rows
    }

    /// The tokens of a planned row.
    pub(crate) fn tokens(&self, row: &PlannedRow) -> Cow<'_, [TokenId]> {
        let slot = &self.slots[row.slot.0];
        let known = &slot.tokens[row.start..][..row.len - row.n_drafted];
        if row.n_drafted == 0 {
            Cow::Borrowed(known)
        } else {
            known.iter().chain(&slot.drafts).copied().collect()
        }
    }

    /// The last tokens of a planned row, which nobody chose.
    pub(crate) fn drafts(&self, row: &PlannedRow) -> &VecDeque<TokenId> {
        &self.slots[row.slot.0].drafts
    }

    /// A planned row without its drafts.
    pub(crate) fn undraft(&mut self, row: &PlannedRow) -> PlannedRow {
        self.slots[row.slot.0].drafts.clear();
        PlannedRow { len: row.len - row.n_drafted, n_drafted: 0, ..*row }
    }

    /// A planned row has run: its tokens are in the KV cache, its drafts behind them.
    pub(crate) fn computed(&mut self, row: &PlannedRow) {
        self.slots[row.slot.0].n_resident = row.start + row.len - row.n_drafted;
    }

    /// A running sequence's reply grew by a token, sampled or forced by a grammar, which its next row computes; unless it
    /// was drafted and is computed already: then `true`, and the logits after it are those of the row's next token.
    pub(crate) fn push(&mut self, id: SequenceId, token: TokenId, forced: bool) -> bool {
        let slot = self.slots.iter_mut().find(|slot| slot.is_of(id)).expect("only a running sequence grows");
        if self.max_draft_tokens > 0 {
            self.drafter.observe(&slot.tokens, token, forced);
        }
        slot.tokens.push(token);
        let is_accepted = slot.drafts.pop_front() == Some(token);
        if is_accepted {
            slot.n_resident += 1;
        } else {
            slot.drafts.clear();
        }
        is_accepted
    }

    /// Takes a sequence out, waiting or running; its slot keeps what was computed for the next one.
    pub(crate) fn finish(&mut self, id: SequenceId) {
        self.tick += 1;
        let tick = self.tick;
        if let Some(slot) = self.slot_of(id) {
            slot.holder = None;
            slot.used_at = tick;
        } else {
            self.waiting.retain(|waiting| waiting.id != id);
        }
    }

    /// As [`finish`](Self::finish), for a sequence that failed: what it computed is not trusted.
    pub(crate) fn discard(&mut self, id: SequenceId) {
        let slot = self.slots.iter().position(|slot| slot.is_of(id));
        self.finish(id);
        if let Some(idx) = slot {
            self.forget(Slot(idx));
        }
    }

    /// What a running sequence took over may be what its row failed for: has all of it computed again, once, and lets
    /// nobody else have the same. `false` where it has started over before, or some of its logits were of use: then
    /// what it took over was good.
    pub(crate) fn start_over(&mut self, id: SequenceId) -> bool {
        let slot = self.slot_of(id).expect("only a running sequence has a row");
        let holder = slot.holder.as_mut().expect("the sequence holds its slot");
        if holder.started_over || slot.n_resident > holder.logits_from {
            return false;
        }
        holder.started_over = true;
        slot.n_resident = 0;
        if let Some(from) = holder.copied_from
            && self.slots[from].holder.is_none()
        {
            self.forget(Slot(from));
        }
        true
    }

    /// The backend has lost the slot. Returns the sequence that held it, which is to be ended.
    pub(crate) fn lose(&mut self, slot: Slot) -> Option<SequenceId> {
        let slot = &mut self.slots[slot.0];
        slot.lost = true;
        slot.tokens.clear();
        slot.n_resident = 0;
        slot.holder.as_ref().map(|holder| holder.id)
    }

    fn slot_of(&mut self, id: SequenceId) -> Option<&mut SlotState> {
        self.slots.iter_mut().find(|slot| slot.is_of(id))
    }

    fn row(&mut self, idx: usize, max_len: usize) -> PlannedRow {
        let slot = &mut self.slots[idx];
        let holder = slot.holder.as_mut().expect("only held slots get rows");
        self.tick += 1; // no two rows are planned at the same tick, so that turns are taken evenly
        holder.planned_at = self.tick;
        slot.drafts.clear();
        let pending = slot.tokens.len() - slot.n_resident;
        debug_assert!(pending > 0, "a running sequence always has a token to compute");
        let len = pending.min(max_len);
        let logits_from = if slot.n_resident < holder.prompt_len {
            holder.logits_from.saturating_sub(slot.n_resident).min(len)
        } else {
            len - usize::from(len == pending)
        };
        PlannedRow {
            id: holder.id,
            slot: Slot(idx),
            start: slot.n_resident,
            len,
            logits_from,
            n_prompt: len.min(holder.prompt_len.saturating_sub(slot.n_resident)),
            n_drafted: 0,
        }
    }

    /// Lets the rows that reach the end of a reply go on, as far as there is room in the step.
    fn add_drafts(&mut self, rows: &mut [PlannedRow], mut room: usize) {
        for row in rows.iter_mut().filter(|row| row.n_prompt == 0) {
            let slot = &mut self.slots[row.slot.0];
            let end = row.start + row.len;
            if end < slot.tokens.len() {
                continue;
            }
            // Tokens that are forced already count among those that a row has beside its first one.
            let max_len = (self.max_draft_tokens + 1).saturating_sub(row.len);
            let max_len = max_len.min(room).min(self.context_len - end);
            self.drafter.draft(&mut slot.tokens, max_len);
            slot.drafts.extend(slot.tokens.drain(end..));
            row.n_drafted = slot.drafts.len();
            row.len += row.n_drafted;
            room -= row.n_drafted;
        }
        let of_replies = rows.iter().map(|row| row.len - row.n_prompt).sum();
        if of_replies > 0 {
            self.drafter.step(of_replies);
        }
    }

    /// Where a prompt goes, and what it takes over of what it can use: all up to the tokens whose logits are
    /// wanted. `None` while there is no slot, or it is better to wait.
    fn place(&self, usable: &[TokenId]) -> Option<Placement> {
        let oldest = self.free_slots().min_by_key(|&idx| self.slots[idx].used_at)?;
        let n_shared: Vec<usize> =
            self.slots.iter().map(|slot| common_prefix(&slot.tokens[..slot.n_resident], usable)).collect();
        let best = (0..self.slots.len()).max_by_key(|&idx| n_shared[idx]).expect("there is a slot");
        if self.soon_shared(usable) >= n_shared[best] + WORTH_REUSING {
            return None;
        }

        // In place where that takes over about as much as a copy, and costs no other prefix its longer life.
        let in_place = self.free_slots().filter(|&idx| {
            n_shared[idx] + WORTH_REUSING > n_shared[best]
                && (idx == oldest || 2 * n_shared[idx] >= self.slots[idx].n_resident)
        });
        Some(match in_place.max_by_key(|&idx| (n_shared[idx], idx == oldest)) {
            Some(slot) => Placement { slot, n_shared: n_shared[slot], copy_from: None },
            None => Placement { slot: oldest, n_shared: n_shared[best], copy_from: Some(best) },
        })
    }

    /// The longest prefix that prompts now being computed will share with `usable` when they are done.
    fn soon_shared(&self, usable: &[TokenId]) -> usize {
        let unfinished = |slot: &&SlotState| {
            slot.holder.as_ref().is_some_and(|holder| slot.n_resident < holder.prompt_len)
        };
        let shared = |slot: &SlotState| common_prefix(&slot.tokens, usable);
        self.slots.iter().filter(unfinished).map(shared).max().unwrap_or(0)
    }

    fn free_slots(&self) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(|&idx| self.slots[idx].holder.is_none() && !self.slots[idx].lost)
    }
}

impl SlotState {
    fn is_of(&self, id: SequenceId) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.id == id)
    }

    /// Tokens to be computed before the first whose logits are wanted. Of a reply that is all but the last.
    fn before_logits(&self) -> usize {
        let pending = self.tokens.len() - self.n_resident;
        let holder = self.holder.as_ref().filter(|holder| self.n_resident < holder.prompt_len);
        holder.map_or(pending - 1, |holder| holder.logits_from.saturating_sub(self.n_resident))
    }
}

struct Placement {
    slot: usize,
    n_shared: usize,
    copy_from: Option<usize>,
}

fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;

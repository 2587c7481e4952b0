//! How a step's sequences are shared out among the threads.
//!
//! Where threads share out the outputs of each stage, what one has computed the others read: its lines of memory go from
//! cache to cache, which takes 25 ns each where two cores share their last cache and 160 where they do not (Zen 4), and
//! nobody goes on before all have done with a stage. Sequences need nothing of each other. So where there are enough of
//! them, each thread takes some through all layers by itself, and waits for the others once.

use super::{batch::Batch, memory::Memory, plan::Select};
use crate::backend::Row;
use std::cmp::Reverse;

/// Sequences of a step that go through the layers together.
pub(super) struct Share {
    pub(super) batch: Batch,
    pub(super) memory: Memory,
}

/// Kept between steps.
pub(super) struct Shares {
    /// The first one has room for a whole step, the others for their part of it.
    shares: Vec<Share>,
    share_of_slot: Vec<usize>,
    /// How the sequences of the step are dealt.
    deal: Deal,
    /// The share of each token whose logits are wanted, and which it is there.
    selected: Vec<(usize, usize)>,
}

impl Shares {
    /// One for each thread, for up to `max_rows` tokens in all; one alone if these are never enough for all threads.
    pub(super) fn new(threads: usize, max_rows: usize, memory: impl Fn(usize) -> Memory) -> Self {
        let n_shares = if max_rows < threads * min_tokens(threads) { 1 } else { threads };
        let share = |idx| {
            let rows = if idx == 0 { max_rows } else { max_tokens(max_rows, n_shares) };
            Share { batch: Batch::default(), memory: memory(rows) }
        };
        let shares = (0..n_shares).map(share).collect();
        Self { shares, share_of_slot: Vec::new(), deal: Deal::default(), selected: Vec::new() }
    }

    /// Shares out the sequences of a step: one share for each thread, or one of all. Also the share of each slot.
    pub(super) fn fill(&mut self, rows: &[Row<'_>]) -> (&mut [Share], &[usize]) {
        let Self { shares, share_of_slot, deal, selected } = self;
        let n_shares = if deal.evenly(rows, shares.len()) { shares.len() } else { 1 };
        let shares = &mut shares[..n_shares];
        for (idx, share) in shares.iter_mut().enumerate() {
            let mine = rows.iter().zip(&deal.share_of).filter(|&(_, &share)| share == idx);
            share.batch.fill(mine.map(|(row, _)| row));
        }
        selected.clear();
        deal.loads.fill(0);
        for (row, &share) in rows.iter().zip(&deal.share_of) {
            let first = deal.loads[share];
            let slot = row.slot.0;
            share_of_slot.resize(share_of_slot.len().max(slot + 1), 0);
            share_of_slot[slot] = share;
            selected.extend((row.logits_from..row.tokens.len()).map(|idx| (share, first + idx)));
            deal.loads[share] += row.tokens.len();
        }
        (shares, share_of_slot)
    }

    /// How many rows of the step are wanted logits for.
    pub(super) fn selected(&self) -> usize {
        self.selected.len()
    }

    /// Brings these rows into the first share, in the order of the step.
    pub(super) fn select(&mut self, select: &Select) {
        let &Select { input: from, output: to } = select;
        let Self { shares, selected, .. } = self;
        let (first, others) = shares.split_first_mut().expect("a thread has a share");
        let n_tokens = first.batch.tokens.len();
        first.memory.writing_floats(to, |memory, output| {
            let mut output = output.view_mut(selected.len());
            for (nth, &(share, row)) in selected.iter().enumerate() {
                let input = match share {
                    0 => memory.floats(from, n_tokens),
                    _ => others[share - 1].memory.floats(from, others[share - 1].batch.tokens.len()),
                };
                output.row(nth).copy_from_slice(input.row(row));
            }
        });
    }

    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.deal.share_of.iter().max().map_or(0, |share| share + 1)
    }

    /// The share that selected rows are in.
    pub(super) fn first(&mut self) -> &mut Share {
        &mut self.shares[0]
    }
}

/// Which share each sequence of a step is in.
#[derive(Default)]
struct Deal {
    share_of: Vec<usize>,
    /// Tokens of each share.
    loads: Vec<usize>,
    /// Sequences, those with most tokens first.
    order: Vec<usize>,
}

impl Deal {
    /// Whether each of `n_shares` has enough tokens, and none many more than its part; if not, all are in the first one.
    fn evenly(&mut self, rows: &[Row<'_>], n_shares: usize) -> bool {
        let Self { share_of, loads, order } = self;
        share_of.clear();
        share_of.resize(rows.len(), 0);
        loads.clear();
        loads.resize(n_shares, 0);
        let tokens = |row: usize| rows[row].tokens.len();
        let all_tokens: usize = (0..rows.len()).map(tokens).sum();
        if n_shares == 1 || all_tokens < n_shares * min_tokens(n_shares) {
            return false;
        }
        order.clear();
        order.extend(0..rows.len());
        order.sort_unstable_by_key(|&row| (Reverse(tokens(row)), row));
        for &row in &*order {
            let least = (0..n_shares).min_by_key(|&share| loads[share]).expect("a thread has a share");
            share_of[row] = least;
            loads[least] += tokens(row);
        }
        let enough = min_tokens(n_shares)..=max_tokens(all_tokens, n_shares);
        let even = loads.iter().all(|load| enough.contains(load));
        if !even {
            share_of.fill(0);
        }
        even
    }
}

/// Tokens that a share must have. Each thread reads all weights for its own: so that they do not all wait for the memory,
/// more threads must have more to do with what they read. Measured with two, which with three tokens each were slower
/// than otherwise (Zen 4).
fn min_tokens(n_shares: usize) -> usize {
    2 * n_shares
}

/// Tokens that a share may have: its part, and so few more that they cost less than is gained.
fn max_tokens(all_tokens: usize, n_shares: usize) -> usize {
    let part = all_tokens.div_ceil(n_shares);
    part + part / 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Slot;

    #[test]
    fn sequences_are_dealt_evenly_or_not_at_all() {
        let dealt = |lens: &[usize], n_shares: usize| {
            let row = |&len: &usize| Row {
                slot: Slot(0),
                start: 0,
                tokens: &[0; 99][..len],
                logits_from: 0,
                allowed: None,
                draw: None,
            };
            let rows: Vec<_> = lens.iter().map(row).collect();
            let mut deal = Deal { share_of: vec![7; 3], loads: vec![7; 3], order: vec![7; 3] };
            deal.evenly(&rows, n_shares).then_some(deal.share_of)
        };
        assert_eq!(dealt(&[3; 6], 2), Some(vec![0, 1, 0, 1, 0, 1]));
        assert_eq!(dealt(&[3, 1, 6, 2], 2), Some(vec![1, 1, 0, 1]));
        assert_eq!(dealt(&[6; 3], 3), Some(vec![0, 1, 2]));
        assert_eq!(dealt(&[16, 17], 2), Some(vec![1, 0]));
        assert_eq!(dealt(&[15, 18], 2), Some(vec![1, 0]));
        // One thread, too few tokens, one sequence, and one that is too long.
        assert_eq!(dealt(&[1; 12], 1), None);
        assert_eq!(dealt(&[1; 7], 2), None);
        assert_eq!(dealt(&[6, 6, 5], 3), None);
        assert_eq!(dealt(&[64], 2), None);
        assert_eq!(dealt(&[8, 2, 2], 2), None);
        assert_eq!(dealt(&[14, 19], 2), None);
        // Each but one has a few more than its part, and that one nothing.
        assert_eq!(dealt(&[34; 11], 12), None);
    }
}

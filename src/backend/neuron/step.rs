//! How a step's rows become runs of programs whose shapes are fixed. Pure, and without memory of its own but
//! what it keeps for the next step.
//!
//! A long row goes through prefill programs, which yield the logits of one position at most. What is then left
//! of all rows, up to a program's width of each, shares a run, and then another, until nothing is left.

use super::hlo::{Bucket, Family};
use std::cmp::Reverse;
use std::ops::Range;

/// A row of a step on one core: a [`Row`](crate::backend::Row) without its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepRow {
    /// Of this core.
    pub(super) slot: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) logits_from: usize,
}

/// The tokens of a row that go through one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) row: usize,
    pub(super) from: usize,
    pub(super) len: usize,
}

/// One execution of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Index among the planner's buckets.
    pub(super) program: usize,
    /// Among [`Planner::pieces`].
    pub(super) pieces: Range<usize>,
}

/// Plans steps for one set of programs.
#[derive(Debug)]
pub(super) struct Planner {
    buckets: Vec<Bucket>,
    /// The most tokens of a row that programs of several logits take.
    short_width: usize,
    pub(super) runs: Vec<Run>,
    pub(super) pieces: Vec<Piece>,
    /// Tokens of each row that are planned.
    done: Vec<usize>,
    /// The rows of a run.
    round: Vec<usize>,
}

/// No program runs the last positions of every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no program of decode or short rows reaches position {context} of every slot; compile one with --bucket 1x1x{context}"
)]
pub(super) struct NotCovered {
    context: usize,
}

impl Planner {
    /// For a cache of so many slots and positions.
    ///
    /// # Errors
    /// [`NotCovered`]: a row could meet no program that takes it.
    pub(super) fn new(buckets: Vec<Bucket>, slots: usize, context: usize) -> Result<Self, NotCovered> {
        let several = || buckets.iter().filter(|bucket| bucket.family() != Family::Prefill);
        let mut last = several().filter(|bucket| bucket.slots == 1 || bucket.slots >= slots);
        if !last.any(|bucket| bucket.context >= context) {
            return Err(NotCovered { context });
        }
        let short_width = several().map(|bucket| bucket.width).max().unwrap_or(0);
        let (runs, pieces, done, round) = Default::default();
        Ok(Self { buckets, short_width, runs, pieces, done, round })
    }

    pub(super) fn bucket(&self, program: usize) -> Bucket {
        self.buckets[program]
    }

    /// Fills [`runs`](Self::runs) and [`pieces`](Self::pieces) for rows that keep the rules of
    /// [`Backend::extend`](crate::backend::Backend::extend).
    pub(super) fn plan(&mut self, rows: &[StepRow]) {
        self.runs.clear();
        self.pieces.clear();
        self.done.clear();
        self.done.resize(rows.len(), 0);
        for idx in 0..rows.len() {
            while let Some((program, width)) = self.prefill(&rows[idx], self.done[idx]) {
                self.round.clear();
                self.round.push(idx);
                self.push(rows, program, width);
            }
        }
        loop {
            let done = &self.done;
            self.round.clear();
            self.round.extend((0..rows.len()).filter(|&idx| done[idx] < rows[idx].len));
            if self.round.is_empty() {
                return;
            }
            let taken = self.together(rows).or_else(|| {
                // Rows that no program takes together go one by one.
                self.round.truncate(1);
                self.together(rows)
            });
            let (program, width) = taken.expect("some program reaches every position of every slot");
            self.push(rows, program, width);
        }
    }

    /// A run of the round's rows.
    fn push(&mut self, rows: &[StepRow], program: usize, width: usize) {
        let start = self.pieces.len();
        for &row in &self.round {
            let from = self.done[row];
            let len = width.min(rows[row].len - from);
            self.pieces.push(Piece { row, from, len });
            self.done[row] += len;
        }
        self.runs.push(Run { program, pieces: start..self.pieces.len() });
    }

    /// The prefill program for what is next of a row, and how many tokens it takes; `None`: short rows do.
    fn prefill(&self, row: &StepRow, done: usize) -> Option<(usize, usize)> {
        // The last of them is the first whose logits are wanted, or the row's last.
        let next = row.len.min(row.logits_from + 1).saturating_sub(done);
        if next <= self.short_width {
            return None;
        }
        let reaches = |bucket: &Bucket| row.start + done + next.min(bucket.width) <= bucket.context;
        let prefills = self.buckets.iter().enumerate();
        let prefills = prefills.filter(|(_, of)| of.family() == Family::Prefill && reaches(of));
        // The narrowest that takes all, or else the widest.
        let best = prefills.min_by_key(|(_, of)| match of.width >= next {
            true => (false, of.width, Reverse(0), of.context),
            false => (true, 0, Reverse(of.width), of.context),
        });
        best.map(|(program, of)| (program, next.min(of.width)))
    }

    /// The program that takes the next tokens of the round's rows at the least cost, and how many of each.
    fn together(&self, rows: &[StepRow]) -> Option<(usize, usize)> {
        let left = |&idx: &usize| rows[idx].len - self.done[idx];
        let most_left = self.round.iter().map(left).max()?;
        let slots = self.round.iter().map(|&idx| rows[idx].slot + 1).max()?;
        let takes = |bucket: &Bucket| {
            let end = |idx: &usize| rows[*idx].start + self.done[*idx] + left(idx).min(bucket.width);
            let holds = if bucket.slots == 1 { self.round.len() == 1 } else { bucket.slots >= slots };
            let reaches = self.round.iter().all(|idx| end(idx) <= bucket.context);
            bucket.family() != Family::Prefill && holds && reaches
        };
        // Fewest runs first: each reads all the weights. Then least padding, then least to look back over.
        let cost = |of: &Bucket| (most_left.div_ceil(of.width), of.tokens(), of.context);
        let all = self.buckets.iter().enumerate().filter(|(_, bucket)| takes(bucket));
        all.min_by_key(|(_, bucket)| cost(bucket)).map(|(program, bucket)| (program, bucket.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn planner(buckets: &str, slots: usize, context: usize) -> Planner {
        let buckets = buckets.split(' ').map(|bucket| bucket.parse().expect("it is a bucket")).collect();
        Planner::new(buckets, slots, context).expect("the buckets cover the cache")
    }

    const ALL: &str = "1x1x64 1x1x256 1x8x256 1x64x256 1x128x256 4x1x64 4x1x256 4x8x256";

    fn row(slot: usize, start: usize, len: usize, logits_from: usize) -> StepRow {
        StepRow { slot, start, len, logits_from }
    }

    /// Each run as its bucket and its pieces, `row:from+len`.
    #[track_caller]
    fn check(buckets: &str, rows: &[StepRow], expected: &str) {
        let mut planner = planner(buckets, 4, 256);
        planner.plan(rows);
        let runs = planner.runs.iter().map(|run| {
            let pieces = planner.pieces[run.pieces.clone()].iter();
            let pieces: Vec<_> = pieces.map(|of| format!(" {}:{}+{}", of.row, of.from, of.len)).collect();
            format!("{}{}", planner.bucket(run.program), pieces.concat())
        });
        assert_eq!(runs.collect::<Vec<_>>().join(", "), expected);
    }

    #[test]
    fn one_token_takes_the_smallest_decode_program() {
        check(ALL, &[row(2, 63, 1, 0)], "1x1x64 0:0+1");
        check(ALL, &[row(2, 64, 1, 0)], "1x1x256 0:0+1");
        check(ALL, &[row(2, 9, 1, 0), row(0, 63, 1, 0)], "4x1x64 0:0+1 1:0+1");
        check(ALL, &[row(2, 9, 1, 0), row(0, 64, 1, 0)], "4x1x256 0:0+1 1:0+1");
    }

    #[test]
    fn forced_tokens_share_a_run_with_sampled_ones() {
        check(ALL, &[row(0, 9, 1, 0), row(1, 9, 5, 4)], "4x8x256 0:0+1 1:0+5");
        check(ALL, &[row(0, 9, 1, 0), row(1, 9, 9, 0)], "4x8x256 0:0+1 1:0+8, 1x1x64 1:8+1");
    }

    #[test]
    fn a_prompt_takes_the_narrowest_prefill_that_holds_it() {
        check(ALL, &[row(3, 0, 65, 64)], "1x128x256 0:0+65");
        check(ALL, &[row(3, 0, 200, 199)], "1x128x256 0:0+128, 1x128x256 0:128+72");
        check(ALL, &[row(3, 10, 70, 70), row(0, 4, 1, 0)], "1x128x256 0:0+70, 1x1x64 1:0+1");
    }

    #[test]
    fn positions_whose_logits_are_wanted_go_through_short_rows() {
        check(ALL, &[row(0, 0, 30, 19)], "1x64x256 0:0+20, 1x8x256 0:20+8, 1x8x256 0:28+2");
        check(ALL, &[row(0, 0, 9, 0)], "1x8x256 0:0+8, 1x1x64 0:8+1");
    }

    #[test]
    fn a_few_programs_do_for_everything() {
        check(
            "1x1x256",
            &[row(3, 0, 3, 2), row(1, 5, 1, 0)],
            "1x1x256 0:0+1, 1x1x256 0:1+1, 1x1x256 0:2+1, 1x1x256 1:0+1",
        );
        check("4x8x256", &[row(3, 0, 9, 8)], "4x8x256 0:0+8, 4x8x256 0:8+1");
    }

    #[test]
    fn programs_that_leave_a_position_out_are_refused() {
        let of = |text: &str| Planner::new(vec![text.parse().expect("it is a bucket")], 4, 256).map(drop);
        assert_eq!(of("4x1x256"), Ok(()));
        assert_eq!(of("1x1x128"), Err(NotCovered { context: 256 }));
        assert_eq!(of("2x1x256"), Err(NotCovered { context: 256 }));
        assert_eq!(of("1x64x256"), Err(NotCovered { context: 256 }));
    }

    proptest! {
        /// Every token goes through one run, in its row's order, within a program's shape, and every position
        /// whose logits are wanted through one that yields them.
        #[test]
        fn every_token_is_run_once(
            rows in proptest::collection::btree_map(0_usize..4, (0_usize..256, 1_usize..256, 0_usize..300), 1..4)
        ) {
            let rows: Vec<StepRow> = rows.into_iter().map(|(slot, (start, len, logits_from))| {
                let len = len.min(256 - start);
                row(slot, start, len, logits_from.min(len))
            }).collect();
            let mut planner = planner(ALL, 4, 256);
            planner.plan(&rows);
            let mut done = vec![0; rows.len()];
            for run in &planner.runs {
                let bucket = planner.bucket(run.program);
                for piece in &planner.pieces[run.pieces.clone()] {
                    let row = rows[piece.row];
                    prop_assert_eq!(piece.from, done[piece.row]);
                    prop_assert!(piece.len > 0 && piece.len <= bucket.width);
                    done[piece.row] += piece.len;
                    prop_assert!(row.start + done[piece.row] <= bucket.context);
                    prop_assert!(bucket.slots > row.slot || bucket.slots == 1 && run.pieces.len() == 1);
                    let wanted = done[piece.row] - done[piece.row].min(row.logits_from.max(piece.from));
                    prop_assert!(wanted <= 1 || bucket.family() != Family::Prefill);
                }
            }
            let lens: Vec<usize> = rows.iter().map(|row| row.len).collect();
            prop_assert_eq!(done, lens);
        }
    }
}

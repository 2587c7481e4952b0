use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn limits(slots: usize, max_step_rows: usize, max_step_tokens: usize) -> Limits {
    Limits {
        backend: "model",
        simulated: true,
        slots,
        context_len: 4096,
        vocab_size: 8,
        max_step_rows,
        max_step_tokens,
        draws: false,
    }
}

/// A prompt of two parts: `shared` tokens that all prompts of a family begin with, and `own` ones.
fn prompt(family: u32, shared: usize, author: u32, own: usize) -> Vec<TokenId> {
    let beginning = (0..shared as u32).map(|i| family * 1000 + i);
    beginning.chain((0..own as u32).map(|i| 1_000_000 + author * 1000 + i)).collect()
}

/// A reply that repeats itself, but for some tokens.
fn reply_token(position: usize) -> TokenId {
    2_000_000 + if position % 11 == 3 { position } else { position % 4 } as TokenId
}

/// The scheduler beside a model of the backend's KV cache and of what each sequence still wants.
struct World {
    scheduler: Scheduler,
    limits: Limits,
    max_step_tokens: usize,
    cache: Vec<Vec<TokenId>>,
    live: BTreeMap<SequenceId, Wants>,
    n_submitted: u64,
    n_computed: usize,
    copies: Vec<PrefixCopy>,
    /// The next steps fail with drafts, and are repeated without.
    undrafts: bool,
}

struct Wants {
    tokens: Vec<TokenId>,
    /// The first token whose logits did not come yet.
    logits_from: usize,
    n_more: usize,
    started: bool,
}

impl World {
    fn new(limits: Limits, max_step_tokens: usize) -> Self {
        Self::drafting(limits, max_step_tokens, 0)
    }

    fn drafting(limits: Limits, max_step_tokens: usize, max_draft_tokens: usize) -> Self {
        Self {
            scheduler: Scheduler::new(&limits, max_step_tokens, max_draft_tokens),
            cache: vec![Vec::new(); limits.slots],
            limits,
            max_step_tokens,
            live: BTreeMap::new(),
            n_submitted: 0,
            n_computed: 0,
            copies: Vec::new(),
            undrafts: false,
        }
    }

    fn submit(&mut self, prompt: Vec<TokenId>, n_more: usize) -> SequenceId {
        let logits_from = prompt.len() - 1;
        self.submit_given(prompt, logits_from, n_more)
    }

    /// Submits a prompt of which more logits than the last are wanted.
    fn submit_given(&mut self, prompt: Vec<TokenId>, logits_from: usize, n_more: usize) -> SequenceId {
        let id = SequenceId(self.n_submitted);
        self.n_submitted += 1;
        self.scheduler.submit(id, prompt.clone(), logits_from);
        self.live.insert(id, Wants { tokens: prompt, logits_from, n_more, started: false });
        id
    }

    fn cancel(&mut self, id: SequenceId) {
        self.live.remove(&id).expect("it is live");
        self.scheduler.finish(id);
    }

    /// One step; every planned row is checked against the model before it runs.
    fn step(
        &mut self,
        failing_row: Option<FailingRow>,
        copies_fail: bool,
        n_forced: usize,
    ) -> Vec<PlannedRow> {
        while let Some(copy) = self.scheduler.admit() {
            self.copies.push(copy);
            assert_ne!(copy.from, copy.to);
            assert!(copy.len <= self.cache[copy.from.0].len(), "{copy:?} copies what is not there");
            self.cache[copy.to.0] =
                if copies_fail { vec![TokenId::MAX] } else { self.cache[copy.from.0][..copy.len].to_vec() };
            if copies_fail {
                self.scheduler.forget(copy.to);
            }
        }
        let mut rows = self.scheduler.plan();
        self.check(&rows);
        if self.undrafts {
            rows.iter_mut().for_each(|row| *row = self.scheduler.undraft(row));
            self.check(&rows);
        }
        for (idx, row) in rows.iter().enumerate() {
            let cached = &mut self.cache[row.slot.0];
            cached.truncate(row.start);
            if let Some(failing) = failing_row.filter(|failing| failing.idx == idx) {
                cached.push(TokenId::MAX);
                if failing.may_start_over && self.scheduler.start_over(row.id) {
                    continue;
                }
                self.live.remove(&row.id);
                self.scheduler.discard(row.id);
                continue;
            }
            cached.extend_from_slice(&self.scheduler.tokens(row));
            self.scheduler.computed(row);
            self.n_computed += row.len;
            let wants = self.live.get_mut(&row.id).expect("it is live");
            wants.logits_from += row.len - row.n_drafted - row.logits_from;
            if wants.logits_from == wants.tokens.len() {
                let mut left = row.n_drafted;
                while self.grow(row.id, n_forced) {
                    assert!(n_forced < left, "more tokens are accepted than were drafted");
                    left -= n_forced + 1;
                }
            }
        }
        rows
    }

    /// The sequence chooses a token and is forced to some more. True where it can choose on at once.
    fn grow(&mut self, id: SequenceId, n_forced: usize) -> bool {
        let wants = self.live.get_mut(&id).expect("it is live");
        wants.n_more -= 1;
        if wants.n_more == 0 {
            self.live.remove(&id);
            self.scheduler.finish(id);
            return false;
        }
        let mut all_accepted = true;
        for idx in 0..=n_forced {
            let token = reply_token(wants.tokens.len());
            wants.logits_from = wants.tokens.len();
            wants.tokens.push(token);
            all_accepted &= self.scheduler.push(id, token, idx > 0);
        }
        if all_accepted {
            wants.logits_from = wants.tokens.len();
        }
        all_accepted
    }

    fn check(&mut self, rows: &[PlannedRow]) {
        assert!(rows.len() <= self.limits.max_step_rows);
        assert!(rows.iter().map(|row| row.len).sum::<usize>() <= self.max_step_tokens);
        assert!(rows.iter().map(|row| row.len - row.logits_from).sum::<usize>() <= MAX_STEP_LOGITS);
        assert_eq!(rows.is_empty(), self.live.is_empty(), "a step always gets somebody further");
        let mut slots: Vec<_> = rows.iter().map(|row| row.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), rows.len(), "no slot is shared");
        for row in rows {
            let wants = self.live.get_mut(&row.id).expect("ended sequences get no rows");
            let end = row.start + row.len - row.n_drafted;
            assert!(row.start < end && end <= wants.tokens.len());
            assert_eq!(self.scheduler.tokens(row)[..end - row.start], wants.tokens[row.start..end]);
            assert_eq!(self.scheduler.tokens(row).len(), row.len);
            assert!(row.n_drafted == 0 || end == wants.tokens.len(), "drafts follow the end alone");
            assert!(row.start + row.len <= self.limits.context_len);
            assert_eq!(self.cache[row.slot.0].get(..row.start), Some(&wants.tokens[..row.start]));
            let reached = end.min(wants.logits_from).max(row.start);
            assert_eq!(row.start + row.logits_from, reached, "all wanted logits, each once");
            wants.started = true;
        }
        let late = self.live.iter().find(|(_, wants)| !wants.started).map(|(&id, _)| id);
        if let Some(late) = late {
            assert!(self.live.range(late..).all(|(_, wants)| !wants.started), "{late:?} was overtaken");
        }
        let running = self.live.values().filter(|wants| wants.started).count();
        assert!(running <= self.scheduler.n_running() && self.scheduler.n_running() <= self.limits.slots);
        assert_eq!(self.scheduler.n_running() + self.scheduler.n_waiting(), self.live.len());
    }

    fn finish_all(&mut self, max_steps: usize) {
        for _ in 0..max_steps {
            if self.live.is_empty() {
                break;
            }
            self.step(None, false, 0);
        }
        assert!(self.live.is_empty(), "somebody starved");
        assert_eq!((self.scheduler.n_running(), self.scheduler.n_waiting()), (0, 0));
    }
}

#[derive(Clone, Copy, Debug)]
struct FailingRow {
    idx: usize,
    may_start_over: bool,
}

#[derive(Clone, Debug)]
enum Op {
    SubmitGiven { family: u32, shared: usize, own: usize, from: prop::sample::Index },
    Submit { family: u32, shared: usize, own: usize, n_more: usize },
    Cancel(prop::sample::Index),
    Step { failing_row: Option<FailingRow>, copies_fail: bool, undrafts: bool, n_forced: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let failing_row =
        (0..4_usize, any::<bool>()).prop_map(|(idx, may_start_over)| FailingRow { idx, may_start_over });
    let seldom = prop::bool::weighted(0.2);
    let step = (prop::option::weighted(0.1, failing_row), seldom, seldom, 0..6_usize).prop_map(
        |(failing_row, copies_fail, undrafts, n_forced)| Op::Step {
            failing_row,
            copies_fail,
            undrafts,
            n_forced,
        },
    );
    prop_oneof![
        3 => (0..3_u32, 0..90_usize, 1..60_usize, 1..12_usize)
            .prop_map(|(family, shared, own, n_more)| Op::Submit { family, shared, own, n_more }),
        1 => (0..3_u32, 0..90_usize, 1..90_usize, any::<prop::sample::Index>())
            .prop_map(|(family, shared, own, from)| Op::SubmitGiven { family, shared, own, from }),
        1 => any::<prop::sample::Index>().prop_map(Op::Cancel),
        4 => step,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_interleaving_is_legal_and_ends(
        (slots, rows, tokens, drafts) in (1..14_usize, 1..14_usize, 1..120_usize, 0..9_usize),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut world = World::drafting(limits(slots, rows, 512), tokens, drafts);
        let mut n_wanted = 0;
        for op in ops {
            match op {
                Op::Submit { family, shared, own, n_more } => {
                    let author = world.n_submitted as u32 % 5;
                    world.submit(prompt(family, shared, author, own), n_more);
                    n_wanted += shared + own + 7 * n_more;
                }
                Op::SubmitGiven { family, shared, own, from } => {
                    let author = world.n_submitted as u32 % 5;
                    world.submit_given(prompt(family, shared, author, own), from.index(shared + own), 1);
                    n_wanted += shared + own;
                }
                Op::Cancel(who) if !world.live.is_empty() => {
                    let id = *who.get(&world.live.keys().copied().collect::<Vec<_>>());
                    world.cancel(id);
                }
                Op::Cancel(_) => {}
                Op::Step { failing_row, copies_fail, undrafts, n_forced } => {
                    world.undrafts = undrafts;
                    world.step(failing_row, copies_fail, n_forced);
                }
            }
        }
        world.undrafts = false;
        // Each step computes at least one of the tokens that were wanted.
        world.finish_all(n_wanted);
    }
}

#[test]
fn a_long_prompt_is_cut_and_mixed_with_replies() {
    let mut world = World::new(limits(2, 2, 512), 64);
    let reply = world.submit(prompt(0, 0, 0, 10), 9);
    world.step(None, false, 0);
    let long = world.submit(prompt(0, 0, 1, 150), 2);
    let mut shape = Vec::new();
    for _ in 0..4 {
        shape.push(world.step(None, false, 0).iter().map(|row| (row.id, row.len)).collect::<Vec<_>>());
    }
    assert_eq!(shape[0], [(reply, 1), (long, 63)]);
    assert_eq!(shape[1], [(reply, 1), (long, 63)]);
    assert_eq!(shape[2], [(reply, 1), (long, 24)]);
    assert_eq!(shape[3], [(reply, 1), (long, 1)]);
}

#[test]
fn replies_leave_room_for_a_prompt() {
    for (rows, tokens) in [(2, 64), (3, 2)] {
        let mut world = World::new(limits(3, rows, 512), tokens);
        for author in 0..2 {
            world.submit(prompt(0, 0, author, 1), 90);
        }
        world.step(None, false, 0);
        let newcomer = world.submit(prompt(0, 0, 2, 100), 9);
        for step in 0..2 {
            let rows = world.step(None, false, 0);
            assert_eq!(rows.last().map(|row| row.id), Some(newcomer), "step {step}");
        }
    }
}

#[test]
fn replies_take_turns_when_rows_are_few() {
    let mut world = World::new(limits(3, 2, 512), 64);
    for author in 0..3 {
        world.submit(prompt(0, 0, author, 1), 90);
    }
    world.step(None, false, 0);
    world.step(None, false, 0);
    let mut n_rows = BTreeMap::new();
    for _ in 0..30 {
        for row in world.step(None, false, 0) {
            *n_rows.entry(row.id).or_insert(0) += 1;
        }
    }
    assert_eq!(n_rows.into_values().collect::<Vec<_>>(), [20, 20, 20]);
}

#[test]
fn forced_tokens_and_the_last_one_are_one_row() {
    let mut world = World::new(limits(1, 1, 512), 64);
    world.submit(prompt(0, 0, 0, 10), 3);
    world.step(None, false, 5);
    let rows = world.step(None, false, 0);
    assert_eq!((rows[0].start, rows[0].len, rows[0].logits_from, rows[0].n_prompt), (10, 6, 5, 0));
}

#[test]
fn what_was_read_before_is_drafted_and_needs_no_row_when_it_comes() {
    let mut world = World::drafting(limits(1, 1, 512), 64, 7);
    world.submit(prompt(0, 0, 0, 20), 40);
    let rows: Vec<_> = (0..13).map(|_| world.step(None, false, 0)[0]).collect();
    let shape: Vec<_> = rows.iter().map(|row| (row.start, row.len, row.n_drafted)).collect();
    // At 25 stands a token of its own: what is drafted for it at 24 and 28 is wrong. All else was read four before,
    // at 27, 30, 32, 34 and 35, and is right.
    assert_eq!(shape[0], (0, 20, 0));
    assert_eq!(shape[1..5], [20, 21, 22, 23].map(|start| (start, 1, 0)));
    assert_eq!(shape[5..8], [(24, 2, 1), (25, 1, 0), (26, 2, 1)]);
    assert_eq!(shape[8..], [(28, 3, 2), (29, 2, 1), (31, 2, 1), (33, 3, 2), (36, 1, 0)]);
}

#[test]
fn drafts_take_no_room_of_others() {
    let mut world = World::drafting(limits(2, 2, 512), 8, 7);
    world.submit(prompt(0, 0, 0, 1), 90);
    assert!((0..20).any(|_| world.step(None, false, 0)[0].n_drafted > 0));
    world.submit(prompt(0, 0, 1, 100), 2);
    let rows = world.step(None, false, 0);
    assert_eq!(rows.iter().map(|row| (row.len, row.n_drafted)).collect::<Vec<_>>(), [(1, 0), (7, 0)]);
}

#[test]
fn a_free_slot_is_continued_in_place() {
    let mut world = World::new(limits(3, 3, 512), 512);
    world.submit(prompt(0, 100, 0, 20), 5);
    world.finish_all(10);
    world.submit(prompt(0, 100, 1, 20), 1);
    let rows = world.step(None, false, 0);
    assert_eq!((rows[0].start, rows[0].len), (100, 20));
    assert_eq!(world.copies, []);
}

#[test]
fn the_last_prompt_token_is_always_computed() {
    let mut world = World::new(limits(1, 1, 512), 512);
    for _ in 0..2 {
        world.submit(prompt(0, 100, 0, 0), 1);
        world.finish_all(1);
    }
    assert_eq!(world.n_computed, 100 + 1);
}

#[test]
fn a_busy_slots_prefix_is_copied() {
    let mut world = World::new(limits(2, 2, 512), 512);
    world.submit(prompt(0, 100, 0, 20), 50);
    world.step(None, false, 0);
    world.submit(prompt(0, 100, 1, 20), 1);
    let rows = world.step(None, false, 0);
    assert_eq!(world.copies, [PrefixCopy { from: Slot(0), to: Slot(1), len: 100 }]);
    assert_eq!(rows[1].start, 100);
}

#[test]
fn a_failed_copy_costs_time_only() {
    let mut world = World::new(limits(2, 2, 512), 512);
    world.submit(prompt(0, 100, 0, 20), 50);
    world.step(None, false, 0);
    world.submit(prompt(0, 100, 1, 20), 1);
    let rows = world.step(None, true, 0);
    assert_eq!((rows[1].start, rows[1].len), (0, 120));
}

#[test]
fn a_long_prefix_in_a_free_slot_outlives_a_newcomer_that_shares_little_of_it() {
    let mut world = World::new(limits(2, 2, 512), 512);
    world.submit(prompt(0, 40, 0, 400), 1); // instructions and a passage
    world.finish_all(1);
    world.submit(prompt(0, 40, 1, 100), 1); // the instructions, another passage
    world.finish_all(1);
    assert_eq!(world.copies, [PrefixCopy { from: Slot(0), to: Slot(1), len: 40 }]);
    world.submit(prompt(0, 40, 0, 410), 1);
    let rows = world.step(None, false, 0);
    assert_eq!((rows[0].slot, rows[0].start), (Slot(0), 440));
}

#[test]
fn the_slot_used_least_recently_goes_first() {
    let mut world = World::new(limits(2, 2, 512), 512);
    for family in [1, 2, 1, 3] {
        world.submit(prompt(family, 100, family, 10), 1);
        world.finish_all(1);
    }
    // Family 1 came back before 3 needed a slot, so 2 had to go.
    world.submit(prompt(1, 100, 9, 10), 1);
    assert_eq!(world.step(None, false, 0)[0].start, 100);
}

#[test]
fn being_copied_is_a_use() {
    let mut world = World::new(limits(3, 3, 512), 512);
    world.submit(prompt(0, 40, 0, 400), 1); // instructions and a passage
    world.finish_all(1);
    world.submit(prompt(5, 100, 5, 10), 1);
    world.finish_all(1);
    world.submit(prompt(0, 40, 1, 100), 1); // copies the instructions
    world.finish_all(1);
    assert_eq!(world.copies.len(), 1);
    world.submit(prompt(7, 100, 7, 10), 1); // so this takes the other slot
    world.finish_all(1);
    world.submit(prompt(0, 40, 0, 410), 1);
    assert_eq!(world.step(None, false, 0)[0].start, 440);
}

#[test]
fn newcomers_wait_for_the_prompt_they_share_and_nobody_computes_it_twice() {
    let mut world = World::new(limits(4, 4, 512), 64);
    for author in 0..4 {
        world.submit(prompt(0, 150, author, 10), 3);
    }
    assert_eq!(world.step(None, false, 0).len(), 1);
    assert_eq!(world.scheduler.n_waiting(), 3);
    world.step(None, false, 0);
    world.step(None, false, 0); // 160 tokens are there
    let rows = world.step(None, false, 0);
    assert_eq!(rows.iter().map(|row| row.start).collect::<Vec<_>>(), [160, 150, 150, 150]);
    world.finish_all(10);
    assert_eq!(world.n_computed, 160 + 3 * 10 + 4 * 2);
}

#[test]
fn a_wait_ends_with_the_sequence_waited_for() {
    let mut world = World::new(limits(2, 2, 512), 64);
    let first = world.submit(prompt(0, 300, 0, 10), 3);
    let second = world.submit(prompt(0, 300, 1, 10), 3);
    world.step(None, false, 0);
    assert_eq!(world.scheduler.n_waiting(), 1);
    world.cancel(first);
    let rows = world.step(None, false, 0);
    assert_eq!((rows[0].id, rows[0].start), (second, 64));
}

#[test]
fn what_a_failed_sequence_computed_is_not_reused() {
    let mut world = World::new(limits(1, 1, 512), 512);
    world.submit(prompt(0, 100, 0, 10), 3);
    world.step(None, false, 0);
    world.step(Some(FailingRow { idx: 0, may_start_over: false }), false, 0);
    world.submit(prompt(0, 100, 1, 10), 3);
    assert_eq!(world.step(None, false, 0)[0].start, 0);
}

#[test]
fn a_sequence_starts_over_once_and_only_while_nothing_of_it_was_of_use() {
    let fails = Some(FailingRow { idx: 0, may_start_over: true });
    let mut world = World::new(limits(1, 1, 512), 64);
    world.submit(prompt(0, 100, 0, 0), 3);
    world.finish_all(10);
    world.submit(prompt(0, 100, 0, 100), 3);
    // In the middle of the prompt it forgets what it took over.
    let starts: Vec<_> = [None, fails, None].map(|fails| world.step(fails, false, 0)[0].start).into();
    assert_eq!(starts, [100, 164, 0]);
    assert_eq!(world.step(fails, false, 0)[0].start, 64);
    assert!(world.live.is_empty(), "the second time it ends");

    world.submit(prompt(1, 100, 0, 0), 3);
    world.step(None, false, 0);
    world.step(None, false, 0);
    world.step(fails, false, 0);
    assert!(world.live.is_empty(), "it had a token");
}

#[test]
fn nobody_else_takes_over_what_a_sequence_started_over_for() {
    let mut world = World::new(limits(3, 3, 512), 512);
    world.submit(prompt(0, 40, 0, 400), 1); // instructions and a passage
    world.finish_all(1);
    world.submit(prompt(0, 40, 1, 20), 1);
    world.step(Some(FailingRow { idx: 0, may_start_over: true }), false, 0);
    assert_eq!(world.copies, [PrefixCopy { from: Slot(0), to: Slot(1), len: 40 }]);
    world.submit(prompt(0, 40, 0, 400), 1);
    let rows = world.step(None, false, 0);
    assert_eq!(rows.iter().map(|row| row.start).collect::<Vec<_>>(), [0]);
    let rows = world.step(None, false, 0);
    assert_eq!(rows[0].start, 40, "of the one that started over");
}

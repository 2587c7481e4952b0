//! Drafts how sequences go on, so that a step computes tokens that were not chosen yet. There are two signs of what
//! comes next: what followed in the sequence's own text where that read most like its end now (prompt lookup; a quiz
//! copies names and phrases from its source all the time), and what followed the same two tokens in anybody's reply.
//! How often each came true of late is counted, and only what is likely enough to be worth its place is drafted.
//! Absent: the model, slots; whether a draft is right is for the step to say, and no draft changes a reply.

use crate::text::TokenId;

/// What a step costs besides its tokens, in tokens: reading the weights. It is 1.5 to 6 of them on the processors that
/// were measured; one too low drafts too little, and one too high what slows a full engine down.
const STEP_COST: f32 = 4.0;
/// When so much has been counted, all of it counts half from then on.
const MEMORY: f32 = 400.0;
/// Agreement with more tokens than these is no better sign.
const MAX_AGREED: usize = 8;
/// More often than this need not be known.
const MAX_SEEN: u8 = 3;
/// Of 16 bytes each.
const N_PAIRS: usize = 1 << 15;
const N_SIGNS: usize = MAX_AGREED + MAX_SEEN as usize + 1;

/// See the [module](self).
pub(super) struct Drafter {
    /// By a hash of the two tokens.
    pairs: Box<[Pair]>,
    /// Of agreement with one token, with two and so on; then of a pair's `seen`.
    signs: [Share; N_SIGNS],
    /// Tokens that replies gained of what their steps cost.
    gain: Share,
}

/// Two tokens, and what followed them.
#[derive(Clone, Copy)]
struct Pair {
    tokens: [TokenId; 2],
    next: TokenId,
    /// How many times more it has followed than something else has since the first time.
    seen: u8,
}

/// A part of a whole, both of late.
#[derive(Clone, Copy)]
struct Share {
    part: f32,
    whole: f32,
}

impl Share {
    fn add(&mut self, part: f32, whole: f32) {
        if self.whole > MEMORY {
            (self.part, self.whole) = (self.part / 2.0, self.whole / 2.0);
        }
        (self.part, self.whole) = (self.part + part, self.whole + whole);
    }

    fn of_whole(self) -> f32 {
        self.part / self.whole
    }
}

impl Drafter {
    /// Knows nothing yet: takes a third of its guesses to come true, and replies to be alone in their steps.
    pub(super) fn new() -> Self {
        Self {
            pairs: vec![Pair { tokens: [TokenId::MAX; 2], next: 0, seen: 0 }; N_PAIRS].into(),
            signs: [Share { part: 1.0, whole: 3.0 }; N_SIGNS],
            gain: Share { part: 10.0, whole: 10.0 * (STEP_COST + 1.0) },
        }
    }

    /// Puts up to `max_len` tokens behind a text: as long as the chance that all of them are right is no less than
    /// what a token gains that is computed.
    pub(super) fn draft(&self, text: &mut Vec<TokenId>, max_len: usize) {
        let worth = self.gain.of_whole();
        let likeliest = self.signs.map(Share::of_whole).into_iter().fold(0.0, f32::max);
        let mut chance = 1.0;
        for _ in 0..max_len {
            // Not worth a look.
            if chance * likeliest < worth {
                return;
            }
            let guesses = self.guesses(text).into_iter().flatten();
            let guesses = guesses.map(|(sign, token)| (self.signs[sign].of_whole(), token));
            let Some((likely, token)) = guesses.max_by(|a, b| a.0.total_cmp(&b.0)) else { return };
            chance *= likely;
            if chance < worth {
                return;
            }
            text.push(token);
        }
    }

    /// A step is to compute so many tokens of replies.
    pub(super) fn step(&mut self, n_tokens: usize) {
        self.gain.add(0.0, STEP_COST + n_tokens as f32);
    }

    /// A reply goes on. What it says is learnt, and what would have been drafted is judged, but where a grammar
    /// forced it: there nothing was in doubt.
    pub(super) fn observe(&mut self, text: &[TokenId], next: TokenId, forced: bool) {
        self.gain.add(1.0, 0.0);
        if !forced {
            for (sign, token) in self.guesses(text).into_iter().flatten() {
                self.signs[sign].add(if token == next { 1.0 } else { 0.0 }, 1.0);
            }
        }
        let Some(&tokens) = text.last_chunk() else { return };
        let pair = &mut self.pairs[place(tokens)];
        if pair.tokens == tokens && pair.next == next {
            pair.seen = (pair.seen + 1).min(MAX_SEEN);
        } else if pair.seen > 0 {
            pair.seen -= 1;
        } else {
            *pair = Pair { tokens, next, seen: 0 };
        }
    }

    /// What may follow a text, and by which sign.
    fn guesses(&self, text: &[TokenId]) -> [Option<(usize, TokenId)>; 2] {
        let own = agreement(text).map(|(agreed, end)| (agreed - 1, text[end]));
        let pair = text.last_chunk().map(|&tokens| (tokens, &self.pairs[place(tokens)]));
        let of_all = pair
            .filter(|(tokens, pair)| pair.tokens == *tokens)
            .map(|(_, pair)| (MAX_AGREED + usize::from(pair.seen), pair.next));
        [own, of_all]
    }
}

fn place([first, second]: [TokenId; 2]) -> usize {
    let hash = (u64::from(first) << 32 | u64::from(second)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (64 - N_PAIRS.ilog2())) as usize
}

/// With how many tokens up to `end` the end of a text agrees, where it does best; the last such place.
fn agreement(text: &[TokenId]) -> Option<(usize, usize)> {
    let (&last, before) = text.split_last()?;
    let mut best = None;
    for end in (1..text.len()).rev().filter(|&end| text[end - 1] == last) {
        let pairs = text[..end - 1].iter().rev().zip(before.iter().rev());
        let agreed = 1 + pairs.take(MAX_AGREED - 1).take_while(|(a, b)| a == b).count();
        if best.is_none_or(|(most, _)| agreed > most) {
            best = Some((agreed, end));
        }
        if agreed == MAX_AGREED {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(drafter: &Drafter, text: &[TokenId], max_len: usize, expected: &[TokenId]) {
        let mut longer = text.to_vec();
        drafter.draft(&mut longer, max_len);
        assert_eq!(longer[text.len()..], *expected, "after {text:?}");
    }

    /// Lets a reply that is all of a text but its first tokens come true.
    fn observe(drafter: &mut Drafter, text: &[TokenId], n_prompt: usize) {
        for end in n_prompt..text.len() {
            drafter.step(1);
            drafter.observe(&text[..end], text[end], false);
        }
    }

    #[test]
    fn what_followed_the_longest_agreement_is_drafted() {
        let text = [2, 3, 4, 5, 0, 3, 4, 6, 0, 4, 7, 2, 3, 4];
        check(&Drafter::new(), &text, 8, &[5]);
        check(&Drafter::new(), &text, 0, &[]);
        check(&Drafter::new(), &[1, 2, 3, 1, 2, 4, 1, 2], 8, &[4]);
        check(&Drafter::new(), &[1, 2, 3], 8, &[]);
        check(&Drafter::new(), &[], 8, &[]);
    }

    #[test]
    fn what_comes_true_is_drafted_further_and_what_does_not_no_more() {
        let repeats: Vec<TokenId> = (0..200).map(|idx| idx % 10).collect();
        let mut drafter = Drafter::new();
        observe(&mut drafter, &repeats, 10);
        check(&drafter, &repeats, 7, &[0, 1, 2, 3, 4, 5, 6]);

        // Every other token is 1, and what follows it is never the same.
        let differs = |from: TokenId| -> Vec<TokenId> {
            (0..101).map(|idx| if idx % 2 == 0 { 1 } else { from + idx }).collect()
        };
        let mut drafter = Drafter::new();
        check(&drafter, &differs(1000), 7, &[1099]);
        observe(&mut drafter, &differs(2000), 10);
        check(&drafter, &differs(1000), 7, &[]);
    }

    #[test]
    fn what_a_grammar_forces_says_nothing_of_a_sign() {
        let repeats: Vec<TokenId> = (0..200).map(|idx| idx % 10).collect();
        let mut drafter = Drafter::new();
        for end in 10..200 {
            drafter.step(1);
            drafter.observe(&repeats[..end], repeats[end], true);
        }
        check(&drafter, &repeats, 7, &[0]);
    }

    #[test]
    fn what_followed_two_tokens_in_another_reply_is_drafted() {
        let mut drafter = Drafter::new();
        observe(&mut drafter, &[1, 2, 3, 4, 5], 2);
        check(&drafter, &[8, 2, 3], 8, &[4]);
        check(&drafter, &[8, 1, 3], 8, &[]);
        observe(&mut drafter, &[2, 3, 6], 2);
        check(&drafter, &[8, 2, 3], 8, &[6]);
        observe(&mut drafter, &[2, 3, 6], 2);
        observe(&mut drafter, &[2, 3, 4], 2);
        check(&drafter, &[8, 2, 3], 8, &[6]);
    }

    #[test]
    fn the_more_tokens_a_step_has_the_likelier_a_draft_must_be() {
        let text = [1, 2, 3, 4, 1, 2, 3];
        let mut drafter = Drafter::new();
        check(&drafter, &text, 8, &[4]);
        for _ in 0..40 {
            drafter.step(16);
            // Sixteen replies of tokens that were never read and tell nothing.
            (0..16).for_each(|_| drafter.observe(&[], 0, false));
        }
        check(&drafter, &text, 8, &[]);
    }
}

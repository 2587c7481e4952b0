//! BLEU-4 (Papineni et al., 2002) of a whole set: how many runs of one to four words a text shares with what a
//! person wrote. Lower case, punctuation apart, one reference a text, nothing smoothed.

use super::bootstrap::{Estimate, interval_of};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What one text and its reference add to the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BleuCounts {
    /// Runs of 1, 2, 3 and 4 words that the reference has too.
    matched: [u32; MAX_RUN],
    /// All of them.
    written: [u32; MAX_RUN],
    reference_words: u32,
}

const MAX_RUN: usize = 4;

impl BleuCounts {
    pub fn of(text: &str, reference: &str) -> Self {
        let (text, reference) = (words(text), words(reference));
        let mut counts = Self { reference_words: reference.len() as u32, ..Self::default() };
        for n in 1..=MAX_RUN {
            let mut theirs: HashMap<&[String], u32> = HashMap::new();
            for run in reference.windows(n) {
                *theirs.entry(run).or_default() += 1;
            }
            for run in text.windows(n) {
                counts.written[n - 1] += 1;
                if let Some(left) = theirs.get_mut(run).filter(|left| **left > 0) {
                    *left -= 1;
                    counts.matched[n - 1] += 1;
                }
            }
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for n in 0..MAX_RUN {
            self.matched[n] += other.matched[n];
            self.written[n] += other.written[n];
        }
        self.reference_words += other.reference_words;
    }

    fn bleu(&self) -> f64 {
        if self.matched.contains(&0) {
            return 0.0;
        }
        let precision = |n: usize| f64::from(self.matched[n]) / f64::from(self.written[n]);
        let mean = (0..MAX_RUN).map(|n| precision(n).ln()).sum::<f64>() / MAX_RUN as f64;
        let brevity = 1.0 - f64::from(self.reference_words) / f64::from(self.written[0]);
        (mean + brevity.min(0.0)).exp()
    }
}

/// BLEU-4 from 0 to 1, and its interval; `None` of nothing.
pub fn bleu_of(counts: &[BleuCounts], seed: u64) -> Option<Estimate> {
    interval_of(counts, seed, |drawn| {
        let mut sum = BleuCounts::default();
        drawn.for_each(|counts| sum.add(counts));
        sum.bleu()
    })
}

/// Runs of letters and digits, and each other sign by itself.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for c in text.to_lowercase().chars() {
        if c.is_whitespace() {
            inside = false;
        } else if c.is_alphanumeric() && inside {
            words.last_mut().expect("it is inside one").push(c);
        } else {
            words.push(c.to_string());
            inside = c.is_alphanumeric();
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bleu(pairs: &[(&str, &str)]) -> f64 {
        let counts: Vec<BleuCounts> =
            pairs.iter().map(|(text, reference)| BleuCounts::of(text, reference)).collect();
        bleu_of(&counts, 1).unwrap().mean
    }

    #[test]
    fn figures() {
        let check = |pairs: &[(&str, &str)], expected: f64| {
            assert!((bleu(pairs) - expected).abs() < 1e-4, "{}", bleu(pairs));
        };
        check(&[("Who built the tower?", "who built the tower ?")], 1.0);
        check(&[("Who built the tower?", "When did it rain so much?")], 0.0);
        // 5 of 6 words, and 3 of 5, 2 of 4 and 1 of 3 runs, as long as the reference.
        let by_hand = (5.0_f64 / 6.0 * 3.0 / 5.0 * 2.0 / 4.0 * 1.0 / 3.0).powf(0.25);
        check(&[("who built the old tower?", "who built the old castle?")], by_hand);
        // Three words less than the reference: exp(1 - 8/5).
        check(&[("who built the tower?", "who built the tower? tell me now")], (-0.6_f64).exp());
        // A word counts as often as the reference has it.
        assert_eq!(BleuCounts::of("the the the", "the cat").matched[0], 1);
    }

    #[test]
    fn questions_for_other_answers_have_less() {
        let asked = [
            "Who built the iron tower in Paris?",
            "When was the tower in Paris finished?",
            "How tall is it?",
        ];
        let own: Vec<(&str, &str)> = asked.iter().map(|question| (*question, *question)).collect();
        let others: Vec<(&str, &str)> =
            (0..asked.len()).map(|idx| (asked[idx], asked[(idx + 1) % asked.len()])).collect();
        assert!(bleu(&own) > 0.99 && bleu(&others) < 0.5);
    }
}

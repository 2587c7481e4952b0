//! Draws among the likeliest tokens: min-p, then top-k, then top-p.

use super::SamplingParams;
use super::softmax::{LANES, exp, reaches, sum_of_exp};
use crate::text::TokenId;
use std::cmp::Ordering;

/// Room to draw in, kept between draws.
///
/// All three limits keep a beginning of the row sorted by logit, so what they leave is known by its last
/// token, and that is found by selection: nothing is sorted.
#[derive(Default)]
pub(super) struct Truncation {
    /// In order of ids.
    candidates: Vec<Candidate>,
    /// The same, in whatever order the selection leaves.
    ranked: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    token: TokenId,
    logit: f32,
    /// `exp((logit - max) / temperature)`
    weight: f32,
}

/// What top-k and top-p ask for.
#[derive(Clone, Copy)]
struct Cut {
    /// Tokens kept at most.
    top_k: Option<usize>,
    top_p: Option<f64>,
    /// The weight of all tokens that min-p leaves; known where top-p cuts and top-k does not.
    mass: f64,
}

impl Truncation {
    /// The token at the share `u` of the weight that the limits leave, counted in order of ids.
    pub(super) fn draw(&mut self, params: &SamplingParams, logits: &[f32], max: f32, u: f64) -> TokenId {
        let temperature = params.temperature;
        let floor = (max + temperature * params.min_p.ln()).max(f32::MIN); // f32::MIN where min-p is 0
        let top_k = (1..logits.len()).contains(&params.top_k).then_some(params.top_k);
        let top_p = (params.top_p < 1.0).then_some(f64::from(params.top_p));
        let mass = match (top_k, top_p) {
            (None, Some(_)) => sum_of_exp(logits, max, temperature.recip(), floor),
            _ => f64::NAN,
        };
        let cut = Cut { top_k, top_p, mass };

        self.gather(logits, max, temperature, floor, cut);
        let last = self.last_kept(cut);
        let kept = || self.candidates.iter().filter(|candidate| best_first(candidate, &last).is_le());
        let mut left = u * kept().map(|candidate| f64::from(candidate.weight)).sum::<f64>();
        for candidate in kept() {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.token;
            }
        }
        last.token // rounding took what was left
    }

    /// Gathers the tokens with a logit of at least `floor` that the cut can leave, and seldom many more:
    /// those within `reach` of the best one, widened until nothing outside can be kept.
    fn gather(&mut self, logits: &[f32], max: f32, temperature: f32, floor: f32, cut: Cut) {
        const REACHES: [f32; 4] = [4.0, 8.0, 16.0, f32::INFINITY];
        let cuts_nothing = cut.top_k.is_none() && cut.top_p.is_none();
        let first_reach = if cuts_nothing { REACHES.len() - 1 } else { 0 };
        for reach in &REACHES[first_reach..] {
            let near = (max - reach * temperature).max(floor);
            self.candidates.clear();
            for (chunk_idx, chunk) in logits.chunks(LANES).enumerate() {
                if !reaches(chunk, near) {
                    continue;
                }
                for (idx, &logit) in chunk.iter().enumerate().filter(|(_, logit)| **logit >= near) {
                    let token = (chunk_idx * LANES + idx) as TokenId;
                    self.candidates.push(Candidate {
                        token,
                        logit,
                        weight: exp((logit - max) / temperature),
                    });
                }
            }
            let suffices = match (cut.top_k, cut.top_p) {
                (Some(top_k), _) => self.candidates.len() >= top_k,
                (None, Some(top_p)) => mass_of(&self.candidates) >= top_p * cut.mass,
                (None, None) => true,
            };
            if suffices || near == floor {
                return;
            }
        }
    }

    /// The least likely candidate that the cut leaves.
    fn last_kept(&mut self, cut: Cut) -> Candidate {
        self.ranked.clear();
        self.ranked.extend_from_slice(&self.candidates);
        let mut kept = &mut self.ranked[..];
        if let Some(top_k) = cut.top_k.filter(|&top_k| top_k < kept.len()) {
            kept.select_nth_unstable_by(top_k, best_first);
            kept = &mut kept[..top_k];
        }
        match cut.top_p {
            Some(top_p) => {
                let mass = if cut.top_k.is_some() { mass_of(kept) } else { cut.mass };
                end_of_nucleus(kept, top_p * mass)
            }
            None => *kept.iter().max_by(|a, b| best_first(a, b)).expect("the best token is always kept"),
        }
    }
}

/// The last of the fewest best candidates that weigh `enough` together.
fn end_of_nucleus(mut candidates: &mut [Candidate], enough: f64) -> Candidate {
    let mut mass_before = 0.0;
    while candidates.len() > 1 {
        let half = candidates.len() / 2;
        candidates.select_nth_unstable_by(half, best_first);
        let (better, worse) = candidates.split_at_mut(half);
        let mass = mass_before + mass_of(better);
        if mass >= enough {
            candidates = better;
        } else {
            mass_before = mass;
            candidates = worse;
        }
    }
    candidates[0]
}

/// Higher logits first; of equal ones, lower ids.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

fn mass_of(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

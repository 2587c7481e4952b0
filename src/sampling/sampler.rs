//! The chooser of one sequence. A row of logits is passed over once or twice, and never sorted whole.

use super::philox::uniform;
use super::softmax::{exp, sum_of_exp, weigh};
use super::{SamplingParams, TokenMask};
use crate::text::TokenId;
use std::collections::HashMap;

/// Below this temperature the choice is greedy (vLLM's `_SAMPLING_EPS`, `vllm/v1/sample/sampler.py`).
const GREEDY_BELOW: f32 = 1e-5;

/// One sequence's chooser: its parameters, its counts and its place in the stream of random numbers.
///
/// The order is that of vLLM (`vllm/v1/sample/sampler.py`): logit bias, repetition, frequency and presence
/// penalty, the grammar's mask; then, unless greedy, temperature, min-p, top-k, top-p over what those
/// left, and one draw. Log-probabilities are those of the raw logits, before all of this.
///
/// The n-th draw is a function of (seed, n) alone (Philox4x32-10). A greedy tie goes to the lowest id.
pub struct Sampler {
    params: SamplingParams,
    /// Tokens of the prompt and the reply, each with its count in the reply. Empty without penalties.
    seen: HashMap<TokenId, u32>,
    n_draws: u64,
    /// The logits as the model gave them, kept only for log-probabilities.
    raw: Vec<f32>,
    candidates: Vec<Candidate>,
    block_sums: Vec<f64>,
}

#[derive(Clone, Copy)]
struct Candidate {
    token: TokenId,
    logit: f32,
    weight: f32,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub token: TokenId,
    pub logprobs: Option<TokenLogprobs>,
}

/// The chosen token's log-probability and those of the likeliest tokens, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub logprob: f32,
    pub top: Vec<(TokenId, f32)>,
}

/// Why no token could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// NaN or +infinity; -infinity only means never.
    #[error("a logit is not a number")]
    NotANumber,
    #[error("no token may follow")]
    NothingAllowed,
}

impl Sampler {
    pub fn new(params: SamplingParams, prompt: &[TokenId]) -> Self {
        let mut sampler = Self {
            params,
            seen: HashMap::new(),
            n_draws: 0,
            raw: Vec::new(),
            candidates: Vec::new(),
            block_sums: Vec::new(),
        };
        if sampler.penalizes() {
            sampler.seen.extend(prompt.iter().map(|&token| (token, 0)));
        }
        sampler
    }

    /// Chooses from one row of logits, which is scratch afterwards, among the tokens of `mask`.
    ///
    /// The choice is counted only when it is [observed](Self::observe).
    ///
    /// # Errors
    /// [`SampleError`]: the row holds NaN or +infinity, or leaves nothing to choose.
    pub fn sample(&mut self, logits: &mut [f32], mask: Option<&TokenMask>) -> Result<Sampled, SampleError> {
        self.sample_among(logits, mask.map(TokenMask::words))
    }

    /// Counts a token that the reply got, sampled or forced by a grammar.
    pub fn observe(&mut self, token: TokenId) {
        if self.penalizes() {
            *self.seen.entry(token).or_insert(0) += 1;
        }
    }

    fn sample_among(&mut self, logits: &mut [f32], allowed: Option<&[u32]>) -> Result<Sampled, SampleError> {
        if self.params.logprobs.is_some() {
            self.raw.clear();
            self.raw.extend_from_slice(logits);
        }
        self.bias(logits);
        self.penalize(logits);
        if let Some(words) = allowed {
            forbid_others(logits, words);
        }
        let max = highest(logits)?;
        let token = if self.params.temperature < GREEDY_BELOW {
            logits.iter().position(|&logit| logit == max).expect("the highest logit is in the row") as TokenId
        } else {
            self.draw(logits, max)
        };
        let logprobs = self.params.logprobs.map(|n| log_probabilities(&self.raw, token, n)).transpose()?;
        Ok(Sampled { token, logprobs })
    }

    fn penalizes(&self) -> bool {
        let p = &self.params;
        p.repetition_penalty != 1.0 || p.frequency_penalty != 0.0 || p.presence_penalty != 0.0
    }

    fn bias(&self, logits: &mut [f32]) {
        for &(token, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
    }

    fn penalize(&self, logits: &mut [f32]) {
        let p = &self.params;
        for (&token, &n_in_reply) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / p.repetition_penalty } else { *logit * p.repetition_penalty };
            if n_in_reply > 0 {
                *logit -= p.frequency_penalty * n_in_reply as f32 + p.presence_penalty;
            }
        }
    }

    /// Draws a token with probability proportional to `exp((logit - max) / temperature)`, among those that
    /// min-p, top-k and top-p leave.
    fn draw(&mut self, logits: &mut [f32], max: f32) -> TokenId {
        let u = uniform(self.params.seed, self.n_draws);
        self.n_draws += 1;
        let p = &self.params;
        if p.top_p >= 1.0 && p.min_p <= 0.0 && !(1..logits.len()).contains(&p.top_k) {
            weigh(logits, max, p.temperature.recip(), &mut self.block_sums);
            return pick(logits, &self.block_sums, u);
        }
        self.gather(logits, max);
        let kept: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = u * kept;
        for candidate in &self.candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return candidate.token;
            }
        }
        self.candidates.last().expect("the likeliest token is always kept").token
    }

    /// Leaves in `candidates` the tokens that min-p, top-k and top-p keep, likeliest first.
    ///
    /// All three keep a beginning of the sorted row, so only a beginning is sorted: the tokens within
    /// `reach` of the best one, widened until nothing outside could be kept.
    fn gather(&mut self, logits: &[f32], max: f32) {
        const REACHES: [f32; 5] = [3.0, 6.0, 12.0, 24.0, f32::INFINITY];
        let p = &self.params;
        let scale = p.temperature.recip();
        let min_p_floor = max + p.temperature * p.min_p.ln(); // -infinity for 0
        let top_k = if p.top_k == 0 { logits.len() } else { p.top_k };
        let cuts_mass = p.top_p < 1.0;
        let whole_mass = match (top_k >= logits.len(), cuts_mass) {
            (true, true) => Some(sum_of_exp(logits, max, scale, min_p_floor)),
            (true, false) => Some(f64::INFINITY), // min-p alone decides
            (false, _) => None,
        };
        let reaches =
            if whole_mass == Some(f64::INFINITY) { &REACHES[REACHES.len() - 1..] } else { &REACHES };

        for reach in reaches {
            let floor = (max - reach * p.temperature).max(min_p_floor);
            self.candidates.clear();
            for (token, &logit) in logits.iter().enumerate() {
                if logit >= floor && logit > f32::NEG_INFINITY {
                    let weight = exp((logit - max) * scale);
                    self.candidates.push(Candidate { token: token as TokenId, logit, weight });
                }
            }
            let enough = match whole_mass {
                Some(mass) => mass_of(&self.candidates) >= f64::from(p.top_p) * mass,
                None => self.candidates.len() >= top_k,
            };
            if enough || floor == min_p_floor {
                break;
            }
        }

        let best_first =
            |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
        if top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k, best_first);
            self.candidates.truncate(top_k);
        }
        self.candidates.sort_unstable_by(best_first);

        if cuts_mass {
            let enough = f64::from(p.top_p) * whole_mass.unwrap_or_else(|| mass_of(&self.candidates));
            let mut mass = 0.0;
            let reached = self.candidates.iter().position(|candidate| {
                mass += f64::from(candidate.weight);
                mass >= enough
            });
            self.candidates.truncate(reached.map_or(self.candidates.len(), |idx| idx + 1));
        }
    }
}

fn mass_of(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Makes every token that `words` does not name impossible.
fn forbid_others(logits: &mut [f32], words: &[u32]) {
    for (word_idx, chunk) in logits.chunks_mut(u32::BITS as usize).enumerate() {
        match words.get(word_idx).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => chunk.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in chunk.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// The highest logit, in one pass that also finds what cannot be chosen from.
fn highest(logits: &[f32]) -> Result<f32, SampleError> {
    const LANES: usize = 16; // independent maxima, so that the loop runs on vectors
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut is_number = [true; LANES];
    for chunk in logits.chunks(LANES) {
        for (lane, &logit) in chunk.iter().enumerate() {
            max[lane] = if logit > max[lane] { logit } else { max[lane] };
            is_number[lane] &= logit < f32::INFINITY; // false for NaN too
        }
    }
    if is_number.contains(&false) {
        return Err(SampleError::NotANumber);
    }
    match max.into_iter().fold(f32::NEG_INFINITY, f32::max) {
        f32::NEG_INFINITY => Err(SampleError::NothingAllowed),
        max => Ok(max),
    }
}

/// The token at the share `u` of the whole weight, counted in order of ids.
fn pick(weights: &[f32], block_sums: &[f64], u: f64) -> TokenId {
    let mut left = u * block_sums.iter().sum::<f64>();
    let mut last = 0;
    for (block_idx, (block, &sum)) in weights.chunks(super::softmax::BLOCK).zip(block_sums).enumerate() {
        if sum == 0.0 {
            continue;
        }
        let inside = left < sum;
        for (idx, &weight) in block.iter().enumerate() {
            if weight > 0.0 {
                last = block_idx * super::softmax::BLOCK + idx;
                if inside {
                    left -= f64::from(weight);
                    if left < 0.0 {
                        return last as TokenId;
                    }
                }
            }
        }
        if inside {
            break; // a block's parts may add up to a little less than its sum
        }
        left -= sum;
    }
    last as TokenId
}

/// Log-softmax of the raw row: `token`'s place in it and the `n` best.
fn log_probabilities(raw: &[f32], token: TokenId, n: usize) -> Result<TokenLogprobs, SampleError> {
    let max = highest(raw)?;
    let log_sum = f64::from(max) + sum_of_exp(raw, max, 1.0, f32::NEG_INFINITY).ln();
    let log_probability = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let n = n.min(raw.len());
    let mut top: Vec<(TokenId, f32)> = Vec::with_capacity(n + 1);
    for (id, &logit) in raw.iter().enumerate() {
        if top.len() < n || top.last().is_some_and(|&(_, worst)| logit > worst) {
            let place = top.partition_point(|&(_, better)| better >= logit);
            top.insert(place, (id as TokenId, logit));
            top.truncate(n);
        }
    }
    for (_, logit) in &mut top {
        *logit = log_probability(*logit);
    }
    Ok(TokenLogprobs { logprob: log_probability(raw[token as usize]), top })
}

#[cfg(test)]
mod tests;

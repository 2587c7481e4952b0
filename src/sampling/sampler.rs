//! The chooser of one sequence. A row of logits is passed over a few times and never sorted.

use super::philox::uniform;
use super::softmax::{self, BLOCK, LANES, reaches, sum_of_exp, weigh};
use super::truncation::Truncation;
use super::{SamplingParams, TokenMask};
use crate::text::TokenId;

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
    /// Tokens of the prompt and the reply, by id. Empty without penalties.
    seen: Vec<Seen>,
    n_draws: u64,
    /// The logits as the model gave them, kept only for log-probabilities.
    raw: Vec<f32>,
    truncation: Truncation,
    block_sums: Vec<f64>,
}

struct Seen {
    token: TokenId,
    n_in_reply: u32,
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
    pub fn new(mut params: SamplingParams, prompt: &[TokenId]) -> Self {
        if params.temperature < GREEDY_BELOW {
            params.temperature = 0.0;
        }
        let mut sampler = Self {
            params,
            seen: Vec::new(),
            n_draws: 0,
            raw: Vec::new(),
            truncation: Truncation::default(),
            block_sums: Vec::new(),
        };
        if sampler.penalizes() {
            let mut tokens = prompt.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            sampler.seen = tokens.into_iter().map(|token| Seen { token, n_in_reply: 0 }).collect();
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

    /// Whether it wants nothing but the logits of tokens that may come: log-probabilities are over all.
    pub fn wants_only_allowed(&self) -> bool {
        self.params.logprobs.is_none()
    }

    /// With what number, beside these parameters, whoever has the logits can make the next choice instead of
    /// [`sample`](Self::sample): `None` where a choice hangs on the tokens before it, on a bias, or has to report
    /// other tokens than the one chosen.
    pub fn draw(&self) -> Option<(&SamplingParams, f64)> {
        let p = &self.params;
        let is_plain = !self.penalizes() && p.logit_bias.is_empty() && p.logprobs.is_none_or(|top| top == 0);
        is_plain.then(|| (p, uniform(p.seed, self.n_draws)))
    }

    /// Takes a token that was chosen so, with its log-probability by the raw logits.
    ///
    /// # Errors
    /// [`SampleError::NothingAllowed`]: the mask forbids it, as it does only if all that it allows is impossible.
    pub fn drawn(
        &mut self,
        token: TokenId,
        logprob: f32,
        mask: Option<&TokenMask>,
    ) -> Result<Sampled, SampleError> {
        if mask.is_some_and(|mask| !mask.allows(token)) {
            return Err(SampleError::NothingAllowed);
        }
        self.n_draws += u64::from(!self.is_greedy());
        let logprobs = self.params.logprobs.map(|_| TokenLogprobs { logprob, top: Vec::new() });
        Ok(Sampled { token, logprobs })
    }

    /// Counts a token that the reply got, sampled or forced by a grammar.
    pub fn observe(&mut self, token: TokenId) {
        if self.penalizes() {
            match self.seen.binary_search_by_key(&token, |seen| seen.token) {
                Ok(idx) => self.seen[idx].n_in_reply += 1,
                Err(idx) => self.seen.insert(idx, Seen { token, n_in_reply: 1 }),
            }
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
        let token = if self.is_greedy() { first_of(logits, max) } else { self.draw_from(logits, max) };
        let logprobs = self.params.logprobs.map(|n| log_probabilities(&self.raw, token, n)).transpose()?;
        Ok(Sampled { token, logprobs })
    }

    fn is_greedy(&self) -> bool {
        self.params.temperature == 0.0
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
        for &Seen { token, n_in_reply } in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / p.repetition_penalty } else { *logit * p.repetition_penalty };
            if n_in_reply > 0 {
                *logit -= p.frequency_penalty * n_in_reply as f32 + p.presence_penalty;
            }
        }
    }

    /// Draws a token with probability proportional to `exp((logit - max) / temperature)`, among those that
    /// min-p, top-k and top-p leave.
    fn draw_from(&mut self, logits: &mut [f32], max: f32) -> TokenId {
        let u = uniform(self.params.seed, self.n_draws);
        self.n_draws += 1;
        let p = &self.params;
        if p.top_p < 1.0 || p.min_p > 0.0 || (1..logits.len()).contains(&p.top_k) {
            return self.truncation.draw(p, logits, max, u);
        }
        weigh(logits, max, p.temperature.recip(), &mut self.block_sums);
        pick(logits, &self.block_sums, u)
    }
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

/// The highest logit of a row that can be chosen from.
fn highest(logits: &[f32]) -> Result<f32, SampleError> {
    match softmax::highest(logits) {
        (_, false) => Err(SampleError::NotANumber),
        (f32::NEG_INFINITY, true) => Err(SampleError::NothingAllowed),
        (max, true) => Ok(max),
    }
}

/// The lowest token that has the highest logit.
fn first_of(logits: &[f32], max: f32) -> TokenId {
    let chunk_idx = logits.chunks(LANES).position(|chunk| reaches(chunk, max));
    let start = chunk_idx.expect("the highest logit is in the row") * LANES;
    let idx = logits[start..].iter().position(|&logit| logit == max);
    (start + idx.expect("the highest logit is in the chunk")) as TokenId
}

/// The token at the share `u` of the whole weight, counted in order of ids.
fn pick(weights: &[f32], block_sums: &[f64], u: f64) -> TokenId {
    let mut left = u * block_sums.iter().sum::<f64>();
    let mut last_block = 0;
    for (idx, &sum) in block_sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        last_block = idx;
        if left < sum {
            break;
        }
        left -= sum;
    }
    let first = last_block * BLOCK;
    let mut last = first;
    for (idx, &weight) in weights[first..].iter().take(BLOCK).enumerate().filter(|(_, weight)| **weight > 0.0)
    {
        last = first + idx;
        left -= f64::from(weight);
        if left < 0.0 {
            break; // or, where rounding makes the parts less than their sum, the last token of the block
        }
    }
    last as TokenId
}

/// Log-softmax of the raw row: `token`'s place in it and the `n` best.
///
/// # Errors
/// [`SampleError::NotANumber`]
pub(crate) fn log_probabilities(raw: &[f32], token: TokenId, n: usize) -> Result<TokenLogprobs, SampleError> {
    let max = highest(raw)?;
    let log_sum = f64::from(max) + sum_of_exp(raw, max, 1.0, f32::NEG_INFINITY).ln();
    let log_probability = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let n = n.min(raw.len());
    let mut top: Vec<(TokenId, f32)> = Vec::with_capacity(n + 1);
    let mut worst = f32::NEG_INFINITY;
    for (chunk_idx, chunk) in raw.chunks(LANES).enumerate() {
        if n == 0 || !reaches(chunk, worst) {
            continue;
        }
        for (idx, &logit) in chunk.iter().enumerate() {
            if top.len() < n || logit > worst {
                let place = top.partition_point(|&(_, better)| better >= logit);
                top.insert(place, ((chunk_idx * LANES + idx) as TokenId, logit));
                top.truncate(n);
                worst = if top.len() < n { f32::NEG_INFINITY } else { top[n - 1].1 };
            }
        }
    }
    for (_, logit) in &mut top {
        *logit = log_probability(*logit);
    }
    Ok(TokenLogprobs { logprob: log_probability(raw[token as usize]), top })
}

#[cfg(test)]
mod tests;

use super::{SamplingParams, TokenMask};
use crate::text::TokenId;

/// One sequence's chooser: its parameters, its counts and its place in the stream of random numbers.
///
/// The n-th draw is a function of (seed, n) alone.
pub struct Sampler {}

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

impl Sampler {
    pub fn new(_params: SamplingParams, _prompt: &[TokenId]) -> Self {
        todo!()
    }

    /// Chooses from one row of logits, which is scratch afterwards, among the tokens of `mask`.
    pub fn sample(&mut self, _logits: &mut [f32], _mask: Option<&TokenMask>) -> Sampled {
        todo!()
    }

    /// Counts a token that the sequence got without sampling (forced by a grammar).
    pub fn observe(&mut self, _token: TokenId) {
        todo!()
    }
}

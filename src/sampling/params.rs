use crate::text::TokenId;

/// How the next token is chosen. Already valid: whoever makes one has checked the ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps every token.
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    /// 1 changes nothing; over the prompt and the reply (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Times the token's count in the reply so far (OpenAI).
    pub frequency_penalty: f32,
    /// Once if the token is in the reply so far (OpenAI).
    pub presence_penalty: f32,
    /// Added to the logits before anything else; tokens beyond the vocabulary are passed over.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Names the stream of random numbers; the same seed gives the same reply.
    pub seed: u64,
    /// `Some(n)`: report each token's log-probability and the `n` likeliest beside it, after the
    /// temperature-free softmax over the raw logits.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

//! Chooses the next token of one sequence from one row of logits. May use `text`. Absent: other
//! sequences, clocks, threads: the same row, history and seed always give the same token. (What was compiled for a grammar
//! serves all that are held to it.)

mod grammar;
mod params;
mod philox;
mod sampler;
mod softmax;
mod truncation;

pub use grammar::{Grammar, GrammarCompiler, GrammarError, GrammarSpec, TokenMask};
pub use params::SamplingParams;
pub(crate) use sampler::log_probabilities;
pub use sampler::{SampleError, Sampled, Sampler, TokenLogprobs};

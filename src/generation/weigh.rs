//! How likely a text is that somebody else may have written.

use super::{GenerateError, Prompt};
use crate::engine::{SequenceSummary, TokenEvent, TokenStream};

/// The rest of a reply, to be weighed after its beginning.
#[derive(Clone, Debug)]
pub struct WeighRequest {
    pub prompt: Prompt,
    /// The reply up to what is weighed; may be empty.
    pub before: String,
    /// Not empty.
    pub text: String,
}

/// How likely a model finds a text.
#[derive(Clone, Debug)]
pub struct Likelihood {
    /// Natural logarithms, one for each token of the text; at least one.
    pub logprobs: Vec<f32>,
    pub sequence: SequenceSummary,
}

impl Likelihood {
    /// Mean over the tokens.
    pub fn mean(&self) -> f32 {
        self.logprobs.iter().sum::<f32>() / self.logprobs.len() as f32
    }

    pub(super) async fn read(mut tokens: TokenStream) -> Result<Self, GenerateError> {
        let mut logprobs = Vec::new();
        while let Some(event) = tokens.next().await {
            match event {
                TokenEvent::Tokens(tokens) => {
                    logprobs.extend(tokens.iter().filter_map(|token| Some(token.logprobs.as_ref()?.logprob)))
                }
                TokenEvent::Finished(sequence) => return Ok(Self { logprobs, sequence }),
                TokenEvent::Failed(error) => return Err(error.into()),
            }
        }
        unreachable!("the engine ends every stream with Finished or Failed")
    }
}

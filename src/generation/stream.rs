//! The way back: tokens become text, stop strings end it.

use super::stop::StopMatcher;
use super::{DeltaToken, GenerateError, TextDelta, TextEvent, TextSummary};
use crate::engine::{FinishReason, NewToken, SequenceSummary, TokenEvent, TokenStream};
use crate::text::{Detokenizer, TokenId, Tokenizer};
use std::sync::Arc;

/// One reply as it is written. Dropping it cancels the request.
pub struct TextStream {
    prompt_tokens: usize,
    tokens: TokenStream,
    tokenizer: Arc<Tokenizer>,
    /// Tokens that end the reply and are not part of its text.
    stop_tokens: Vec<TokenId>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens of the reply so far, up to a stop string.
    completion_tokens: usize,
    /// Of the tokens that were sampled: their log-probabilities' sum, and how many they are.
    logprob: (f64, usize),
    /// A stop string was found; what the engine makes until it hears of it is not part of the reply.
    stopped: bool,
    /// The last event, while text that was held back goes first.
    last: Option<TextEvent>,
}

impl TextStream {
    pub(super) fn new(
        prompt_tokens: usize,
        tokens: TokenStream,
        tokenizer: Arc<Tokenizer>,
        stop_tokens: Vec<TokenId>,
        stops: Vec<String>,
    ) -> Self {
        Self {
            prompt_tokens,
            tokens,
            tokenizer,
            stop_tokens,
            detokenizer: Detokenizer::default(),
            stops: StopMatcher::new(stops),
            completion_tokens: 0,
            logprob: (0.0, 0),
            stopped: false,
            last: None,
        }
    }

    /// Tokens of the prompt, known before the reply begins.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TextEvent> {
        if let Some(last) = self.last.take() {
            return Some(last);
        }
        loop {
            match self.tokens.next().await? {
                TokenEvent::Tokens(_) if self.stopped => {}
                TokenEvent::Tokens(tokens) => return Some(TextEvent::Delta(self.delta(tokens))),
                TokenEvent::Finished(sequence) => return Some(self.finish(sequence)),
                TokenEvent::Failed(error) => return Some(TextEvent::Failed(error.into())),
            }
        }
    }

    /// The whole reply.
    ///
    /// # Errors
    /// The error the reply ended with, if it failed.
    pub async fn collect(mut self) -> Result<(String, TextSummary), GenerateError> {
        let mut text = String::new();
        while let Some(event) = self.next().await {
            match event {
                TextEvent::Delta(delta) => text.push_str(&delta.text),
                TextEvent::Finished(summary) => return Ok((text, summary)),
                TextEvent::Failed(error) => return Err(error),
            }
        }
        unreachable!("the engine ends every stream with Finished or Failed")
    }

    fn delta(&mut self, tokens: Vec<NewToken>) -> TextDelta {
        let mut delta = TextDelta::default();
        for token in tokens {
            self.completion_tokens += 1;
            if let Some(logprobs) = token.logprobs.as_ref().filter(|_| !token.forced) {
                self.logprob.0 += f64::from(logprobs.logprob);
                self.logprob.1 += 1;
            }
            if self.stop_tokens.contains(&token.token) {
                continue;
            }
            let text = self.detokenizer.push(&self.tokenizer, token.token);
            let (certain, found) = self.stops.push(&text);
            delta.text.push_str(&certain);
            delta.tokens.push(self.delta_token(token));
            if found {
                self.stopped = true;
                self.tokens.stop();
                break;
            }
        }
        delta
    }

    fn delta_token(&self, token: NewToken) -> DeltaToken {
        let (logprob, top) = match token.logprobs {
            Some(logprobs) => (Some(logprobs.logprob), logprobs.top),
            None => (None, Vec::new()),
        };
        DeltaToken {
            token: token.token,
            bytes: self.visible_bytes(token.token),
            forced: token.forced,
            logprob,
            top: top.into_iter().map(|(id, logprob)| (self.visible_bytes(id), logprob)).collect(),
        }
    }

    /// What a token reads as in a list of candidates, where a special token has no bytes but a name.
    fn visible_bytes(&self, token: TokenId) -> Vec<u8> {
        match self.tokenizer.token_bytes(token) {
            [] => self.tokenizer.token_text(token).as_bytes().to_vec(),
            bytes => bytes.to_vec(),
        }
    }

    fn finish(&mut self, mut sequence: SequenceSummary) -> TextEvent {
        let mut rest = String::new();
        if self.stopped {
            sequence.completion_tokens = self.completion_tokens;
            sequence.forced_tokens = sequence.forced_tokens.min(self.completion_tokens);
            sequence.reason = FinishReason::Stop;
        } else {
            let (certain, found) = self.stops.push(&self.detokenizer.finish());
            rest = certain;
            if !found {
                rest.push_str(&self.stops.finish());
            }
        }
        let (sum, n) = self.logprob;
        let mean_logprob = (n > 0).then(|| (sum / n as f64) as f32);
        let finished = TextEvent::Finished(TextSummary { reason: sequence.reason, mean_logprob, sequence });
        if rest.is_empty() {
            return finished;
        }
        self.last = Some(finished);
        TextEvent::Delta(TextDelta { text: rest, tokens: Vec::new() })
    }
}

//! Replies on the wire: one document, or one chunk a step.

use crate::engine::{FinishReason, SequenceSummary};
use crate::generation::{DeltaToken, TextDelta, TextEvent};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::sse;
use serde::Serialize;

/// Ends every stream, failed ones too.
const DONE: &str = "data: [DONE]\n\n";
/// A token that was not sampled, such as one a grammar forced, has no log-probability. vLLM says so by
/// this number, which JSON can hold.
const NO_LOGPROB: f32 = -9999.0;

/// What every chunk and the whole document have in common.
#[derive(Serialize)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) system_fingerprint: String,
}

#[derive(Serialize)]
pub(super) struct ChatCompletion {
    #[serde(flatten)]
    envelope: Envelope,
    object: &'static str,
    choices: Vec<Choice>,
    usage: Usage,
}

impl ChatCompletion {
    pub(super) fn new(envelope: Envelope, choices: Vec<Choice>, usage: Usage) -> Self {
        Self { envelope, object: "chat.completion", choices, usage }
    }
}

#[derive(Serialize)]
pub(super) struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    /// Always `null`: this server has no words of its own to refuse in.
    refusal: Option<String>,
}

impl Choice {
    pub(super) fn new(index: usize, logprobs: bool) -> Self {
        let message = Message { role: "assistant", content: String::new(), refusal: None };
        let logprobs = logprobs.then(Logprobs::default);
        Self { index, message, logprobs, finish_reason: "" }
    }

    pub(super) fn push(&mut self, delta: TextDelta) {
        self.message.content.push_str(&delta.text);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.content.extend(delta.tokens.into_iter().map(TokenLogprob::of));
        }
    }

    pub(super) fn finish(mut self, reason: FinishReason) -> Self {
        self.finish_reason = reason_name(reason);
        self
    }
}

fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

#[derive(Default, Serialize)]
struct Logprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<Vec<TokenLogprob>>,
}

#[derive(Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    chosen: Candidate,
    top_logprobs: Vec<Candidate>,
}

/// A token as text, with its bytes: a token may be half a code point.
#[derive(Serialize)]
struct Candidate {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl TokenLogprob {
    fn of(token: DeltaToken) -> Self {
        Self {
            chosen: Candidate::of(token.bytes, token.logprob.unwrap_or(NO_LOGPROB)),
            top_logprobs: token
                .top
                .into_iter()
                .map(|(bytes, logprob)| Candidate::of(bytes, logprob))
                .collect(),
        }
    }
}

impl Candidate {
    fn of(bytes: Vec<u8>, logprob: f32) -> Self {
        // A forbidden token's is minus infinity, which JSON has no word for.
        let logprob = logprob.max(NO_LOGPROB);
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptTokensDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokensDetails>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
}

/// What of a reply cost less than a step for each token.
#[derive(Clone, Copy, Debug, Serialize)]
struct CompletionTokensDetails {
    forced_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

impl CompletionTokensDetails {
    fn plus(self, other: Self) -> Self {
        Self {
            forced_tokens: self.forced_tokens + other.forced_tokens,
            drafted_tokens: self.drafted_tokens + other.drafted_tokens,
            accepted_tokens: self.accepted_tokens + other.accepted_tokens,
        }
    }
}

impl Usage {
    pub(super) fn of(sequence: &SequenceSummary) -> Self {
        Self {
            prompt_tokens: sequence.prompt_tokens,
            completion_tokens: sequence.completion_tokens,
            total_tokens: sequence.prompt_tokens + sequence.completion_tokens,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: sequence.cached_tokens }),
            completion_tokens_details: Some(CompletionTokensDetails {
                forced_tokens: sequence.forced_tokens,
                drafted_tokens: sequence.drafted_tokens,
                accepted_tokens: sequence.accepted_tokens,
            }),
        }
    }

    /// Of all choices: they share one prompt, which is counted once.
    pub(super) fn sum(choices: &[Self]) -> Self {
        let first = choices.first().copied().unwrap_or_default();
        let completion_tokens = choices.iter().map(|usage| usage.completion_tokens).sum();
        let details = choices.iter().filter_map(|usage| usage.completion_tokens_details);
        Self {
            completion_tokens,
            total_tokens: first.prompt_tokens + completion_tokens,
            completion_tokens_details: details.reduce(CompletionTokensDetails::plus),
            ..first
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamOptions {
    /// A chunk with the whole usage and no choices before the end; `usage: null` in the others.
    pub(super) include_usage: bool,
    /// Each chunk says what has been used so far.
    pub(super) continuous_usage: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    object: &'static str,
    choices: &'a [ChunkChoice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Turns the choices' events into frames: one chunk a step, and the end when all choices have ended.
///
/// The role comes with the first token and not before: load tools take the first chunk for the first
/// token.
pub(super) struct ChunkWriter {
    envelope: Envelope,
    options: StreamOptions,
    logprobs: bool,
    choices: Vec<Progress>,
    done: bool,
}

#[derive(Default)]
struct Progress {
    /// The first chunk, which has the role, is out.
    begun: bool,
    ended: bool,
    usage: Usage,
}

impl ChunkWriter {
    /// `prompt_tokens` of each choice.
    pub(super) fn new(
        envelope: Envelope,
        options: StreamOptions,
        logprobs: bool,
        prompt_tokens: impl Iterator<Item = usize>,
    ) -> Self {
        let choices = prompt_tokens
            .map(|prompt_tokens| Progress {
                usage: Usage { prompt_tokens, total_tokens: prompt_tokens, ..Usage::default() },
                ..Progress::default()
            })
            .collect();
        Self { envelope, options, logprobs, choices, done: false }
    }

    /// Nothing is left to be sent.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The frames of one event; empty where there is nothing to say.
    pub(super) fn write(&mut self, index: usize, event: TextEvent) -> String {
        match event {
            TextEvent::Delta(delta) => self.write_delta(index, delta),
            TextEvent::Finished(summary) => {
                let progress = &mut self.choices[index];
                progress.ended = true;
                progress.usage = Usage::of(&summary.sequence);
                let mut frames = self.write_chunk(index, None, None, Some(reason_name(summary.reason)));
                if self.choices.iter().all(|choice| choice.ended) {
                    self.done = true;
                    frames += &self.write_usage();
                    frames += DONE;
                }
                frames
            }
            TextEvent::Failed(error) => self.write_error(super::failure(error)),
        }
    }

    /// The last frames of a stream that failed.
    pub(super) fn write_error(&mut self, error: ApiError) -> String {
        self.done = true;
        let error: ErrorBody = error.into_body();
        sse::data(&error) + DONE
    }

    fn write_delta(&mut self, index: usize, delta: TextDelta) -> String {
        if delta.tokens.is_empty() && delta.text.is_empty() {
            return String::new();
        }
        let usage = &mut self.choices[index].usage;
        usage.completion_tokens += delta.tokens.len();
        usage.total_tokens += delta.tokens.len();
        let logprobs = self.logprobs.then(|| Logprobs {
            content: delta.tokens.into_iter().map(TokenLogprob::of).collect(),
            refusal: None,
        });
        self.write_chunk(index, Some(delta.text), logprobs, None)
    }

    fn write_chunk(
        &mut self,
        index: usize,
        content: Option<String>,
        logprobs: Option<Logprobs>,
        finish_reason: Option<&'static str>,
    ) -> String {
        let progress = &mut self.choices[index];
        let role = (!std::mem::replace(&mut progress.begun, true)).then_some("assistant");
        let usage = match self.options {
            StreamOptions { continuous_usage: true, .. } => Some(Some(progress.usage)),
            StreamOptions { include_usage: true, .. } => Some(None),
            _ => None,
        };
        self.write_choices(
            &[ChunkChoice { index, delta: Delta { role, content }, logprobs, finish_reason }],
            usage,
        )
    }

    fn write_usage(&self) -> String {
        if !self.options.include_usage {
            return String::new();
        }
        let usages: Vec<Usage> = self.choices.iter().map(|choice| choice.usage).collect();
        self.write_choices(&[], Some(Some(Usage::sum(&usages))))
    }

    fn write_choices(&self, choices: &[ChunkChoice], usage: Option<Option<Usage>>) -> String {
        sse::data(&Chunk { envelope: &self.envelope, object: "chat.completion.chunk", choices, usage })
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;

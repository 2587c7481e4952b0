//! The same requests without a wire: what HTTP costs is the difference.

use crate::bench::sample::{Failure, Reply, Stopwatch, TokenCount};
use crate::bench::workload::{ChatWork, is_valid_item};
use crate::engine::{EngineError, SequenceSummary};
use crate::generation::{GenerateError, Generator, Prompt, TextEvent, TextRequest, TextStream};
use crate::quiz::{QuizEvent, QuizRequest, QuizService, QuizSpec};
use crate::sampling::{GrammarSpec, SamplingParams};
use crate::text::{ChatMessage, Role};
use serde_json::Value;

pub(super) async fn quiz(
    quizzes: &QuizService,
    body: &Value,
    watch: &mut Stopwatch,
) -> Result<Reply, Failure> {
    let request: QuizRequest = serde_json::from_value(body.clone()).map_err(Failure::broken)?;
    let spec = QuizSpec::try_from(request).map_err(Failure::broken)?;
    let mut quiz = quizzes.create(spec).await.map_err(failure)?;
    while let Some(event) = quiz.next().await {
        match event {
            QuizEvent::Created(_) => {}
            QuizEvent::Item(_) => watch.item(),
            QuizEvent::Completed(summary) => {
                return Ok(Reply {
                    prompt_tokens: Some(summary.usage.prompt_tokens),
                    cached_tokens: Some(summary.usage.cached_tokens),
                    output_tokens: summary.usage.completion_tokens,
                    forced_tokens: Some(summary.usage.forced_tokens),
                    drafted_tokens: Some(summary.usage.drafted_tokens),
                    accepted_tokens: Some(summary.usage.accepted_tokens),
                    token_count: TokenCount::Engine,
                    items_asked: summary.requested,
                    items_valid: summary.delivered,
                    items_rejected: Some(summary.rejected.values().sum()),
                });
            }
            QuizEvent::Failed(error) => return Err(failure(error)),
        }
    }
    Err(Failure::Broken("the quiz ended without its last event".to_owned()))
}

pub(super) async fn chat(
    generator: &Generator,
    chat: &ChatWork,
    watch: &mut Stopwatch,
) -> Result<Reply, Failure> {
    let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
    let defaults = SamplingParams::default();
    let sampling = SamplingParams {
        temperature: chat.sampling.temperature.unwrap_or(defaults.temperature),
        top_p: chat.sampling.top_p.unwrap_or(defaults.top_p),
        top_k: chat.sampling.top_k.map_or(defaults.top_k, |top_k| top_k as usize),
        min_p: chat.sampling.min_p.unwrap_or(defaults.min_p),
        seed: chat.seed,
        ..defaults
    };
    let request = TextRequest {
        prompt: Prompt::Chat(vec![message(Role::System, chat.system), message(Role::User, &chat.user)]),
        max_new_tokens: Some(chat.output_tokens),
        sampling,
        grammar: chat.schema.clone().map(GrammarSpec::JsonSchema),
        stop: Vec::new(),
        stop_token_ids: Vec::new(),
        ignore_eos: chat.ignore_eos,
    };
    let mut reply = generator.generate(request).await.map_err(failure)?;
    let mut text = String::new();
    while let Some(event) = reply.next().await {
        match event {
            TextEvent::Delta(delta) => {
                if !delta.text.is_empty() {
                    watch.text();
                }
                text.push_str(&delta.text);
            }
            TextEvent::Finished(summary) => {
                let mut reply = of_sequence(&summary.sequence);
                if chat.schema.is_some() {
                    reply.items_asked = 1;
                    if is_valid_item(&text) {
                        reply.items_valid = 1;
                        watch.item();
                    }
                }
                return Ok(reply);
            }
            TextEvent::Failed(error) => return Err(failure(error)),
        }
    }
    Err(ended_early())
}

/// Token ids in, tokens counted as they come: tokenising and text are not part of it.
pub(super) async fn tokens(
    generator: &Generator,
    prompt: &[u64],
    output_tokens: usize,
    watch: &mut Stopwatch,
) -> Result<Reply, Failure> {
    let vocab_size = generator.engine().limits().vocab_size as u64;
    let request = TextRequest {
        prompt: Prompt::Tokens(prompt.iter().map(|random| (random % vocab_size) as u32).collect()),
        max_new_tokens: Some(output_tokens),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        grammar: None,
        stop: Vec::new(),
        stop_token_ids: Vec::new(),
        ignore_eos: true,
    };
    let mut reply: TextStream = generator.generate(request).await.map_err(failure)?;
    while let Some(event) = reply.next().await {
        match event {
            TextEvent::Delta(delta) if delta.tokens.is_empty() => {}
            TextEvent::Delta(_) => watch.text(),
            TextEvent::Finished(summary) => return Ok(of_sequence(&summary.sequence)),
            TextEvent::Failed(error) => return Err(failure(error)),
        }
    }
    Err(ended_early())
}

fn of_sequence(sequence: &SequenceSummary) -> Reply {
    Reply {
        prompt_tokens: Some(sequence.prompt_tokens),
        cached_tokens: Some(sequence.cached_tokens),
        output_tokens: sequence.completion_tokens,
        forced_tokens: Some(sequence.forced_tokens),
        drafted_tokens: Some(sequence.drafted_tokens),
        accepted_tokens: Some(sequence.accepted_tokens),
        token_count: TokenCount::Engine,
        ..Reply::default()
    }
}

fn failure(error: GenerateError) -> Failure {
    match error {
        GenerateError::Engine(EngineError::QueueFull { .. } | EngineError::ShuttingDown) => {
            Failure::Refused(error.to_string())
        }
        error => Failure::Broken(error.to_string()),
    }
}

fn ended_early() -> Failure {
    Failure::Broken("the reply ended without its last event".to_owned())
}

//! `POST /v1/quizzes` of a mondai server, as server-sent events.

use crate::bench::client::Client;
use crate::bench::sample::{Failure, Reply, Stopwatch, TokenCount};
use crate::bench::sse::SseReader;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is read of the last event.
#[derive(Deserialize)]
struct Completed {
    requested: usize,
    delivered: usize,
    rejected: BTreeMap<String, usize>,
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    forced_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

/// Quizzes come item by item, so there is no first token here: the first item is what is waited for.
pub(super) async fn send(client: &Client, body: &Value, watch: &mut Stopwatch) -> Result<Reply, Failure> {
    let mut answer = client.post("/v1/quizzes", "text/event-stream", body.to_string().into()).await?;
    let mut reader = SseReader::default();
    let mut reply = None;
    while let Some(bytes) = answer.next().await? {
        for event in reader.push(&bytes).map_err(Failure::broken)? {
            match event.name.as_str() {
                "question.completed" => watch.item(),
                "quiz.completed" => {
                    let Completed { requested, delivered, rejected, usage } =
                        serde_json::from_str(&event.data)
                            .map_err(|error| Failure::Broken(format!("the end of the quiz: {error}")))?;
                    reply = Some(Reply {
                        prompt_tokens: Some(usage.prompt_tokens),
                        cached_tokens: Some(usage.cached_tokens),
                        output_tokens: usage.completion_tokens,
                        forced_tokens: Some(usage.forced_tokens),
                        drafted_tokens: Some(usage.drafted_tokens),
                        accepted_tokens: Some(usage.accepted_tokens),
                        token_count: TokenCount::Usage,
                        items_asked: requested,
                        items_valid: delivered,
                        items_rejected: Some(rejected.values().sum()),
                    });
                }
                "error" => return Err(Failure::Broken(event.data)),
                _ => {}
            }
        }
    }
    reply.ok_or_else(|| Failure::Broken("the stream broke off before its end".to_owned()))
}

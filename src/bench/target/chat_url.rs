//! `POST /v1/chat/completions` of any server that speaks OpenAI's protocol, streamed.

use crate::bench::client::Client;
use crate::bench::sample::{Failure, Reply, Stopwatch, TokenCount};
use crate::bench::sse::SseReader;
use crate::bench::workload::{ChatWork, is_valid_item};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is read of a chunk; the rest differs from server to server.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<PromptTokensDetails>,
    completion_tokens_details: Option<CompletionTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<usize>,
}

/// What mondai says of a reply beside its length.
#[derive(Default, Deserialize)]
struct CompletionTokensDetails {
    forced_tokens: Option<usize>,
    drafted_tokens: Option<usize>,
    accepted_tokens: Option<usize>,
}

/// The first token is the first chunk with text in it: a chunk that only names the role is none.
pub(super) async fn send(
    client: &Client,
    model: Option<&str>,
    chat: &ChatWork,
    watch: &mut Stopwatch,
) -> Result<Reply, Failure> {
    let body = body(model, chat).to_string();
    let mut answer = client.post("/v1/chat/completions", "text/event-stream", body.into()).await?;
    let mut reader = SseReader::default();
    let (mut text, mut usage, mut done) = (String::new(), None, false);
    while let Some(bytes) = answer.next().await? {
        for event in reader.push(&bytes).map_err(Failure::broken)? {
            if event.data == "[DONE]" {
                done = true;
                continue;
            }
            let chunk: Chunk = serde_json::from_str(&event.data)
                .map_err(|error| Failure::Broken(format!("no chunk of a chat completion: {error}")))?;
            if let Some(error) = chunk.error {
                return Err(Failure::Broken(error["message"].as_str().unwrap_or("an error").to_owned()));
            }
            usage = chunk.usage.or(usage);
            let contents = chunk.choices.into_iter().filter_map(|choice| choice.delta.content);
            for content in contents.filter(|content| !content.is_empty()) {
                watch.text();
                text.push_str(&content);
            }
        }
    }
    if !done && usage.is_none() {
        return Err(Failure::Broken("the stream broke off before its end".to_owned()));
    }
    let mut reply = match usage {
        Some(usage) => {
            let details = usage.completion_tokens_details.unwrap_or_default();
            Reply {
                prompt_tokens: Some(usage.prompt_tokens),
                cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
                output_tokens: usage.completion_tokens,
                forced_tokens: details.forced_tokens,
                drafted_tokens: details.drafted_tokens,
                accepted_tokens: details.accepted_tokens,
                token_count: TokenCount::Usage,
                ..Reply::default()
            }
        }
        None => {
            Reply { output_tokens: watch.texts.len(), token_count: TokenCount::Chunks, ..Reply::default() }
        }
    };
    if chat.schema.is_some() {
        reply.items_asked = 1;
        if is_valid_item(&text) {
            reply.items_valid = 1;
            watch.item();
        }
    }
    Ok(reply)
}

fn body(model: Option<&str>, chat: &ChatWork) -> Value {
    let mut body = json!({
        "messages": [
            {"role": "system", "content": chat.system},
            {"role": "user", "content": chat.user},
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_tokens": chat.output_tokens,
        "seed": chat.seed,
    });
    if let Some(model) = model {
        body["model"] = json!(model);
    }
    if chat.ignore_eos {
        body["ignore_eos"] = json!(true);
    }
    if let Some(schema) = &chat.schema {
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "item", "strict": true, "schema": schema}});
    }
    chat.sampling.write(&mut body);
    body
}

//! Chat completions: whole, streamed, held to a schema, failing.

use super::{Answer, CHAT, Server, limits, redacted};
use crate::default_model::NAME;
use axum::http::StatusCode;
use futures_util::future::select;
use mondai::backend::scripted::Fault;
use mondai::engine::EngineOptions;
use serde_json::{Value, json};

fn hello(extra: Value) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0});
    request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn a_whole_reply() {
    let server = Server::start();
    let n_tokens = server.will_say("Hello, 世界!").len();
    let answer = server.post(CHAT, &hello(json!({"model": NAME}))).await.ok();
    assert_eq!(answer.header("content-type"), "application/json");
    let reply = answer.json();
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["model"], NAME);
    assert_eq!(
        reply["choices"],
        json!([{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, 世界!", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    let usage = &reply["usage"];
    assert_eq!(usage["completion_tokens"], n_tokens);
    assert_eq!(usage["total_tokens"], usage["prompt_tokens"].as_u64().unwrap() + n_tokens as u64);
    assert_eq!(usage["prompt_tokens_details"], json!({"cached_tokens": 0}));
    assert_eq!(server.control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_streamed_reply() {
    let server = Server::start();
    server.will_say("Hello, 世界!");
    let request = hello(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let answer = server.post(CHAT, &request).await.ok();
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    assert!(!answer.text().contains('\r'));
    insta::assert_snapshot!(redacted(answer.text()));
}

#[tokio::test]
async fn both_say_the_same_at_the_same_seed() {
    for max_draft_tokens in [0, 7] {
        let server = Server::with(limits(), EngineOptions { max_draft_tokens, ..EngineOptions::default() });
        let request = |stream: bool| {
            hello(json!({
                "temperature": 1.0, "seed": 7, "max_tokens": 40, "ignore_eos": true, "stream": stream,
            }))
        };
        let whole = server.post(CHAT, &request(false)).await.ok().json();
        let streamed = server.post(CHAT, &request(true)).await.ok();
        let chunks: Vec<Value> =
            streamed.data()[..].iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
        let text: String =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][0]["message"]["content"], text);
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert_eq!(whole["usage"]["completion_tokens"], 40);
        // One chunk a step, and one for the end. What the first reply said is drafted for the second.
        assert!(if max_draft_tokens == 0 { chunks.len() == 41 } else { chunks.len() < 31 }, "{chunks:?}");
        assert_eq!(streamed.data().last(), Some(&"[DONE]"));
    }
}

#[tokio::test]
async fn several_choices_have_seeds_of_their_own() {
    let server = Server::start();
    let request = |seed: u64, n: usize| {
        hello(json!({"temperature": 1.0, "seed": seed, "n": n, "max_tokens": 12, "ignore_eos": true}))
    };
    let both = server.post(CHAT, &request(5, 2)).await.ok().json();
    let second = server.post(CHAT, &request(6, 1)).await.ok().json();
    assert_eq!(both["choices"][1]["message"], second["choices"][0]["message"]);
    assert_ne!(both["choices"][0]["message"], both["choices"][1]["message"]);
    assert_eq!(both["usage"]["completion_tokens"], 24);
    assert_eq!(both["usage"]["prompt_tokens"], second["usage"]["prompt_tokens"]);

    let mut streamed = request(5, 2);
    streamed["stream"] = json!(true);
    let answer = server.post(CHAT, &streamed).await.ok();
    for index in 0..2 {
        let text: String = answer
            .data()
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter(|chunk| chunk["choices"][0]["index"] == index)
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(both["choices"][index]["message"]["content"], text);
    }
}

#[tokio::test]
async fn stop_strings_end_it_and_are_left_out() {
    let server = Server::start();
    server.will_say("one two three four");
    for (stop, expected) in [(json!("three"), "one two "), (json!(["nine", "two"]), "one ")] {
        let reply = server.post(CHAT, &hello(json!({"stop": stop}))).await.ok().json();
        assert_eq!(reply["choices"][0]["message"]["content"], expected);
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_schema_is_kept_whatever_the_model_says() {
    let server = Server::start();
    let schema = json!({
        "type": "object",
        "properties": {"planet": {"type": "string", "maxLength": 12}, "moons": {"type": "integer"}},
        "required": ["planet", "moons"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "p", "strict": true, "schema": schema}});
    for seed in 0..5 {
        let request = hello(json!({
            "response_format": format, "temperature": 1.0, "seed": seed, "max_completion_tokens": 60,
        }));
        let reply = server.post(CHAT, &request).await.ok().json();
        let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
        let document: Value =
            serde_json::from_str(content).unwrap_or_else(|error| panic!("{error}: {content}"));
        assert!(validator.is_valid(&document), "{document}");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    }
    assert!(server.metric("mondai_forced_tokens_total").await > 0.0);
}

/// Who was to have drafts when a step failed goes on without them, and is held to what may come next as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_under_a_schema_is_not_noticed() {
    let server = Server::start();
    server.will_say("{\n  \"planet\": \"Jupiter is a giant\",\n  \"moons\": 95\n}");
    let schema = json!({
        "type": "object",
        "properties": {"planet": {"type": "string"}, "moons": {"type": "integer"}},
        "required": ["planet", "moons"],
        "additionalProperties": false,
    });
    let request = hello(json!({
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}},
        "max_completion_tokens": 60,
    }));
    let expected = server.post(CHAT, &request).await.ok().json();
    for n_before in [1, 2, 1, 2] {
        let hold = server.control.hold();
        let fail = async {
            tokio::task::block_in_place(|| {
                hold.wait();
                (0..n_before).for_each(|_| hold.let_one_through());
                server.control.fault_on_next_step(Fault::Step);
                drop(hold);
            });
        };
        let (reply, ()) = tokio::join!(server.post(CHAT, &request), fail);
        let reply = reply.ok().json();
        assert_eq!(reply["choices"], expected["choices"]);
        assert_ne!(reply["usage"]["completion_tokens_details"]["drafted_tokens"], 0);
    }
}

#[tokio::test]
async fn an_object_is_kept_too() {
    let server = Server::start();
    let request = hello(json!({
        "response_format": {"type": "json_object"}, "temperature": 1.0, "seed": 3, "max_tokens": 40,
    }));
    let reply = server.post(CHAT, &request).await.ok().json();
    let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
    let document: Value = serde_json::from_str(content).unwrap_or_else(|error| panic!("{error}: {content}"));
    assert!(document.is_object());
}

#[tokio::test]
async fn logprobs_come_for_every_token() {
    let server = Server::start();
    server.will_say("Hello, 世界!");
    let reply = server.post(CHAT, &hello(json!({"logprobs": true, "top_logprobs": 2}))).await.ok().json();
    let content = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), "Hello, 世界!");
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        // Greedy: the likeliest is the chosen one.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[tokio::test]
async fn logit_bias_forbids_a_token() {
    let server = Server::start();
    let first = server.will_say("Hello")[0];
    let reply =
        server.post(CHAT, &hello(json!({"logit_bias": {(first.to_string()): -100}, "max_tokens": 2}))).await;
    assert_ne!(reply.ok().json()["choices"][0]["message"]["content"], "Hello");
}

#[tokio::test]
async fn a_reply_that_fails_is_an_error_of_ours() {
    let server = Server::start();
    let reply = server.will_say("Hello, world");
    // The step that writes the third token fails, so two are out before.
    server.control.fault_on_token(reply[2], Fault::Step);

    let answer = server.post(CHAT, &hello(json!({}))).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["error"]["type"], "server_error");

    let answer = server.post(CHAT, &hello(json!({"stream": true}))).await.ok();
    let data = answer.data();
    let (error, done) = (data[data.len() - 2], data[data.len() - 1]);
    assert!(data.len() > 2);
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["code"], "internal_error");
    assert_eq!(done, "[DONE]");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let options = EngineOptions { max_queued: 1, ..EngineOptions::default() };
    let server = Server::with(mondai::backend::Limits { slots: 1, ..limits() }, options);
    server.will_say("Hello");
    let hold = server.control.hold();
    let request = hello(json!({}));
    let (first, ()) = tokio::join!(server.post(CHAT, &request), async {
        server.until_metric("mondai_sequences_running", 1.0).await;
        // The queue has room for one of two; the other hears of it while nothing moves.
        let both = select(Box::pin(server.post(CHAT, &request)), Box::pin(server.post(CHAT, &request)));
        let (refused, queued) = both.await.factor_first();
        drop(hold);
        check_refused(&refused);
        queued.await.ok();
    });
    first.ok();
}

fn check_refused(refused: &Answer) {
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    let millis: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert_eq!(seconds, millis.div_ceil(1000));
    assert!((1..=120).contains(&seconds));
    let error = &refused.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("queue_full")));
}

#[tokio::test]
async fn unknown_fields_are_passed_over_and_counted() {
    let server = Server::start();
    server.will_say("Hello");
    server.post(CHAT, &hello(json!({"flux": 1, "user": "u", "tools": []}))).await.ok();
    assert_eq!(server.metric("mondai_http_unknown_fields_total{route=\"/v1/chat/completions\"}").await, 1.0);
}

//! Replies that a grammar holds, through the engine: real vocabulary, made-up logits.

use crate::default_model::TOKENIZER;
use mondai::backend::Limits;
use mondai::backend::scripted::{Call, ScriptedBackend, ScriptedControl};
use mondai::engine::{
    Engine, EngineOptions, FinishReason, NewToken, SequenceRequest, SequenceSummary, TokenEvent, TokenStream,
};
use mondai::metrics::Metrics;
use mondai::sampling::{GrammarCompiler, GrammarSpec, SamplingParams};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static COMPILER: LazyLock<GrammarCompiler> =
    LazyLock::new(|| GrammarCompiler::new(Arc::clone(&TOKENIZER), TOKENIZER.vocab_size()).unwrap());

fn quiz_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "answer": { "enum": ["Mercury", "Venus", "Earth"] },
            "question": { "type": "string", "maxLength": 30 },
            "choices": { "type": "array", "items": { "type": "string", "maxLength": 8 }, "minItems": 2, "maxItems": 3 }
        },
        "required": ["answer", "question", "choices"],
        "additionalProperties": false
    })
}

fn start() -> (Engine, ScriptedControl) {
    start_with(EngineOptions::default())
}

fn start_with(options: EngineOptions) -> (Engine, ScriptedControl) {
    let limits = Limits {
        vocab_size: TOKENIZER.vocab_size(),
        context_len: 512,
        max_step_rows: 8,
        slots: 8,
        ..ScriptedBackend::small_limits()
    };
    let backend = ScriptedBackend::new(limits);
    let control = backend.control();
    (Engine::start(Box::new(backend), options, Arc::new(Metrics::new("scripted"))), control)
}

fn request(prompt: &[u32], schema: &Value, max_new_tokens: usize, seed: u64) -> SequenceRequest {
    let spec = GrammarSpec::JsonSchema(schema.clone());
    SequenceRequest {
        prompt: prompt.to_vec(),
        max_new_tokens,
        sampling: SamplingParams { seed, ..Default::default() },
        grammar: Some(COMPILER.compile(&spec, max_new_tokens).unwrap()),
        given: Vec::new(),
        stop_tokens: vec![],
    }
}

async fn read(mut stream: TokenStream) -> (Vec<NewToken>, SequenceSummary) {
    let mut reply = Vec::new();
    loop {
        match stream.next().await.expect("a stream ends with an end") {
            TokenEvent::Tokens(tokens) => reply.extend(tokens),
            TokenEvent::Finished(summary) => return (reply, summary),
            TokenEvent::Failed(error) => panic!("{error}"),
        }
    }
}

fn text(reply: &[NewToken]) -> String {
    let bytes: Vec<u8> = reply.iter().flat_map(|new| TOKENIZER.token_bytes(new.token)).copied().collect();
    String::from_utf8(bytes).unwrap()
}

fn assert_fits(reply: &[NewToken], schema: &Value) {
    let text = text(reply);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(jsonschema::is_valid(schema, &value), "{text}");
}

#[tokio::test]
async fn forced_tokens_are_computed_in_one_row_and_never_sampled() {
    let (engine, control) = start_with(EngineOptions { max_draft_tokens: 0, ..Default::default() });
    let prompt = [40, 41, 42];
    let (reply, summary) = read(engine.submit(request(&prompt, &quiz_schema(), 200, 1)).unwrap()).await;
    assert_fits(&reply, &quiz_schema());
    assert_eq!(summary.reason, FinishReason::Stop);
    assert_eq!(summary.completion_tokens, reply.len());
    assert_eq!(summary.forced_tokens, reply.iter().filter(|new| new.forced).count());
    assert!(summary.forced_tokens >= 8, "{summary:?}");

    let rows: Vec<_> = control
        .calls()
        .into_iter()
        .flat_map(|call| match call {
            Call::Extend(rows) => rows,
            Call::CopyPrefix { .. } => panic!("nobody to copy from"),
        })
        .collect();
    // One row for each sampled token; together they are the prompt and the reply in order.
    let n_sampled = reply.len() - summary.forced_tokens;
    assert_eq!(rows.len(), n_sampled);
    assert!(rows.iter().all(|row| row.logits == 1));
    let computed: Vec<u32> = rows.iter().flat_map(|row| row.tokens.clone()).collect();
    let all: Vec<u32> = prompt.into_iter().chain(reply.iter().map(|new| new.token)).collect();
    assert_eq!(computed, all[..computed.len()]);
    // What is forced at the very start joins the prompt.
    let n_at_start = reply.iter().take_while(|new| new.forced).count();
    assert!(n_at_start > 0);
    assert_eq!(rows[0].tokens.len(), prompt.len() + n_at_start);
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_document_is_whole_whatever_its_budget() {
    let (engine, control) = start();
    let schema = quiz_schema();
    let least =
        (1..).find(|&n| COMPILER.compile(&GrammarSpec::JsonSchema(schema.clone()), n).is_ok()).unwrap();
    let streams: Vec<_> = (least..least + 24)
        .map(|budget| engine.submit(request(&[40, 41], &schema, budget, budget as u64)).unwrap())
        .collect();
    for (stream, budget) in streams.into_iter().zip(least..) {
        let (reply, summary) = read(stream).await;
        assert_fits(&reply, &schema);
        assert!(reply.len() <= budget && summary.reason == FinishReason::Stop, "{budget}: {summary:?}");
    }
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_seed_gives_the_same_document_alone_and_among_others() {
    let prompt: Vec<u32> = (100..160).collect();
    let (expected, _) = read(start().0.submit(request(&prompt, &quiz_schema(), 120, 7)).unwrap()).await;
    let (engine, control) = start();
    let hold = control.hold();
    let mut streams: Vec<_> =
        (0..12).map(|seed| engine.submit(request(&prompt, &quiz_schema(), 120, seed)).unwrap()).collect();
    drop(streams.remove(3));
    drop(hold);
    let (reply, _) = read(streams.remove(6)).await;
    assert_eq!(text(&reply), text(&expected));
    assert_eq!(reply, expected);
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_reply_that_is_forced_to_its_end_is_still_a_reply() {
    let (engine, _control) = start();
    let schema = json!({"type": "object", "properties": {"ready": {"const": true}}, "required": ["ready"],
                        "additionalProperties": false});
    let (reply, summary) = read(engine.submit(request(&[40], &schema, 50, 1)).unwrap()).await;
    assert_eq!(text(&reply), "{\n  \"ready\": true\n}");
    assert_eq!(summary.reason, FinishReason::Stop);
}

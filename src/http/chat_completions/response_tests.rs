use super::*;
use crate::generation::{GenerateError, TextSummary};
use serde_json::{Value, json};
use std::time::Duration;

fn writer(options: StreamOptions, logprobs: bool, n: usize) -> ChunkWriter {
    let envelope = Envelope {
        id: "chatcmpl-1".to_owned(),
        created: 7,
        model: "tiny".to_owned(),
        system_fingerprint: "fp_1".to_owned(),
    };
    ChunkWriter::new(envelope, options, logprobs, std::iter::repeat_n(5, n))
}

fn delta(text: &str, n_tokens: usize) -> TextEvent {
    let token = DeltaToken {
        token: 1,
        bytes: vec![0xe5],
        forced: false,
        logprob: Some(f32::NEG_INFINITY),
        top: vec![(b"x".to_vec(), -0.5)],
    };
    TextEvent::Delta(TextDelta { text: text.to_owned(), tokens: vec![token; n_tokens] })
}

fn finished(reason: FinishReason) -> TextEvent {
    let sequence = SequenceSummary {
        reason,
        prompt_tokens: 5,
        cached_tokens: 3,
        completion_tokens: 4,
        forced_tokens: 0,
        drafted_tokens: 0,
        accepted_tokens: 0,
        queue_time: Duration::ZERO,
        time_to_first_token: Duration::ZERO,
        total_time: Duration::ZERO,
    };
    TextEvent::Finished(TextSummary { reason, mean_logprob: None, sequence })
}

/// The data of each frame; `[DONE]` as a string.
fn frames(text: &str) -> Vec<Value> {
    text.split_terminator("\n\n")
        .map(|frame| {
            let data = frame.strip_prefix("data: ").expect("a frame is one data line");
            serde_json::from_str(data).unwrap_or_else(|_| json!(data))
        })
        .collect()
}

#[test]
fn a_plain_stream() {
    let mut writer = writer(StreamOptions::default(), false, 1);
    let mut text = writer.write(0, delta("Hel", 1));
    text += &writer.write(0, delta("", 1));
    text += &writer.write(0, delta("", 0));
    text += &writer.write(0, delta("lo", 1));
    assert!(!writer.is_done());
    text += &writer.write(0, finished(FinishReason::Stop));
    assert!(writer.is_done());

    let frames = frames(&text);
    assert_eq!(
        frames[0],
        json!({
            "id": "chatcmpl-1", "created": 7, "model": "tiny", "system_fingerprint": "fp_1",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"},
                         "logprobs": null, "finish_reason": null}],
        })
    );
    let choices: Vec<&Value> = frames[..4].iter().map(|frame| &frame["choices"][0]).collect();
    assert_eq!(choices[1]["delta"], json!({"content": ""}));
    assert_eq!(choices[2]["delta"], json!({"content": "lo"}));
    assert_eq!(choices[3]["delta"], json!({}));
    assert_eq!(choices[3]["finish_reason"], "stop");
    assert_eq!(frames[4..], [json!("[DONE]")]);
}

#[test]
fn usage_has_a_chunk_of_its_own() {
    let mut writer = writer(StreamOptions { include_usage: true, continuous_usage: false }, false, 1);
    let text = writer.write(0, delta("a", 1)) + &writer.write(0, finished(FinishReason::Length));
    let frames = frames(&text);
    assert_eq!(frames.len(), 4);
    assert_eq!(frames[0]["usage"], Value::Null);
    assert!(frames[0].as_object().unwrap().contains_key("usage"));
    assert_eq!(frames[1]["choices"][0]["finish_reason"], "length");
    assert_eq!(frames[2]["choices"], json!([]));
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9,
                       "prompt_tokens_details": {"cached_tokens": 3},
                       "completion_tokens_details": {"forced_tokens": 0, "drafted_tokens": 0, "accepted_tokens": 0}});
    assert_eq!(frames[2]["usage"], usage);
}

#[test]
fn usage_may_run_along() {
    let mut writer = writer(StreamOptions { include_usage: true, continuous_usage: true }, false, 1);
    let text = writer.write(0, delta("a", 1)) + &writer.write(0, delta("b", 2));
    let frames = frames(&text);
    assert_eq!(frames[0]["usage"], json!({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}));
    assert_eq!(frames[1]["usage"], json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}));
}

#[test]
fn choices_end_one_by_one_and_the_stream_once() {
    let mut writer = writer(StreamOptions { include_usage: true, continuous_usage: false }, false, 2);
    let first = writer.write(1, delta("b", 1)) + &writer.write(1, finished(FinishReason::Stop));
    assert!(!writer.is_done());
    let rest = writer.write(0, finished(FinishReason::Stop));
    assert!(writer.is_done());
    assert!(!first.contains("[DONE]"));
    let frames = frames(&rest);
    // A reply without a token still says who speaks.
    assert_eq!(frames[0]["choices"][0]["delta"], json!({"role": "assistant"}));
    assert_eq!(frames[1]["usage"]["completion_tokens"], 8);
    assert_eq!(frames[1]["usage"]["prompt_tokens"], 5);
}

#[test]
fn logprobs_are_numbers_json_has() {
    let mut writer = writer(StreamOptions::default(), true, 1);
    let frames = frames(&writer.write(0, delta("", 1)));
    let expected = json!({"content": [{"token": "\u{fffd}", "logprob": -9999.0, "bytes": [0xe5],
        "top_logprobs": [{"token": "x", "logprob": -0.5, "bytes": [0x78]}]}], "refusal": null});
    assert_eq!(frames[0]["choices"][0]["logprobs"], expected);
}

#[test]
fn a_failure_is_an_error_object_and_the_end() {
    let mut writer = writer(StreamOptions::default(), false, 2);
    let failed = TextEvent::Failed(GenerateError::Internal { reason: "secret".to_owned() });
    let text = writer.write(0, delta("a", 1)) + &writer.write(1, failed);
    assert!(writer.is_done());
    assert!(!text.contains("secret"));
    let frames = frames(&text);
    assert_eq!(frames[1]["error"]["type"], "server_error");
    assert_eq!(frames[1]["error"]["param"], Value::Null);
    assert_eq!(frames[2], "[DONE]");
}

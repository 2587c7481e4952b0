use super::*;
use serde_json::json;

fn choices(extra: Value) -> Result<Choices, ApiError> {
    let mut request = json!({"messages": [{"role": "user", "content": "hi"}], "seed": 1});
    let fields = request.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    let request: ChatRequest = serde_json::from_value(request).expect("of the right types");
    Choices::try_from(request)
}

fn first(extra: Value) -> TextRequest {
    choices(extra).unwrap_or_else(|error| panic!("{error:?}")).requests.remove(0)
}

fn check_refused(extra: Value, param: &str) {
    let error = choices(extra.clone()).err().unwrap_or_else(|| panic!("{extra} passed"));
    let body = serde_json::to_value(error.into_body()).unwrap();
    assert_eq!(body["error"]["param"], param, "{extra}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| message.contains(param)), "{body}");
}

fn chat(extra: Value) -> Vec<(Role, String)> {
    match first(extra).prompt {
        Prompt::Chat(messages) => messages.into_iter().map(|m| (m.role, m.content)).collect(),
        Prompt::Tokens(_) => panic!("a chat"),
    }
}

#[test]
fn what_is_left_out_is_as_openai_has_it() {
    let request = first(json!({}));
    assert_eq!(request.sampling, SamplingParams { seed: 1, ..SamplingParams::default() });
    assert_eq!((request.max_new_tokens, request.grammar, request.ignore_eos), (None, None, false));
    assert!(request.stop.is_empty());
    assert!(choices(json!({})).unwrap_or_else(|_| panic!()).stream.is_none());
}

#[test]
fn what_load_tools_send_is_taken() {
    let all = choices(json!({
        "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        "max_completion_tokens": 7, "max_tokens": 9, "stop": null, "ignore_eos": true, "top_k": -1,
        "repetition_penalty": 1.0, "logprobs": null, "temperature": 0, "user": "u", "seed": -1,
    }))
    .unwrap_or_else(|error| panic!("{error:?}"));
    let request = &all.requests[0];
    assert_eq!((request.max_new_tokens, request.ignore_eos), (Some(7), true));
    assert_eq!((request.sampling.top_k, request.sampling.seed), (0, u64::MAX));
    let stream = all.stream.expect("a stream");
    assert!(stream.include_usage && stream.continuous_usage);
}

#[test]
fn each_choice_has_its_own_seed() {
    let requests = choices(json!({"n": 3})).unwrap_or_else(|_| panic!()).requests;
    assert_eq!(requests.iter().map(|r| r.sampling.seed).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn messages_may_be_text_or_parts() {
    let messages = chat(json!({"messages": [
        {"role": "developer", "content": "be brief", "name": "d"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
    ]}));
    let expected =
        [(Role::System, "be brief"), (Role::User, "a\nb"), (Role::Assistant, ""), (Role::Tool, "42")];
    assert_eq!(messages, expected.map(|(role, content)| (role, content.to_owned())));
}

#[test]
fn messages_that_cannot_be_read_are_named() {
    check_refused(json!({"messages": []}), "messages");
    check_refused(json!({"messages": [{"role": "user"}]}), "messages[0].content");
    check_refused(
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        "messages[0].content[0].type",
    );
    check_refused(
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        "messages[0].content[0].text",
    );
    check_refused(
        json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}),
        "messages[0].tool_calls",
    );
}

#[test]
fn numbers_outside_their_range_are_named() {
    for (param, value) in [
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("min_p", json!(2)),
        ("frequency_penalty", json!(3)),
        ("presence_penalty", json!(-3)),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!(1e39)),
        ("n", json!(0)),
        ("n", json!(17)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(0)),
        ("top_logprobs", json!(3)),
        ("stop", json!([""])),
        ("stop", json!(vec!["x"; 17])),
        ("stream_options", json!({"include_usage": true})),
    ] {
        check_refused(json!({ param: value }), param);
    }
    check_refused(json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs");
    check_refused(json!({"logit_bias": {"50": 101}}), "logit_bias.50");
    check_refused(json!({"logit_bias": {"fifty": 1}}), "logit_bias.fifty");
}

#[test]
fn logprobs_and_biases() {
    assert_eq!(first(json!({"logprobs": true})).sampling.logprobs, Some(0));
    assert_eq!(first(json!({"logprobs": true, "top_logprobs": 5})).sampling.logprobs, Some(5));
    assert_eq!(first(json!({"logprobs": false, "top_logprobs": 0})).sampling.logprobs, None);
    assert_eq!(
        first(json!({"logit_bias": {"5": -100, "7": 1.5}})).sampling.logit_bias,
        [(5, -100.0), (7, 1.5)]
    );
}

#[test]
fn stop_is_a_string_or_a_list() {
    assert_eq!(first(json!({"stop": "END"})).stop, ["END"]);
    assert_eq!(first(json!({"stop": ["a", "b"]})).stop, ["a", "b"]);
    assert!(first(json!({"stop": null})).stop.is_empty());
}

#[test]
fn response_formats() {
    let grammar = |format: Value| first(json!({"response_format": format})).grammar;
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    assert_eq!(grammar(json!({"type": "text"})), None);
    assert_eq!(grammar(json!({"type": "json_object"})), Some(GrammarSpec::JsonObject));
    assert_eq!(
        grammar(
            json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}})
        ),
        Some(GrammarSpec::JsonSchema(schema))
    );
    check_refused(json!({"response_format": {"type": "structural_tag"}}), "response_format.type");
    check_refused(
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
        "response_format.json_schema.schema",
    );
}

//! Fields that other servers know and this one cannot honour: refused by name, unless they ask for nothing.

use crate::http::error::ApiError;
use serde_json::{Map, Value, json};

/// Labels that do not change a reply.
const WITHOUT_EFFECT: &[&str] = &[
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "service_tier",
    "user",
];

/// Fields that would change the reply; `null`, `false`, `[]` and `{}` ask for nothing in any of them.
///
/// From OpenAI's reference and vLLM's vllm/entrypoints/openai/chat_completion/protocol.py.
const UNSUPPORTED: &[&str] = &[
    "add_generation_prompt",
    "add_special_tokens",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "best_of",
    "cache_salt",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "echo",
    "function_call",
    "functions",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "include_stop_str_in_output",
    "kv_transfer_params",
    "length_penalty",
    "logits_processors",
    "logprob_token_ids",
    "media_io_kwargs",
    "min_tokens",
    "mm_processor_kwargs",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "priority",
    "prompt_logprobs",
    "reasoning_effort",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "store",
    "structured_outputs",
    "tool_choice",
    "tools",
    "truncate_prompt_tokens",
    "use_beam_search",
    "verbosity",
    "vllm_xargs",
    "web_search_options",
];

/// Refuses the first field that asks for what we cannot do; returns how many fields nobody knows.
pub(super) fn check(fields: &Map<String, Value>) -> Result<usize, ApiError> {
    let mut unknown = 0;
    for (name, value) in fields {
        let name = name.as_str();
        if UNSUPPORTED.binary_search(&name).is_ok() {
            if !asks_for_nothing(name, value) {
                return Err(ApiError::unsupported(name));
            }
        } else if !WITHOUT_EFFECT.contains(&name) {
            unknown += 1;
        }
    }
    Ok(unknown)
}

fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match (name, value) {
        // These are true unless said otherwise, and that is what this server does.
        ("add_generation_prompt" | "skip_special_tokens" | "spaces_between_special_tokens", value) => {
            matches!(value, Value::Null | Value::Bool(true))
        }
        (_, Value::Null | Value::Bool(false)) => true,
        (_, Value::Array(list)) if list.is_empty() => true,
        (_, Value::Object(object)) if object.is_empty() => true,
        // Without tools there is nothing to choose from, or to call side by side.
        ("tool_choice" | "function_call", value) => matches!(value.as_str(), Some("none" | "auto")),
        ("parallel_tool_calls", value) => value.is_boolean(),
        ("min_tokens" | "priority", value) => *value == json!(0),
        ("best_of", value) => *value == json!(1),
        ("length_penalty", value) => value.as_f64() == Some(1.0),
        ("modalities", value) => *value == json!(["text"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fields(fields: Value, expected: Result<usize, &str>) {
        let fields = fields.as_object().expect("an object").clone();
        let outcome = check(&fields).map_err(|error| {
            let body = serde_json::to_value(error.into_body()).unwrap();
            body["error"]["param"].as_str().unwrap_or_default().to_owned()
        });
        assert_eq!(outcome, expected.map_err(str::to_owned), "{fields:?}");
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(UNSUPPORTED.is_sorted());
    }

    #[test]
    fn what_asks_for_nothing_passes() {
        check_fields(json!({"tools": [], "tool_choice": "none", "store": false, "echo": null}), Ok(0));
        check_fields(json!({"user": "u", "metadata": {"a": "b"}}), Ok(0));
        check_fields(json!({"min_tokens": 0, "modalities": ["text"], "skip_special_tokens": true}), Ok(0));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        check_fields(json!({"tools": [{"type": "function"}]}), Err("tools"));
        check_fields(json!({"tool_choice": "required"}), Err("tool_choice"));
        check_fields(json!({"min_tokens": 5}), Err("min_tokens"));
        check_fields(json!({"store": true}), Err("store"));
        check_fields(json!({"skip_special_tokens": false}), Err("skip_special_tokens"));
        check_fields(json!({"guided_json": {"type": "object"}}), Err("guided_json"));
    }

    #[test]
    fn what_nobody_knows_is_counted() {
        check_fields(json!({"flux_capacitor": 1, "x": null, "user": "u"}), Ok(2));
    }
}

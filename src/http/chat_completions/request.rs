//! The request on the wire, and what it asks of the generator.

use super::response::StreamOptions;
use crate::generation::{Prompt, TextRequest};
use crate::http::error::ApiError;
use crate::sampling::{GrammarSpec, SamplingParams};
use crate::text::{ChatMessage, Role, TokenId};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

/// Replies one request may ask for.
const MAX_CHOICES: u64 = 16;
/// Stop strings one request may have; the reply is searched for each of them at every token.
const MAX_STOPS: usize = 16;
const MAX_TOP_LOGPROBS: usize = 20;

#[derive(Deserialize)]
pub(in crate::http) struct ChatRequest {
    messages: Vec<Message>,
    pub(super) model: Option<String>,

    max_completion_tokens: Option<u64>,
    /// The old name of `max_completion_tokens`.
    max_tokens: Option<u64>,
    n: Option<u64>,
    seed: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// 0 or -1: every token.
    top_k: Option<i64>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,

    stop: Option<OneOrMany>,
    stop_token_ids: Option<Vec<TokenId>>,
    ignore_eos: Option<bool>,
    response_format: Option<ResponseFormat>,

    stream: Option<bool>,
    stream_options: Option<WireStreamOptions>,

    /// Every other field, for [`super::unsupported`].
    #[serde(flatten)]
    pub(super) other: Map<String, Value>,
}

#[derive(Deserialize)]
struct Message {
    role: WireRole,
    content: Option<Content>,
    tool_calls: Option<Value>,
    function_call: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    /// What newer models call `system`.
    Developer,
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

/// `name`, `description` and `strict` are labels here: a schema is always kept to.
#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

#[derive(Default, Deserialize)]
struct WireStreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

/// A checked request: one `TextRequest` a choice.
pub(super) struct Choices {
    pub(super) requests: Vec<TextRequest>,
    pub(super) logprobs: bool,
    /// `None`: one document at the end.
    pub(super) stream: Option<StreamOptions>,
}

impl TryFrom<ChatRequest> for Choices {
    type Error = ApiError;

    fn try_from(request: ChatRequest) -> Result<Self, ApiError> {
        let n = in_range("n", request.n, 1, 1..=MAX_CHOICES)?;
        let sampling = sampling(&request)?;
        let first = TextRequest {
            max_new_tokens: max_new_tokens(&request)?,
            grammar: request.response_format.map(grammar).transpose()?.flatten(),
            stop: stop(request.stop)?,
            stop_token_ids: request.stop_token_ids.unwrap_or_default(),
            ignore_eos: request.ignore_eos.unwrap_or(false),
            prompt: Prompt::Chat(messages(request.messages)?),
            sampling,
        };
        let requests = (0..n)
            .map(|choice| {
                let mut request = first.clone();
                request.sampling.seed = request.sampling.seed.wrapping_add(choice);
                request
            })
            .collect();
        let stream = stream(request.stream.unwrap_or(false), request.stream_options)?;
        Ok(Self { requests, logprobs: first.sampling.logprobs.is_some(), stream })
    }
}

fn messages(messages: Vec<Message>) -> Result<Vec<ChatMessage>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` is empty; there must be something to answer"));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| message.read(&format!("messages[{index}]")))
        .collect()
}

impl Message {
    fn read(self, path: &str) -> Result<ChatMessage, ApiError> {
        for (field, value) in [("tool_calls", self.tool_calls), ("function_call", self.function_call)] {
            if value.is_some_and(|value| value.as_array().is_none_or(|calls| !calls.is_empty())) {
                return Err(ApiError::unsupported(format!("{path}.{field}")));
            }
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => parts
                .into_iter()
                .enumerate()
                .map(|(index, part)| part.read(&format!("{path}.content[{index}]")))
                .collect::<Result<Vec<_>, _>>()?
                .join("\n"),
            None if self.role == WireRole::Assistant => String::new(),
            None => {
                let param = format!("{path}.content");
                let message = format!("`{param}` is missing; only the assistant may have said nothing");
                return Err(ApiError::invalid(param, message));
            }
        };
        let role = match self.role {
            WireRole::Developer | WireRole::System => Role::System,
            WireRole::User => Role::User,
            WireRole::Assistant => Role::Assistant,
            WireRole::Tool => Role::Tool,
        };
        Ok(ChatMessage { role, content })
    }
}

impl Part {
    fn read(self, path: &str) -> Result<String, ApiError> {
        match (self.kind.as_str(), self.text) {
            ("text", Some(text)) => Ok(text),
            ("text", None) => {
                Err(ApiError::invalid(format!("{path}.text"), format!("`{path}.text` is missing")))
            }
            (kind, _) => {
                let param = format!("{path}.type");
                let message = format!("`{param}`: this server reads `text` parts only, not {kind:?}");
                Err(ApiError::invalid(param, message))
            }
        }
    }
}

fn max_new_tokens(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let (param, tokens) = match request.max_completion_tokens {
        Some(tokens) => ("max_completion_tokens", Some(tokens)),
        None => ("max_tokens", request.max_tokens),
    };
    match tokens {
        Some(0) => Err(ApiError::invalid(param, format!("`{param}` must be at least 1"))),
        tokens => Ok(tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX))),
    }
}

fn sampling(request: &ChatRequest) -> Result<SamplingParams, ApiError> {
    let defaults = SamplingParams::default();
    Ok(SamplingParams {
        temperature: in_range("temperature", request.temperature, defaults.temperature, 0.0..=2.0)?,
        top_k: usize::try_from(in_range("top_k", request.top_k, 0, -1..)?).unwrap_or(0),
        top_p: in_range(
            "top_p",
            request.top_p,
            defaults.top_p,
            (Bound::Excluded(0.0), Bound::Included(1.0)),
        )?,
        min_p: in_range("min_p", request.min_p, defaults.min_p, 0.0..=1.0)?,
        repetition_penalty: in_range(
            "repetition_penalty",
            request.repetition_penalty,
            defaults.repetition_penalty,
            (Bound::Excluded(0.0), Bound::Excluded(f32::INFINITY)),
        )?,
        frequency_penalty: in_range("frequency_penalty", request.frequency_penalty, 0.0, -2.0..=2.0)?,
        presence_penalty: in_range("presence_penalty", request.presence_penalty, 0.0, -2.0..=2.0)?,
        logit_bias: logit_bias(request.logit_bias.as_ref())?,
        seed: request.seed.map_or_else(random_seed, i64::cast_unsigned),
        logprobs: logprobs(request.logprobs, request.top_logprobs)?,
    })
}

/// A number that has to lie within `range`; NaN never does.
fn in_range<T: PartialOrd + Copy + Display>(
    param: &str,
    value: Option<T>,
    default: T,
    range: impl RangeBounds<T>,
) -> Result<T, ApiError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let bounds = [
        match range.start_bound() {
            Bound::Included(least) => Some(format!("at least {least}")),
            Bound::Excluded(least) => Some(format!("more than {least}")),
            Bound::Unbounded => None,
        },
        match range.end_bound() {
            Bound::Included(most) => Some(format!("at most {most}")),
            Bound::Excluded(most) => Some(format!("less than {most}")),
            Bound::Unbounded => None,
        },
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    Err(ApiError::invalid(param, format!("`{param}` is {value}; it must be {}", bounds.join(" and "))))
}

fn random_seed() -> u64 {
    getrandom::u64().expect("the system has a source of randomness")
}

/// Keys are token ids in decimal, since JSON has no other keys than strings.
fn logit_bias(biases: Option<&BTreeMap<String, f32>>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    biases
        .into_iter()
        .flatten()
        .map(|(key, &bias)| {
            let param = format!("logit_bias.{key}");
            let token = key
                .parse()
                .map_err(|_| ApiError::invalid(&*param, format!("`{param}`: {key:?} is not a token id")))?;
            Ok((token, in_range(&param, Some(bias), 0.0, -100.0..=100.0)?))
        })
        .collect()
}

fn logprobs(logprobs: Option<bool>, top: Option<usize>) -> Result<Option<usize>, ApiError> {
    match (logprobs.unwrap_or(false), top) {
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
        }
        (true, top) => in_range("top_logprobs", top, 0, 0..=MAX_TOP_LOGPROBS).map(Some),
    }
}

fn stop(stop: Option<OneOrMany>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    if stops.len() > MAX_STOPS {
        let message = format!("`stop` has {} strings, at most {MAX_STOPS} are allowed", stops.len());
        return Err(ApiError::invalid("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "`stop` holds an empty string, which would end every reply"));
    }
    Ok(stops)
}

fn grammar(format: ResponseFormat) -> Result<Option<GrammarSpec>, ApiError> {
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(GrammarSpec::JsonObject)),
        "json_schema" => match format.json_schema.and_then(|json_schema| json_schema.schema) {
            Some(schema) => Ok(Some(GrammarSpec::JsonSchema(schema))),
            None => {
                let param = "response_format.json_schema.schema";
                Err(ApiError::invalid(param, format!("`{param}` is missing")))
            }
        },
        other => {
            let param = "response_format.type";
            let offered = "`text`, `json_object` and `json_schema`";
            Err(ApiError::invalid(param, format!("`{param}` is {other:?}; there are {offered}")))
        }
    }
}

fn stream(stream: bool, options: Option<WireStreamOptions>) -> Result<Option<StreamOptions>, ApiError> {
    if !stream {
        return match options {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid("stream_options", "`stream_options` needs `stream` to be true")),
        };
    }
    let options = options.unwrap_or_default();
    let continuous_usage = options.continuous_usage_stats.unwrap_or(false);
    Ok(Some(StreamOptions { include_usage: options.include_usage.unwrap_or(false), continuous_usage }))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

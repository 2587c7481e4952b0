//! Errors as the client sees them. Status codes are chosen here and nowhere else.

use crate::engine::EngineError;
use crate::generation::GenerateError;
use crate::quiz::SpecError;
use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;

/// Clients give up at once when told to wait longer (`openai/openai-python:src/openai/_base_client.py`).
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// How soon another server, or this one restarted, may be there.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A request that was not answered as asked: what the client is told, and what is logged beside it.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorObject,
    /// What only the log says.
    logged: Option<String>,
    retry_after: Option<Duration>,
}

/// The object every client library knows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorObject {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The request's field that is wrong, as a path.
    param: Option<String>,
    code: &'static str,
}

/// `{"error": {...}}`, in a body or in an event.
#[derive(Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorObject,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorObject { message: message.into(), kind, param: None, code };
        Self { status, body, logged: None, retry_after: None }
    }

    fn with_param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    fn with_log(mut self, logged: impl Into<String>) -> Self {
        self.logged = Some(logged.into());
        self
    }

    fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after.min(MAX_RETRY_AFTER));
        self
    }

    /// A field that cannot be honoured; `param` is its path.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message)
            .with_param(param)
    }

    /// A field that means something, but not here.
    pub(super) fn unsupported(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("`{param}` is not supported by this server; leave it out");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "unsupported_parameter", message)
            .with_param(param)
    }

    pub(super) fn broken_json(error: &serde_json::Error) -> Self {
        let message = format!("the body is not JSON: {error}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "json_parse_error", message)
    }

    pub(super) fn unreadable_body(logged: String) -> Self {
        let message = "the body could not be read to its end";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "body_unreadable", message)
            .with_log(logged)
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
    }

    pub(super) fn unsupported_media_type(content_type: &str) -> Self {
        let message = format!("a body of type {content_type:?} cannot be JSON; send application/json");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "invalid_request_error", "unsupported_media_type", message)
    }

    pub(super) fn not_acceptable(offered: &str) -> Self {
        let message = format!("nothing in the Accept header can be sent; there are {offered}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "invalid_request_error", "not_acceptable", message)
    }

    pub(super) fn unknown_model(asked: &str) -> Self {
        let message = format!("there is no model {asked:?}; GET /v1/models lists what there is");
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "model_not_found", message).with_param("model")
    }

    pub(super) fn no_file() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "not_found", "there is no such file")
    }

    pub(super) fn draining() -> Self {
        Self::not_ready("draining", "the server is shutting down; try another one")
    }

    /// The server cannot do its work, and says when to ask again.
    pub(super) fn not_ready(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message)
            .with_retry_after(UNAVAILABLE_RETRY_AFTER)
    }

    pub(super) fn internal(logged: impl Into<String>) -> Self {
        let message = "the server failed to answer this request; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message)
            .with_log(logged)
    }

    /// A reply that was not written. `prompt` names the field that a too long prompt came from.
    pub(super) fn generate(error: GenerateError, prompt: &str) -> Self {
        let message = error.to_string();
        match error {
            GenerateError::Invalid { param, .. } => Self::invalid(param, message),
            GenerateError::Internal { .. } => Self::internal(message),
            GenerateError::Engine(error) => match error {
                EngineError::QueueFull { queued, retry_after } => {
                    let public = format!("the queue is full, {queued} requests are waiting; try again later");
                    Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", public)
                        .with_retry_after(retry_after)
                }
                EngineError::PromptTooLong { .. } => {
                    let code = "context_length_exceeded";
                    Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
                        .with_param(prompt)
                }
                EngineError::ShuttingDown => Self::draining(),
                EngineError::Sequence { reason } => Self::internal(reason),
                EngineError::BackendLost { reason } => {
                    Self::not_ready("backend_lost", "the model's device is lost").with_log(reason)
                }
            },
        }
    }

    /// For a stream that has begun: the object of its last event. Logs what there is to log.
    pub(super) fn into_body(self) -> ErrorBody {
        self.log();
        ErrorBody { error: self.body }
    }

    fn log(&self) {
        let Self { status, body, logged, .. } = self;
        let logged = logged.as_deref().unwrap_or(&body.message);
        if status.is_server_error() {
            tracing::error!(status = status.as_u16(), code = body.code, "{logged}");
        } else {
            tracing::debug!(status = status.as_u16(), code = body.code, param = body.param, "{logged}");
        }
    }
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        Self::invalid(error.param, error.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, retry_after, .. } = self;
        let mut response = (status, Json(self.into_body())).into_response();
        if let Some(retry_after) = retry_after {
            // Whole seconds are the standard's; the milliseconds are what client libraries look at first.
            let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert("retry-after-ms", HeaderValue::from(retry_after.as_millis().max(1) as u64));
        }
        response
    }
}

pub(super) async fn no_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is nothing at {method} {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "not_found_error", "route_not_found", message)
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; the Allow header says what it takes", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: EngineError, status: u16, code: &str, retry: Option<(&str, &str)>) {
        let error = ApiError::generate(GenerateError::Engine(error), "messages");
        assert_eq!(error.body.code, code);
        let response = error.into_response();
        assert_eq!(response.status(), status);
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("retry-after").zip(header("retry-after-ms")), retry);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let full = |millis| EngineError::QueueFull { queued: 9, retry_after: Duration::from_millis(millis) };
        check(full(0), 429, "queue_full", Some(("1", "1")));
        check(full(1000), 429, "queue_full", Some(("1", "1000")));
        check(full(1001), 429, "queue_full", Some(("2", "1001")));
        check(full(500_000), 429, "queue_full", Some(("120", "120000")));
    }

    #[test]
    fn what_retrying_cannot_mend_has_no_retry_after() {
        let too_long = EngineError::PromptTooLong { prompt_tokens: 9, context_len: 8 };
        check(too_long, 400, "context_length_exceeded", None);
        check(EngineError::Sequence { reason: "NaN".to_owned() }, 500, "internal_error", None);
        check(EngineError::ShuttingDown, 503, "draining", Some(("5", "5000")));
        check(
            EngineError::BackendLost { reason: "gone".to_owned() },
            503,
            "backend_lost",
            Some(("5", "5000")),
        );
    }

    #[test]
    fn a_defect_of_ours_is_logged_and_not_told() {
        let error = ApiError::internal("secret");
        assert!(!serde_json::to_string(&error.body).unwrap().contains("secret"));
    }
}

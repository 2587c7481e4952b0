//! `POST /v1/quizzes`: a quiz, each item sent the moment it is checked.
//!
//! The same events in three forms: server-sent events, lines of JSON, or gathered in one document.

use super::accept::Format;
use super::body::JsonBody;
use super::error::ApiError;
use super::quiz_events::{QuizDocument, WireEvent};
use super::{AppState, sse};
use crate::generation::GenerateError;
use crate::quiz::{QuizRequest, QuizSpec, QuizStream};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};

/// The field a prompt that does not fit comes from: only a source is long.
const PROMPT_PARAM: &str = "source";

pub(super) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<QuizRequest>,
) -> Result<Response, ApiError> {
    let format = format(&headers)?;
    state.check_accepting()?;
    state.check_model(request.model.as_deref())?;
    let spec = QuizSpec::try_from(request)?;
    let quiz = state.inner.quizzes.create(spec).await.map_err(failure)?;
    Ok(match format {
        Format::Json => Json(QuizDocument::gather(quiz).await.map_err(failure)?).into_response(),
        Format::Lines => sse::json_lines(encoded(quiz, sse::line)),
        Format::Events => {
            let frames = encoded(quiz, |event| sse::event(event.name(), event));
            sse::event_stream(frames, state.inner.options.keep_alive)
        }
    })
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let ranges: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    Format::negotiate(&ranges.join(",")).ok_or_else(|| ApiError::not_acceptable(Format::OFFERED))
}

pub(super) fn failure(error: GenerateError) -> ApiError {
    ApiError::generate(error, PROMPT_PARAM)
}

/// The quiz's events as they come, each in bytes. Dropping it drops the quiz, which cancels it.
fn encoded(quiz: QuizStream, encode: fn(&WireEvent) -> Bytes) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(quiz, move |mut quiz| async move {
        let event = WireEvent::new(quiz.next().await?);
        Some((encode(&event), quiz))
    })
}

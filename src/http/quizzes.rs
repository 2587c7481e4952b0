//! `POST /v1/quizzes`: a quiz, each item sent the moment it is checked.
//!
//! The same events in three forms: server-sent events, lines of JSON, or gathered in one document.

use super::accept::Format;
use super::body::JsonBody;
use super::error::{ApiError, ErrorBody};
use super::{AppState, sse, unix_seconds};
use crate::generation::GenerateError;
use crate::quiz::{QuizEvent, QuizItem, QuizRequest, QuizSpec, QuizStream, QuizSummary};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;

/// The field a prompt that does not fit comes from: only a source is long.
const PROMPT_PARAM: &str = "source";

/// An event as it is sent; `type` is the name of the server-sent event too.
#[derive(Serialize)]
#[serde(tag = "type")]
enum WireEvent {
    #[serde(rename = "quiz.created")]
    Created(Created),
    #[serde(rename = "question.completed")]
    Question(QuizItem),
    #[serde(rename = "quiz.completed")]
    Completed(QuizSummary),
    #[serde(rename = "error")]
    Error(ErrorBody),
}

#[derive(Serialize)]
struct Created {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

/// The whole quiz as one document.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    created: Created,
    items: Vec<QuizItem>,
    #[serde(flatten)]
    summary: QuizSummary,
}

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

    let model = state.inner.generator.model_name().to_owned();
    Ok(match format {
        Format::Json => Json(document(quiz, model).await?).into_response(),
        Format::Lines => sse::json_lines(encoded(quiz, model, sse::line)),
        Format::Events => {
            let frames = encoded(quiz, model, |event| sse::event(event.name(), event));
            sse::event_stream(frames, state.inner.options.keep_alive)
        }
    })
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let ranges: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    Format::negotiate(&ranges.join(",")).ok_or_else(|| ApiError::not_acceptable(Format::OFFERED))
}

fn failure(error: GenerateError) -> ApiError {
    ApiError::generate(error, PROMPT_PARAM)
}

/// The quiz's events as they come, each in bytes. Dropping it drops the quiz, which cancels it.
fn encoded(
    quiz: QuizStream,
    model: String,
    encode: fn(&WireEvent) -> Bytes,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold((quiz, model), move |(mut quiz, model)| async move {
        let event = WireEvent::new(quiz.next().await?, &model);
        Some((encode(&event), (quiz, model)))
    })
}

/// Waits for the whole quiz; a quiz that fails has no document.
async fn document(mut quiz: QuizStream, model: String) -> Result<Document, ApiError> {
    let mut created = None;
    let mut items = Vec::new();
    while let Some(event) = quiz.next().await {
        match event {
            QuizEvent::Created { id } => created = Some(Created::new(id, &model)),
            QuizEvent::Item(item) => items.push(item),
            QuizEvent::Failed(error) => return Err(failure(error)),
            QuizEvent::Completed(summary) => {
                let created = created.ok_or_else(|| ApiError::internal("a quiz completed uncreated"))?;
                return Ok(Document { created, items, summary });
            }
        }
    }
    Err(ApiError::internal("a quiz ended without its last event"))
}

impl Created {
    fn new(id: String, model: &str) -> Self {
        Self { id, object: "quiz", created: unix_seconds(), model: model.to_owned() }
    }
}

impl WireEvent {
    fn new(event: QuizEvent, model: &str) -> Self {
        match event {
            QuizEvent::Created { id } => Self::Created(Created::new(id, model)),
            QuizEvent::Item(item) => Self::Question(item),
            QuizEvent::Completed(summary) => Self::Completed(summary),
            QuizEvent::Failed(error) => Self::Error(failure(error).into_body()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "quiz.created",
            Self::Question(_) => "question.completed",
            Self::Completed(_) => "quiz.completed",
            Self::Error(_) => "error",
        }
    }
}

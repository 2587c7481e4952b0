//! A quiz on the wire: its events one by one, or gathered in one document. The command line writes the
//! same.

use super::error::ErrorBody;
use super::unix_seconds;
use crate::generation::GenerateError;
use crate::quiz::{QuizCreated, QuizEvent, QuizItem, QuizStream, QuizSummary};
use serde::Serialize;

/// An event as it is sent; `type` is the name of the server-sent event too.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(crate) enum WireEvent {
    #[serde(rename = "quiz.created")]
    Created {
        /// Unix seconds.
        created: u64,
        #[serde(flatten)]
        quiz: QuizCreated,
    },
    #[serde(rename = "question.completed")]
    Question(Box<QuizItem>),
    #[serde(rename = "quiz.completed")]
    Completed(QuizSummary),
    #[serde(rename = "error")]
    Error(ErrorBody),
}

impl WireEvent {
    pub(crate) fn new(event: QuizEvent) -> Self {
        match event {
            QuizEvent::Created(quiz) => Self::Created { created: unix_seconds(), quiz },
            QuizEvent::Item(item) => Self::Question(item),
            QuizEvent::Completed(summary) => Self::Completed(summary),
            QuizEvent::Failed(error) => Self::Error(super::quizzes::failure(error).into_body()),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "quiz.created",
            Self::Question(_) => "question.completed",
            Self::Completed(_) => "quiz.completed",
            Self::Error(_) => "error",
        }
    }
}

/// The whole quiz as one document.
#[derive(Serialize)]
pub(crate) struct QuizDocument {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created: u64,
    pub(crate) items: Vec<QuizItem>,
    #[serde(flatten)]
    summary: QuizSummary,
}

impl QuizDocument {
    /// Waits for the quiz's end.
    ///
    /// # Errors
    /// What the quiz failed with; a part of a quiz is no document.
    pub(crate) async fn gather(mut quiz: QuizStream) -> Result<Self, GenerateError> {
        let created = unix_seconds();
        let mut id = String::new();
        let mut items = Vec::new();
        while let Some(event) = quiz.next().await {
            match event {
                QuizEvent::Created(created) => id = created.id,
                QuizEvent::Item(item) => items.push(*item),
                QuizEvent::Completed(summary) => {
                    return Ok(Self { id, object: "quiz", created, items, summary });
                }
                QuizEvent::Failed(error) => return Err(error),
            }
        }
        Err(GenerateError::Internal { reason: "a quiz ended without its last event".to_owned() })
    }
}

use super::{item::QuizItem, spec::QuizSpec};
use crate::generation::{GenerateError, Generator};
use crate::metrics::Metrics;
use std::sync::Arc;

/// The room's front door: writes quizzes with one model.
#[derive(Clone)]
pub struct QuizService {}

/// What a quiz stream yields: `Created`, then `Item`s in order of index, then one `Completed` or `Failed`.
#[derive(Debug)]
pub enum QuizEvent {
    Created { id: String },
    Item(QuizItem),
    Completed(QuizSummary),
    Failed(GenerateError),
}

/// The last event: what the quiz took.
#[derive(Clone, Debug, serde::Serialize)]
pub struct QuizSummary {}

impl QuizService {
    pub fn new(_generator: Generator, _metrics: Arc<Metrics>) -> Self {
        todo!()
    }

    /// Starts a quiz.
    ///
    /// # Errors
    /// [`GenerateError`]: nothing was started (a full queue, a source that cannot fit).
    pub async fn create(&self, _spec: QuizSpec) -> Result<QuizStream, GenerateError> {
        todo!()
    }
}

/// A quiz as it is written. Dropping it cancels what is still being written.
pub struct QuizStream {}

impl QuizStream {
    pub async fn next(&mut self) -> Option<QuizEvent> {
        todo!()
    }
}

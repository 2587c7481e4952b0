//! What a quiz is, and how one is written: from a valid [`QuizSpec`] to [`QuizEvent`]s, an item at a
//! time, each closed, checked and only then yielded. May use `generation`. Absent: HTTP, tokens.

mod item;
mod service;
mod spec;

pub use item::{Answer, Check, Evidence, ItemStatus, QuizItem, RejectReason};
pub use service::{QuizEvent, QuizService, QuizStream, QuizSummary};
pub use spec::{Difficulty, ItemKind, QuizRequest, QuizSpec, SpecError, Subject};

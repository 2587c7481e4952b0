//! What a quiz is, and how one is written: from a valid [`QuizSpec`] to [`QuizEvent`]s, an item at a
//! time, each closed, checked and only then yielded. May use `generation`, `library` for what topics
//! rest on, and `embedding` to compare items by meaning. Absent: HTTP, tokens.

mod attempt;
mod candidate;
mod checks;
mod draft;
mod drafting;
mod elsewhere;
mod falsify;
mod flaws;
mod form;
mod grammar;
mod ground;
mod history;
mod item;
mod language;
mod meaning;
mod number;
mod options;
mod plan;
mod prompt;
mod prompt_templates;
mod round_trip;
mod script;
mod seed;
mod service;
mod source;
mod span;
mod spec;
mod spent;
mod statements;
mod word;
pub(crate) mod wording;
mod writer;

pub use flaws::{Flaw, Shown, applicable, flaws};
pub use item::{Answer, Check, Citation, Evidence, ItemStatus, QuizItem, RejectReason};
pub use language::Language;
pub use prompt_templates::{PromptTemplates, TemplateError};
pub use service::{QuizCreated, QuizEvent, QuizService, QuizStream, QuizSummary, QuizTimings, QuizUsage};
pub use source::{Sentence, Source, Worth};
pub use spec::{
    CheckPolicy, Difficulty, DraftPolicies, ItemKind, MAX_SOURCE_CHARS, OneOrMany, QuizRequest, QuizSpec,
    SpecError, Subject,
};

/// The published JSON Schema (draft 2020-12) of a quiz; an item is its `$defs/item`.
pub const QUIZ_SCHEMA: &str = include_str!("../../docs/quiz.schema.json");

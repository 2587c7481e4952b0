use crate::sampling::SamplingParams;

/// A quiz as asked for on the wire or the command line; [`QuizSpec`] is the checked form.
///
/// Unknown fields are kept out by `deny_unknown_fields`: a misspelt option is an error that names it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuizRequest {}

/// A quiz that can be written: every field within its limits.
#[derive(Clone, Debug)]
pub struct QuizSpec {
    pub subject: Subject,
    pub count: usize,
    /// At least one; items take them in turn.
    pub kinds: Vec<ItemKind>,
    pub difficulty: Difficulty,
    /// A BCP 47 tag, as given.
    pub language: String,
    pub audience: Option<String>,
    /// Questions, or answers, that must not come again.
    pub exclude: Vec<String>,
    pub seed: u64,
    /// Budget of one item, in tokens.
    pub max_item_tokens: usize,
    pub sampling: SamplingParams,
}

/// What the quiz is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Topic(String),
    Source(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    MultipleChoice,
    TrueFalse,
    ShortAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    Easy,
    Medium,
    Hard,
}

/// A field of a quiz request that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The field, as on the wire.
    pub param: &'static str,
    pub message: String,
}

use super::spec::ItemKind;

/// One finished, checked question, as it leaves the server.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct QuizItem {
    pub id: String,
    /// Place in the quiz, from 0.
    pub index: usize,
    pub kind: ItemKind,
    pub question: String,
    /// In the order to show; absent where the kind has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    pub answer: Answer,
    /// Absent when the quiz has no source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    pub status: ItemStatus,
    /// The checks it passed.
    pub checks: Vec<Check>,
}

/// The key. For a choice, its place in `choices` too.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The answer as text; `true` or `false` for a true/false item.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_index: Option<usize>,
}

/// Words of the source, and where they stand in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    pub text: String,
    /// Offsets into the source in Unicode code points, `start..end`.
    pub start: usize,
    pub end: usize,
}

/// How far an item can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// From the model's memory.
    Unverified,
    /// Evidence and answer are in the source.
    Grounded,
}

/// A check an item passed; its opposite is a [`RejectReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {}

/// Why an item was thrown away and written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {}

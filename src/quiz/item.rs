use super::flaws::Flaw;
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
    /// Absent when the item comes from the model's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Where the evidence stands, if not in the asker's own source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<Citation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    pub status: ItemStatus,
    /// The checks it passed.
    pub checks: Vec<Check>,
    /// The item-writing rules it breaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaws: Vec<Flaw>,
}

/// The key. For a choice, its place in `choices` too.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The answer as text; `true` or `false` for a true/false item.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_index: Option<usize>,
}

/// Words of the source, or of the passage that is cited, and where they stand in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    pub text: String,
    /// Offsets into the source, or the passage, in Unicode code points, `start..end`.
    pub start: usize,
    pub end: usize,
}

/// A passage of the library, and what must be said of it when it is quoted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Citation {
    /// Of the document that the passage is from.
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom it comes from, or where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The passage itself: what the offsets of the evidence count in.
    pub passage: String,
}

/// How far an item can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// From the model's memory.
    Unverified,
    /// Evidence and answer are in the source, or in the passage that is cited.
    Grounded,
    /// And the question asks for its answer rather than for other words of the evidence: it passed the
    /// round trip.
    Checked,
}

/// A check an item passed; its opposite is a [`RejectReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The reply was JSON of the item's schema.
    WellFormed,
    /// The question is whole and says something.
    ReadableQuestion,
    /// Written in the script of the language asked for.
    Language,
    /// Nothing of the instructions is left in it.
    NoPromptText,
    /// The options differ in more than case, spaces and punctuation.
    DistinctOptions,
    /// The options are of one form: all numbers, all names, ...
    UniformOptions,
    /// The question does not give its answer away.
    AnswerNotInQuestion,
    /// The question is more than its evidence with a question mark.
    NotCopied,
    /// The evidence is in the source or the cited passage, at its place, and the answer in the evidence.
    Grounded,
    /// It breaks none of the item-writing rules.
    Clean,
    /// Its question goes with its key better than with other words of the evidence.
    RoundTrip,
    /// Its question goes with its key better than with the other options.
    KeySound,
    /// Not asked before in this quiz, nor excluded.
    NotRepeated,
}

/// Why an item was thrown away and written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    Malformed,
    UnreadableQuestion,
    WrongLanguage,
    PromptText,
    DuplicateOptions,
    UnevenOptions,
    AnswerInQuestion,
    Copied,
    NotGrounded,
    NoQuestionMark,
    SeveralQuestions,
    RefersToSource,
    DanglingReference,
    LongStem,
    NegativeStem,
    AllOrNoneOfTheAbove,
    OverlappingOptions,
    KeyIsLongest,
    ClangWithKey,
    AbsoluteDistractors,
    /// The question goes better with other words of the evidence.
    RoundTrip,
    /// The question goes better with another option.
    KeyNotSound,
    /// Good, but another draft of the item was better.
    Outdone,
    /// Asked before in this quiz.
    Repeated,
    /// In the request's `exclude`.
    Excluded,
    /// The model failed at this item; others go on.
    GenerationFailed,
    /// The item does not fit the budget or the context.
    DoesNotFit,
}

impl RejectReason {
    /// As on the wire and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnreadableQuestion => "unreadable_question",
            Self::WrongLanguage => "wrong_language",
            Self::PromptText => "prompt_text",
            Self::DuplicateOptions => "duplicate_options",
            Self::UnevenOptions => "uneven_options",
            Self::AnswerInQuestion => "answer_in_question",
            Self::Copied => "copied",
            Self::NotGrounded => "not_grounded",
            Self::NoQuestionMark => "no_question_mark",
            Self::SeveralQuestions => "several_questions",
            Self::RefersToSource => "refers_to_source",
            Self::DanglingReference => "dangling_reference",
            Self::LongStem => "long_stem",
            Self::NegativeStem => "negative_stem",
            Self::AllOrNoneOfTheAbove => "all_or_none_of_the_above",
            Self::OverlappingOptions => "overlapping_options",
            Self::KeyIsLongest => "key_is_longest",
            Self::ClangWithKey => "clang_with_key",
            Self::AbsoluteDistractors => "absolute_distractors",
            Self::RoundTrip => "round_trip",
            Self::KeyNotSound => "key_not_sound",
            Self::Outdone => "outdone",
            Self::Repeated => "repeated",
            Self::Excluded => "excluded",
            Self::GenerationFailed => "generation_failed",
            Self::DoesNotFit => "does_not_fit",
        }
    }
}

impl From<Flaw> for RejectReason {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::NoQuestionMark => Self::NoQuestionMark,
            Flaw::SeveralQuestions => Self::SeveralQuestions,
            Flaw::RefersToSource => Self::RefersToSource,
            Flaw::DanglingReference => Self::DanglingReference,
            Flaw::LongStem => Self::LongStem,
            Flaw::NegativeStem => Self::NegativeStem,
            Flaw::AllOrNoneOfTheAbove => Self::AllOrNoneOfTheAbove,
            Flaw::DuplicateOptions => Self::DuplicateOptions,
            Flaw::OverlappingOptions => Self::OverlappingOptions,
            Flaw::UnevenOptions => Self::UnevenOptions,
            Flaw::KeyIsLongest => Self::KeyIsLongest,
            Flaw::ClangWithKey => Self::ClangWithKey,
            Flaw::AbsoluteDistractors => Self::AbsoluteDistractors,
        }
    }
}

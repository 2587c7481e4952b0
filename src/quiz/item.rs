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
    /// The wrong choices mean something near the key, and not too near.
    PlausibleOptions,
    /// Not asked before in this quiz nor of its user, nor excluded.
    NotRepeated,
    /// Nor in other words.
    Distinct,
}

/// Why an item was thrown away and written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    Malformed,
    UnreadableQuestion,
    WrongLanguage,
    PromptText,
    AnswerInQuestion,
    Copied,
    NotGrounded,
    /// The question goes better with other words of the evidence.
    RoundTrip,
    /// The question goes better with another option.
    KeyNotSound,
    /// A wrong choice means something too far from the key, or too near.
    ImplausibleOptions,
    /// Asked before in this quiz.
    Repeated,
    /// Asked of this user in an earlier quiz.
    AskedEarlier,
    /// In the request's `exclude`.
    Excluded,
    /// Asked before in other words: in this quiz, of this user, or in `exclude`.
    NearDuplicate,
    /// The model failed at this item; others go on.
    GenerationFailed,
    /// The item does not fit the budget or the context.
    DoesNotFit,
    /// It breaks this rule of item writing, and may not.
    #[serde(untagged)]
    Flawed(Flaw),
}

impl RejectReason {
    /// As on the wire and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnreadableQuestion => "unreadable_question",
            Self::WrongLanguage => "wrong_language",
            Self::PromptText => "prompt_text",
            Self::AnswerInQuestion => "answer_in_question",
            Self::Copied => "copied",
            Self::NotGrounded => "not_grounded",
            Self::RoundTrip => "round_trip",
            Self::KeyNotSound => "key_not_sound",
            Self::ImplausibleOptions => "implausible_options",
            Self::Repeated => "repeated",
            Self::AskedEarlier => "asked_earlier",
            Self::Excluded => "excluded",
            Self::NearDuplicate => "near_duplicate",
            Self::GenerationFailed => "generation_failed",
            Self::DoesNotFit => "does_not_fit",
            Self::Flawed(flaw) => flaw.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::applicable;
    use std::collections::BTreeMap;

    #[test]
    fn reasons_are_named_as_they_are_written() {
        let check = |reason: RejectReason| {
            let written = serde_json::to_string(&BTreeMap::from([(reason, 1)])).unwrap();
            assert_eq!(written, format!("{{\"{}\":1}}", reason.name()));
            let read: BTreeMap<RejectReason, usize> = serde_json::from_str(&written).unwrap();
            assert_eq!(read, BTreeMap::from([(reason, 1)]));
        };
        use RejectReason::*;
        let own =
            [Malformed, UnreadableQuestion, WrongLanguage, PromptText, AnswerInQuestion, Copied, NotGrounded];
        own.into_iter().for_each(check);
        let others =
            [RoundTrip, KeyNotSound, ImplausibleOptions, Repeated, AskedEarlier, Excluded, NearDuplicate];
        others.into_iter().for_each(check);
        [GenerationFailed, DoesNotFit].into_iter().for_each(check);
        applicable(ItemKind::MultipleChoice).into_iter().map(Flawed).for_each(check);
    }
}

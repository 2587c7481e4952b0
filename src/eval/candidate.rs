use super::set::{HumanQuestion, Passage};
use crate::quiz::{ItemKind, QuizItem, Shown};
use serde::{Deserialize, Serialize};

/// The kinds that a passage is asked for, in turn.
pub const ITEM_KINDS: [ItemKind; 3] = [ItemKind::MultipleChoice, ItemKind::ShortAnswer, ItemKind::TrueFalse];

/// A question to be scored, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub kind: ItemKind,
    pub question: String,
    /// The key.
    pub answer: String,
    /// Answers that are as right, the key among them.
    pub accepted: Vec<String>,
    /// Wrong answers; none unless the kind has them.
    pub distractors: Vec<String>,
}

impl Candidate {
    pub fn from_item(item: &QuizItem) -> Self {
        let key = &item.answer.text;
        let choices = item.choices.iter().flatten();
        let distractors = match item.kind {
            ItemKind::MultipleChoice => choices.filter(|choice| *choice != key).cloned().collect(),
            ItemKind::TrueFalse | ItemKind::ShortAnswer => Vec::new(),
        };
        Self {
            kind: item.kind,
            question: item.question.clone(),
            answer: key.clone(),
            accepted: vec![key.clone()],
            distractors,
        }
    }

    /// A person's question; multiple choice where it has wrong answers and `with_choices` asks for it.
    pub fn from_human(question: &HumanQuestion, with_choices: bool) -> Self {
        let with_choices = with_choices && !question.distractors.is_empty();
        Self {
            kind: if with_choices { ItemKind::MultipleChoice } else { ItemKind::ShortAnswer },
            question: question.question.clone(),
            answer: question.answers[0].clone(),
            accepted: question.answers.clone(),
            distractors: if with_choices { question.distractors.clone() } else { Vec::new() },
        }
    }

    /// A passage's questions, multiple choice and short answer in turn.
    pub fn humans(passage: &Passage) -> Vec<Self> {
        let questions = passage.questions.iter().enumerate();
        questions.map(|(idx, question)| Self::from_human(question, idx % 2 == 0)).collect()
    }

    pub(super) fn options(&self) -> impl Iterator<Item = &str> {
        self.distractors.iter().chain([&self.answer]).map(String::as_str)
    }

    pub fn shown(&self) -> Shown<'_> {
        let Self { kind, question, answer, distractors, .. } = self;
        Shown { kind: *kind, question, answer, distractors }
    }
}

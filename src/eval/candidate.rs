use super::set::{HumanQuestion, Passage};
use crate::quiz::{ItemKind, QuizItem, Shown, Source};
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

    /// A passage's questions, multiple choice and short answer in turn, and what people wrote of it as statements:
    /// a sentence as it is, and another with an answer exchanged for a wrong one.
    pub fn humans(passage: &Passage) -> Vec<Self> {
        let questions = passage.questions.iter().enumerate();
        let questions = questions.map(|(idx, question)| Self::from_human(question, idx % 2 == 0));
        questions.chain(Self::statements(passage)).collect()
    }

    fn statements(passage: &Passage) -> Vec<Self> {
        let Some(source) = Source::new(passage.context.clone()) else { return Vec::new() };
        let sentences = || (0..source.sentences().len()).map(|idx| source.sentence_text(idx));
        let sentence_of = |question: &HumanQuestion| {
            sentences().find(|sentence| sentence.contains(&question.answers[0])).map(str::to_owned)
        };
        let statement = |question: String, truth: bool| Self {
            kind: ItemKind::TrueFalse,
            question,
            answer: truth.to_string(),
            accepted: vec![truth.to_string()],
            distractors: Vec::new(),
        };
        let falsified = passage.questions.iter().find_map(|question| {
            let (key, wrong) = (&question.answers[0], question.distractors.first()?);
            let sentence = sentence_of(question)?;
            let changed = statement(sentence.replacen(key, wrong, 1), false);
            Some((sentence, changed))
        });
        let falsified_sentence = falsified.as_ref().map(|(sentence, _)| sentence.clone());
        let other = passage
            .questions
            .iter()
            .filter_map(sentence_of)
            .find(|sentence| Some(sentence) != falsified_sentence.as_ref());
        let truth = other.map(|sentence| statement(sentence, true));
        truth.into_iter().chain(falsified.map(|(_, changed)| changed)).collect()
    }

    pub(super) fn options(&self) -> impl Iterator<Item = &str> {
        self.distractors.iter().chain([&self.answer]).map(String::as_str)
    }

    pub fn shown(&self) -> Shown<'_> {
        let Self { kind, question, answer, distractors, .. } = self;
        Shown { kind: *kind, question, answer, distractors }
    }
}

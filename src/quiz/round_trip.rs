//! The way back from a question to its answer. The model that writes the item is a poor reader when it is
//! small, but it knows how questions follow from answers: so the answers are compared by how likely each
//! makes the question, after the words that ask for a short answer (a noisy-channel reader, as in
//! Lewis and Fan, Generative Question Answering, ICLR 2019). Nothing is listed, so no place in a list can
//! be liked, and the whole is one pass over texts that share all but their ends.

use super::form::Form;
use super::grammar::json_inner;
use super::item::{QuizItem, RejectReason};
use super::span::answer_spans;
use super::spec::ItemKind;
use super::wording::{contains, plain};
use crate::generation::{Prompt, WeighRequest};

/// Words of the evidence that are compared with the key: more cost more and seldom win.
const MAX_OTHERS: usize = 6;

/// The answers that are compared.
pub(super) struct RoundTrip {
    /// The key, then other words of the evidence, then the other options.
    answers: Vec<String>,
    /// How many are words of the evidence.
    n_words: usize,
}

impl RoundTrip {
    /// `None` where there is nothing to compare: no evidence, or a statement, which is its evidence.
    pub(super) fn of(item: &QuizItem) -> Option<Self> {
        let evidence = item.evidence.as_ref().filter(|_| item.kind != ItemKind::TrueFalse)?;
        let key = &item.answer.text;
        let mut answers = vec![key.clone()];
        answers.extend(others(&evidence.text, key));
        let n_words = answers.len();
        answers.extend(item.choices.iter().flatten().filter(|choice| *choice != key).cloned());
        (answers.len() > 1).then_some(Self { answers, n_words })
    }

    /// What is to be weighed, an answer each: the question after the evidence and the answer.
    pub(super) fn requests(&self, item: &QuizItem, prompt: &Prompt) -> Vec<WeighRequest> {
        let evidence = item.evidence.as_ref().map_or("", |evidence| &evidence.text);
        let request = |answer: &String| WeighRequest {
            prompt: prompt.clone(),
            before: format!(
                "{{\"evidence\":\"{}\",\"answer\":\"{}\",\"question\":\"",
                json_inner(evidence),
                json_inner(answer)
            ),
            text: format!("{}\"", json_inner(&item.question)),
        };
        self.answers.iter().map(request).collect()
    }

    /// By how much the key leads over the best other, from the mean log-probabilities of the question after
    /// each answer.
    ///
    /// # Errors
    /// Another answer leads: which kind it is.
    pub(super) fn verdict(&self, weights: &[f32]) -> Result<f32, RejectReason> {
        let (key, others) = (weights[0], &weights[1..]);
        let (words, options) = others.split_at(self.n_words - 1);
        let best = |weights: &[f32]| weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if best(words) > key {
            return Err(RejectReason::RoundTrip);
        }
        if best(options) > key {
            return Err(RejectReason::KeyNotSound);
        }
        Ok(key - best(others))
    }
}

/// Words of the evidence that could be the answer instead: nothing of the key in them nor they in it,
/// those of its form first.
fn others(evidence: &str, key: &str) -> Vec<String> {
    let mut others: Vec<&str> = Vec::new();
    let mut spans = answer_spans(evidence);
    spans.sort_by_key(|span| span.form != Form::of(key));
    for span in spans {
        let text = &evidence[span.bytes];
        let overlaps = |other: &str| shares_words(text, other);
        if others.len() < MAX_OTHERS && !overlaps(key) && !others.iter().any(|other| overlaps(other)) {
            others.push(text);
        }
    }
    others.into_iter().map(str::to_owned).collect()
}

fn shares_words(a: &str, b: &str) -> bool {
    let any = |a: &str, b: &str| a.split_whitespace().any(|word| contains(b, word));
    plain(a) == plain(b) || any(a, b) || any(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::{Answer, Evidence, ItemStatus};

    fn item(kind: ItemKind, evidence: Option<&str>, choices: Option<&[&str]>) -> QuizItem {
        QuizItem {
            id: String::new(),
            index: 0,
            kind,
            question: "Who built the \"iron\" tower?".to_owned(),
            choices: choices.map(|choices| choices.iter().map(|&choice| choice.to_owned()).collect()),
            answer: Answer { text: "Gustave Eiffel".to_owned(), choice_index: None },
            evidence: evidence.map(|text| Evidence { text: text.to_owned(), start: 0, end: text.len() }),
            citation: None,
            explanation: None,
            status: ItemStatus::Grounded,
            checks: Vec::new(),
            flaws: Vec::new(),
        }
    }

    const EVIDENCE: &str = "Gustave Eiffel built the tower in Paris in 1889 for the World Fair.";

    #[test]
    fn what_is_compared() {
        let check = |item: &QuizItem, expected: Option<&[&str]>| {
            let trip = RoundTrip::of(item);
            let answers: Option<Vec<&str>> =
                trip.as_ref().map(|trip| trip.answers.iter().map(String::as_str).collect());
            assert_eq!(answers.as_deref(), expected);
        };
        let words = ["Gustave Eiffel", "Paris", "World Fair", "tower", "1889"];
        check(&item(ItemKind::ShortAnswer, Some(EVIDENCE), None), Some(&words));
        let choices: Vec<&str> = [&words[..], &["Victor Hugo"]].concat();
        let item_of_choices =
            item(ItemKind::MultipleChoice, Some(EVIDENCE), Some(&["Victor Hugo", words[0]]));
        check(&item_of_choices, Some(&choices));
        check(&item(ItemKind::TrueFalse, Some(EVIDENCE), None), None);
        check(&item(ItemKind::ShortAnswer, None, None), None);
    }

    #[test]
    fn requests_continue_the_reply() {
        let item = item(ItemKind::ShortAnswer, Some("Eiffel, Gustave Eiffel."), None);
        let trip = RoundTrip { answers: vec!["Gustave Eiffel".to_owned()], n_words: 1 };
        let [request] = &trip.requests(&item, &Prompt::Tokens(vec![1]))[..] else { panic!("one an answer") };
        let reply = format!("{}{}}}", request.before, request.text);
        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["answer"], "Gustave Eiffel");
        assert_eq!(reply["question"], item.question);
    }

    #[test]
    fn verdicts() {
        let answers = ["key", "word", "word", "option"].map(str::to_owned).to_vec();
        let trip = RoundTrip { answers, n_words: 3 };
        let check = |weights: [f32; 4], expected: Result<f32, RejectReason>| {
            assert_eq!(trip.verdict(&weights), expected);
        };
        check([-1.0, -2.0, -3.0, -1.5], Ok(0.5));
        check([-1.0, -0.5, -3.0, -0.2], Err(RejectReason::RoundTrip));
        check([-1.0, -1.5, -3.0, -0.2], Err(RejectReason::KeyNotSound));
        check([-1.0, -1.0, -3.0, -1.0], Ok(0.0));
    }
}

//! The way back from a question to its answer. A model that was trained to answer is asked: how likely its key is to
//! it, and how likely other answers are. Of another, if small, that is a poor reader, but it knows how questions
//! follow from answers: there the answers are compared by how likely each makes the question, after the words that ask
//! for a short answer (a noisy-channel reader, as in Lewis and Fan, Generative Question Answering, ICLR 2019).
//! Nothing is listed, so no place in a list can be liked, and the whole is one pass over texts that share all but their
//! ends.

use super::form::Form;
use super::grammar::json_inner;
use super::item::{QuizItem, RejectReason};
use super::span::answer_spans;
use super::spec::ItemKind;
use super::wording::{contains, plain};
use crate::generation::{GenerateError, Likelihood, Prompt, WeighRequest};
use futures_util::future::try_join_all;

/// Words of the evidence that are compared with the key: more cost more and seldom win.
const MAX_OTHERS: usize = 6;
/// A reader that gives the key less than this probability would have said something else.
const MIN_READ_PROBABILITY: f32 = 0.1;

/// How the model is asked for the way back.
pub(super) enum WayBack {
    /// It was trained to answer; the prompt has the question.
    Read(Prompt),
    /// It was trained for nothing of the kind; the prompt asks for an item of this passage.
    Ask(Prompt),
}

/// The answers that are compared.
pub(super) struct RoundTrip {
    way: WayBack,
    /// The key, then other words of the evidence, then the other options.
    answers: Vec<String>,
    /// How many are words of the evidence.
    n_words: usize,
}

impl RoundTrip {
    /// `None` where there is nothing to compare: no evidence, or a statement, which is its evidence.
    pub(super) fn of(item: &QuizItem, way: impl FnOnce() -> WayBack) -> Option<Self> {
        let evidence = item.evidence.as_ref().filter(|_| item.kind != ItemKind::TrueFalse)?;
        let key = &item.answer.text;
        let mut answers = vec![key.clone()];
        answers.extend(others(&evidence.text, key));
        let n_words = answers.len();
        answers.extend(item.choices.iter().flatten().filter(|choice| *choice != key).cloned());
        (answers.len() > 1).then(|| Self { way: way(), answers, n_words })
    }

    /// What is to be weighed, an answer each.
    fn requests(&self, item: &QuizItem) -> Vec<WeighRequest> {
        let evidence = item.evidence.as_ref().map_or("", |evidence| &evidence.text);
        let request = |answer: &String| match &self.way {
            WayBack::Read(prompt) => WeighRequest {
                prompt: prompt.clone(),
                before: "{\"answer\":\"".to_owned(),
                text: format!("{}\"}}", json_inner(answer)),
            },
            WayBack::Ask(prompt) => WeighRequest {
                prompt: prompt.clone(),
                before: format!(
                    "{{\"evidence\":\"{}\",\"answer\":\"{}\",\"question\":\"",
                    json_inner(evidence),
                    json_inner(answer)
                ),
                text: format!("{}\"", json_inner(&item.question)),
            },
        };
        self.answers.iter().map(request).collect()
    }

    /// How well the question asks for its key, to be compared with other questions: greater is better; or which kind of
    /// other answer it asks for. And what was weighed to find out.
    ///
    /// # Errors
    /// As `weigh`.
    pub(super) async fn verdict<F>(
        &self,
        item: &QuizItem,
        weigh: impl Fn(WeighRequest) -> F,
    ) -> Result<(Result<f32, RejectReason>, Vec<Likelihood>), GenerateError>
    where
        F: Future<Output = Result<Likelihood, GenerateError>>,
    {
        let mut requests = self.requests(item).into_iter();
        // What the first has read, the others need not.
        let mut weighed = vec![weigh(requests.next().expect("the key is an answer")).await?];
        let key = self.weight(&weighed[0]);
        if matches!(self.way, WayBack::Read(_)) && is_sure(key) {
            return Ok((Ok(key), weighed));
        }
        weighed.extend(try_join_all(requests.map(weigh)).await?);
        let weights: Vec<f32> = weighed.iter().map(|likelihood| self.weight(likelihood)).collect();
        Ok((self.compare(&weights), weighed))
    }

    fn weight(&self, likelihood: &Likelihood) -> f32 {
        match self.way {
            // Of answers of unlike lengths: the probability of the whole.
            WayBack::Read(_) => likelihood.logprobs.iter().sum(),
            // Of the same question each time.
            WayBack::Ask(_) => likelihood.mean(),
        }
    }

    fn compare(&self, weights: &[f32]) -> Result<f32, RejectReason> {
        let (key, others) = (weights[0], &weights[1..]);
        let (words, options) = others.split_at(self.n_words - 1);
        let best = |weights: &[f32]| weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if best(words) > key {
            return Err(RejectReason::RoundTrip);
        }
        if best(options) > key {
            return Err(RejectReason::KeyNotSound);
        }
        match self.way {
            WayBack::Read(_) if key < MIN_READ_PROBABILITY.ln() => Err(RejectReason::RoundTrip),
            WayBack::Read(_) => Ok(key),
            WayBack::Ask(_) => Ok(key - best(others)),
        }
    }
}

/// Whether a reader finds the key likelier than not: no other answer can be as likely. To want more, 0.8, took half as
/// long again for no better items.
pub(super) fn is_sure(fit: f32) -> bool {
    const HALF: f32 = 0.5;
    fit > HALF.ln()
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

    fn ask() -> WayBack {
        WayBack::Ask(Prompt::Tokens(vec![1]))
    }

    fn read() -> WayBack {
        WayBack::Read(Prompt::Tokens(vec![1]))
    }

    #[test]
    fn what_is_compared() {
        let check = |item: &QuizItem, way: fn() -> WayBack, expected: Option<&[&str]>| {
            let trip = RoundTrip::of(item, way);
            let answers: Option<Vec<&str>> =
                trip.as_ref().map(|trip| trip.answers.iter().map(String::as_str).collect());
            assert_eq!(answers.as_deref(), expected);
        };
        let words = ["Gustave Eiffel", "Paris", "World Fair", "tower", "1889"];
        let choices: Vec<&str> = [&words[..], &["Victor Hugo"]].concat();
        let of_choices = item(ItemKind::MultipleChoice, Some(EVIDENCE), Some(&["Victor Hugo", words[0]]));
        for way in [ask, read] {
            check(&item(ItemKind::ShortAnswer, Some(EVIDENCE), None), way, Some(&words));
            check(&of_choices, way, Some(&choices));
            check(&item(ItemKind::ShortAnswer, None, None), way, None);
            check(&item(ItemKind::TrueFalse, Some(EVIDENCE), None), way, None);
        }
    }

    #[test]
    fn requests_continue_the_reply() {
        let item = item(ItemKind::ShortAnswer, Some("Eiffel, Gustave Eiffel."), None);
        let reply_of = |item: &QuizItem, way: WayBack, more: &str| -> serde_json::Value {
            let trip = RoundTrip { way, answers: vec![item.answer.text.clone()], n_words: 1 };
            let [request] = &trip.requests(item)[..] else { panic!("one an answer") };
            serde_json::from_str(&format!("{}{}{more}", request.before, request.text)).unwrap()
        };
        let reply = reply_of(&item, ask(), "}");
        assert_eq!(reply["answer"], "Gustave Eiffel");
        assert_eq!(reply["question"], item.question);
        assert_eq!(reply_of(&item, read(), ""), serde_json::json!({"answer": "Gustave Eiffel"}));
    }

    #[test]
    fn verdicts() {
        let check = |way: WayBack, weights: [f32; 4], expected: Result<f32, RejectReason>| {
            let answers = ["key", "word", "word", "option"].map(str::to_owned).to_vec();
            let trip = RoundTrip { way, answers, n_words: 3 };
            assert_eq!(trip.compare(&weights), expected);
        };
        check(ask(), [-1.0, -2.0, -3.0, -1.5], Ok(0.5));
        check(ask(), [-1.0, -0.5, -3.0, -0.2], Err(RejectReason::RoundTrip));
        check(ask(), [-1.0, -1.5, -3.0, -0.2], Err(RejectReason::KeyNotSound));
        check(ask(), [-1.0, -1.0, -3.0, -1.0], Ok(0.0));
        check(read(), [-0.5, -2.0, -3.0, -1.5], Ok(-0.5));
        check(read(), [-0.5, -2.0, -3.0, -0.2], Err(RejectReason::KeyNotSound));
        check(read(), [-2.5, -3.0, -3.0, -3.0], Err(RejectReason::RoundTrip));
    }
}

use super::item::{Check, ItemStatus, QuizItem};
use super::meaning::Meaning;
use super::round_trip::is_sure;
use super::spec::{CheckPolicy, ItemKind, QuizSpec};
use crate::generation::TextSummary;
use std::cmp::Ordering;

/// A draft that passed what has to be passed, and how it compares with others of its item.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) item: QuizItem,
    /// How well its question asks for its key; absent if that was not tried or failed.
    round_trip: Option<f32>,
    /// Its question says enough, and nothing that its passage does not: what a small model adds is often made up.
    is_about_passage: bool,
    /// What it means, where that is compared.
    pub(super) meaning: Option<Meaning>,
    /// How sure the model was of what it wrote.
    mean_logprob: Option<f32>,
}

impl Candidate {
    pub(super) fn new(item: QuizItem, is_about_passage: bool, summary: &TextSummary) -> Self {
        let mean_logprob = summary.mean_logprob;
        Self { item, round_trip: None, is_about_passage, meaning: None, mean_logprob }
    }

    /// It passed the round trip.
    pub(super) fn pass(&mut self, fit: f32) {
        self.round_trip = Some(fit);
        self.item.status = ItemStatus::Checked;
        self.item.checks.push(Check::RoundTrip);
        if self.item.kind == ItemKind::MultipleChoice {
            self.item.checks.push(Check::KeySound);
        }
    }

    /// What it means is known, and its wrong choices, if it has some, are plausible or may be as they are.
    pub(super) fn understood(&mut self, meaning: Meaning) {
        if meaning.plausible == Some(true) {
            self.item.checks.push(Check::PlausibleOptions);
        }
        self.meaning = Some(meaning);
    }

    /// A wrong choice is too far from the key, or too near.
    pub(super) fn is_implausible(&self) -> bool {
        self.meaning.as_ref().is_some_and(|meaning| meaning.plausible == Some(false))
    }

    /// Of a model that reads: no other draft is likely to be better.
    pub(super) fn is_sure(&self) -> bool {
        let is_flawless = self.item.flaws.is_empty() && !self.is_implausible();
        self.round_trip.is_some_and(is_sure) && is_flawless && self.is_about_passage
    }

    /// It has what the request would rather be without and another draft may not have.
    pub(super) fn is_blemished(&self, spec: &QuizSpec) -> bool {
        spec.clean != CheckPolicy::Off && !self.item.flaws.is_empty() || self.is_implausible()
    }

    /// Greater is better. What the request can leave unlooked at decides nothing then.
    pub(super) fn compare(&self, other: &Self, spec: &QuizSpec) -> Ordering {
        let n_flaws = |draft: &Self| match spec.clean {
            CheckPolicy::Off => 0,
            _ => draft.item.flaws.len(),
        };
        let by = |a: Option<f32>, b: Option<f32>| {
            a.unwrap_or(f32::NEG_INFINITY).total_cmp(&b.unwrap_or(f32::NEG_INFINITY))
        };
        (self.round_trip.is_some().cmp(&other.round_trip.is_some()))
            .then(n_flaws(other).cmp(&n_flaws(self)))
            .then(other.is_implausible().cmp(&self.is_implausible()))
            .then(self.is_about_passage.cmp(&other.is_about_passage))
            .then(by(self.round_trip, other.round_trip))
            .then(by(self.mean_logprob, other.mean_logprob))
    }
}

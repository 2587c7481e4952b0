use super::item::{Check, ItemStatus, QuizItem};
use super::meaning::Meaning;
use super::spec::{CheckPolicy, ItemKind, QuizSpec};
use crate::generation::TextSummary;
use std::cmp::Ordering;

/// A draft that passed what has to be passed, and how it compares with others of its item.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) item: QuizItem,
    /// By how much its question asks for its key and nothing else; absent if that was not tried or failed.
    lead: Option<f32>,
    /// What it means, where that is compared.
    pub(super) meaning: Option<Meaning>,
    /// How sure the model was of what it wrote.
    mean_logprob: Option<f32>,
}

impl Candidate {
    pub(super) fn new(item: QuizItem, summary: &TextSummary) -> Self {
        Self { item, lead: None, meaning: None, mean_logprob: summary.mean_logprob }
    }

    /// It passed the round trip.
    pub(super) fn pass(&mut self, lead: f32) {
        self.lead = Some(lead);
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

    /// Greater is better. What the request does not look at decides nothing.
    pub(super) fn compare(&self, other: &Self, spec: &QuizSpec) -> Ordering {
        let n_flaws = |draft: &Self| match spec.clean {
            CheckPolicy::Off => 0,
            _ => draft.item.flaws.len(),
        };
        let by = |a: Option<f32>, b: Option<f32>| {
            a.unwrap_or(f32::NEG_INFINITY).total_cmp(&b.unwrap_or(f32::NEG_INFINITY))
        };
        (self.lead.is_some().cmp(&other.lead.is_some()))
            .then(n_flaws(other).cmp(&n_flaws(self)))
            .then(other.is_implausible().cmp(&self.is_implausible()))
            .then(by(self.lead, other.lead))
            .then(by(self.mean_logprob, other.mean_logprob))
    }
}

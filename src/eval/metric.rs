//! The metrics, each in 0..=1 and higher better where nothing else is said; the formulas of the field's
//! scorecards in short.

use super::candidate::Candidate;
use super::known::Nearest;
use super::reader::Reading;
use super::words::answer_f1;
use crate::quiz::wording::{contains, likeness, names_stand_in, plain};
use crate::quiz::{Flaw, ItemKind, applicable, flaws};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The item came at all, checked by the server.
    Valid,
    /// Short answers: token F1 of the reader's answer, from question and passage, against the key; what it repeats
    /// of the question does not count against it.
    RoundTrip,
    /// Choices: the reader picks the key whatever the order of the options, and no other option is the
    /// key again. True/false: it agrees.
    Sound,
    /// Choices: by how much the passage raises the key's probability, from -1 to 1 (knowledge-dependent
    /// answerability; Moon et al., 2022).
    KnowledgeGain,
    /// Choices: of each wrong one, how near its meaning is to where people's lie from their key.
    Plausible,
    /// The key stands in the passage, and so does every number and name of the question.
    Grounded,
    /// The question does not hold its answer.
    NoLeak,
    /// Share of the item-writing rules that hold.
    Clean,
    /// Unlike every earlier question about the passage.
    Distinct,
    /// No copy of a known question.
    Novel,
    /// All of it at once: what a person could use as it is.
    Usable,
    /// Choices: how unlikely the key is to a reader without the passage. Neither end is better.
    Difficulty,
}

impl Metric {
    pub const ALL: [Metric; 12] = [
        Metric::Valid,
        Metric::RoundTrip,
        Metric::Sound,
        Metric::KnowledgeGain,
        Metric::Plausible,
        Metric::Grounded,
        Metric::NoLeak,
        Metric::Clean,
        Metric::Distinct,
        Metric::Novel,
        Metric::Usable,
        Metric::Difficulty,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Metric::Valid => "valid",
            Metric::RoundTrip => "round trip F1",
            Metric::Sound => "key sound",
            Metric::KnowledgeGain => "knowledge gain",
            Metric::Plausible => "plausible",
            Metric::Grounded => "grounded",
            Metric::NoLeak => "no leak",
            Metric::Clean => "clean",
            Metric::Distinct => "distinct",
            Metric::Novel => "novel",
            Metric::Usable => "usable",
            Metric::Difficulty => "difficulty",
        }
    }
}

/// A value for each metric that applies to the item's kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores(Vec<(Metric, f64)>);

impl Scores {
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.iter().find(|(of, _)| *of == metric).map(|(_, value)| *value)
    }

    /// An item that was asked for and did not come: nothing of it is good.
    pub(super) fn of_missing(kind: ItemKind) -> Self {
        let applies = |metric: &Metric| match metric {
            Metric::RoundTrip => kind == ItemKind::ShortAnswer,
            Metric::Sound => kind != ItemKind::ShortAnswer,
            Metric::KnowledgeGain | Metric::Plausible => kind == ItemKind::MultipleChoice,
            Metric::Difficulty => false,
            _ => true,
        };
        Self(Metric::ALL.into_iter().filter(applies).map(|metric| (metric, 0.0)).collect())
    }
}

/// What an item is scored against.
pub struct Seen<'a> {
    pub context: &'a str,
    /// What was asked about the passage before.
    pub earlier: &'a [String],
    /// The known question that is most like it.
    pub nearest: Option<&'a Nearest>,
    /// How plausible its wrong choices are, where that can be said.
    pub plausible: Option<f64>,
}

/// Reader's answers this good count as the key. The figure is the field's.
const ROUND_TRIP_PASSES: f64 = 0.8;
/// Of the item-writing rules, people's own items break one as often as not.
const FLAWS_ALLOWED: usize = 1;
/// Two questions of a quiz that are this alike are one.
const SAME_QUESTION: f32 = 0.6;
/// A question this like a known one is a copy of it.
pub(super) const COPIED: f32 = 0.8;

/// Scores an item that came.
pub fn score(item: &Candidate, reading: &Reading, seen: &Seen<'_>) -> (Scores, Vec<Flaw>) {
    let broken = flaws(&item.shown());
    let n_rules = applicable(item.kind).len();
    let share = |holds: bool| f64::from(u8::from(holds));
    let grounded = share(is_grounded(item, seen.context));
    let no_leak = share(!leaks(item));
    let distinct = share(!seen.earlier.iter().any(|earlier| is_same(&item.question, earlier)));
    let novel = share(seen.nearest.is_none_or(|nearest| nearest.likeness < COPIED));
    let (understood, metric, value) = match reading {
        Reading::Answer(text) => {
            let f1 = answer_f1(&item.question, text, item.accepted.iter().map(String::as_str));
            (f1 >= ROUND_TRIP_PASSES, Metric::RoundTrip, f1)
        }
        Reading::Statement { .. } => {
            let sound = reading.holds() == Some(item.answer == "true");
            (sound, Metric::Sound, share(sound))
        }
        Reading::Choices { right, asked, .. } => {
            let sound =
                right == asked && !item.distractors.iter().any(|other| plain(other) == plain(&item.answer));
            (sound, Metric::Sound, share(sound))
        }
    };
    let usable =
        understood && grounded == 1.0 && no_leak == 1.0 && distinct == 1.0 && broken.len() <= FLAWS_ALLOWED;
    let clean = 1.0 - broken.len() as f64 / n_rules as f64;
    let mut scores = vec![
        (Metric::Valid, 1.0),
        (metric, value),
        (Metric::Grounded, grounded),
        (Metric::NoLeak, no_leak),
        (Metric::Clean, clean),
        (Metric::Distinct, distinct),
        (Metric::Novel, novel),
        (Metric::Usable, share(usable)),
    ];
    if let Reading::Choices { key, key_unread, .. } = reading {
        scores.push((Metric::KnowledgeGain, key - key_unread));
        scores.push((Metric::Difficulty, 1.0 - key_unread));
    }
    scores.extend(seen.plausible.map(|plausible| (Metric::Plausible, plausible)));
    (Scores(scores), broken)
}

fn is_same(question: &str, earlier: &str) -> bool {
    plain(question) == plain(earlier) || likeness(question, earlier) > SAME_QUESTION
}

/// A false statement names what is not in the passage; of it only its being there counts, by the checks
/// of the server.
fn is_grounded(item: &Candidate, context: &str) -> bool {
    if item.kind == ItemKind::TrueFalse {
        return true;
    }
    plain(context).contains(&plain(&item.answer)) && names_stand_in(&item.question, context)
}

fn leaks(item: &Candidate) -> bool {
    let shown = plain(&item.answer).chars().count();
    let unspaced = item.answer.chars().any(|c| c >= '\u{3000}');
    item.kind != ItemKind::TrueFalse
        && shown > if unspaced { 1 } else { 2 }
        && contains(&item.question, &item.answer)
}

//! The scorecard proves itself: on what people asked, and on the same made worse in one way at a time,
//! every metric must drop where it should and stay where it should.

use crate::default_model::{MODEL, models_dir};
use mondai::backend::{self, OpenOptions};
use mondai::embedding::Embedder;
use mondai::engine::{Engine, EngineOptions};
use mondai::eval::{
    Candidate, EvalSet, Known, Metric, Passage, Reader, Reading, Scores, Seen, plausibility, score,
};
use mondai::generation::Generator;
use mondai::metrics::Metrics;
use mondai::quiz::ItemKind;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

/// A question and what it is read from.
#[derive(Clone)]
struct Case {
    item: Candidate,
    context: String,
}

fn cases() -> Vec<Case> {
    let set = EvalSet::default_set();
    let of = |passage: &Passage| -> Vec<Case> {
        let items = Candidate::humans(passage).into_iter();
        items.map(|item| Case { item, context: passage.context.clone() }).collect()
    };
    // A few of each of its articles.
    set.passages.iter().step_by(4).flat_map(of).collect()
}

/// The mean of each metric, with readings that come from elsewhere.
fn means(cases: &[Case], readings: &[Reading]) -> Vec<(Metric, f64)> {
    let mut earlier = Vec::new();
    let scores: Vec<Scores> = cases
        .iter()
        .zip(readings)
        .map(|(case, reading)| {
            let nearest = KNOWN.nearest(&case.item.question);
            let plausible = plausible(&case.item);
            let seen =
                Seen { context: &case.context, earlier: &earlier, nearest: nearest.as_ref(), plausible };
            let (scores, _) = score(&case.item, reading, &seen);
            earlier.push(case.item.question.clone());
            scores
        })
        .collect();
    let mean = |metric: Metric| {
        let values: Vec<f64> = scores.iter().filter_map(|scores| scores.get(metric)).collect();
        (metric, values.iter().sum::<f64>() / values.len() as f64)
    };
    Metric::ALL.into_iter().map(mean).collect()
}

/// The plausibility of an item's choices, which most corruptions leave as they are.
fn plausible(item: &Candidate) -> Option<f64> {
    static KNOWN: Mutex<BTreeMap<Vec<String>, Option<f64>>> = Mutex::new(BTreeMap::new());
    let texts = std::iter::once(&item.answer).chain(&item.distractors).cloned().collect();
    *KNOWN.lock().unwrap().entry(texts).or_insert_with(|| plausibility(item, &EMBEDDER).unwrap())
}

/// Questions that nobody asked about the passages.
static KNOWN: LazyLock<Known> = LazyLock::new(|| Known::new(TRIVIA));
const TRIVIA: [&str; 2] =
    ["Which planet of the solar system is the largest?", "Who painted the smiling woman behind glass?"];

static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| {
    Embedder::open(&models_dir().join(Embedder::NAME))
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"))
});

/// The metrics that went down by more than `by`, other than the sum of all.
fn dropped(before: &[(Metric, f64)], after: &[(Metric, f64)], by: f64) -> Vec<Metric> {
    let pairs = before.iter().zip(after).filter(|((metric, _), _)| *metric != Metric::Usable);
    pairs.filter(|((_, before), (_, after))| before - after > by).map(|((metric, _), _)| *metric).collect()
}

/// Readings of a reader that always finds the key.
fn perfect(cases: &[Case]) -> Vec<Reading> {
    let read = |case: &Case| match case.item.kind {
        ItemKind::ShortAnswer => Reading::Answer(case.item.answer.clone()),
        ItemKind::TrueFalse => {
            let log_odds = if case.item.answer == "true" { 1.0 } else { -1.0 };
            Reading::Statement { log_odds, log_odds_unread: 0.0 }
        }
        ItemKind::MultipleChoice => Reading::Choices { right: 4, asked: 4, key: 1.0, key_unread: 0.25 },
    };
    cases.iter().map(read).collect()
}

#[test]
fn each_corruption_shows_in_its_own_metric() {
    let sound = cases();
    let before = means(&sound, &perfect(&sound));
    let check = |what: &str, corrupt: &dyn Fn(usize, &mut Case), expected: &[Metric]| {
        let mut cases = sound.clone();
        cases.iter_mut().enumerate().for_each(|(idx, case)| corrupt(idx, case));
        let after = means(&cases, &perfect(&cases));
        assert_eq!(dropped(&before, &after, 0.1), expected, "{what}\n{before:?}\n{after:?}");
        let usable = |means: &[(Metric, f64)]| {
            means.iter().find(|(metric, _)| *metric == Metric::Usable).map(|(_, mean)| *mean)
        };
        let keeps_usable = [Metric::Plausible, Metric::Novel].map(|metric| vec![metric]);
        assert!(usable(&before) > usable(&after) || keeps_usable.contains(&expected.to_vec()), "{what}");
    };
    let other = |idx: usize| &sound[(idx + sound.len() / 2) % sound.len()];
    check("contexts swapped", &|idx, case| case.context = other(idx).context.clone(), &[Metric::Grounded]);
    check(
        "answer in the stem",
        &|_, case| {
            let Candidate { question, answer, .. } = &mut case.item;
            *question = format!("{} is {answer}, or what is it?", question.trim_end_matches('?'));
        },
        &[Metric::NoLeak],
    );
    check(
        "copies",
        &|idx, case| {
            if idx % 10 >= 7 {
                *case = sound[idx - 7].clone();
            }
        },
        &[Metric::Distinct],
    );
    check(
        "key among the distractors",
        &|_, case| {
            case.item.distractors.iter_mut().take(1).for_each(|other| *other = case.item.answer.clone())
        },
        // What says the same as the key is no plausible wrong answer either.
        &[Metric::Sound, Metric::Plausible],
    );
    check(
        "wrong answers of another kind",
        &|idx, case| {
            let others = ["seventeen green bottles", "photosynthesis", "Ode to a Nightingale"];
            let numbers = ["12", "1402", "7"];
            let is_number = case.item.answer.starts_with(|c: char| c.is_numeric());
            for (n, other) in case.item.distractors.iter_mut().enumerate() {
                *other = (if is_number { others } else { numbers })[(idx + n) % 3].to_owned();
            }
        },
        // The rule of uneven options sees it too, but is one of thirteen.
        &[Metric::Plausible],
    );
    check(
        "questions that are known",
        &|idx, case| {
            if idx % 3 == 0 {
                case.item.question = format!("{} ", TRIVIA[idx % 2]);
            }
        },
        // Who copies repeats itself.
        &[Metric::Distinct, Metric::Novel],
    );
    check(
        "no question",
        &|_, case| {
            case.item.question =
                format!("{}, according to the passage.", case.item.question.trim_end_matches('?'));
        },
        &[Metric::Clean],
    );
    // A reader to whom the passage tells nothing.
    let mut readings = perfect(&sound);
    for reading in &mut readings {
        if let Reading::Choices { key, key_unread, .. } = reading {
            *key = *key_unread;
        }
    }
    assert_eq!(dropped(&before, &means(&sound, &readings), 0.1), [Metric::KnowledgeGain]);
}

/// The round trip with a real reader. The gain of knowledge is not held here: this model is too small to choose by a
/// passage, and its gain was -0.9 over people's items where that of a model of 0.5 billion is 0.33 each.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_misses_swapped_answers_and_contexts() {
    let reader = reader();
    let questions = cases().into_iter().filter(|case| case.item.kind != ItemKind::TrueFalse);
    let sound: Vec<Case> = questions.step_by(2).take(10).collect();
    let mut swapped_answers = sound.clone();
    let mut swapped_contexts = sound.clone();
    for idx in 0..sound.len() {
        let other = &sound[(idx + sound.len() / 2) % sound.len()];
        swapped_answers[idx].item.answer = other.item.answer.clone();
        swapped_answers[idx].item.accepted = other.item.accepted.clone();
        swapped_contexts[idx].context = other.context.clone();
    }
    let mut sums = Vec::new();
    for cases in [&sound, &swapped_answers, &swapped_contexts] {
        let mut understood = 0.0;
        for case in cases {
            let mut item = case.item.clone();
            item.kind = ItemKind::ShortAnswer;
            let reading = reader.read(&item, &case.context).await.unwrap();
            let seen = Seen { context: &case.context, earlier: &[], nearest: None, plausible: None };
            understood += score(&item, &reading, &seen).0.get(Metric::RoundTrip).unwrap();
        }
        sums.push(understood / cases.len() as f64);
    }
    assert!(sums[0] > 0.2, "the default model finds some answers: {sums:?}");
    assert!(sums[1] < sums[0] / 2.0 && sums[2] < sums[0] / 2.0, "{sums:?}");
}

fn reader() -> Reader {
    let options = OpenOptions { slots: 4, ..OpenOptions::default() };
    let backend = backend::open("cpu", &MODEL, &options).unwrap();
    let engine = Engine::start(backend, EngineOptions::default(), Arc::new(Metrics::new(&MODEL.name)));
    Reader::new(Generator::new(&MODEL, engine).unwrap())
}

//! The scorecard proves itself: on what people asked, and on the same made worse in one way at a time,
//! every metric must drop where it should and stay where it should.

use crate::default_model::MODEL;
use mondai::backend::{self, OpenOptions};
use mondai::engine::{Engine, EngineOptions};
use mondai::eval::{Candidate, EvalSet, Metric, Passage, Reader, Reading, Scores, Seen, score};
use mondai::generation::Generator;
use mondai::metrics::Metrics;
use mondai::quiz::ItemKind;
use std::sync::Arc;

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
            let seen = Seen { context: &case.context, earlier: &earlier, known: &[] };
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

/// The metrics that went down by more than `by`, other than the sum of all.
fn dropped(before: &[(Metric, f64)], after: &[(Metric, f64)], by: f64) -> Vec<Metric> {
    let pairs = before.iter().zip(after).filter(|((metric, _), _)| *metric != Metric::Usable);
    pairs.filter(|((_, before), (_, after))| before - after > by).map(|((metric, _), _)| *metric).collect()
}

/// Readings of a reader that always finds the key.
fn perfect(cases: &[Case]) -> Vec<Reading> {
    let read = |case: &Case| match case.item.kind {
        ItemKind::ShortAnswer => Reading::Answer(case.item.answer.clone()),
        _ => Reading::Choices { right: 4, asked: 4 },
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
        assert!(before[8].1 > after[8].1, "{what}: usable");
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
        &[Metric::Sound],
    );
    check(
        "no question",
        &|_, case| {
            case.item.question =
                format!("{}, according to the passage.", case.item.question.trim_end_matches('?'));
        },
        &[Metric::Clean],
    );
}

/// The metrics that rest on a reader, with a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_misses_swapped_answers_and_contexts() {
    let options = OpenOptions { slots: 4, ..OpenOptions::default() };
    let backend = backend::open("cpu", &MODEL, &options).unwrap();
    let engine = Engine::start(backend, EngineOptions::default(), Arc::new(Metrics::new(&MODEL.name)));
    let reader = Reader::new(Generator::new(&MODEL, engine).unwrap());
    let sound: Vec<Case> = cases().into_iter().step_by(2).take(10).collect();
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
            let seen = Seen { context: &case.context, earlier: &[], known: &[] };
            understood += score(&item, &reading, &seen).0.get(Metric::RoundTrip).unwrap();
        }
        sums.push(understood / cases.len() as f64);
    }
    assert!(sums[0] > 0.2, "the default model finds some answers: {sums:?}");
    assert!(sums[1] < sums[0] / 2.0 && sums[2] < sums[0] / 2.0, "{sums:?}");
}

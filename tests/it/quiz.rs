//! Quizzes by the default model, through the quiz room's front door.

use crate::default_model::QUIZ_MODEL;
use crate::models::options;
use futures_util::StreamExt;
use mondai::backend::{self, OpenOptions, WeightsForm};
use mondai::engine::{Engine, EngineOptions};
use mondai::eval::{EvalSet, HumanQuestion};
use mondai::generation::Generator;
use mondai::metrics::Metrics;
use mondai::model::{Model, QuizTexts};
use mondai::quiz::{
    ItemKind, ItemStatus, PromptTemplates, QUIZ_SCHEMA, QuizEvent, QuizItem, QuizRequest, QuizService,
    QuizSpec, QuizSummary, Source,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Quizzes written at the same time, each on one slot.
const AT_ONCE: usize = 8;

const TOPICS: &[&str] = &[
    "the solar system",
    "rivers of Africa",
    "the French Revolution",
    "musical instruments",
    "bees and honey",
    "volcanoes",
    "the periodic table",
    "Shakespeare's plays",
    "bread",
    "the human heart",
    "chess openings",
    "deserts",
    "the Olympic Games",
    "mythical animals",
    "computers of the 1980s",
    "whales",
    "the alphabet",
    "bridges",
    "the colour blue",
    "weather \"fronts\" & <clouds>",
    "日本の城",
    "🐙 octopuses",
];

struct Passage {
    language: String,
    text: String,
}

fn passages() -> Vec<Passage> {
    let lines = include_str!("../fixtures/quiz_passages.jsonl").lines();
    lines
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            let text_of = |field: &str| record[field].as_str().unwrap().to_owned();
            Passage { language: text_of("lang"), text: text_of("text") }
        })
        .collect()
}

fn service() -> QuizService {
    service_on(&QUIZ_MODEL, "cpu", &options(AT_ONCE, WeightsForm::Auto))
}

pub(crate) fn service_on(model: &Model, backend: &str, options: &OpenOptions) -> QuizService {
    let backend = backend::open(backend, model, options).unwrap();
    let metrics = Arc::new(Metrics::new(&model.name));
    let engine = Engine::start(backend, EngineOptions::default(), Arc::clone(&metrics));
    let service = QuizService::new(Generator::new(model, engine).unwrap(), metrics);
    match model.quiz_texts() {
        None => service,
        Some(QuizTexts { languages, system, user, read }) => {
            let (languages, system) = (languages.clone(), system.clone());
            service.with_templates(PromptTemplates::new(languages, system, user, read.as_deref()).unwrap())
        }
    }
}

/// A quiz read to its end, and the document it makes.
pub(crate) struct Written {
    pub(crate) items: Vec<QuizItem>,
    summary: QuizSummary,
    document: Value,
}

pub(crate) async fn write(service: &QuizService, request: Value) -> Written {
    let request = serde_json::from_value::<QuizRequest>(request).unwrap();
    let mut stream = service.create(QuizSpec::try_from(request).unwrap()).await.unwrap();
    let Some(QuizEvent::Created(created)) = stream.next().await else { panic!("a quiz begins with Created") };
    let mut items = Vec::new();
    loop {
        match stream.next().await {
            Some(QuizEvent::Item(item)) => items.push(*item),
            Some(QuizEvent::Completed(summary)) => {
                assert!(stream.next().await.is_none());
                let mut document = json!({"id": created.id, "object": "quiz", "created": 0, "items": items});
                let Value::Object(rest) = serde_json::to_value(&summary).unwrap() else {
                    panic!("a summary is an object")
                };
                document.as_object_mut().unwrap().extend(rest);
                return Written { items, summary, document };
            }
            other => panic!("{other:?}"),
        }
    }
}

const QUIZZES: usize = 200;

/// Topics and sources, every kind, small budgets; what does not fit a small budget has none set.
fn request(index: usize, passages: &[Passage]) -> Value {
    let kind = ["multiple_choice", "short_answer", "true_false"][index % 3];
    let difficulty = ["easy", "medium", "hard"][index / 3 % 3];
    let mut request = json!({"kind": kind, "difficulty": difficulty, "count": 1 + usize::from(index.is_multiple_of(10)), "seed": index});
    if index.is_multiple_of(2) {
        request["topic"] = TOPICS[index / 2 % TOPICS.len()].into();
        request["max_tokens"] = (64 + index % 32).into();
    } else {
        let passage = &passages[index / 2 % passages.len()];
        request["source"] = passage.text.as_str().into();
        request["language"] = passage.language.as_str().into();
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_quiz_fits_the_published_schema() {
    let service = service();
    let passages = passages();
    let schema = jsonschema::validator_for(&serde_json::from_str(QUIZ_SCHEMA).unwrap()).unwrap();
    let requests = (0..QUIZZES).map(|index| request(index, &passages));
    let write_one = |request: Value| {
        let service = &service;
        async move { (write(service, request.clone()).await, request) }
    };
    let quizzes: Vec<(Written, Value)> =
        futures_util::stream::iter(requests).map(write_one).buffer_unordered(AT_ONCE).collect().await;

    assert_eq!(quizzes.len(), QUIZZES);
    for (quiz, request) in &quizzes {
        let errors: Vec<String> = schema.iter_errors(&quiz.document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{request}: {errors:?} in {:#}", quiz.document);
        assert_eq!(quiz.summary.delivered, quiz.items.len());
        for item in &quiz.items {
            check_grounds(item, request["source"].as_str());
        }
    }
    let delivered = |wanted: &dyn Fn(&Value) -> bool| -> usize {
        quizzes.iter().filter(|(_, request)| wanted(request)).map(|(quiz, _)| quiz.items.len()).sum()
    };
    assert!(delivered(&|request| request["topic"].is_string()) > 0, "no item about any topic");
    for kind in ["multiple_choice", "short_answer", "true_false"] {
        assert!(
            delivered(&|request| request["source"].is_string() && request["kind"] == kind) > 0,
            "no {kind}"
        );
    }
}

/// What is asked about is really there.
fn check_grounds(item: &QuizItem, source: Option<&str>) {
    let Some(source) = source else {
        assert_eq!(item.status, ItemStatus::Unverified);
        return;
    };
    assert_eq!(item.status, ItemStatus::Grounded);
    let evidence = item.evidence.as_ref().expect("a grounded item has evidence");
    let place: String = source.chars().skip(evidence.start).take(evidence.end - evidence.start).collect();
    assert_eq!(place, evidence.text);
    if item.kind != ItemKind::TrueFalse {
        assert!(evidence.text.contains(&item.answer.text), "{item:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gives_the_same_quiz_alone_and_among_thirty_others() {
    let service = service();
    let passages = passages();
    let alone = write(&service, request(5, &passages)).await;
    let company = (0..31).map(|index| write(&service, request(index, &passages)));
    let together = futures_util::future::join_all(company).await;
    assert_eq!(together[5].items, alone.items);
    assert_eq!(together[5].summary.rejected, alone.summary.rejected);
}

/// What decides between drafts: people's questions ask for their own answers and not for those to other questions about
/// the same passage, which stand in it as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_reads_what_a_question_asks_for() {
    let service = service();
    let set = EvalSet::default_set();
    let (mut own, mut swapped, mut asked) = (0, 0, 0);
    for passage in set.passages.iter().step_by(3) {
        let source = Source::new(passage.context.clone()).unwrap();
        let key =
            |question: &HumanQuestion| question.answers.iter().min_by_key(|key| key.len()).unwrap().clone();
        for (idx, question) in passage.questions.iter().enumerate() {
            let other = key(&passage.questions[(idx + 1) % passage.questions.len()]);
            if other.contains(&key(question)) || key(question).contains(&other) {
                continue;
            }
            asked += 1;
            own += usize::from(asks_for(&service, &source, &question.question, &key(question)).await);
            swapped += usize::from(asks_for(&service, &source, &question.question, &other).await);
        }
    }
    assert!(asked >= 30, "{asked}");
    // People's keys are often other parts of the right words than a reader takes: 19 and 4 of 42 when this was written.
    assert!(own * 3 >= asked && swapped * 3 <= own, "{own} own and {swapped} other answers of {asked}");
}

/// Whether the question, resting on the sentence of its answer, passes the round trip.
async fn asks_for(service: &QuizService, source: &Source, question: &str, key: &str) -> bool {
    let mut sentences = (0..source.sentences().len()).map(|idx| source.sentence_text(idx));
    let evidence = sentences.find(|sentence| sentence.contains(key)).unwrap_or(source.text());
    let item = json!({
        "id": "", "index": 0, "kind": "short_answer", "question": question, "answer": {"text": key},
        "evidence": {"text": evidence, "start": 0, "end": 0}, "status": "grounded", "checks": [],
    });
    let request = json!({"source": source.text(), "kind": "short_answer", "count": 1, "seed": 1});
    let request = serde_json::from_value::<QuizRequest>(request).unwrap();
    let item = serde_json::from_value::<QuizItem>(item).unwrap();
    let trip = service.round_trip(QuizSpec::try_from(request).unwrap(), &item).await.unwrap();
    trip.expect("there is something to compare").is_ok()
}

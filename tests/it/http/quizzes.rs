//! Quizzes by the real model: three forms of the same items.

use super::{QUIZZES, http_options, without_circumstances};
use crate::default_model::{MODEL, NAME};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use mondai::backend::{self, OpenOptions};
use mondai::engine::{Engine, EngineOptions};
use mondai::generation::Generator;
use mondai::http::{AppState, router};
use mondai::metrics::Metrics;
use mondai::quiz::QuizService;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

const SOURCE: &str = "The Moon is Earth's only natural satellite. It orbits Earth at an average distance of \
    384,400 kilometres. Neil Armstrong walked on the Moon in July 1969. The Moon has no atmosphere to speak of, \
    so its sky is always black. Its gravity is about one sixth of that on Earth.";

fn start() -> Router {
    let options = OpenOptions { slots: 2, context_len: 2048, ..OpenOptions::default() };
    let backend = backend::open("cpu", &MODEL, &options).unwrap();
    let metrics = Arc::new(Metrics::new(NAME));
    let engine = Engine::start(backend, EngineOptions::default(), Arc::clone(&metrics));
    let generator = Generator::new(&MODEL, engine).unwrap();
    let quizzes = QuizService::new(generator.clone(), Arc::clone(&metrics));
    router(AppState::new(generator, quizzes, metrics, http_options()))
}

async fn post(router: &Router, accept: &str, body: &Value) -> (StatusCode, String, String) {
    let request = Request::post(QUIZZES).header("accept", accept).body(Body::from(body.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, content_type, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_forms_carry_the_same_items() {
    let router = start();
    let request = json!({"source": SOURCE, "count": 2, "kind": ["short_answer", "true_false"], "seed": 11, "model": NAME});

    let (status, content_type, events) = post(&router, "text/event-stream", &request).await;
    assert_eq!((status, &*content_type), (StatusCode::OK, "text/event-stream"), "{events}");
    let events: Vec<Value> = events
        .split_terminator("\n\n")
        .filter(|frame| !frame.starts_with(':'))
        .map(|frame| {
            let (name, data) = frame.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            without_circumstances(data)
        })
        .collect();

    let (first, rest) = events.split_first().unwrap();
    let (last, questions) = rest.split_last().unwrap();
    assert_eq!((&first["type"], &last["type"]), (&json!("quiz.created"), &json!("quiz.completed")));
    assert!(!questions.is_empty(), "{last}");
    assert!(questions.iter().all(|question| question["type"] == "question.completed"));
    assert_eq!((&first["model"], &first["seed"], &last["requested"]), (&json!(NAME), &json!(11), &json!(2)));
    assert_eq!(last["delivered"], questions.len());
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    assert!(last["rejected"].is_object());
    for question in questions {
        let evidence = &question["evidence"];
        let at = |field: &str| usize::try_from(evidence[field].as_u64().unwrap()).unwrap();
        let span: String = SOURCE.chars().skip(at("start")).take(at("end") - at("start")).collect();
        assert_eq!(evidence["text"], span);
    }

    let (status, content_type, lines) = post(&router, "application/x-ndjson", &request).await;
    assert_eq!((status, &*content_type), (StatusCode::OK, "application/x-ndjson"));
    let lines: Vec<Value> =
        lines.lines().map(|line| without_circumstances(serde_json::from_str(line).unwrap())).collect();
    assert_eq!(lines, events);

    let (status, content_type, document) = post(&router, "*/*", &request).await;
    assert_eq!((status, &*content_type), (StatusCode::OK, "application/json"));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["object"], &document["id"]), (&json!("quiz"), &first["id"]));
    assert_eq!(document["rejected"], last["rejected"]);
    let items: Vec<Value> = document["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let mut event = json!({"type": "question.completed"});
            event.as_object_mut().unwrap().extend(item.as_object().unwrap().clone());
            event
        })
        .collect();
    assert_eq!(items, questions);
}

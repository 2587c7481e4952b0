//! Everything around the writing: models, health, metrics, request ids, the page.

use super::{CHAT, Server, limits};
use crate::default_model::NAME;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use mondai::backend::scripted::Fault;
use mondai::engine::EngineOptions;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn the_model_is_listed() {
    let server = Server::start();
    let list = server.get("/v1/models").await.ok().json();
    assert_eq!(list["object"], "list");
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!(NAME), &json!("model")));
    assert_eq!((&model["owned_by"], &model["max_model_len"]), (&json!("mondai"), &json!(1024)));
    assert!(model["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(server.get(&format!("/v1/models/{NAME}")).await.ok().json(), *model);

    let missing = server.get("/v1/models/acme/other").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn ready_until_it_drains() {
    let server = Server::start();
    for path in ["/livez", "/readyz", "/health"] {
        server.get(path).await.ok();
    }
    server.state.drain();
    server.get("/livez").await.ok();
    for path in ["/readyz", "/health"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["error"]["code"], "draining");
        assert_eq!(answer.header("retry-after"), "5");
    }
    let refused = server.post(CHAT, &json!({"messages": [{"role": "user", "content": "hi"}]})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["error"]["code"], "draining");
}

/// Waits until the server is not ready, and says why.
async fn why_not_ready(server: &Server) -> String {
    for _ in 0..2000 {
        let answer = server.get("/readyz").await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            return answer.json()["error"]["code"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it stays ready");
}

#[tokio::test]
async fn not_ready_while_a_step_hangs() {
    let options = EngineOptions { stall_limit: Duration::from_millis(50), ..EngineOptions::default() };
    let server = Server::with(limits(), options);
    server.will_say("Hello");
    let hold = server.control.hold();
    let request = json!({"messages": [{"role": "user", "content": "hi"}]});
    let (answer, ()) = tokio::join!(server.post(CHAT, &request), async {
        assert_eq!(why_not_ready(&server).await, "stalled");
        server.get("/livez").await.ok();
        drop(hold);
    });
    answer.ok();
    server.get("/readyz").await.ok();
}

#[tokio::test]
async fn not_ready_once_the_device_is_lost() {
    let server = Server::start();
    server.control.fault_on_next_step(Fault::DeviceLost);
    let request = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answer = server.post(CHAT, &request).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"]["code"], "backend_lost");
    assert_eq!(why_not_ready(&server).await, "backend_lost");
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let server = Server::start();
    let given = Request::get("/livez").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(server.send(given).await.header("x-request-id"), "abc-1");
    let made = server.get("/livez").await;
    let again = server.get("/nowhere").await;
    assert!(made.header("x-request-id").starts_with("req-"));
    assert_ne!(made.header("x-request-id"), again.header("x-request-id"));
}

/// In the order they are shown; a metric with labels is there once it has counted something.
const TYPES: &[&str] = &[
    "mondai_accepted_tokens_total counter",
    "mondai_decode_tokens_total counter",
    "mondai_drafted_tokens_total counter",
    "mondai_forced_tokens_total counter",
    "mondai_generated_tokens_total counter",
    "mondai_http_requests_in_flight gauge",
    "mondai_http_requests_total counter",
    "mondai_http_unknown_fields_total counter",
    "mondai_inter_token_seconds histogram",
    "mondai_padded_tokens_total counter",
    "mondai_prefill_tokens_total counter",
    "mondai_prefix_cached_tokens_total counter",
    "mondai_prefix_queried_tokens_total counter",
    "mondai_prompt_tokens_total counter",
    "mondai_queue_seconds histogram",
    "mondai_quiz_drafts_outdone_total counter",
    "mondai_quizzes_total counter",
    "mondai_sequence_seconds histogram",
    "mondai_sequences_finished_total counter",
    "mondai_sequences_running gauge",
    "mondai_sequences_waiting gauge",
    "mondai_slots_lost gauge",
    "mondai_step_rows_total counter",
    "mondai_step_seconds histogram",
    "mondai_time_to_first_item_seconds histogram",
    "mondai_time_to_first_token_seconds histogram",
    "vllm:num_requests_waiting gauge",
    "vllm:num_requests_running gauge",
    "vllm:prompt_tokens_total counter",
    "vllm:generation_tokens_total counter",
    "vllm:prefix_cache_queries_total counter",
    "vllm:prefix_cache_hits_total counter",
    "vllm:time_to_first_token_seconds histogram",
    "vllm:inter_token_latency_seconds histogram",
    "vllm:request_queue_time_seconds histogram",
    "vllm:e2e_request_latency_seconds histogram",
    "vllm:request_success_total counter",
];

#[tokio::test]
async fn metrics_have_stable_names() {
    let server = Server::start();
    server.will_say("Hello");
    server.post(CHAT, &json!({"messages": [{"role": "user", "content": "hi"}], "x": 1})).await.ok();
    let answer = server.get("/metrics").await.ok();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let types: Vec<&str> = answer.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(types, TYPES);
    for line in [
        "mondai_sequences_finished_total{reason=\"stop\"} 1",
        "mondai_http_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"} 1",
        "mondai_http_requests_in_flight 1",
    ] {
        assert!(answer.text().lines().any(|l| l == line), "no {line:?} in {}", answer.text());
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let page = server.get("/").await.ok();
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let assets = page.text().split('"').filter(|text| text.starts_with("/assets/"));
    let mut n_assets = 0;
    for asset in assets {
        let answer = server.get(asset).await.ok();
        let content_type = answer.header("content-type");
        assert!(
            ["text/javascript", "text/css", "image/svg"].iter().any(|t| content_type.starts_with(t)),
            "{asset}"
        );
        n_assets += 1;
    }
    assert!(n_assets >= 3);
    assert_eq!(server.get("/assets/nothing.js").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/assets/..%2findex.html").await.status, StatusCode::NOT_FOUND);
}

/// Every module that a script imports is served.
#[tokio::test]
async fn the_page_finds_its_modules() {
    let server = Server::start();
    let mut seen = vec!["app.js".to_owned()];
    let mut next = 0;
    while next < seen.len() {
        let script = server.get(&format!("/assets/{}", seen[next])).await.ok();
        for line in script.text().lines().filter(|line| line.starts_with("import ")) {
            let module = line.split("\"./").nth(1).and_then(|rest| rest.split('"').next()).expect(line);
            if !seen.iter().any(|known| known == module) {
                seen.push(module.to_owned());
            }
        }
        next += 1;
    }
    assert!(seen.len() > 5, "{seen:?}");
}

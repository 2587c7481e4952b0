//! Bad input: each is a 4xx that names its field, in the shape every client library reads.

use super::{Answer, CHAT, QUIZZES, Server};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

/// What an error answer must be.
struct Expected {
    status: u16,
    code: &'static str,
    param: Value,
}

fn invalid(param: &str) -> Expected {
    Expected { status: 400, code: "invalid_value", param: json!(param) }
}

fn other(status: u16, code: &'static str) -> Expected {
    Expected { status, code, param: Value::Null }
}

fn check(answer: &Answer, what: &str, expected: &Expected) {
    let Expected { status, code, param } = expected;
    assert_eq!(answer.status, *status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    assert!(!answer.header("x-request-id").is_empty(), "{what}");
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!(code), param), "{what}: {error}");
    assert!(error["type"].as_str().is_some_and(|kind| kind.ends_with("_error")), "{what}: {error}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {error}");
    assert_eq!(answer.header("retry-after"), "", "{what}: retrying does not help");
}

#[tokio::test]
async fn quizzes_that_cannot_be() {
    let server = Server::start();
    let long_source = "The Moon is bright. ".repeat(15_000);
    for (request, expected) in [
        (json!({"topic": ""}), invalid("topic")),
        (json!({"topic": "x".repeat(501)}), invalid("topic")),
        (json!({"source": ""}), invalid("source")),
        (json!({"source": long_source}), other(413, "body_too_large")),
        (json!({}), invalid("topic")),
        (json!({"topic": "a", "source": "b"}), invalid("source")),
        (json!({"topic": "a", "count": 0}), invalid("count")),
        (json!({"topic": "a", "count": 1000}), invalid("count")),
        (json!({"topic": "a", "count": -1}), invalid("count")),
        (json!({"topic": "a", "count": 2.5}), invalid("count")),
        (json!({"topic": "a", "count": "five"}), invalid("count")),
        (json!({"topic": "a", "exclude": "b"}), invalid("exclude")),
        (json!({"topic": "a", "kind": "riddle"}), invalid("kind")),
        (json!({"topic": "a", "kind": []}), invalid("kind")),
        (json!({"topic": "a", "kind": 5}), invalid("kind")),
        (json!({"topic": "a", "difficulty": "insane"}), invalid("difficulty")),
        (json!({"topic": "a", "language": "klingonese!"}), invalid("language")),
        (json!({"topic": "a", "temperature": 9}), invalid("temperature")),
        (json!({"topic": "a", "seed": "seven"}), invalid("seed")),
        (json!({"topic": "a", "seed": -1}), invalid("seed")),
        (json!({"topic": "a", "top_k": -1}), invalid("top_k")),
        (json!({"topic": "a", "max_tokens": 0}), invalid("max_tokens")),
        (json!({"topic": "a", "tpoic": "b"}), invalid("tpoic")),
        (
            json!({"topic": "a", "model": "gpt-9"}),
            Expected { status: 404, code: "model_not_found", param: json!("model") },
        ),
    ] {
        let what = request.to_string();
        check(&server.post(QUIZZES, &request).await, &what[..what.len().min(200)], &expected);
    }
}

#[tokio::test]
async fn chats_that_cannot_be() {
    let server = Server::start();
    let chat = |extra: Value| {
        let mut request = json!({"messages": [{"role": "user", "content": "hi"}]});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        request
    };
    let unsupported =
        |param: &str| Expected { status: 400, code: "unsupported_parameter", param: json!(param) };
    let too_long = "word ".repeat(2000);
    for (request, expected) in [
        (json!({}), invalid("messages")),
        (chat(json!({"messages": []})), invalid("messages")),
        (chat(json!({"messages": [{"role": "wizard", "content": "hi"}]})), invalid("messages[0].role")),
        (chat(json!({"messages": "hi"})), invalid("messages")),
        (chat(json!({"messages": [{"role": "user", "content": too_long}]})), invalid("messages")),
        (chat(json!({"max_tokens": 100_000})), invalid("max_tokens")),
        (chat(json!({"temperature": "hot"})), invalid("temperature")),
        (chat(json!({"stop_token_ids": [99_999_999]})), invalid("stop_token_ids")),
        (chat(json!({"tools": [{"type": "function"}]})), unsupported("tools")),
        (chat(json!({"min_tokens": 3})), unsupported("min_tokens")),
        (chat(json!({"response_format": {"type": "yaml"}})), invalid("response_format.type")),
        (
            chat(json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "n", "schema": {"type": "nothing we know"}}}})),
            invalid("response_format"),
        ),
        (
            chat(json!({"max_tokens": 3, "response_format": {"type": "json_schema", "json_schema":
                {"name": "n", "schema": {"type": "string", "minLength": 500}}}})),
            invalid("max_tokens"),
        ),
        (
            chat(json!({"model": "gpt-9"})),
            Expected { status: 404, code: "model_not_found", param: json!("model") },
        ),
    ] {
        let what = request.to_string();
        check(&server.post(CHAT, &request).await, &what[..what.len().min(200)], &expected);
    }
    assert!(server.control.calls().is_empty(), "nothing of it reached the model");
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let server = Server::start();
    for path in [QUIZZES, CHAT] {
        let send = async |content_type: &str, body: String| {
            let request =
                Request::post(path).header("content-type", content_type).body(Body::from(body)).unwrap();
            server.send(request).await
        };
        let json_type = "application/json";
        let broken = other(400, "json_parse_error");
        check(&send(json_type, String::new()).await, "nothing", &broken);
        check(&send(json_type, "{\"topic\": \"a\",}".to_owned()).await, "a comma too many", &broken);
        check(&send(json_type, "[".repeat(10_000)).await, "deep nesting", &invalid("body"));
        let deep = format!("{{\"messages\":{}", "[".repeat(10_000));
        check(&send(json_type, deep).await, "deep nesting", &broken_or_misfit(path));
        check(&send(json_type, "5".to_owned()).await, "a number", &invalid("body"));
        check(&send(json_type, "[]".to_owned()).await, "a list", &invalid("body"));
        let media_type = other(415, "unsupported_media_type");
        check(&send("multipart/form-data; boundary=x", "{}".to_owned()).await, "a form", &media_type);
        check(&send("text/xml", "<topic/>".to_owned()).await, "XML", &media_type);
        let large = format!("{{\"topic\": \"{}\"}}", "x".repeat(100_000));
        check(&send(json_type, large).await, "over the limit", &other(413, "body_too_large"));
    }
    let request = Request::post(QUIZZES).body(Body::from("{\n  \"topic\": moon}")).unwrap();
    let message = server.send(request).await.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("line 2 column"), "{message}");
}

/// Where `messages` is no field, that is what is wrong; else the nesting is.
fn broken_or_misfit(path: &str) -> Expected {
    if path == CHAT { other(400, "json_parse_error") } else { invalid("messages") }
}

#[tokio::test]
async fn places_and_methods_there_are_none_of() {
    let server = Server::start();
    check(&server.get("/v2/quizzes").await, "no route", &other(404, "route_not_found"));
    let wrong = server.get(QUIZZES).await;
    check(&wrong, "GET", &other(405, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), "POST");
    let delete = Request::builder().method(Method::DELETE).uri("/v1/models").body(Body::empty()).unwrap();
    let wrong = server.send(delete).await;
    check(&wrong, "DELETE", &other(405, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn nothing_that_can_be_accepted() {
    let server = Server::start();
    let request = Request::post(QUIZZES)
        .header("accept", "text/html, image/*")
        .body(Body::from(json!({"topic": "the Moon"}).to_string()))
        .unwrap();
    check(&server.send(request).await, "text/html", &other(406, "not_acceptable"));
}

//! The server through `router(state)`, over the scripted backend with the default model's vocabulary: what
//! is asked of it on the wire, and what it answers.

mod bad_input;
mod chat;
mod health;
mod quizzes;
mod socket;

use crate::default_model::{MODEL, NAME};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use mondai::backend::Limits;
use mondai::backend::scripted::{ScriptedBackend, ScriptedControl};
use mondai::engine::{Engine, EngineOptions};
use mondai::generation::Generator;
use mondai::http::{AppState, HttpOptions, router};
use mondai::metrics::Metrics;
use mondai::quiz::QuizService;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const CHAT: &str = "/v1/chat/completions";
const QUIZZES: &str = "/v1/quizzes";

/// A server without a socket.
struct Server {
    router: Router,
    state: AppState,
    generator: Generator,
    control: ScriptedControl,
}

impl Server {
    fn start() -> Self {
        Self::with(limits(), EngineOptions::default())
    }

    fn with(limits: Limits, options: EngineOptions) -> Self {
        let backend = ScriptedBackend::new(limits);
        let control = backend.control();
        let metrics = Arc::new(Metrics::new(NAME));
        let engine = Engine::start(Box::new(backend), options, Arc::clone(&metrics));
        let generator = Generator::new(&MODEL, engine).unwrap();
        let quizzes = QuizService::new(generator.clone(), Arc::clone(&metrics));
        let state = AppState::new(generator.clone(), quizzes, metrics, http_options());
        Self { router: router(state.clone()), state, generator, control }
    }

    /// From here on every reply says `text` and ends.
    fn will_say(&self, text: &str) -> Vec<u32> {
        let tokenizer = self.generator.tokenizer();
        let mut reply = tokenizer.encode_plain(text);
        reply.push(tokenizer.end_tokens()[0]);
        self.control.reply(&tokenizer.encode("<|im_start|>assistant\n"), &reply);
        reply
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// As `curl -d` sends it, or as a client library does: the type of the body does not matter.
    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Request::post(path).body(Body::from(body.to_string())).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body comes whole").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The value of a metric without labels, or with them in the name.
    async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        answer
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a metric has this value; what makes it so has already begun.
    async fn until_metric(&self, name: &str, value: f64) {
        for _ in 0..2000 {
            if self.metric(name).await == value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} is {}, not {value}", self.metric(name).await);
    }
}

fn limits() -> Limits {
    Limits { vocab_size: MODEL.graph.vocab_size(), context_len: 1024, ..ScriptedBackend::small_limits() }
}

/// What must not differ between two answers to the same request: everything but times, and what depends on what else
/// ran: how much of a prompt was cached, and how many drafts a step had room for.
pub(crate) fn without_circumstances(mut event: Value) -> Value {
    let fields = event.as_object_mut().unwrap();
    fields.remove("created");
    fields.remove("timings");
    if let Some(usage) = fields.get_mut("usage").and_then(Value::as_object_mut) {
        usage.retain(|name, _| {
            !["cached_tokens", "drafted_tokens", "accepted_tokens"].contains(&name.as_str())
        });
    }
    event
}

pub(crate) fn http_options() -> HttpOptions {
    HttpOptions { body_limit: 64 * 1024, keep_alive: Duration::from_secs(10) }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("everything sent is UTF-8")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer if it is a 200.
    fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self
    }

    /// The data of its server-sent events.
    fn data(&self) -> Vec<&str> {
        self.text()
            .split_terminator("\n\n")
            .filter(|frame| !frame.starts_with(':'))
            .map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")).expect("a data line"))
            .collect()
    }
}

/// Replaces what differs from run to run: ids, times.
fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = ["chatcmpl-", "\"created\":", "fp_"]
        .iter()
        .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
        .min()
    {
        out.push_str(&rest[..at]);
        out.push('X');
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out + rest
}

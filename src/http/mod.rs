//! The HTTP server: [`router`] over an [`AppState`], one file an endpoint.
//!
//! Parses a request once into a `QuizSpec` or a `TextRequest`, and writes events back as they come:
//! wire formats and status codes live here and nowhere below. May use `quiz`, `generation`, `metrics`.
//! Absent: sockets and signals (`cli::serve` has them), authentication, state kept between requests.

mod accept;
mod body;
mod chat_completions;
mod error;
mod health;
mod metrics;
mod models;
mod page;
mod quiz_events;
mod quizzes;
mod sse;
mod track;

use crate::generation::Generator;
use crate::metrics::Metrics;
use crate::quiz::QuizService;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use error::ApiError;
pub(crate) use quiz_events::{QuizDocument, WireEvent};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The server's settings that requests see.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// The largest request body, in bytes.
    pub body_limit: usize,
    /// A stream that has nothing to say sends a comment this often.
    pub keep_alive: Duration,
}

/// What every handler works with. Clones share it.
#[derive(Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

struct Inner {
    generator: Generator,
    quizzes: QuizService,
    metrics: Arc<Metrics>,
    options: HttpOptions,
    /// When this server took the model up, in Unix seconds.
    created: u64,
    system_fingerprint: String,
    draining: AtomicBool,
}

impl AppState {
    pub fn new(
        generator: Generator,
        quizzes: QuizService,
        metrics: Arc<Metrics>,
        options: HttpOptions,
    ) -> Self {
        let system_fingerprint = fingerprint(generator.model_name(), generator.engine().limits().backend);
        let inner = Inner {
            generator,
            quizzes,
            metrics,
            options,
            created: unix_seconds(),
            system_fingerprint,
            draining: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// From now on the server is not ready and takes no new work; what was accepted is finished.
    ///
    /// The engine's own drain comes later: a quiz in flight still asks it for items.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// New work is refused while the server drains.
    fn check_accepting(&self) -> Result<(), ApiError> {
        if self.is_draining() { Err(ApiError::draining()) } else { Ok(()) }
    }

    /// The one model there is may be named or left out.
    fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match asked {
            Some(asked) if asked != self.inner.generator.model_name() => Err(ApiError::unknown_model(asked)),
            _ => Ok(()),
        }
    }
}

/// Everything the server answers.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/v1/quizzes", post(quizzes::create))
        .route("/v1/chat/completions", post(chat_completions::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::readyz))
        .route("/metrics", get(metrics::render))
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(state.inner.options.body_limit))
        .layer(middleware::from_fn_with_state(state.clone(), track::track))
        .with_state(state)
}

/// Names what decides a reply beside the request: the same fingerprint and seed, the same reply.
fn fingerprint(model: &str, backend: &str) -> String {
    let digest = Sha256::digest(format!("{model}\n{backend}\n{}", env!("CARGO_PKG_VERSION")));
    format!("fp_{}", hex(&digest[..5]))
}

/// An id nobody has seen before, `prefix` and 32 hex digits.
fn random_id(prefix: &str) -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has a source of randomness");
    format!("{prefix}{}", hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! One request: what was asked, when what came back, and how it ended.

use serde::Serialize;
use std::fmt::Display;
use tokio::time::Instant;

/// One request as it went. Times are in seconds since the measurement began.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// When it should have been sent: what every latency counts from, so that a client or a server that
    /// is behind cannot hide it.
    pub intended: f64,
    pub sent: f64,
    /// When each piece of text came.
    pub texts: Vec<f64>,
    /// When each whole, valid item came.
    pub items: Vec<f64>,
    pub ended: f64,
    pub outcome: Result<Reply, Failure>,
}

/// What a reply that came to its end consisted of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reply {
    pub prompt_tokens: Option<usize>,
    /// Prompt tokens the target did not compute again, where it says so.
    pub cached_tokens: Option<usize>,
    pub output_tokens: usize,
    /// Output tokens that a grammar wrote, where the target says so.
    pub forced_tokens: Option<usize>,
    /// Tokens guessed ahead of the reply, where the target says so; and those that came true.
    pub drafted_tokens: Option<usize>,
    pub accepted_tokens: Option<usize>,
    pub token_count: TokenCount,
    pub items_asked: usize,
    pub items_valid: usize,
    /// Drafts that the target threw away, where it says so.
    pub items_rejected: Option<usize>,
}

/// Who counted the output tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenCount {
    /// The engine, in this process.
    Engine,
    /// The target, in the usage it sends at the end of a reply.
    #[default]
    Usage,
    /// This client: the target sends no usage, and each piece of text counts as one token.
    Chunks,
}

impl TokenCount {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Engine => "counted by the engine in this process",
            Self::Usage => "as the target's own usage says",
            Self::Chunks => "the target sends no usage: pieces of text, each taken for one token",
        }
    }
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The target is full: a full queue, 429, 503.
    #[error("refused: {0}")]
    Refused(String),
    #[error("status {status}: {text}")]
    Status { status: u16, text: String },
    /// No answer, or one that broke off, or makes no sense.
    #[error("{0}")]
    Broken(String),
    #[error("no end within the time limit")]
    TimedOut,
}

impl Failure {
    pub(super) fn broken(error: impl Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What a target notes while a reply comes.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    pub(super) texts: Vec<Instant>,
    pub(super) items: Vec<Instant>,
}

impl Stopwatch {
    pub(super) fn text(&mut self) {
        self.texts.push(Instant::now());
    }

    pub(super) fn item(&mut self) {
        self.items.push(Instant::now());
    }
}

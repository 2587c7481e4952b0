//! # mondai (問題): an inference server that writes quizzes
//!
//! One way through, and one way back:
//!
//! ```text
//! http ──QuizSpec──▶ quiz ──TextRequest──▶ generation ──token ids──▶ engine ──rows──▶ backend
//!  ▲                  │ ▲                    │ ▲                       │ ▲               │
//!  └────QuizEvent─────┘ └────TextEvent───────┘ └──────TokenEvent───────┘ └────Logits─────┘
//! ```
//!
//! The rooms and what each may use are drawn in `docs/ARCHITECTURE.md`. Arrows point down only:
//! `cli` → `http` → `quiz` → `generation` → `engine` → `sampling`, `backend` → `text`, `model`; beside them
//! `library`, the passages that `quiz` asks about, and `embedding`, by which it compares texts; above them `eval` and `bench`, which say how good and
//! how fast a model's quizzes are.

pub mod backend;
pub mod bench;
pub mod cli;
pub mod config;
pub mod embedding;
pub mod engine;
pub mod eval;
pub mod generation;
pub mod http;
pub mod library;
pub mod metrics;
pub mod model;
pub mod quiz;
pub mod sampling;
pub mod text;

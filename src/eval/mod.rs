//! How good the questions are: the scorecard of `mondai eval`.
//!
//! A set holds passages with the questions people asked about them. The model writes a quiz about each
//! passage; its items and the people's are scored by the same metrics with the same reader, so that
//! every number of the model's stands beside one that says how far the metric itself can be trusted.
//! May use `quiz`, `generation` and `embedding`. Absent: the terminal, files other than those of the run.

mod bleu;
mod bootstrap;
mod candidate;
mod kendall;
mod known;
mod metric;
pub(crate) mod page;
mod plausible;
mod reader;
mod record;
mod report;
mod run;
mod set;
mod words;

pub use bleu::{BleuCounts, bleu_of};
pub(crate) use bootstrap::SplitMix;
pub use bootstrap::{Estimate, mean_of};
pub use candidate::{Candidate, ITEM_KINDS};
pub use known::{Known, Nearest};
pub use metric::{Metric, Scores, Seen, score};
pub use plausible::plausibility;
pub use reader::{Reader, Reading};
pub use record::{AnswerAware, Author, PassageRecord, Scored};
pub use report::{Novelty, Report, Setting, Statements};
pub use run::{EvalOptions, Evaluation};
pub use set::{EvalSet, HumanQuestion, Passage, SetError};

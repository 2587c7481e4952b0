//! How good the questions are: the scorecard of `mondai eval`.
//!
//! A set holds passages with the questions people asked about them. The model writes a quiz about each
//! passage; its items and the people's are scored by the same metrics with the same reader, so that
//! every number of the model's stands beside one that says how far the metric itself can be trusted.
//! May use `quiz` and `generation`. Absent: the terminal, files other than those of the run.

mod bootstrap;
mod candidate;
mod metric;
pub(crate) mod page;
mod reader;
mod record;
mod report;
mod run;
mod set;
mod words;

pub(crate) use bootstrap::SplitMix;
pub use bootstrap::{Estimate, mean_of};
pub use candidate::{Candidate, ITEM_KINDS};
pub use metric::{Metric, Scores, Seen, score};
pub use reader::{Reader, Reading};
pub use record::{Author, PassageRecord, Scored};
pub use report::{Report, Setting};
pub use run::{EvalOptions, Evaluation};
pub use set::{EvalSet, HumanQuestion, Passage, SetError};

//! How fast a target is: the load, the clocks and the figures of `mondai bench`.
//!
//! A [`Target`] is a model in this process or a server at a URL: a mondai, or any that speaks OpenAI's
//! chat completions. A [`Bench`] sends each of them the same requests in the same order, under one load
//! after another and round by round, and a [`Report`] says what came of it. What is measured is what a
//! user sees: every time counts from the moment the request should have been sent, and the words of the
//! tables are defined under them. May use `eval` for passages, `quiz`, `generation`. Absent: the terminal,
//! servers to be started, figures that nobody measured.

mod arrivals;
mod client;
mod computed;
mod distribution;
mod load;
mod measurement;
mod page;
mod plot;
mod prices;
mod process;
mod report;
mod roofline;
mod run;
mod sample;
mod slo;
mod sse;
mod system;
mod table;
mod target;
mod workload;

pub use computed::Computed;
pub use distribution::{Distribution, Spread};
pub use load::Load;
pub use measurement::{Items, Measurement, Requests, Tokens};
pub use prices::{Price, PriceError, PriceTable};
pub use report::Report;
pub use roofline::ModelShape;
pub use run::{Bench, Loads, Progress};
pub use sample::{Failure, Reply, Sample, TokenCount};
pub use slo::Slo;
pub use system::{ModelCard, SystemCard};
pub use target::{Target, TargetCard};
pub use workload::{Sampling, Workload, WorkloadOptions};

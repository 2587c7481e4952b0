//! How requests are sent: a number of them at once, or so many a second.

use super::arrivals::poisson;
use super::sample::{Failure, Sample, Stopwatch};
use super::target::Target;
use super::workload::Work;
use futures_util::future::join_all;
use serde::Serialize;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: so many requests at once, each followed by the next when it ends. The target sets the
    /// pace, so it can never be overrun.
    Closed { concurrency: usize },
    /// Open loop: requests come when they come, so many a second on average, however the target fares.
    Open { per_second: f64 },
}

impl Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency } => write!(f, "{concurrency} at once"),
            Self::Open { per_second } => write!(f, "{per_second:.3}/s"),
        }
    }
}

/// Sends each piece of work once, and waits for every reply. `done` hears of each that ended.
///
/// One task on the caller's thread sends and reads everything, so the client takes one core at most.
pub(super) async fn run(
    target: &Target,
    work: &[Work],
    load: Load,
    seed: u64,
    limit: Duration,
    done: &impl Fn(),
) -> Vec<Sample> {
    let began = Instant::now();
    let send = async |work, intended| {
        let sample = send(target, work, began, intended, limit).await;
        done();
        sample
    };
    match load {
        Load::Closed { concurrency } => {
            let next = AtomicUsize::new(0);
            let worker = async || {
                let mut samples = Vec::new();
                while let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    samples.push(send(work, Instant::now()).await);
                }
                samples
            };
            join_all((0..concurrency).map(|_| worker())).await.into_iter().flatten().collect()
        }
        Load::Open { per_second } => {
            let arrivals = poisson(per_second, work.len(), seed);
            join_all(work.iter().zip(arrivals).map(async |(work, arrival)| {
                let intended = began + arrival;
                sleep_until(intended).await;
                send(work, intended).await
            }))
            .await
        }
    }
}

async fn send(target: &Target, work: &Work, began: Instant, intended: Instant, limit: Duration) -> Sample {
    let mut watch = Stopwatch::default();
    let sent = Instant::now();
    let outcome = timeout(limit, target.send(work, &mut watch)).await.unwrap_or(Err(Failure::TimedOut));
    let ended = Instant::now();
    let seconds = |at: Instant| at.duration_since(began).as_secs_f64();
    Sample {
        intended: seconds(intended),
        sent: seconds(sent),
        texts: watch.texts.into_iter().map(seconds).collect(),
        items: watch.items.into_iter().map(seconds).collect(),
        ended: seconds(ended),
        outcome,
    }
}

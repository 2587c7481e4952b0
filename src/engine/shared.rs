//! What the handles and the engine thread both see: a few atomics, so that neither waits for the other.

use super::{EngineError, EngineHealth};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Before the first request has ended there is nothing to measure.
const FIRST_RETRY_AFTER: Duration = Duration::from_secs(1);
const MIN_RETRY_AFTER: Duration = Duration::from_millis(1);
/// The official Python client gives up at once on a longer wait (`openai/_base_client.py`).
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Nothing orders these values against each other: all accesses are relaxed.
pub(super) struct Shared {
    started: Instant,
    /// Nanoseconds after `started`, plus one; 0 while there is nothing to do.
    step_began: AtomicU64,
    /// Requests accepted and not yet ended.
    n_in_flight: AtomicUsize,
    /// Mean nanoseconds between two requests' ends under load; 0 until one has ended.
    completion_interval: AtomicU64,
    draining: AtomicBool,
    lost: OnceLock<String>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            step_began: AtomicU64::new(0),
            n_in_flight: AtomicUsize::new(0),
            completion_interval: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            lost: OnceLock::new(),
        }
    }

    /// Takes a place for a request, unless `max` are taken.
    pub(super) fn enter(&self, max: usize) -> bool {
        self.n_in_flight.fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
    }

    pub(super) fn leave(&self) {
        self.n_in_flight.fetch_sub(1, Relaxed);
    }

    /// When the requests now waiting will have been served, at the rate requests end at.
    pub(super) fn retry_after(&self, n_waiting: usize) -> Duration {
        let after = match self.completion_interval.load(Relaxed) {
            0 => FIRST_RETRY_AFTER,
            interval => Duration::from_nanos(interval.saturating_mul(n_waiting as u64 + 1)),
        };
        after.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
    }

    pub(super) fn step_begins(&self) {
        self.step_began.store(self.started.elapsed().as_nanos() as u64 + 1, Relaxed);
    }

    pub(super) fn idles(&self) {
        self.step_began.store(0, Relaxed);
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The first reason given stays.
    pub(super) fn lose(&self, reason: String) {
        let _ = self.lost.set(reason);
    }

    pub(super) fn lost(&self) -> Option<EngineError> {
        self.lost.get().map(|reason| EngineError::BackendLost { reason: reason.clone() })
    }

    pub(super) fn health(&self, stall_limit: Duration) -> EngineHealth {
        if let Some(reason) = self.lost.get() {
            return EngineHealth::Lost { reason: reason.clone() };
        }
        let began = self.step_began.load(Relaxed);
        let since = self.started.elapsed().saturating_sub(Duration::from_nanos(began));
        if began > 0 && since > stall_limit {
            EngineHealth::Stalled { since }
        } else if self.is_draining() {
            EngineHealth::Draining
        } else {
            EngineHealth::Ready
        }
    }
}

/// Measures how often requests end while there is work: idle time does not count.
pub(super) struct CompletionRate {
    last: Instant,
    mean: Option<Duration>,
}

impl CompletionRate {
    /// Weight of the newest interval; about the last ten count.
    const NEWEST: f64 = 0.2;

    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, mean: None }
    }

    /// Work begins after a pause.
    pub(super) fn resume(&mut self, now: Instant) {
        self.last = now;
    }

    pub(super) fn record(&mut self, now: Instant, shared: &Shared) {
        let interval = now - self.last;
        let mean = match self.mean {
            None => interval,
            Some(mean) => mean.mul_f64(1.0 - Self::NEWEST) + interval.mul_f64(Self::NEWEST),
        };
        self.last = now;
        self.mean = Some(mean);
        shared.completion_interval.store((mean.as_nanos() as u64).max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_follows_the_measured_rate() {
        let shared = Shared::new();
        assert_eq!(shared.retry_after(10), FIRST_RETRY_AFTER);

        let start = Instant::now();
        let mut rate = CompletionRate::new(start);
        for n in 1..=50 {
            rate.record(start + n * Duration::from_millis(200), &shared);
        }
        let close =
            |a: Duration, b: Duration| assert!(a.abs_diff(b) < Duration::from_millis(1), "{a:?} {b:?}");
        close(shared.retry_after(0), Duration::from_millis(200));
        close(shared.retry_after(9), Duration::from_secs(2));
        assert_eq!(shared.retry_after(10_000), MAX_RETRY_AFTER);

        // An hour without work is no slow hour.
        let later = start + Duration::from_secs(3600);
        rate.resume(later);
        rate.record(later + Duration::from_millis(200), &shared);
        close(shared.retry_after(0), Duration::from_millis(200));

        for _ in 0..500 {
            rate.record(later + Duration::from_millis(200), &shared);
        }
        assert_eq!(shared.retry_after(0), MIN_RETRY_AFTER);
    }

    #[test]
    fn health_follows_progress() {
        let shared = Shared::new();
        let check = |limit, expected: fn(&EngineHealth) -> bool| {
            let health = shared.health(limit);
            assert!(expected(&health), "{health:?}");
        };
        check(Duration::ZERO, |health| *health == EngineHealth::Ready);
        shared.step_begins();
        check(Duration::ZERO, |health| matches!(health, EngineHealth::Stalled { .. }));
        check(Duration::from_secs(60), |health| *health == EngineHealth::Ready);
        shared.drain();
        check(Duration::from_secs(60), |health| *health == EngineHealth::Draining);
        shared.lose("gone".into());
        shared.lose("gone again".into());
        check(Duration::ZERO, |health| *health == EngineHealth::Lost { reason: "gone".into() });
    }
}

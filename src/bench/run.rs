//! The order of measurements: round by round, so that what changes in the machine meanwhile meets every
//! target alike.

use super::load::{self, Load};
use super::measurement::{Measurement, Setup};
use super::process::{own_cpu_seconds, watch_memory};
use super::sample::Sample;
use super::slo::Slo;
use super::target::Target;
use super::workload::{Place, Work, WorkloadOptions};
use crate::eval::EvalSet;
use anyhow::{Result, bail};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What is to be measured.
pub struct Bench {
    /// The first is what the others are compared with.
    pub targets: Vec<Target>,
    pub set: EvalSet,
    pub workload: WorkloadOptions,
    pub loads: Loads,
    /// Of one measurement.
    pub requests: usize,
    /// Sent before each measurement and not counted.
    pub warm_up: usize,
    pub runs: usize,
    pub slo: Option<Slo>,
    /// A request that takes longer has failed.
    pub limit: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Loads {
    Listed(Vec<Load>),
    /// Open loop, at rates that go from a fifth of what the slowest target can take to a third more than
    /// what the fastest can.
    Sweep,
}

/// Where a run is, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    pub run: usize,
    pub runs: usize,
    pub target: &'a str,
    pub load: Load,
    pub done: usize,
    pub of: usize,
}

/// At once, to find how many requests a second a target can take.
const CAPACITY_CONCURRENCY: usize = 8;
/// From one rate of a sweep to the next, at the most.
const SWEEP_STEP: f64 = 1.6;
const SWEEP_FROM: f64 = 0.2;
const SWEEP_TO: f64 = 1.33;
/// Loads take the numbers below it, warm-ups and the search for rates those from it on.
const UNCOUNTED: usize = 500;

impl Bench {
    /// # Errors
    /// A target cannot take the workload, or none of its warm-up requests came to an end.
    pub async fn run(&self, watch: &impl Fn(Progress<'_>)) -> Result<Vec<Measurement>> {
        for target in &self.targets {
            target.check(self.workload.workload)?;
        }
        let loads = match &self.loads {
            Loads::Listed(loads) => loads.clone(),
            Loads::Sweep => self.sweep(watch).await?,
        };
        let mut measurements = Vec::new();
        for run in 0..self.runs {
            for (idx, &load) in loads.iter().enumerate() {
                // Nobody is always first.
                for turn in 0..self.targets.len() {
                    let target = &self.targets[(turn + run) % self.targets.len()];
                    self.warm_up(target, run, idx, load).await?;
                    measurements.push(self.measure(target, run, idx, load, watch).await);
                }
            }
        }
        // In the order to be read: load by load, targets as they were given.
        let place = |of: &Measurement| {
            let load = loads.iter().position(|load| *load == of.load);
            let target = self.targets.iter().position(|target| target.card.name == of.target);
            (load, target, of.run)
        };
        measurements.sort_by_key(place);
        Ok(measurements)
    }

    async fn measure(
        &self,
        target: &Target,
        run: usize,
        load_idx: usize,
        load: Load,
        watch: &impl Fn(Progress<'_>),
    ) -> Measurement {
        let work = self.work(run, load_idx, self.requests);
        let n_done = Cell::new(0);
        let (runs, of, name) = (self.runs, work.len(), target.card.name.as_str());
        let progress = |done| watch(Progress { run, runs, target: name, load, done, of });
        progress(0);
        let done = || {
            n_done.set(n_done.get() + 1);
            progress(n_done.get());
        };
        let computed_before = target.computed().await;
        let (began, cpu_began) = (Instant::now(), own_cpu_seconds());
        let seed = self.workload.seed.wrapping_add(run as u64);
        let samples = load::run(target, &work, load, seed, self.limit, &done);
        let (samples, peak_rss_bytes) = watch_memory(target.card.pid, samples).await;
        let client_cpu = match (cpu_began, own_cpu_seconds()) {
            (Some(began_at), Some(now)) if !self.targets.iter().any(Target::is_in_process) => {
                Some((now - began_at) / began.elapsed().as_secs_f64())
            }
            _ => None,
        };
        let setup = Setup {
            target: name,
            simulated: target.card.simulated,
            load,
            run,
            has_items: self.workload.workload.has_items(),
            slo: self.slo.as_ref(),
        };
        let computed = match (computed_before, target.computed().await) {
            (Some(before), Some(now)) => Some(now.since(before)),
            _ => None,
        };
        Measurement { computed, peak_rss_bytes, client_cpu, ..Measurement::new(&setup, samples) }
    }

    /// So that connections are open, pages are in memory and clocks are up. Says at once what will not work.
    async fn warm_up(&self, target: &Target, run: usize, load_idx: usize, load: Load) -> Result<()> {
        if self.warm_up == 0 {
            return Ok(());
        }
        let concurrency = match load {
            Load::Closed { concurrency } => concurrency,
            Load::Open { .. } => 1,
        };
        self.uncounted(target, Place { run, load: UNCOUNTED + load_idx, idx: 0 }, self.warm_up, concurrency)
            .await?;
        Ok(())
    }

    async fn uncounted(
        &self,
        target: &Target,
        place: Place,
        n: usize,
        concurrency: usize,
    ) -> Result<Vec<Sample>> {
        let work = self.work(place.run, place.load, n);
        let samples = load::run(target, &work, Load::Closed { concurrency }, 0, self.limit, &|| {}).await;
        if let Some(failure) = samples.first().and_then(|sample| sample.outcome.as_ref().err())
            && samples.iter().all(|sample| sample.outcome.is_err())
        {
            bail!("{} ({}) cannot be measured: {failure}", target.card.name, target.card.place);
        }
        Ok(samples)
    }

    fn work(&self, run: usize, load: usize, n: usize) -> Vec<Work> {
        (0..n).map(|idx| self.workload.work(&self.set, Place { run, load, idx })).collect()
    }

    /// Rates from well below the slowest target's capacity to beyond the fastest's, the same for all.
    async fn sweep(&self, watch: &impl Fn(Progress<'_>)) -> Result<Vec<Load>> {
        let mut capacities = Vec::new();
        for (idx, target) in self.targets.iter().enumerate() {
            let load = Load::Closed { concurrency: CAPACITY_CONCURRENCY };
            let n = self.requests.max(2 * CAPACITY_CONCURRENCY);
            watch(Progress { run: 0, runs: self.runs, target: &target.card.name, load, done: 0, of: n });
            let place = Place { run: 0, load: UNCOUNTED * 2 + idx, idx: 0 };
            let samples = self.uncounted(target, place, n, CAPACITY_CONCURRENCY).await?;
            let succeeded = samples.iter().filter(|sample| sample.outcome.is_ok()).count();
            let seconds = samples.iter().map(|sample| sample.ended).fold(0.0, f64::max);
            capacities.push(succeeded as f64 / seconds);
        }
        let slowest = capacities.iter().copied().fold(f64::INFINITY, f64::min);
        let fastest = capacities.iter().copied().fold(0.0, f64::max);
        let rates = ladder(slowest * SWEEP_FROM, fastest * SWEEP_TO);
        Ok(rates.into_iter().map(|per_second| Load::Open { per_second }).collect())
    }
}

/// From `low` to `high` in even steps of at most [`SWEEP_STEP`].
fn ladder(low: f64, high: f64) -> Vec<f64> {
    let steps = ((high / low).ln() / SWEEP_STEP.ln()).ceil().max(1.0);
    (0..=steps as usize).map(|step| round(low * (high / low).powf(step as f64 / steps))).collect()
}

/// Three digits are enough of a rate.
fn round(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 2.0);
    (rate / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_of_rates() {
        let rates = ladder(0.2, 1.33);
        assert_eq!(rates.len(), 6, "{rates:?}");
        assert!((rates[0] - 0.2).abs() < 1e-9 && (rates[5] - 1.33).abs() < 1e-9, "{rates:?}");
        assert!(rates.windows(2).all(|pair| pair[1] / pair[0] < SWEEP_STEP + 0.02), "{rates:?}");
        assert_eq!(ladder(1.0, 1.0), [1.0, 1.0]);
    }
}

//! What is read of a run: tables and lines of JSON.

use super::distribution::{Distribution, Spread};
use super::load::Load;
use super::measurement::Measurement;
use super::run::Bench;
use super::sample::TokenCount;
use super::slo::Slo;
use super::system::SystemCard;
use super::table::{NOTHING, Table, figure};
use super::target::TargetCard;
use super::workload::{Workload, WorkloadOptions};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A run and what it was run on.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub system: SystemCard,
    pub targets: Vec<TargetCard>,
    pub workload: WorkloadOptions,
    /// Where the prompts' texts come from: the set, how many passages, and how long they are.
    pub texts: String,
    pub requests: usize,
    pub warm_up: usize,
    pub runs: usize,
    pub slo: Option<Slo>,
    #[serde(skip)]
    pub measurements: Vec<Measurement>,
}

/// One target under one load, in all its runs.
pub(super) struct Row<'a> {
    pub(super) card: &'a TargetCard,
    pub(super) load: Load,
    pub(super) runs: Vec<&'a Measurement>,
}

impl Report {
    pub fn new(bench: &Bench, system: SystemCard, measurements: Vec<Measurement>) -> Self {
        let mut words: Vec<usize> =
            bench.set.passages.iter().map(|passage| passage.context.split_whitespace().count()).collect();
        words.sort_unstable();
        let texts = format!(
            "the {} set: {} passages of {} to {} words, half of them under {}",
            bench.set.name,
            words.len(),
            words[0],
            words[words.len() - 1],
            words[words.len() / 2]
        );
        Self {
            system,
            targets: bench.targets.iter().map(|target| target.card.clone()).collect(),
            workload: bench.workload.clone(),
            texts,
            requests: bench.requests,
            warm_up: bench.warm_up,
            runs: bench.runs,
            slo: bench.slo.clone(),
            measurements,
        }
    }

    /// The run in one line, then each measurement in one.
    pub fn json_lines(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string(&json!({"run": self}))? + "\n";
        for measurement in &self.measurements {
            text += &serde_json::to_string(measurement)?;
            text.push('\n');
        }
        Ok(text)
    }

    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = Vec::new();
        for measurement in &self.measurements {
            let Some(card) = self.targets.iter().find(|card| card.name == measurement.target) else {
                continue;
            };
            match rows.last_mut() {
                Some(row) if row.card.name == card.name && row.load == measurement.load => {
                    row.runs.push(measurement);
                }
                _ => rows.push(Row { card, load: measurement.load, runs: vec![measurement] }),
            }
        }
        rows
    }

    /// What the terminal shows.
    pub fn table(&self) -> String {
        let rows = self.rows();
        let mut text = self.head();
        text += "\nThroughput\n";
        text += &self.throughput(&rows).text();
        text += "\nLatency, ms\n";
        text += &self.latency(&rows).text();
        text += &self.saturation(&rows);
        let ratios = self.ratios(&rows);
        if !ratios.is_empty() {
            let _ = writeln!(
                text,
                "\nAgainst {} in the same run: how many times as much, how many times as long",
                self.targets[0].name
            );
            text += &ratios.text();
        }
        text.push('\n');
        text += &self.failures();
        text += &self.definitions();
        text
    }

    pub(super) fn head(&self) -> String {
        let WorkloadOptions { workload, seed, sampling, .. } = &self.workload;
        let mut text = format!("{}: {}\n", workload.name(), workload.describe(&self.workload));
        if !matches!(workload, Workload::Prefill | Workload::Decode) {
            let _ = writeln!(text, "texts: {}", self.texts);
            let given = |name: &str, value: Option<String>| value.map(|value| format!(", {name} {value}"));
            let sampling: String = [
                given("temperature", sampling.temperature.map(|value| value.to_string())),
                given("top_p", sampling.top_p.map(|value| value.to_string())),
                given("top_k", sampling.top_k.map(|value| value.to_string())),
                given("min_p", sampling.min_p.map(|value| value.to_string())),
            ]
            .into_iter()
            .flatten()
            .collect();
            let _ = writeln!(text, "seed {seed}{sampling}");
        }
        let _ = writeln!(
            text,
            "{} of {} requests for each load, after {} to warm up",
            match self.runs {
                1 => "1 run".to_owned(),
                runs if self.targets.len() == 1 => format!("{runs} runs"),
                runs => format!("{runs} interleaved runs"),
            },
            self.requests,
            self.warm_up
        );
        let _ = writeln!(text, "machine: {}", self.system.line());
        for card in &self.targets {
            let _ = writeln!(text, "{}: {}", card.label(), card.line());
        }
        text
    }

    fn throughput(&self, rows: &[Row<'_>]) -> Table {
        let mut table = Table::new(&["target", "load"])
            .figures("requests", &["ok", "refused", "failed"])
            .figures(
                "a second",
                &["requests", "output tokens", "prompt tokens", "valid items", "within limits"],
            )
            .figures("USD", &["per M output tokens", "per 1000 items"])
            .figures("share", &["valid", "cached", "forced", "drafts accepted", "padded"])
            .figures("", &["RSS MiB", "client CPU"]);
        for row in rows {
            let n = |count: fn(&Measurement) -> usize| match row.runs.iter().copied().map(count).sum() {
                0 => NOTHING.to_owned(),
                n => n.to_string(),
            };
            let asked = row.sum(|of| of.items.as_ref().map(|items| items.asked));
            let prompt = row.sum(|of| of.tokens.prompt);
            let output = row.sum(|of| Some(of.tokens.output));
            let price = row.card.price.as_ref();
            table.row(vec![
                row.card.label(),
                row.load.to_string(),
                n(|of| of.requests.succeeded),
                n(|of| of.requests.refused),
                n(|of| of.requests.failed),
                row.cell(|of| Some(of.requests_per_second)),
                row.cell(|of| (of.tokens.output > 0).then_some(of.output_tokens_per_second)),
                row.cell(|of| of.prompt_tokens_per_second),
                row.cell(|of| of.valid_items_per_second),
                row.cell(|of| of.goodput_per_second),
                row.cell(|of| price?.usd_per_million(of.output_tokens_per_second)),
                row.cell(|of| price?.usd_per_thousand(of.valid_items_per_second?)),
                share(row.sum(|of| of.items.as_ref().map(|items| items.valid)), asked),
                share(row.sum(|of| of.tokens.cached), prompt),
                share(row.sum(|of| of.tokens.forced).filter(|&forced| forced > 0), output),
                share(
                    row.sum(|of| of.tokens.accepted),
                    row.sum(|of| of.tokens.drafted).filter(|&drafted| drafted > 0),
                ),
                share(
                    row.sum(|of| Some(of.computed?.padded as usize)).filter(|&padded| padded > 0),
                    row.sum(|of| of.computed.map(|of| (of.tokens + of.padded) as usize)),
                ),
                figure(row.most(|of| of.peak_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)))),
                row.most(|of| of.client_cpu)
                    .map_or(NOTHING.to_owned(), |share| format!("{:.0} %", share * 100.0)),
            ]);
        }
        table
    }

    /// Between which two rates of an open loop each target stops keeping up.
    pub(super) fn saturation(&self, rows: &[Row<'_>]) -> String {
        let mut text = String::new();
        for card in &self.targets {
            let came_back = |row: &Row<'_>| row.median(|of| Some(of.requests_per_second)).unwrap_or(0.0);
            let mut rates: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row.card.name == card.name)
                .filter_map(|row| match row.load {
                    Load::Open { per_second } => Some((per_second, came_back(row))),
                    Load::Closed { .. } => None,
                })
                .collect();
            rates.sort_by(|a, b| a.0.total_cmp(&b.0));
            if rates.len() < 2 {
                continue;
            }
            let rate = |rate: f64| format!("{rate:.3} requests a second");
            let most = rates.iter().map(|(_, came_back)| *came_back).fold(0.0, f64::max);
            let _ = match between(&rates) {
                (kept, Some(lost)) => writeln!(
                    text,
                    "{} keeps up with {} and not with {lost:.3}: at most {most:.3} came back.",
                    card.label(),
                    kept.map_or("no rate here".to_owned(), rate)
                ),
                (kept, None) => {
                    writeln!(text, "{} keeps up with {}.", card.label(), rate(kept.unwrap_or(0.0)))
                }
            };
        }
        text
    }

    fn latency(&self, rows: &[Row<'_>]) -> Table {
        let mut table = Table::new(&["target", "load"]);
        for (name, _) in LATENCIES {
            table = table.figures(name, &["p50", "p90", "p99", "max"]);
        }
        table = table.figures("", &["TPOT p50", "sent late p99"]);
        let schema = self.workload.workload == Workload::Schema;
        for row in rows {
            let mut cells = vec![row.card.label(), row.load.to_string()];
            for (name, of) in LATENCIES {
                // Under a schema the item is there when the reply ends.
                let shown = !(schema && name == FIRST_ITEM);
                for value in PERCENTILES {
                    cells.push(figure(row.median(|run| of(run).map(|of| value(&of))).filter(|_| shown)));
                }
            }
            cells.push(figure(row.median(|of| of.tpot_ms.map(|of| of.p50))));
            let lag = row.median(|of| of.send_lag_ms.map(|of| of.p99));
            cells.push(figure(lag.filter(|_| matches!(row.load, Load::Open { .. }))));
            table.row(cells);
        }
        table
    }

    /// Each target beside the first, run by run.
    fn ratios(&self, rows: &[Row<'_>]) -> Table {
        let mut table = Table::new(&["target", "load"])
            .figures("as much", &["requests/s", "output tok/s", "prompt tok/s", "valid items/s", "RSS"])
            .figures("as long, p50", &["TTFT", FIRST_ITEM, "ITL", "E2E"])
            .figures("as long, p99", &["TTFT", "E2E"]);
        for row in rows.iter().filter(|row| row.card.name != self.targets[0].name) {
            let Some(base) =
                rows.iter().find(|base| base.load == row.load && base.card.name == self.targets[0].name)
            else {
                continue;
            };
            let ratio = |value: fn(&Measurement) -> Option<f64>| {
                let of_run = |of: &&Measurement| {
                    let base = base.runs.iter().find(|base| base.run == of.run)?;
                    Some(value(of)? / value(base).filter(|&base| base > 0.0)?)
                };
                cell(Spread::of(row.runs.iter().filter_map(of_run)))
            };
            table.row(vec![
                row.card.label(),
                row.load.to_string(),
                ratio(|of| Some(of.requests_per_second)),
                ratio(|of| Some(of.output_tokens_per_second)),
                ratio(|of| of.prompt_tokens_per_second),
                ratio(|of| of.valid_items_per_second),
                ratio(|of| of.peak_rss_bytes.map(|bytes| bytes as f64)),
                ratio(|of| of.ttft_ms.map(|of| of.p50)),
                ratio(|of| of.ttfi_ms.map(|of| of.p50)),
                ratio(|of| of.itl_ms.map(|of| of.p50)),
                ratio(|of| of.e2e_ms.map(|of| of.p50)),
                ratio(|of| of.ttft_ms.map(|of| of.p99)),
                ratio(|of| of.e2e_ms.map(|of| of.p99)),
            ]);
        }
        table
    }

    fn failures(&self) -> String {
        let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for of in &self.measurements {
            for (reason, count) in &of.requests.reasons {
                *reasons.entry((&of.target, reason)).or_default() += count;
            }
        }
        reasons
            .into_iter()
            .map(|((target, reason), count)| format!("{target}: {count} requests failed: {reason}\n"))
            .collect()
    }

    /// What the words in the tables mean.
    pub(super) fn definitions(&self) -> String {
        let mut text = "\
Times are of requests that succeeded, from the moment each should have been sent; rates are over the time
from the first request to the end of the last.
  TTFT        to the first text
  first item  to the first whole, valid item
  ITL         from one piece of text to the next
  TPOT        (last text − first text) / (output tokens − 1) of a request
  E2E         to the end of the reply
Percentiles are nearest-rank"
            .to_owned();
        text += if self.runs > 1 {
            ", and the median of the runs; in brackets the lowest and the highest run.\n"
        } else {
            ".\n"
        };
        if self.requests < 100 {
            text += "With fewer than 100 requests, p99 is the slowest of them.\n";
        }
        if let Some(slo) = &self.slo {
            let _ = writeln!(text, "Within limits: {slo}.");
        }
        for card in &self.targets {
            if let Some(price) = &card.price {
                let _ = writeln!(
                    text,
                    "Cost of {}: {} at {} USD an hour, as if it did nothing else ({}).",
                    card.label(),
                    price.instance,
                    price.usd_per_hour,
                    price.basis
                );
            }
        }
        let mut counts: Vec<TokenCount> = self.measurements.iter().map(|of| of.tokens.counted).collect();
        counts.sort_unstable();
        counts.dedup();
        for count in counts {
            let of = |card: &&TargetCard| {
                self.measurements.iter().any(|of| of.target == card.name && of.tokens.counted == count)
            };
            let names: Vec<&str> = self.targets.iter().filter(of).map(|card| card.name.as_str()).collect();
            let _ = writeln!(text, "Output tokens of {}: {}.", names.join(", "), count.describe());
        }
        if self.measurements.iter().any(|of| of.simulated) {
            text += "SIMULATED targets run on a stand-in for their device: none of their figures is a \
                device's.\n";
        }
        text
    }
}

/// The part of what is sent that must come back: the last replies end after the last request is sent, so less
/// than all of it.
const KEEPS_UP: f64 = 0.9;

/// The last rate that a target keeps up with, and the first that it does not; of rates from low to high, each with
/// the rate at which replies came back.
fn between(rates: &[(f64, f64)]) -> (Option<f64>, Option<f64>) {
    let kept = rates.iter().take_while(|(sent, came_back)| *came_back >= KEEPS_UP * sent).count();
    let rate = |idx: usize| rates.get(idx).map(|(sent, _)| *sent);
    (kept.checked_sub(1).and_then(rate), rate(kept))
}

const FIRST_ITEM: &str = "first item";

type Latency = (&'static str, fn(&Measurement) -> Option<Distribution>);

/// Those that have percentiles in the table.
const LATENCIES: [Latency; 4] = [
    ("TTFT", |of| of.ttft_ms),
    (FIRST_ITEM, |of| of.ttfi_ms),
    ("ITL", |of| of.itl_ms),
    ("E2E", |of| of.e2e_ms),
];
const PERCENTILES: [fn(&Distribution) -> f64; 4] = [|of| of.p50, |of| of.p90, |of| of.p99, |of| of.max];

impl TargetCard {
    /// The name, and that it is simulated where it is.
    pub fn label(&self) -> String {
        if self.simulated { format!("{} SIMULATED", self.name) } else { self.name.clone() }
    }

    pub(super) fn line(&self) -> String {
        let mut text = self.place.clone();
        if let Some(model) = &self.model {
            let _ = write!(text, ", {model}");
        }
        if let Some(backend) = &self.backend {
            let _ = write!(text, " on {backend}");
        }
        text
    }
}

impl Row<'_> {
    pub(super) fn spread(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|of| value(of)))
    }

    pub(super) fn median(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        self.spread(value).map(|spread| spread.median)
    }

    fn most(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        self.spread(value).map(|spread| spread.high)
    }

    fn cell(&self, value: impl Fn(&Measurement) -> Option<f64>) -> String {
        cell(self.spread(value))
    }

    /// Over all runs, if each has it.
    fn sum(&self, count: impl Fn(&Measurement) -> Option<usize>) -> Option<usize> {
        self.runs.iter().map(|of| count(of)).sum()
    }
}

fn cell(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, low, high, n }) if n > 1 => {
            format!("{} ({}-{})", figure(median), figure(low), figure(high))
        }
        spread => figure(spread.map(|spread| spread.median)),
    }
}

fn share(part: Option<usize>, whole: Option<usize>) -> String {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0 => {
            format!("{:.0} %", part as f64 / whole as f64 * 100.0)
        }
        _ => NOTHING.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_saturated_from_the_first_rate_that_does_not_come_back() {
        assert_eq!(between(&[(1.0, 0.97), (2.0, 1.9), (4.0, 2.6), (8.0, 2.5)]), (Some(2.0), Some(4.0)));
        assert_eq!(between(&[(1.0, 0.97), (2.0, 1.85)]), (Some(2.0), None));
        assert_eq!(between(&[(4.0, 2.6), (8.0, 2.5)]), (None, Some(4.0)));
    }
}

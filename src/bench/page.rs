//! The run as a page that needs nothing else: what was measured, plotted, and beside it, told apart, what
//! is only predicted.

use super::load::Load;
use super::measurement::Measurement;
use super::plot::{Plot, Series};
use super::prices::PriceTable;
use super::report::{Report, Row};
use super::roofline::{Bounds, CHIPS};
use super::sample::Sample;
use super::table::{Table, figure};
use super::target::TargetCard;
use crate::eval::page::{document, escaped};
use std::fmt::Write;

type Value = fn(&Measurement) -> Option<f64>;

const STYLE: &str = "body{max-width:80rem}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem 2rem}figure{margin:0}figcaption{font-weight:600}.legend{margin:.2rem 0;font-size:13px}\
.legend span{margin-right:1.2em;white-space:nowrap}.legend i{display:inline-block;width:1.6em;vertical-align:middle}\
.predicted{border:2px dashed #b5651d;padding:0 1rem}.warn{background:#fff3cd;padding:.5rem 1rem}\
dt{font-weight:600}dd{margin:0 0 .4rem}";

/// Sequences at once that a prediction is made for.
const PREDICTED_SEQUENCES: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];
/// A prompt whose prefill is predicted.
const PREDICTED_PROMPT: f64 = 512.0;

impl Report {
    /// A page with no script, and no file beside it.
    pub fn html(&self) -> String {
        let names: Vec<&str> = self.targets.iter().map(|card| card.name.as_str()).collect();
        let title = format!("mondai bench: {} of {}", self.workload.workload.name(), names.join(" and "));
        let rows = self.rows();
        let simulated = if self.targets.iter().any(|card| card.simulated) {
            "<p class=\"warn\">SIMULATED targets run on a stand-in for their device: their lines and rows say \
             nothing of a device's speed.</p>\n"
        } else {
            ""
        };
        let body = format!(
            "{simulated}<pre>{}</pre>\n<div class=\"plots\">{}{}</div><h2>Machine</h2>\n{}{}",
            escaped(&self.table()),
            self.plots(&rows),
            self.arrival_curves(&rows),
            self.system_html(),
            self.roofline_html(),
        );
        document(&title, STYLE, &body)
    }

    fn plots(&self, rows: &[Row<'_>]) -> String {
        let closed = rows.iter().any(|row| matches!(row.load, Load::Closed { .. }));
        let x_label = if closed { "requests at once" } else { "requests a second, offered" };
        let ms = "ms";
        let mut html = String::new();
        let mut plot = |title: &str, y_label: &str, lines: &[(&str, Value)]| {
            let series = self.by_load(rows, lines);
            html += &Plot { title, x_label, y_label, series }.svg();
        };
        plot("Output tokens a second", "tokens/s", &[("", |of| Some(of.output_tokens_per_second))]);
        plot("Valid items a second", "items/s", &[("", |of| of.valid_items_per_second)]);
        plot("Requests a second", "requests/s", &[("", |of| Some(of.requests_per_second))]);
        plot("Requests a second within the limits", "requests/s", &[("", |of| of.goodput_per_second)]);
        plot(
            "Time to first token",
            ms,
            &[("p50", |of| of.ttft_ms.map(|of| of.p50)), ("p99", |of| of.ttft_ms.map(|of| of.p99))],
        );
        plot(
            "Time to first item",
            ms,
            &[("p50", |of| of.ttfi_ms.map(|of| of.p50)), ("p99", |of| of.ttfi_ms.map(|of| of.p99))],
        );
        plot(
            "Gap between pieces of text",
            ms,
            &[("p50", |of| of.itl_ms.map(|of| of.p50)), ("p99", |of| of.itl_ms.map(|of| of.p99))],
        );
        plot(
            "Whole request",
            ms,
            &[("p50", |of| of.e2e_ms.map(|of| of.p50)), ("p99", |of| of.e2e_ms.map(|of| of.p99))],
        );
        html + &self.cost_plot(rows)
    }

    /// A line for each target and value, over the loads; values are medians of the runs.
    fn by_load(&self, rows: &[Row<'_>], lines: &[(&str, Value)]) -> Vec<Series> {
        let mut all = Vec::new();
        for (colour, card) in self.targets.iter().enumerate() {
            for (idx, (name, value)) in lines.iter().enumerate() {
                let points: Vec<(f64, f64)> = rows
                    .iter()
                    .filter(|row| row.card.name == card.name)
                    .filter_map(|row| Some((position(row.load), row.median(value)?)))
                    .collect();
                if !points.is_empty() {
                    let name = format!("{} {name}", card.label()).trim().to_owned();
                    all.push(Series { name, colour, dashed: idx > 0, marked: true, points });
                }
            }
        }
        all
    }

    /// What a million tokens cost against how long one waits for a reply, a point a load.
    fn cost_plot(&self, rows: &[Row<'_>]) -> String {
        let mut series = Vec::new();
        for (colour, card) in self.targets.iter().enumerate() {
            let Some(price) = &card.price else { continue };
            let of_target = rows.iter().filter(|row| row.card.name == card.name);
            let point = |row: &Row<'_>| {
                let usd = price.usd_per_million(row.median(|of| Some(of.output_tokens_per_second))?)?;
                Some((row.median(|of| of.e2e_ms.map(|of| of.p50))?, usd))
            };
            let points: Vec<(f64, f64)> = of_target.filter_map(point).collect();
            if !points.is_empty() {
                let name = format!("{} on {}", card.label(), price.instance);
                series.push(Series { name, colour, dashed: card.simulated, marked: true, points });
            }
        }
        Plot {
            title: "Cost of a million output tokens against latency, a point a load",
            x_label: "whole request, p50, ms",
            y_label: "US dollars",
            series,
        }
        .svg()
    }

    /// For each load, the share of requests that had their first token, or item, by then.
    fn arrival_curves(&self, rows: &[Row<'_>]) -> String {
        let mut loads: Vec<Load> = Vec::new();
        for row in rows {
            if !loads.contains(&row.load) {
                loads.push(row.load);
            }
        }
        let mut html = String::new();
        for load in loads {
            let curve = |first: fn(&Sample) -> Option<f64>, title: &str| {
                let mut series = Vec::new();
                for (colour, card) in self.targets.iter().enumerate() {
                    let of_target = |row: &&Row<'_>| row.load == load && row.card.name == card.name;
                    let Some(row) = rows.iter().find(of_target) else { continue };
                    let points = cumulative(row, first);
                    if !points.is_empty() {
                        let name = card.label();
                        series.push(Series { name, colour, dashed: false, marked: false, points });
                    }
                }
                let title = format!("{title}, {load}");
                Plot { title: &title, x_label: "ms", y_label: "share of requests", series }.svg()
            };
            html += &curve(|of| of.texts.first().copied(), "First token by then");
            if self.workload.workload == super::Workload::Quiz {
                html += &curve(|of| of.items.first().copied(), "First item by then");
            }
        }
        html
    }

    fn system_html(&self) -> String {
        let system = &self.system;
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let known = |value: Option<String>| value.unwrap_or_else(|| "not said".to_owned());
        let mut entries = vec![
            ("date", system.date.clone()),
            ("command", system.command.join(" ")),
            ("mondai", format!("{}, commit {}", system.mondai, known(system.commit.clone()))),
            ("CPU", known(system.cpu.clone())),
            ("of its instructions", system.cpu_flags.join(" ")),
            (
                "CPUs",
                format!(
                    "{}{} in {} sockets",
                    known(system.cpus.map(|n| n.to_string())),
                    if system.virtual_machine { ", of a virtual machine," } else { "" },
                    known(system.sockets.map(|n| n.to_string()))
                ),
            ),
            ("memory", known(system.memory_bytes.map(gib))),
            ("governor", known(system.governor.clone())),
            ("kernel", known(system.kernel.clone())),
            ("load before the run", known(system.load_average.map(|load| load.to_string()))),
        ];
        entries.extend(self.targets.iter().map(|card| ("target", describe(card))));
        let mut html = "<dl>".to_owned();
        for (name, value) in entries {
            let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
        }
        html + "</dl>\n"
    }

    /// Bounds for the chips that are not here, of the model in this process.
    fn roofline_html(&self) -> String {
        let Some(card) = self.targets.iter().find_map(|card| card.weights.as_ref()) else {
            return String::new();
        };
        let positions = self.positions();
        let prices = PriceTable::shipped();
        let mut table = Table::new(&["chip", "bound by"]).figures(
            "",
            &["sequences", "step ms", "output tok/s", "prefill 512, ms", "USD per million output tokens"],
        );
        for chip in &CHIPS {
            let prefill = Bounds::of_step(chip, &card.shape, PREDICTED_PROMPT, 0.0).seconds();
            for sequences in PREDICTED_SEQUENCES {
                let step = Bounds::of_step(chip, &card.shape, sequences, positions);
                let rate = sequences / step.seconds();
                let price = chip.instance.and_then(|instance| prices.of(instance).ok());
                table.row(vec![
                    chip.name.to_owned(),
                    step.limit().to_owned(),
                    figure(sequences),
                    figure(step.seconds() * 1e3),
                    figure(rate),
                    figure(prefill * 1e3),
                    figure(price.and_then(|price| price.usd_per_million(rate))),
                ]);
            }
        }
        format!(
            "<h2>Roofline: a prediction, nothing of it was measured</h2>\n<div class=\"predicted\">\
             <p>PREDICTED least times of {} in BF16 with {positions:.0} positions behind each sequence, from \
             the chips' bandwidth, arithmetic and collectives alone. Real programs are slower. Prices: {}, \
             {}.</p>\n<pre>{}</pre></div>\n",
            escaped(card.file.as_deref().unwrap_or("the model")),
            escaped(&prices.region),
            escaped(&prices.date),
            escaped(&table.text())
        )
    }

    /// What stands behind a token of this workload, on the average: the prompt and half the reply.
    fn positions(&self) -> f64 {
        let sum =
            |count: fn(&Measurement) -> usize| self.measurements.iter().map(count).sum::<usize>() as f64;
        let replies = sum(|of| of.requests.succeeded).max(1.0);
        (sum(|of| of.tokens.prompt.unwrap_or(0)) + sum(|of| of.tokens.output) / 2.0) / replies
    }
}

fn describe(card: &TargetCard) -> String {
    let mut text = format!("{}: {}", card.label(), card.line());
    if let Some(weights) = &card.weights {
        let types: Vec<String> = weights
            .weight_bytes_by_type
            .iter()
            .map(|(name, bytes)| format!("{name} {:.1} MB", *bytes as f64 / 1e6))
            .collect();
        let _ = write!(
            text,
            "; {}, sha256 {}, weights {}",
            weights.file.as_deref().unwrap_or("a folder"),
            weights.sha256.as_deref().unwrap_or("not taken"),
            types.join(" and ")
        );
    }
    if let Some(price) = &card.price {
        let _ = write!(text, "; {} at {} USD an hour ({})", price.instance, price.usd_per_hour, price.basis);
    }
    if !card.details.is_null() {
        let _ = write!(text, "; {}", card.details);
    }
    text
}

fn position(load: Load) -> f64 {
    match load {
        Load::Closed { concurrency } => concurrency as f64,
        Load::Open { per_second } => per_second,
    }
}

/// Steps from 0 to the share of all requests that got there, failed ones counted as never.
fn cumulative(row: &Row<'_>, first: fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let samples = || row.runs.iter().flat_map(|of| &of.samples);
    let n = samples().count() as f64;
    let succeeded = samples().filter(|sample| sample.outcome.is_ok());
    let mut times: Vec<f64> =
        succeeded.filter_map(|sample| Some((first(sample)? - sample.intended) * 1e3)).collect();
    times.sort_by(f64::total_cmp);
    let steps = times.iter().enumerate();
    steps.flat_map(|(idx, &time)| [(time, idx as f64 / n), (time, (idx + 1) as f64 / n)]).collect()
}

//! Counters, gauges and histograms of the whole server, in one registry of their own.
//!
//! Any room may count: each method says what happened, and this file alone knows the names. Names are
//! `mondai_*` in base units, counters end in `_total`. At the scrape, the ones that dashboards and
//! routers know from vLLM are shown once more under its `vllm:` names: one count, two names.
//! Absent: anything that is not fed.

use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    core::Collector,
};
use std::collections::HashMap;
use std::time::Duration;

// Bucket bounds in seconds are vLLM's (rust/src/metrics/src/request.rs), so that the same dashboards fit.
#[rustfmt::skip]
const TTFT_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
#[rustfmt::skip]
const STEP_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
#[rustfmt::skip]
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

/// The names that vLLM gives to counts of ours: ours, theirs.
const VLLM_NAMES: &[(&str, &str)] = &[
    ("mondai_sequences_waiting", "vllm:num_requests_waiting"),
    ("mondai_sequences_running", "vllm:num_requests_running"),
    ("mondai_prompt_tokens_total", "vllm:prompt_tokens_total"),
    ("mondai_generated_tokens_total", "vllm:generation_tokens_total"),
    ("mondai_prefix_queried_tokens_total", "vllm:prefix_cache_queries_total"),
    ("mondai_prefix_cached_tokens_total", "vllm:prefix_cache_hits_total"),
    ("mondai_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"),
    ("mondai_inter_token_seconds", "vllm:inter_token_latency_seconds"),
    ("mondai_queue_seconds", "vllm:request_queue_time_seconds"),
    ("mondai_sequence_seconds", "vllm:e2e_request_latency_seconds"),
    ("mondai_sequences_finished_total", "vllm:request_success_total"),
];

/// All of the server's metrics and the registry they are in.
pub struct Metrics {
    registry: Registry,
    model_name: String,

    sequences_waiting: IntGauge,
    sequences_running: IntGauge,
    step_seconds: Histogram,
    step_rows_total: IntCounter,
    padded_tokens_total: IntCounter,
    slots_lost: IntGauge,
    prefill_tokens_total: IntCounter,
    decode_tokens_total: IntCounter,
    queue_seconds: Histogram,
    prompt_tokens_total: IntCounter,
    prefix_queried_tokens_total: IntCounter,
    prefix_cached_tokens_total: IntCounter,
    time_to_first_token_seconds: Histogram,
    generated_tokens_total: IntCounter,
    forced_tokens_total: IntCounter,
    drafted_tokens_total: IntCounter,
    accepted_tokens_total: IntCounter,
    inter_token_seconds: Histogram,
    sequence_seconds: Histogram,
    sequences_finished_total: IntCounterVec,

    quizzes_total: IntCounter,
    quiz_items_total: IntCounterVec,
    quiz_rejects_total: IntCounterVec,
    quiz_drafts_outdone_total: IntCounter,
    time_to_first_item_seconds: Histogram,

    http_requests_total: IntCounterVec,
    http_requests_in_flight: IntGauge,
    http_unknown_fields_total: IntCounterVec,
}

impl Metrics {
    /// Every metric at zero. `model_name` labels the `vllm:` view.
    pub fn new(model_name: &str) -> Self {
        Self::with_labels(model_name, HashMap::new())
    }

    /// Of a server whose device is a stand-in: each metric says `simulated="true"`, so that no dashboard takes
    /// its times for a device's.
    pub fn simulated(model_name: &str) -> Self {
        Self::with_labels(model_name, HashMap::from([("simulated".to_owned(), "true".to_owned())]))
    }

    fn with_labels(model_name: &str, labels: HashMap<String, String>) -> Self {
        let registry = Registry::new_custom(None, Some(labels)).expect("the label's name is sound");
        let r = &registry;
        Self {
            model_name: model_name.to_owned(),

            sequences_waiting: gauge(r, "mondai_sequences_waiting", "Sequences waiting for a slot."),
            sequences_running: gauge(r, "mondai_sequences_running", "Sequences that hold a slot."),
            step_seconds: histogram(r, "mondai_step_seconds", "Duration of an engine step.", STEP_SECONDS),
            step_rows_total: counter(r, "mondai_step_rows_total", "Rows of all engine steps."),
            padded_tokens_total: counter(
                r,
                "mondai_padded_tokens_total",
                "Tokens run only because a program's shape is fixed.",
            ),
            slots_lost: gauge(r, "mondai_slots_lost", "Slots whose device failed."),
            prefill_tokens_total: counter(r, "mondai_prefill_tokens_total", "Prompt tokens run."),
            decode_tokens_total: counter(r, "mondai_decode_tokens_total", "Reply tokens run."),
            queue_seconds: histogram(r, "mondai_queue_seconds", "Wait for a slot.", REQUEST_SECONDS),
            prompt_tokens_total: counter(r, "mondai_prompt_tokens_total", "Tokens of started prompts."),
            prefix_queried_tokens_total: counter(
                r,
                "mondai_prefix_queried_tokens_total",
                "Prompt tokens looked up in the prefix cache.",
            ),
            prefix_cached_tokens_total: counter(
                r,
                "mondai_prefix_cached_tokens_total",
                "Prompt tokens found in the prefix cache.",
            ),
            time_to_first_token_seconds: histogram(
                r,
                "mondai_time_to_first_token_seconds",
                "From submission to the first token.",
                TTFT_SECONDS,
            ),
            generated_tokens_total: counter(
                r,
                "mondai_generated_tokens_total",
                "Tokens of replies, forced ones included.",
            ),
            forced_tokens_total: counter(
                r,
                "mondai_forced_tokens_total",
                "Tokens of replies that a grammar forced, never sampled.",
            ),
            drafted_tokens_total: counter(
                r,
                "mondai_drafted_tokens_total",
                "Tokens run ahead of a reply on the guess that it will have them.",
            ),
            accepted_tokens_total: counter(
                r,
                "mondai_accepted_tokens_total",
                "Tokens run ahead of a reply that it then had.",
            ),
            inter_token_seconds: histogram(
                r,
                "mondai_inter_token_seconds",
                "Gap between consecutive tokens of a sequence.",
                STEP_SECONDS,
            ),
            sequence_seconds: histogram(
                r,
                "mondai_sequence_seconds",
                "From submission to the end of a sequence.",
                REQUEST_SECONDS,
            ),
            sequences_finished_total: counter_vec(
                r,
                "mondai_sequences_finished_total",
                "Sequences that ended, by reason.",
                &["reason"],
            ),

            quizzes_total: counter(r, "mondai_quizzes_total", "Quizzes started."),
            quiz_items_total: counter_vec(r, "mondai_quiz_items_total", "Quiz items delivered.", &["kind"]),
            quiz_rejects_total: counter_vec(
                r,
                "mondai_quiz_rejects_total",
                "Quiz items that failed a check.",
                &["reason"],
            ),
            quiz_drafts_outdone_total: counter(
                r,
                "mondai_quiz_drafts_outdone_total",
                "Quiz items that passed and gave way to a better draft.",
            ),
            time_to_first_item_seconds: histogram(
                r,
                "mondai_time_to_first_item_seconds",
                "From the start of a quiz to its first item.",
                TTFT_SECONDS,
            ),

            http_requests_total: counter_vec(
                r,
                "mondai_http_requests_total",
                "HTTP requests answered, by route, method and status.",
                &["route", "method", "status"],
            ),
            http_requests_in_flight: gauge(
                r,
                "mondai_http_requests_in_flight",
                "HTTP requests whose answer is not complete.",
            ),
            http_unknown_fields_total: counter_vec(
                r,
                "mondai_http_unknown_fields_total",
                "Request fields that no one knows and that were passed over.",
                &["route"],
            ),
            registry,
        }
    }

    /// The engine's queue as it is now.
    pub fn engine_queue(&self, waiting: usize, running: usize) {
        self.sequences_waiting.set(waiting as i64);
        self.sequences_running.set(running as i64);
    }

    /// One backend call came back: its rows, and its tokens of prompts and of replies.
    pub fn engine_step(&self, duration: Duration, rows: usize, prefill_tokens: usize, decode_tokens: usize) {
        self.step_seconds.observe(duration.as_secs_f64());
        self.step_rows_total.inc_by(rows as u64);
        self.prefill_tokens_total.inc_by(prefill_tokens as u64);
        self.decode_tokens_total.inc_by(decode_tokens as u64);
    }

    /// A step ran this many tokens more than its rows have.
    pub fn step_padded(&self, tokens: usize) {
        self.padded_tokens_total.inc_by(tokens as u64);
    }

    /// A step ran this many tokens ahead of a reply.
    pub fn drafted(&self, tokens: usize) {
        self.drafted_tokens_total.inc_by(tokens as u64);
    }

    /// The reply then had this many of them.
    pub fn accepted(&self, tokens: usize) {
        self.accepted_tokens_total.inc_by(tokens as u64);
    }

    /// The device lost slots; they stay lost.
    pub fn lost_slots(&self, slots: usize) {
        self.slots_lost.add(slots as i64);
    }

    /// A sequence got a slot; `cached_tokens` of its prompt need not be run.
    pub fn sequence_started(&self, queue_time: Duration, prompt_tokens: usize, cached_tokens: usize) {
        self.queue_seconds.observe(queue_time.as_secs_f64());
        self.prompt_tokens_total.inc_by(prompt_tokens as u64);
        self.prefix_queried_tokens_total.inc_by(prompt_tokens as u64);
        self.prefix_cached_tokens_total.inc_by(cached_tokens as u64);
    }

    /// A sequence got its first token, this long after it was submitted.
    pub fn first_token(&self, ttft: Duration) {
        self.time_to_first_token_seconds.observe(ttft.as_secs_f64());
    }

    /// Replies grew by `n` tokens, `forced` of them written by a grammar.
    pub fn tokens(&self, n: usize, forced: usize) {
        self.generated_tokens_total.inc_by(n as u64);
        self.forced_tokens_total.inc_by(forced as u64);
    }

    /// The gap between two tokens of one sequence.
    pub fn inter_token(&self, duration: Duration) {
        self.inter_token_seconds.observe(duration.as_secs_f64());
    }

    /// A sequence ended, this long after it was submitted: `stop`, `length`, `cancelled` or `failed`.
    pub fn sequence_finished(&self, reason: &str, total_time: Duration) {
        self.sequences_finished_total.with_label_values(&[reason]).inc();
        self.sequence_seconds.observe(total_time.as_secs_f64());
    }

    pub fn quiz_started(&self) {
        self.quizzes_total.inc();
    }

    /// A checked item was delivered.
    pub fn quiz_item(&self, kind: &str) {
        self.quiz_items_total.with_label_values(&[kind]).inc();
    }

    /// An item failed a check and is written again.
    pub fn quiz_rejected(&self, reason: &str) {
        self.quiz_rejects_total.with_label_values(&[reason]).inc();
    }

    /// An item passed, and another draft of it was better.
    pub fn quiz_draft_outdone(&self) {
        self.quiz_drafts_outdone_total.inc();
    }

    /// The first item of a quiz was delivered, this long after the quiz was started.
    pub fn time_to_first_item(&self, duration: Duration) {
        self.time_to_first_item_seconds.observe(duration.as_secs_f64());
    }

    /// A request came in. The pair of [`http_finished`](Self::http_finished).
    pub fn http_started(&self) {
        self.http_requests_in_flight.inc();
    }

    /// The last byte of an answer was handed over, or its client went away.
    pub fn http_finished(&self, route: &str, method: &str, status: u16) {
        self.http_requests_in_flight.dec();
        self.http_requests_total.with_label_values(&[route, method, &status.to_string()]).inc();
    }

    /// Requests whose answer is not complete.
    pub fn http_in_flight(&self) -> usize {
        usize::try_from(self.http_requests_in_flight.get()).unwrap_or(0)
    }

    /// A request held `n` fields that nobody knows.
    pub fn http_unknown_fields(&self, route: &str, n: usize) {
        self.http_unknown_fields_total.with_label_values(&[route]).inc_by(n as u64);
    }

    /// Everything in the Prometheus text format 0.0.4, `vllm:` names last.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        let vllm: Vec<MetricFamily> = VLLM_NAMES
            .iter()
            .filter_map(|(ours, theirs)| {
                let family = families.iter().find(|family| family.name() == *ours)?;
                Some(self.vllm_view(family, theirs))
            })
            .collect();
        families.extend(vllm);
        TextEncoder::new().encode_to_string(&families).expect("gathered families are well formed")
    }

    /// The same counts under vLLM's name, labels and reasons.
    fn vllm_view(&self, family: &MetricFamily, name: &str) -> MetricFamily {
        let mut family = family.clone();
        family.set_name(name.to_owned());
        for metric in family.mut_metric() {
            let mut labels = vec![label("model_name", &self.model_name), label("engine", "0")];
            labels.extend(metric.take_label().iter().map(|pair| match (pair.name(), pair.value()) {
                ("reason", "cancelled") => label("finished_reason", "abort"),
                ("reason", "failed") => label("finished_reason", "error"),
                ("reason", reason) => label("finished_reason", reason),
                (name, value) => label(name, value),
            }));
            metric.set_label(labels);
        }
        family
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("the name, labels and buckets above are valid");
    registry.register(Box::new(metric.clone())).expect("the names above are distinct");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_our_name_and_vllms() {
        let metrics = Metrics::new("tiny");
        metrics.engine_queue(3, 2);
        metrics.tokens(5, 4);
        metrics.sequence_finished("cancelled", Duration::from_secs(1));
        let text = metrics.render();
        for line in [
            "mondai_sequences_waiting 3",
            "vllm:num_requests_waiting{model_name=\"tiny\",engine=\"0\"} 3",
            "mondai_generated_tokens_total 5",
            "mondai_forced_tokens_total 4",
            "vllm:generation_tokens_total{model_name=\"tiny\",engine=\"0\"} 5",
            "mondai_sequences_finished_total{reason=\"cancelled\"} 1",
            "vllm:request_success_total{model_name=\"tiny\",engine=\"0\",finished_reason=\"abort\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn every_vllm_name_has_a_source() {
        let metrics = Metrics::new("tiny");
        metrics.sequence_finished("stop", Duration::ZERO);
        let names: Vec<String> = metrics.registry.gather().iter().map(|f| f.name().to_owned()).collect();
        for (ours, _) in VLLM_NAMES {
            assert!(names.iter().any(|name| name == ours), "{ours} is not registered");
        }
    }
}

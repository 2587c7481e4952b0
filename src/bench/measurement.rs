//! What a target came to under one load: a row of the report, a line of JSON.

use super::computed::Computed;
use super::distribution::Distribution;
use super::load::Load;
use super::sample::{Failure, Reply, Sample, TokenCount};
use super::slo::Slo;
use serde::Serialize;
use std::collections::BTreeMap;

/// One target under one load, once.
///
/// Times are of the requests that succeeded, from the moment each should have been sent; rates are over
/// `seconds`, from the first request to the end of the last.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub target: String,
    /// The target said so: these are not a device's figures.
    pub simulated: bool,
    pub load: Load,
    /// From 0.
    pub run: usize,
    pub seconds: f64,
    pub requests: Requests,
    pub tokens: Tokens,
    /// By the target's metrics, if it is a mondai; of all requests, those that failed too.
    pub computed: Option<Computed>,
    pub items: Option<Items>,
    pub requests_per_second: f64,
    pub output_tokens_per_second: f64,
    /// Prompt tokens that were computed, those from a cache left out.
    pub prompt_tokens_per_second: Option<f64>,
    pub valid_items_per_second: Option<f64>,
    /// Requests a second that met the limits.
    pub goodput_per_second: Option<f64>,
    pub good_share: Option<f64>,
    pub ttft_ms: Option<Distribution>,
    pub ttfi_ms: Option<Distribution>,
    pub itl_ms: Option<Distribution>,
    pub tpot_ms: Option<Distribution>,
    pub e2e_ms: Option<Distribution>,
    /// How late the client itself was.
    pub send_lag_ms: Option<Distribution>,
    /// Of the target's process, at the most; in this process, with what the client takes.
    pub peak_rss_bytes: Option<u64>,
    /// Of one core, by this client; only where the target is another process.
    pub client_cpu: Option<f64>,
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Requests {
    pub sent: usize,
    pub succeeded: usize,
    /// The target was full and said so.
    pub refused: usize,
    pub failed: usize,
    /// Why, and how many.
    pub reasons: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tokens {
    pub counted: TokenCount,
    pub prompt: Option<usize>,
    pub cached: Option<usize>,
    pub output: usize,
    pub forced: Option<usize>,
    pub drafted: Option<usize>,
    pub accepted: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Items {
    pub asked: usize,
    pub valid: usize,
    pub drafts_rejected: Option<usize>,
}

/// The times of one request that succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Times {
    /// To the first text.
    pub(super) ttft_ms: Option<f64>,
    /// To the first whole, valid item.
    pub(super) ttfi_ms: Option<f64>,
    /// (last text − first text) / (output tokens − 1): the mean gap of tokens, however they were bundled.
    pub(super) tpot_ms: Option<f64>,
    /// To the end of the reply.
    pub(super) e2e_ms: f64,
}

/// What is true of all samples of a measurement.
pub(super) struct Setup<'a> {
    pub(super) target: &'a str,
    pub(super) simulated: bool,
    pub(super) load: Load,
    pub(super) run: usize,
    pub(super) has_items: bool,
    pub(super) slo: Option<&'a Slo>,
}

impl Times {
    pub(super) fn of(sample: &Sample, reply: &Reply) -> Self {
        let since = |at: f64| (at - sample.intended) * 1e3;
        let first = sample.texts.first().copied();
        let gaps = reply.output_tokens.checked_sub(1).filter(|&gaps| gaps > 0);
        Self {
            ttft_ms: first.map(since),
            ttfi_ms: sample.items.first().copied().map(since),
            tpot_ms: match (first, sample.texts.last(), gaps) {
                (Some(first), Some(last), Some(gaps)) if sample.texts.len() > 1 => {
                    Some((last - first) * 1e3 / gaps as f64)
                }
                _ => None,
            },
            e2e_ms: since(sample.ended),
        }
    }
}

impl Measurement {
    pub(super) fn new(setup: &Setup<'_>, samples: Vec<Sample>) -> Self {
        let replies =
            || samples.iter().filter_map(|sample| sample.outcome.as_ref().ok().map(|reply| (sample, reply)));
        let times: Vec<Times> = replies().map(|(sample, reply)| Times::of(sample, reply)).collect();
        let requests = Requests::of(&samples);
        let tokens = Tokens::of(replies().map(|(_, reply)| reply));
        let items = setup.has_items.then(|| Items::of(replies().map(|(_, reply)| reply)));
        let first = samples.iter().map(|sample| sample.intended).fold(f64::INFINITY, f64::min);
        let last = samples.iter().map(|sample| sample.ended).fold(0.0, f64::max);
        let seconds = if samples.is_empty() { 0.0 } else { last - first };
        let a_second = |n: usize| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let n_good = setup.slo.map(|slo| times.iter().filter(|times| slo.is_met(times)).count());
        let gaps = replies().flat_map(|(sample, _)| {
            sample.texts.windows(2).map(|pair| (pair[1] - pair[0]) * 1e3).collect::<Vec<_>>()
        });
        Self {
            target: setup.target.to_owned(),
            simulated: setup.simulated,
            load: setup.load,
            run: setup.run,
            seconds,
            requests_per_second: a_second(requests.succeeded),
            output_tokens_per_second: a_second(tokens.output),
            prompt_tokens_per_second: tokens
                .prompt
                .map(|prompt| a_second(prompt.saturating_sub(tokens.cached.unwrap_or(0)))),
            valid_items_per_second: items.as_ref().map(|items| a_second(items.valid)),
            goodput_per_second: n_good.map(a_second),
            good_share: n_good.map(|good| good as f64 / samples.len().max(1) as f64),
            ttft_ms: Distribution::of(times.iter().filter_map(|times| times.ttft_ms)),
            ttfi_ms: Distribution::of(times.iter().filter_map(|times| times.ttfi_ms)),
            itl_ms: Distribution::of(gaps),
            tpot_ms: Distribution::of(times.iter().filter_map(|times| times.tpot_ms)),
            e2e_ms: Distribution::of(times.iter().map(|times| times.e2e_ms)),
            send_lag_ms: Distribution::of(samples.iter().map(|sample| (sample.sent - sample.intended) * 1e3)),
            computed: None,
            peak_rss_bytes: None,
            client_cpu: None,
            requests,
            tokens,
            items,
            samples,
        }
    }
}

impl Requests {
    fn of(samples: &[Sample]) -> Self {
        let mut requests = Self { sent: samples.len(), ..Self::default() };
        for sample in samples {
            let failure = match &sample.outcome {
                Ok(_) => {
                    requests.succeeded += 1;
                    continue;
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Refused(_) => requests.refused += 1,
                _ => requests.failed += 1,
            }
            *requests.reasons.entry(failure.to_string()).or_default() += 1;
        }
        requests
    }
}

impl Tokens {
    /// A count is known only if every reply says it.
    fn of<'a>(replies: impl Iterator<Item = &'a Reply> + Clone) -> Self {
        let sum = |count: fn(&Reply) -> Option<usize>| replies.clone().map(count).sum::<Option<usize>>();
        Self {
            counted: replies.clone().map(|reply| reply.token_count).max().unwrap_or_default(),
            prompt: sum(|reply| reply.prompt_tokens),
            cached: sum(|reply| reply.cached_tokens),
            output: replies.clone().map(|reply| reply.output_tokens).sum(),
            forced: sum(|reply| reply.forced_tokens),
            drafted: sum(|reply| reply.drafted_tokens),
            accepted: sum(|reply| reply.accepted_tokens),
        }
    }
}

impl Items {
    fn of<'a>(replies: impl Iterator<Item = &'a Reply> + Clone) -> Self {
        Self {
            asked: replies.clone().map(|reply| reply.items_asked).sum(),
            valid: replies.clone().map(|reply| reply.items_valid).sum(),
            drafts_rejected: replies.clone().map(|reply| reply.items_rejected).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(intended: f64, texts: &[f64], ended: f64, outcome: Result<Reply, Failure>) -> Sample {
        Sample { intended, sent: intended + 0.001, texts: texts.to_vec(), items: vec![ended], ended, outcome }
    }

    #[test]
    fn every_definition() {
        let reply = |output_tokens, cached_tokens| Reply {
            prompt_tokens: Some(100),
            cached_tokens,
            output_tokens,
            items_asked: 2,
            items_valid: 1,
            ..Reply::default()
        };
        let slo: Slo = "ttft:500".parse().unwrap();
        let setup = Setup {
            target: "a",
            simulated: true,
            load: Load::Open { per_second: 1.0 },
            run: 0,
            has_items: true,
            slo: Some(&slo),
        };
        let samples = vec![
            // Five tokens in three pieces.
            sample(1.0, &[1.5, 1.6, 1.9], 2.0, Ok(reply(5, Some(60)))),
            sample(2.0, &[4.0], 5.0, Ok(reply(1, Some(0)))),
            sample(2.5, &[], 2.6, Err(Failure::Refused("full".to_owned()))),
            sample(2.5, &[2.6], 3.0, Err(Failure::TimedOut)),
        ];
        let of = Measurement::new(&setup, samples);
        let ends = |of: Option<Distribution>| of.map(|of| (of.n, round(of.p50), round(of.max)));
        assert_eq!(of.seconds, 4.0);
        assert_eq!(ends(of.ttft_ms), Some((2, 500.0, 2000.0)));
        assert_eq!(ends(of.ttfi_ms), Some((2, 1000.0, 3000.0)));
        assert_eq!(ends(of.itl_ms), Some((2, 100.0, 300.0)));
        assert_eq!(ends(of.tpot_ms), Some((1, 100.0, 100.0)), "0.4 s over four gaps; one token has none");
        assert_eq!(ends(of.e2e_ms), Some((2, 1000.0, 3000.0)));
        assert_eq!(ends(of.send_lag_ms), Some((4, 1.0, 1.0)));
        assert_eq!(of.output_tokens_per_second, 1.5);
        assert_eq!(of.prompt_tokens_per_second, Some(35.0));
        assert_eq!(of.valid_items_per_second, Some(0.5));
        assert_eq!((of.goodput_per_second, of.good_share), (Some(0.25), Some(0.25)));
        assert_eq!((of.requests.succeeded, of.requests.refused, of.requests.failed), (2, 1, 1));
        assert_eq!(of.items.unwrap(), Items { asked: 4, valid: 2, drafts_rejected: None });
        assert!(of.simulated);
    }

    fn round(value: f64) -> f64 {
        (value * 1e6).round() / 1e6
    }
}

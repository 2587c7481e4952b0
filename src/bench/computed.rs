//! What an engine had to run for its replies, by its own metrics: tokens, and what was run beside them only
//! because a program's shape is fixed.

use serde::Serialize;

/// Tokens that were run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Computed {
    /// Of prompts and of replies.
    pub tokens: u64,
    /// Beside them.
    pub padded: u64,
}

impl Computed {
    /// Since the engine was opened, from its metrics in Prometheus's text format; `None` where they are another
    /// server's.
    pub(super) fn of_metrics(text: &str) -> Option<Self> {
        let total = |name: &str| -> Option<u64> {
            let samples = text.lines().filter_map(|line| line.strip_prefix(name));
            let mut values = samples.filter(|rest| rest.starts_with([' ', '{']));
            Some(values.next()?.rsplit_once(' ')?.1.parse::<f64>().ok()? as u64)
        };
        Some(Self {
            tokens: total("mondai_prefill_tokens_total")? + total("mondai_decode_tokens_total")?,
            padded: total("mondai_padded_tokens_total")?,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(before.tokens),
            padded: self.padded.saturating_sub(before.padded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::time::Duration;

    #[test]
    fn metrics_say_what_was_run() {
        for metrics in [Metrics::new("m"), Metrics::simulated("m")] {
            metrics.engine_step(Duration::from_millis(1), 2, 30, 4);
            metrics.step_padded(14);
            let before = Computed::of_metrics(&metrics.render()).unwrap();
            assert_eq!(before, Computed { tokens: 34, padded: 14 });
            metrics.engine_step(Duration::from_millis(1), 1, 0, 1);
            let now = Computed::of_metrics(&metrics.render()).unwrap();
            assert_eq!(now.since(before), Computed { tokens: 1, padded: 0 });
        }
        assert_eq!(Computed::of_metrics("vllm:prompt_tokens_total 5\n"), None);
        assert_eq!(Computed::of_metrics("mondai_prefill_tokens_total_of_another 5\n"), None);
    }
}

use super::measurement::Times;
use serde::Serialize;
use std::fmt::{self, Display};
use std::str::FromStr;

/// What a request must keep to, to count as good: `ttft:500,e2e:5000`, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Slo {
    pub ttft_ms: Option<f64>,
    pub ttfi_ms: Option<f64>,
    /// Of the mean time a token in the request.
    pub tpot_ms: Option<f64>,
    pub e2e_ms: Option<f64>,
}

impl Slo {
    /// A time that is limited and was not taken is no good.
    pub(super) fn is_met(&self, times: &Times) -> bool {
        let within = |limit: Option<f64>, time: Option<f64>| {
            limit.is_none_or(|limit| time.is_some_and(|time| time <= limit))
        };
        within(self.ttft_ms, times.ttft_ms)
            && within(self.ttfi_ms, times.ttfi_ms)
            && within(self.tpot_ms, times.tpot_ms)
            && within(self.e2e_ms, Some(times.e2e_ms))
    }

    fn limits(&self) -> [(&'static str, Option<f64>); 4] {
        [("ttft", self.ttft_ms), ("ttfi", self.ttfi_ms), ("tpot", self.tpot_ms), ("e2e", self.e2e_ms)]
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',').map(str::trim) {
            let (name, limit) =
                part.split_once(':').ok_or_else(|| format!("{part:?} is not NAME:MILLISECONDS"))?;
            let limit: f64 = match limit.parse() {
                Ok(limit) if limit > 0.0 => limit,
                _ => return Err(format!("{limit:?} is no number of milliseconds")),
            };
            let place = match name {
                "ttft" => &mut slo.ttft_ms,
                "ttfi" => &mut slo.ttfi_ms,
                "tpot" => &mut slo.tpot_ms,
                "e2e" => &mut slo.e2e_ms,
                _ => return Err(format!("{name:?} is none of ttft, ttfi, tpot, e2e")),
            };
            *place = Some(limit);
        }
        Ok(slo)
    }
}

impl Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits().into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        let parts: Vec<String> =
            limits.map(|(name, limit)| format!("{} ≤ {limit} ms", name.to_uppercase())).collect();
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        let slo: Slo = "ttft:500,e2e:5000".parse().unwrap();
        assert_eq!(slo.to_string(), "TTFT ≤ 500 ms and E2E ≤ 5000 ms");
        for (wrong, reason) in
            [("ttft", "NAME:"), ("ttft:soon", "soon"), ("ttft:-1", "-1"), ("itl:5", "itl"), ("", "NAME:")]
        {
            assert!(wrong.parse::<Slo>().unwrap_err().contains(reason), "{wrong}");
        }
    }

    #[test]
    fn every_limit_must_hold() {
        let slo: Slo = "ttft:500,e2e:5000".parse().unwrap();
        let times = |ttft_ms, e2e_ms| Times { ttft_ms, e2e_ms, ..Times::default() };
        assert!(slo.is_met(&times(Some(500.0), 5000.0)));
        assert!(!slo.is_met(&times(Some(501.0), 100.0)));
        assert!(!slo.is_met(&times(Some(1.0), 5001.0)));
        assert!(!slo.is_met(&times(None, 100.0)), "no first token was seen");
    }
}

use serde::{Deserialize, Serialize};

/// A figure of a set of items, mostly a mean, with its 95 % interval by percentile bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    /// Items it is over.
    pub n: usize,
}

const RESAMPLES: usize = 2_000;

/// `None` of no values. The same seed gives the same interval.
pub fn mean_of(values: &[f64], seed: u64) -> Option<Estimate> {
    let n = values.len() as f64;
    interval_of(values, seed, |values| values.sum::<f64>() / n)
}

/// Of anything that is computed from a sample: from what there is, and from as many that are drawn of it.
pub(super) fn interval_of<T>(
    sample: &[T],
    seed: u64,
    statistic: impl Fn(&mut dyn Iterator<Item = &T>) -> f64,
) -> Option<Estimate> {
    if sample.is_empty() {
        return None;
    }
    let n = sample.len();
    let mut random = SplitMix(seed);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| statistic(&mut (0..n).map(|_| &sample[(random.next() % n as u64) as usize])))
        .collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Estimate { mean: statistic(&mut sample.iter()), low: at(0.025), high: at(0.975), n })
}

/// Steele, Lea and Flood's generator: enough to draw items, orders and arrivals.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(mean_of(&[], 1), None);
        assert_eq!(mean_of(&[1.0; 20], 1), Some(Estimate { mean: 1.0, low: 1.0, high: 1.0, n: 20 }));
        let coins: Vec<f64> = (0..100).map(|idx| f64::from(idx % 2)).collect();
        let estimate = mean_of(&coins, 1).unwrap();
        // The normal interval of 100 fair coins is 0.5 ± 0.098.
        assert!((estimate.low - 0.402).abs() < 0.02 && (estimate.high - 0.598).abs() < 0.02, "{estimate:?}");
        assert_eq!(mean_of(&coins, 1), mean_of(&coins, 1));
    }
}

use crate::eval::SplitMix;
use std::time::Duration;

/// When each of `n` requests is to be sent, after the first: a Poisson process, as users who know nothing
/// of each other make one. The same seed gives the same times, stretched as the rate is lower.
pub(super) fn poisson(per_second: f64, n: usize, seed: u64) -> Vec<Duration> {
    let mut random = SplitMix(seed);
    let mut at = 0.0;
    (0..n)
        .map(|idx| {
            if idx > 0 {
                // 53 bits are what an `f64` holds; 1 − u is never 0.
                let u = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
                at += -(1.0 - u).ln() / per_second;
            }
            Duration::from_secs_f64(at)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential() {
        let arrivals = poisson(20.0, 20_001, 7);
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.05).abs() < 0.001, "{mean}");
        // An exponential gap is longer than its mean with probability 1/e, and its deviation is its mean.
        let longer = gaps.iter().filter(|&&gap| gap > 0.05).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() - 0.05).abs() < 0.002, "{variance}");
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(poisson(2.0, 9, 1), poisson(2.0, 9, 1));
        assert_ne!(poisson(2.0, 9, 1), poisson(2.0, 9, 2));
        assert_eq!(poisson(2.0, 1, 1), [Duration::ZERO]);
        let (slow, fast) = (poisson(1.0, 50, 3), poisson(10.0, 50, 3));
        assert!((slow[49].as_secs_f64() - 10.0 * fast[49].as_secs_f64()).abs() < 1e-6);
    }
}

use serde::Serialize;

/// What a set of values comes to. Percentiles are nearest-rank: the smallest value that at least that
/// share of all does not exceed, so each of them was measured; nothing is interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    pub n: usize,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Distribution {
    /// `None` of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            n: values.len(),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: nearest_rank(&values, 0.5)?,
            p90: nearest_rank(&values, 0.9)?,
            p99: nearest_rank(&values, 0.99)?,
            max: *values.last()?,
        })
    }
}

fn nearest_rank(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// A value that was measured several times: the middle one, and the ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean of the two in the middle where their number is even.
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub n: usize,
}

impl Spread {
    /// `None` of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let (low, high) = (*values.first()?, *values.last()?);
        Some(Self { median: (values[(n - 1) / 2] + values[n / 2]) / 2.0, low, high, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let check = |n: u32, expected: [f64; 4]| {
            let values = (1..=n).rev().map(f64::from);
            let of = Distribution::of(values).unwrap();
            assert_eq!([of.p50, of.p90, of.p99, of.max], expected, "1 to {n}");
        };
        check(1, [1.0, 1.0, 1.0, 1.0]);
        check(2, [1.0, 2.0, 2.0, 2.0]);
        check(10, [5.0, 9.0, 10.0, 10.0]);
        check(100, [50.0, 90.0, 99.0, 100.0]);
        check(1000, [500.0, 900.0, 990.0, 1000.0]);
        assert_eq!(Distribution::of([]), None);
        assert_eq!(Distribution::of([1.0, 2.0, 6.0]).unwrap().mean, 3.0);
    }

    #[test]
    fn the_middle_and_the_ends() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0, n: 3 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0, n: 2 }));
    }
}

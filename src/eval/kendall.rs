/// Kendall's tau-b of pairs: from -1 to 1, how far the second of each rises with the first; 0 where either never
/// changes.
pub(super) fn tau<'a>(pairs: impl Iterator<Item = &'a (usize, f64)>) -> f64 {
    let pairs: Vec<&(usize, f64)> = pairs.collect();
    let (mut agreeing, mut of_first, mut of_second) = (0.0, 0.0, 0.0);
    for (idx, a) in pairs.iter().enumerate() {
        for b in &pairs[..idx] {
            let first =
                (a.0 as f64 - b.0 as f64).partial_cmp(&0.0).map_or(0.0, |order| f64::from(order as i8));
            let second = (a.1 - b.1).partial_cmp(&0.0).map_or(0.0, |order| f64::from(order as i8));
            agreeing += first * second;
            of_first += first * first;
            of_second += second * second;
        }
    }
    if of_first == 0.0 || of_second == 0.0 { 0.0 } else { agreeing / f64::sqrt(of_first * of_second) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let check = |pairs: &[(usize, f64)], expected: f64| {
            assert!((tau(pairs.iter()) - expected).abs() < 1e-9, "{}", tau(pairs.iter()));
        };
        check(&[(0, 0.1), (1, 0.2), (2, 0.3)], 1.0);
        check(&[(0, 0.3), (1, 0.2), (2, 0.1)], -1.0);
        // Two of three pairs agree.
        check(&[(0, 0.1), (1, 0.3), (2, 0.2)], 1.0 / 3.0);
        // Of five pairs with different levels four agree, of six with different values all count.
        check(&[(0, 0.1), (0, 0.2), (1, 0.15), (2, 0.4)], 3.0 / f64::sqrt(30.0));
        check(&[(1, 0.1), (1, 0.2)], 0.0);
        check(&[], 0.0);
    }
}

//! Passes over a row of logits: maxima, exponentials and their sums, written so that they run on vectors and give the same bits on every
//! machine: the C library's `expf` promises neither.

/// Weights are summed a block at a time, so that a draw walks block sums and then one block.
pub(super) const BLOCK: usize = 512;

/// Independent partial sums, so that the loops run on vectors.
pub(super) const LANES: usize = 16;

/// e^x for x <= 0, with a relative error under 2e-7; 0 below -87, where e^x leaves `f32`'s normal numbers.
///
/// Source: `expf` of Moshier's Cephes library, without its branches.
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const LN_2_HIGH: f32 = 0.693_359_4; // 9 bits, so that its product with a small integer is exact
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

    let rounded = x.max(LOWEST) * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x.max(LOWEST) - n * LN_2_HIGH - n * LN_2_LOW;
    let polynomial = ((((1.987_569_2e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 5.0e-1;
    let power_of_two = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let value = (polynomial * (r * r) + r + 1.0) * power_of_two;
    if x < LOWEST { 0.0 } else { value }
}

/// Turns logits into weights, `exp((logit - max) * scale)`, and leaves the sum of each block.
pub(super) fn weigh(logits: &mut [f32], max: f32, scale: f32, block_sums: &mut Vec<f64>) {
    block_sums.clear();
    for block in logits.chunks_mut(BLOCK) {
        let mut sums = [0.0; LANES];
        let (chunks, rest) = block.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (logit, sum) in chunk.iter_mut().zip(&mut sums) {
                *logit = exp((*logit - max) * scale);
                *sum += *logit;
            }
        }
        for (logit, sum) in rest.iter_mut().zip(&mut sums) {
            *logit = exp((*logit - max) * scale);
            *sum += *logit;
        }
        block_sums.push(sums.into_iter().map(f64::from).sum());
    }
}

/// Sum of `exp((logit - max) * scale)` over the logits that are not below `floor`.
pub(super) fn sum_of_exp(logits: &[f32], max: f32, scale: f32, floor: f32) -> f64 {
    let weight = |logit: f32| {
        let weight = exp((logit - max) * scale);
        if logit < floor { 0.0 } else { weight }
    };
    let mut total = 0.0;
    for block in logits.chunks(BLOCK) {
        let mut sums = [0.0; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (&logit, sum) in chunk.iter().zip(&mut sums) {
                *sum += weight(logit);
            }
        }
        for (&logit, sum) in rest.iter().zip(&mut sums) {
            *sum += weight(logit);
        }
        total += sums.into_iter().map(f64::from).sum::<f64>();
    }
    total
}

/// The highest value, and whether every value can be chosen from: none is NaN or +infinity.
pub(super) fn highest(logits: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut n_wrong = [0_u32; LANES];
    let mut visit = |lane: usize, logit: f32| {
        max[lane] = if logit > max[lane] { logit } else { max[lane] };
        n_wrong[lane] += u32::from(logit.is_nan() || logit == f32::INFINITY);
    };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in chunk.iter().enumerate() {
            visit(lane, logit);
        }
    }
    for (lane, &logit) in rest.iter().enumerate() {
        visit(lane, logit);
    }
    (max.into_iter().fold(f32::NEG_INFINITY, f32::max), n_wrong == [0; LANES])
}

/// Whether any value reaches `floor`, without the branch that would keep the loop off vectors.
pub(super) fn reaches(logits: &[f32], floor: f32) -> bool {
    logits.iter().fold(false, |found, &logit| found | (logit >= floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        let mut worst = 0.0_f64;
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-87.1), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn sums_agree_with_the_plain_sum() {
        let logits: Vec<f32> = (0..1337).map(|i| ((i * 7919) % 1000) as f32 * -0.02).collect();
        let exact = |floor: f32| -> f64 {
            logits.iter().filter(|&&l| l >= floor).map(|&l| (f64::from(l) * 0.7).exp()).sum()
        };
        for floor in [f32::NEG_INFINITY, -5.0] {
            let sum = sum_of_exp(&logits, 0.0, 0.7, floor);
            assert!((sum - exact(floor)).abs() / exact(floor) < 1e-6);
        }
        let (mut weights, mut block_sums) = (logits.clone(), Vec::new());
        weigh(&mut weights, 0.0, 0.7, &mut block_sums);
        assert_eq!(block_sums.len(), 3);
        assert!((block_sums.iter().sum::<f64>() - exact(f32::NEG_INFINITY)).abs() < 1e-3);
    }
}

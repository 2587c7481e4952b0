//! Passes over a row of logits: maxima, exponentials and their sums, written so that they run on vectors and give the
//! same bits on every machine: the C library's `expf` promises neither. Those over a whole row are as
//! wide as the CPU's registers, and a product and a sum stay two roundings.

use pulp::{Simd, WithSimd};

/// Weights are summed a block at a time, so that a draw walks block sums and then one block.
pub(super) const BLOCK: usize = 512;

/// Independent partial sums, so that the loops run on vectors.
pub(super) const LANES: usize = 16;

/// e^x for x <= 0, with a relative error under 2e-7; 0 below -87, where e^x leaves `f32`'s normal numbers.
///
/// Source: `expf` of Moshier's Cephes library, without its branches.
#[inline(always)]
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
    pulp::Arch::new().dispatch(Weigh { logits, max, scale, block_sums });
}

/// Sum of `exp((logit - max) * scale)` over the logits that are not below `floor`.
pub(super) fn sum_of_exp(logits: &[f32], max: f32, scale: f32, floor: f32) -> f64 {
    pulp::Arch::new().dispatch(SumOfExp { logits, max, scale, floor })
}

/// The highest value, and whether every value can be chosen from: none is NaN or +infinity.
pub(super) fn highest(logits: &[f32]) -> (f32, bool) {
    pulp::Arch::new().dispatch(Highest(logits))
}

struct Weigh<'a> {
    logits: &'a mut [f32],
    max: f32,
    scale: f32,
    block_sums: &'a mut Vec<f64>,
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { logits, max, scale, block_sums } = self;
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
            block_sums.push(total(sums));
        }
    }
}

struct SumOfExp<'a> {
    logits: &'a [f32],
    max: f32,
    scale: f32,
    floor: f32,
}

impl SumOfExp<'_> {
    #[inline(always)]
    fn weight(&self, logit: f32) -> f32 {
        let weight = exp((logit - self.max) * self.scale);
        if logit < self.floor { 0.0 } else { weight }
    }
}

impl WithSimd for SumOfExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut sum_of_blocks = 0.0;
        for block in self.logits.chunks(BLOCK) {
            let mut sums = [0.0; LANES];
            let (chunks, rest) = block.as_chunks::<LANES>();
            for chunk in chunks {
                for (&logit, sum) in chunk.iter().zip(&mut sums) {
                    *sum += self.weight(logit);
                }
            }
            for (&logit, sum) in rest.iter().zip(&mut sums) {
                *sum += self.weight(logit);
            }
            sum_of_blocks += total(sums);
        }
        sum_of_blocks
    }
}

#[inline(always)]
fn total(sums: [f32; LANES]) -> f64 {
    let mut total = 0.0;
    for sum in sums {
        total += f64::from(sum);
    }
    total
}

struct Highest<'a>(&'a [f32]);

impl WithSimd for Highest<'_> {
    type Output = (f32, bool);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, bool) {
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut n_wrong = [0_u32; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
                n_wrong[lane] += u32::from(chunk[lane].is_nan() || chunk[lane] == f32::INFINITY);
            }
        }
        for (lane, &logit) in rest.iter().enumerate() {
            max[lane] = if logit > max[lane] { logit } else { max[lane] };
            n_wrong[lane] += u32::from(logit.is_nan() || logit == f32::INFINITY);
        }
        (max.into_iter().fold(f32::NEG_INFINITY, f32::max), n_wrong == [0; LANES])
    }
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

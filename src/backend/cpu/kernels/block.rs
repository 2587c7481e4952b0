//! Activations as integers: blocks of 32 with a scale each.

use super::simd::{Kernel, LANES, Simd};

/// Activations that share a scale.
pub(in crate::backend::cpu) const BLOCK_LEN: usize = 32;

/// 32 activations, each about `scale * quants[i]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(in crate::backend::cpu) struct Block {
    /// In -127..=127.
    pub(super) quants: [i8; BLOCK_LEN],
    pub(super) scale: f32,
    /// `scale` times the sum of all quants: what a weight that is the same for the whole block meets.
    pub(super) scaled_sum: f32,
    /// The same of each half.
    pub(super) scaled_half_sums: [f32; 2],
}

impl Block {
    #[inline(always)]
    pub(super) fn quad(&self, idx: usize) -> [i8; 4] {
        [self.quants[4 * idx], self.quants[4 * idx + 1], self.quants[4 * idx + 2], self.quants[4 * idx + 3]]
    }

    #[cfg(test)]
    pub(super) fn of_whole(quant: impl FnMut(usize) -> i8) -> Self {
        let quants: [i8; BLOCK_LEN] = std::array::from_fn(quant);
        let sum = |quants: &[i8]| quants.iter().map(|&quant| f32::from(quant)).sum::<f32>();
        let scaled_half_sums = [sum(&quants[..LANES]), sum(&quants[LANES..])];
        Self { quants, scale: 1.0, scaled_sum: scaled_half_sums.iter().sum(), scaled_half_sums }
    }

    /// The nearest block to 32 values.
    #[inline(always)]
    pub(super) fn quantise<S: Simd>(simd: S, values: [S::Floats; 2]) -> Self {
        const LARGEST: f32 = 127.0;
        let [first, second] = values;
        let largest = simd.maximum(simd.max(simd.abs(first), simd.abs(second)));
        let inverse = simd.splat(if largest > 0.0 { LARGEST / largest } else { 0.0 });
        let (first, first_sum) = simd.to_i8(simd.mul(first, inverse));
        let (second, second_sum) = simd.to_i8(simd.mul(second, inverse));
        let scale = largest * (1.0 / LARGEST);
        let mut quants = [0; BLOCK_LEN];
        quants[..LANES].copy_from_slice(&first);
        quants[LANES..].copy_from_slice(&second);
        let scaled_half_sums = [scale * first_sum as f32, scale * second_sum as f32];
        Self { quants, scale, scaled_sum: scale * (first_sum + second_sum) as f32, scaled_half_sums }
    }
}

/// Two times sixteen values.
#[inline(always)]
pub(super) fn load_pair<S: Simd>(simd: S, values: &[f32; BLOCK_LEN]) -> [S::Floats; 2] {
    let (halves, _) = values.as_chunks::<LANES>();
    [simd.load(&halves[0]), simd.load(&halves[1])]
}

/// A row of values as blocks.
pub(in crate::backend::cpu) struct Quantise<'a> {
    pub(in crate::backend::cpu) values: &'a [f32],
    pub(in crate::backend::cpu) blocks: &'a mut [Block],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (values, rest) = self.values.as_chunks::<BLOCK_LEN>();
        debug_assert!(rest.is_empty() && values.len() == self.blocks.len());
        for (values, block) in values.iter().zip(self.blocks) {
            *block = Block::quantise(simd, load_pair(simd, values));
        }
    }
}

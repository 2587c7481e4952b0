//! Keys and queries as whole numbers, in the form that the one meets the other.
//!
//! Of 16 bits: a key is scaled to a length of 32,767, and so is a query. Their product is at most the product of their
//! lengths (Cauchy and Schwarz), hardly more than 2^30 when both have been rounded, so no sum overflows.
//!
//! Of 8 bits: the largest number is 127. Before they are rounded both are spread, by a Hadamard transform of each 64
//! neighbours, of each sixteen where fewer are left, which makes both longer and leaves the angle between them: models have a few numbers in each key that are
//! far larger than the rest, and would leave it few of the steps. Where keys have a bias far larger than what they differ
//! by, that does not help.

use super::{
    attention::MAX_HEAD_DIM,
    simd::{Kernel, LANES, Simd},
};
use crate::model::KeyBits;

/// The length of keys and queries of 16 bits.
const LENGTH: f32 = 32_767.0;
/// The largest number of those of 8.
const LARGEST_BYTE: f32 = 127.0;
/// Larger numbers are taken to be this large: their squares can still be added.
const BOUND: f32 = 1e18;
/// Vectors that are spread over each other.
const SPREAD: usize = 4;
/// How many times as long heads become by that.
const LENGTHENED: f32 = 8.0;

/// A head as pairs of neighbouring dimensions.
pub(super) type Pairs = [[u32; LANES / 2]; MAX_HEAD_DIM / LANES];

/// A key or a query.
pub(in crate::backend::cpu) struct WholeHead {
    /// Two or four to a word.
    pub(super) numbers: [u32; MAX_HEAD_DIM / 2],
    pub(super) scale: f32,
    /// Where sums of products with numbers of 8 bits begin that have 128 added: at minus 128 times the sum of these.
    pub(super) start: i32,
}

impl WholeHead {
    pub(super) const fn new() -> Self {
        Self { numbers: [0; _], scale: 0.0, start: 0 }
    }

    /// Becomes the nearest to these values.
    #[inline(always)]
    pub(super) fn fill<S: Simd>(&mut self, simd: S, values: &[f32], bits: KeyBits) {
        match bits {
            KeyBits::Sixteen => self.fill_pairs(simd, values),
            KeyBits::Eight => simd.vectorize(Spread { values, whole: self }),
        }
    }

    #[inline(always)]
    fn fill_pairs<S: Simd>(&mut self, simd: S, values: &[f32]) {
        let mut squares = simd.splat(0.0);
        for idx in 0..values.len().div_ceil(LANES) {
            let vector = vector(simd, values, idx);
            squares = simd.mul_add(vector, vector, squares);
        }
        // Smaller squares are not what they should be: a length would come out too small, and the numbers too large.
        let squares = simd.sum(squares);
        let factor = inverse(LENGTH, if squares > 1e-30 { squares.sqrt() } else { 0.0 });
        to_pairs(simd, values, factor, self.numbers.as_chunks_mut().0);
        self.scale = inverse(1.0, factor);
    }
}

/// Spreads a head and rounds it. A kernel by itself, so that not each number of queries has its own.
struct Spread<'a> {
    values: &'a [f32],
    whole: &'a mut WholeHead,
}

impl Kernel for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.values.len().div_ceil(SPREAD * LANES) {
            0 | 1 => self.groups::<S, 1>(simd),
            2 => self.groups::<S, 2>(simd),
            3 => self.groups::<S, 3>(simd),
            _ => self.groups::<S, 4>(simd),
        }
    }
}

impl Spread<'_> {
    #[inline(always)]
    fn groups<S: Simd, const GROUPS: usize>(self, simd: S) {
        const { assert!(GROUPS * SPREAD <= MAX_HEAD_DIM / LANES) };
        let Self { values, whole } = self;
        let mut groups = [[simd.splat(0.0); SPREAD]; GROUPS];
        let mut largest = simd.splat(0.0);
        for (group, values) in groups.iter_mut().zip(values.chunks(SPREAD * LANES)) {
            if let Some(values) = values.first_chunk::<{ SPREAD * LANES }>() {
                *group = spread_whole(simd, values);
            } else {
                for (idx, vector) in group.iter_mut().enumerate().take(values.len().div_ceil(LANES)) {
                    let spread = simd.hadamard(self::vector(simd, values, idx));
                    // As long as the others become.
                    *vector = simd.add(spread, spread);
                }
            }
            for vector in &*group {
                largest = simd.max(largest, simd.abs(*vector));
            }
        }
        let factor = inverse(LARGEST_BYTE, simd.maximum(largest));
        let mut sum = simd.splat(0.0);
        for (to, spread) in
            whole.numbers.as_chunks_mut::<{ LANES / 4 }>().0.iter_mut().zip(groups.as_flattened())
        {
            let numbers = simd.round(simd.mul(*spread, simd.splat(factor)));
            *to = simd.to_bytes(numbers);
            sum = simd.add(sum, numbers);
        }
        whole.start = -128 * simd.sum(sum) as i32;
        whole.scale = inverse(1.0, factor) / LENGTHENED;
    }
}

#[inline(always)]
fn spread_whole<S: Simd>(simd: S, values: &[f32; SPREAD * LANES]) -> [S::Floats; SPREAD] {
    let mut vectors = [simd.splat(0.0); SPREAD];
    for (idx, vector) in vectors.iter_mut().enumerate() {
        *vector = simd.hadamard(self::vector(simd, values, idx));
    }
    let [a, b, c, d] = vectors;
    let (even, odd) = ([simd.add(a, b), simd.sub(a, b)], [simd.add(c, d), simd.sub(c, d)]);
    [
        simd.add(even[0], odd[0]),
        simd.add(even[1], odd[1]),
        simd.sub(even[0], odd[0]),
        simd.sub(even[1], odd[1]),
    ]
}

/// `to / from`; nothing is made of what is as good as nothing, or no number.
#[inline(always)]
pub(super) fn inverse(to: f32, from: f32) -> f32 {
    if from > 1e-30 { to / from } else { 0.0 }
}

/// The values of a head from `idx * 16` on: zeros behind the last, none beyond [`BOUND`]. What is no number becomes it, or a
/// head of zeros.
#[inline(always)]
pub(super) fn vector<S: Simd>(simd: S, values: &[f32], idx: usize) -> S::Floats {
    let rest = &values[idx * LANES..];
    let vector = match rest.first_chunk() {
        Some(whole) => simd.load(whole),
        None => {
            let mut padded = [0.0; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            simd.load(&padded)
        }
    };
    simd.max(simd.min(vector, simd.splat(BOUND)), simd.splat(-BOUND))
}

/// The nearest whole numbers to values times `factor`.
#[inline(always)]
pub(super) fn to_pairs<S: Simd>(simd: S, values: &[f32], factor: f32, pairs: &mut [[u32; LANES / 2]]) {
    for (idx, to) in pairs.iter_mut().enumerate().take(values.len().div_ceil(LANES)) {
        *to = simd.to_pairs(simd.mul(vector(simd, values, idx), simd.splat(factor)));
    }
}

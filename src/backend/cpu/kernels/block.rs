//! Activations as integers: blocks of two times 32 that share a scale.

use super::simd::{Kernel, LANES, Shifts, Simd, pair};

/// Activations that share a scale.
pub(in crate::backend::cpu) const BLOCK_LEN: usize = 64;
/// As many as a stored block of weights has. Each half has a power of two of its own, so that an activation far from the
/// rest costs the quants of the other half nothing: only their sum of products is rounded to what the block's is.
pub(in crate::backend::cpu) const HALF_LEN: usize = 32;

/// Beyond it a sum of products, and half of what shifting takes off, would not fit into 16 bits.
pub(super) const MAX_SHIFT: u32 = 8;

/// 64 activations, those of a half each about `scale / 2^shift * quant`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
// Aligned so that no eight quants lie in two cache lines.
#[repr(C, align(8))]
pub(in crate::backend::cpu) struct Block {
    /// In -127..=127, where all values are numbers: four of the first half, four of the second, the next four of the first, and so on.
    pub(super) quants: [[i8; 8]; HALF_LEN / 4],
    /// Of each half, where its sums of products with weights of four bits begin: at minus eight times the sum of its
    /// quants, so that they come to those of weights around zero, and half of what shifting takes off.
    pub(super) starts: [i32; 2],
    /// The same of the first sixteen of each half, and of the last.
    pub(super) part_starts: [[i32; 2]; 2],
    /// As `starts`, with weights of eight bits: computed for each sixteen outputs they took a tenth of the products' time.
    pub(super) byte_starts: [i32; 2],
    /// A pair: of each half, eight times the sum of its quants, shifted as its products are.
    pub(super) sums: u32,
    pub(super) shifts: Shifts,
    pub(super) scale: f32,
}

/// The largest quant.
pub(super) const LARGEST_QUANT: f32 = 127.0;
/// What is smaller has no inverse, and counts as zero.
pub(super) const SMALLEST: f32 = 1e-30;

/// An instruction set that rounds one block after another.
pub(super) trait ToQuads: Simd {
    /// Rounds two halves of values in -127..=127 to the nearest whole numbers, ties to even: four of the first half,
    /// four of the second, the next four of the first, and so on. Also minus eight times the sums of the first sixteen
    /// of each half, and of the last sixteen.
    fn to_quads(self, halves: [[Self::Floats; 2]; 2]) -> ([[i8; 8]; 8], [[i32; 2]; 2]);
}

impl Block {
    /// What [`Simd::quantise`] does, one block after another.
    #[inline(always)]
    pub(super) fn quantise<S: ToQuads, const BLOCKS: usize>(
        simd: S,
        values: [[[S::Floats; 2]; 2]; BLOCKS],
        to: [&mut Self; BLOCKS],
    ) {
        for (values, to) in values.into_iter().zip(to) {
            *to = Self::nearest(simd, values);
        }
    }

    /// The nearest block to the values of two halves.
    #[inline(always)]
    fn nearest<S: ToQuads>(simd: S, values: [[S::Floats; 2]; 2]) -> Self {
        let halves = simd.maxima(values.map(|[first, second]| simd.max(simd.abs(first), simd.abs(second))));
        let largest = if halves[0] > halves[1] { halves[0] } else { halves[1] };
        // The bits of a float are its exponent, then the rest: in their difference the rest borrows from the exponent
        // just where twice the smaller would be too large.
        let shifts =
            halves.map(|half| (largest.to_bits().saturating_sub(half.to_bits()) >> 23).min(MAX_SHIFT));
        let inverse = if largest >= SMALLEST { LARGEST_QUANT / largest } else { 0.0 };
        // No number if a half is none: what is largest of the two does not say so.
        let scale = largest * (1.0 / LARGEST_QUANT) + 0.0 * halves[0] + 0.0 * halves[1];
        Self::round(simd, values, inverse, scale, shifts)
    }

    /// The block of the values times `inverse`, and of each half by its shift.
    #[inline(always)]
    fn round<S: ToQuads>(
        simd: S,
        [[first, second], [third, fourth]]: [[S::Floats; 2]; 2],
        inverse: f32,
        scale: f32,
        shifts: [u32; 2],
    ) -> Self {
        let factors = shifts.map(|shift| inverse * f32::from_bits((shift + 127) << 23));
        let (low, high) = (simd.splat(factors[0]), simd.splat(factors[1]));
        let first = [simd.mul(first, low), simd.mul(second, low)];
        let second = [simd.mul(third, high), simd.mul(fourth, high)];
        let (quants, parts) = simd.to_quads([first, second]);
        let roundings = shifts.map(|shift| 1 << shift >> 1);
        let wholes = [0, 1].map(|half| parts[0][half] + parts[1][half]);
        let starts = |sums: [i32; 2]| [sums[0] + roundings[0], sums[1] + roundings[1]];
        let sums = [0, 1].map(|half: usize| (roundings[half] - wholes[half]) >> shifts[half]);
        let shifts = shifts.map(|shift| shift as i32);
        let shifts = Shifts { pair: pair(shifts), of_bytes: shifts.map(|shift| shift + 4) };
        let whole_starts = starts(wholes);
        Self {
            quants,
            starts: whole_starts,
            part_starts: [starts(parts[0]), starts(parts[1])],
            byte_starts: of_wider::<8>(whole_starts),
            sums: pair(sums),
            shifts,
            scale,
        }
    }

    /// Of each half, where its sums of products with weights of `BITS` bits begin, those of one of its `PARTS`.
    #[inline(always)]
    pub(super) fn starts<const BITS: u32, const PARTS: usize>(&self, part: usize) -> [i32; 2] {
        match (BITS, PARTS) {
            (8, 1) => self.byte_starts,
            (_, 1) => of_wider::<BITS>(self.starts),
            _ => of_wider::<BITS>(self.part_starts[part]),
        }
    }

    #[cfg(test)]
    pub(super) fn of_whole(shifts: [u32; 2], quant: impl Fn(usize) -> i8) -> Self {
        let value = |idx: usize| f32::from(quant(idx)) * 0.5f32.powi(shifts[idx / HALF_LEN] as i32);
        let values = [0, 1].map(|half| {
            [0, 1].map(|part| std::array::from_fn(|lane| value(half * HALF_LEN + part * LANES + lane)))
        });
        Self::round(super::portable::Portable, values, 1.0, 1.0, shifts)
    }

    /// The quant of an activation.
    #[cfg(test)]
    pub(super) fn quant(&self, idx: usize) -> i8 {
        let (half, at) = (idx / HALF_LEN, idx % HALF_LEN);
        self.quants[at / 4][4 * half + at % 4]
    }
}

/// Starts of sums over weights of `BITS` bits, from those over four: what a bit adds to a weight doubles all, and half of
/// what is shifted off has a bit more for it.
#[inline(always)]
fn of_wider<const BITS: u32>(starts: [i32; 2]) -> [i32; 2] {
    starts.map(|start| (start << (BITS - 4)) + (1 << (BITS - 4) >> 1))
}

/// Where the values of a row of blocks come from. Not a closure, which is not always inlined.
pub(super) trait Values {
    /// Must be `#[inline(always)]`.
    fn load<S: Simd>(&self, simd: S, block: usize) -> [[S::Floats; 2]; 2];
}

impl Values for [f32] {
    /// 64 of them, or the last 32 and as many zeros.
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, block: usize) -> [[S::Floats; 2]; 2] {
        let values = &self[block * BLOCK_LEN..];
        let (parts, rest) = values[..values.len().min(BLOCK_LEN)].as_chunks::<LANES>();
        debug_assert!(rest.is_empty());
        match parts {
            [first, second, third, fourth] => {
                [[simd.load(first), simd.load(second)], [simd.load(third), simd.load(fourth)]]
            }
            [first, second] => [[simd.load(first), simd.load(second)], [simd.splat(0.0); 2]],
            _ => unreachable!("a row is whole halves of blocks"),
        }
    }
}

/// Rounds a row.
#[inline(always)]
pub(super) fn quantise<S: Simd, V: Values + ?Sized>(simd: S, values: &V, blocks: &mut [Block]) {
    let (fours, rest) = blocks.as_chunks_mut::<4>();
    let mut next = 0;
    for four in fours {
        let values = [
            values.load(simd, next),
            values.load(simd, next + 1),
            values.load(simd, next + 2),
            values.load(simd, next + 3),
        ];
        simd.quantise(values, four.each_mut());
        next += 4;
    }
    match rest {
        [a, b, c] => {
            let values = [values.load(simd, next), values.load(simd, next + 1), values.load(simd, next + 2)];
            simd.quantise(values, [a, b, c]);
        }
        [a, b] => simd.quantise([values.load(simd, next), values.load(simd, next + 1)], [a, b]),
        [a] => simd.quantise([values.load(simd, next)], [a]),
        _ => {}
    }
}

/// A row of values as blocks.
pub(in crate::backend::cpu) struct Quantise<'a> {
    /// Whole halves of blocks.
    pub(in crate::backend::cpu) values: &'a [f32],
    pub(in crate::backend::cpu) blocks: &'a mut [Block],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        debug_assert!(self.values.len().div_ceil(BLOCK_LEN) == self.blocks.len());
        quantise(simd, self.values, self.blocks);
    }
}

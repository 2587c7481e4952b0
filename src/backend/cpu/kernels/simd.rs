//! Sixteen lanes: the instructions that the kernels are written in, once for every instruction set.
//!
//! A value of a [`Simd`] type is the proof that the CPU has the instructions, so its methods are safe
//! to call. They are inlined into the function that [`Simd::vectorize`] compiles for the instruction
//! set, and so must be everything between that function and them.

use super::block::Block;
use std::f32::consts::LN_2;

/// Values side by side in one [`Simd::Floats`].
pub(in crate::backend::cpu) const LANES: usize = 16;

/// An `f16`, as its bits: memory of zeros is then had for nothing.
pub(in crate::backend::cpu) type HalfBits = u16;

/// A loop to be compiled for an instruction set.
pub(in crate::backend::cpu) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set.
pub(in crate::backend::cpu) trait Simd: Copy {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `i32`.
    type Ints: Copy;
    /// Sixteen times four `u8`.
    type Bytes: Copy;
    /// Sixteen times two `i16`.
    type Pairs: Copy;
    /// Rows that a product takes at once, 4 or 8: as many as the registers have room for.
    const ROWS: usize;

    /// Runs a kernel that is compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, value: f32) -> Self::Floats;
    fn load(self, values: &[f32; LANES]) -> Self::Floats;
    fn load_half(self, values: &[HalfBits; LANES]) -> Self::Floats;
    /// Of `bf16`, as its bits.
    fn load_bf16(self, values: &[u16; LANES]) -> Self::Floats;
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]);
    fn add(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    fn sub(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    fn mul(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    fn div(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    /// `left * right + sum`, rounded once where the instruction set can.
    fn mul_add(self, left: Self::Floats, right: Self::Floats, sum: Self::Floats) -> Self::Floats;
    fn max(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    fn min(self, left: Self::Floats, right: Self::Floats) -> Self::Floats;
    fn abs(self, values: Self::Floats) -> Self::Floats;
    /// To the nearest whole number, ties to even.
    fn round(self, values: Self::Floats) -> Self::Floats;
    /// `values * 2^n` for whole numbers in -126..=127.
    fn times_exp2(self, values: Self::Floats, exponents: Self::Floats) -> Self::Floats;
    /// The logarithms to base 2 of positive numbers, rounded down; of zero, -127 or less.
    fn exponents(self, values: Self::Floats) -> Self::Floats;
    /// Lanes from `count` on become `other`.
    fn keep_first(self, values: Self::Floats, count: usize, other: f32) -> Self::Floats;
    /// Added in pairs: halves, quarters, and so on.
    fn sum(self, values: Self::Floats) -> f32;
    fn maximum(self, values: Self::Floats) -> f32;
    /// Of each of two.
    fn maxima(self, values: [Self::Floats; 2]) -> [f32; 2];
    /// Rounds the values of the two halves of each of up to four blocks.
    fn quantise<const BLOCKS: usize>(
        self,
        values: [[[Self::Floats; 2]; 2]; BLOCKS],
        to: [&mut Block; BLOCKS],
    );

    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes;
    /// Has the cache line fetched into the second cache that lies so many bytes behind these, if there is one. On its way
    /// into the first one it would hold up those that are wanted now.
    fn prefetch<T>(self, line: &[T], distance: usize);
    /// The low four bits of each byte.
    fn low_nibbles(self, bytes: Self::Bytes) -> Self::Bytes;
    /// The high four bits of each byte.
    fn high_nibbles(self, bytes: Self::Bytes) -> Self::Bytes;
    /// Sums of [`Simd::dot`] to begin with, so that they come to sums over bytes of `BITS` bits less `2^(BITS - 1)`;
    /// `start` is, of the even and of the odd lanes, minus `2^(BITS - 1)` times the sum of what their bytes meet, and half
    /// of what each of the two shifts of [`Simd::dots_as_pairs`] takes off.
    fn begin_dots<const BITS: u32>(self, start: [i32; 2]) -> Self::Ints;
    /// Adds to each even lane the product of its four bytes with the first four of `quads`, and to each odd one that
    /// with the others; exact for as many times as half a block has quads.
    fn dot<const BITS: u32>(self, sums: Self::Ints, bytes: Self::Bytes, quads: [i8; 8]) -> Self::Ints;
    /// The sums of two groups of outputs without their last `BITS - 4` bits, which leaves 16, and those that `shifts`
    /// takes; `start` as at the beginning. Lanes side by side become a pair: the pairs of lanes 0 to 3 of the first
    /// group, then those of the second, and so on.
    fn dots_as_pairs<const BITS: u32>(
        self,
        groups: [Self::Ints; 2],
        start: [i32; 2],
        shifts: Shifts,
    ) -> Self::Pairs;

    /// Four to a word, lowest first.
    fn load_quads(self, quads: &[u32; LANES]) -> Self::Bytes;
    /// Sums of [`Simd::dot_quad`] to begin with, so that they come to sums over bytes less 128; `start` is minus 128 times the
    /// sum of what they meet.
    fn begin_quads(self, start: i32) -> Self::Ints;
    /// Adds to each lane the product of its four bytes with those of `quad`, which are signed and not -128.
    fn dot_quad(self, sums: Self::Ints, bytes: Self::Bytes, quad: u32) -> Self::Ints;
    /// To the nearest whole number in -128..=127, ties to even, four to a word.
    fn to_bytes(self, values: Self::Floats) -> [u32; LANES / 4];
    /// The Hadamard transform of sixteen lanes: sums and differences of neighbours, of pairs, of quads and of halves. Four
    /// times as long as the values.
    fn hadamard(self, values: Self::Floats) -> Self::Floats;

    /// Pairs of `i16`, as [`pair`] makes them.
    fn load_pairs(self, pairs: &[u32; LANES]) -> Self::Pairs;
    /// Pairs of `i8`, two to a word, lowest first.
    fn load_byte_pairs(self, pairs: &[u32; LANES / 2]) -> Self::Pairs;
    /// Sums of [`Simd::dot_pairs`] to begin with.
    fn no_pairs(self) -> Self::Ints;
    /// The same pair in each lane.
    fn splat_pair(self, pair: u32) -> Self::Pairs;
    /// Adds to each lane the two products of its pairs; exact if the sum at the end is not beyond an `i32`.
    fn dot_pairs(self, sums: Self::Ints, left: Self::Pairs, right: Self::Pairs) -> Self::Ints;
    /// To the nearest whole number in -32768..=32767, ties to even, neighbours in pairs.
    fn to_pairs(self, values: Self::Floats) -> [u32; LANES / 2];
    /// Of sums of [`Simd::dot_pairs`] and [`Simd::dot_quad`].
    fn to_floats(self, sums: Self::Ints) -> Self::Floats;

    /// The same sums, which the compiler may not compute later than those that are passed here later.
    ///
    /// Left to itself it does one row after another, and each `dot` waits for the one before it.
    fn in_order(self, sums: Self::Ints) -> Self::Ints;
}

/// How far sums of [`Simd::dot`] are shifted right, those of the even and those of the odd lanes, in two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(in crate::backend::cpu) struct Shifts {
    /// Once they have 16 bits: a pair.
    pub(in crate::backend::cpu) pair: u32,
    /// While they are sums over bytes of eight bits: those four bits, too, that have to go until 16 are left.
    pub(in crate::backend::cpu) of_bytes: [i32; 2],
}

/// Two numbers of 16 bits as they lie in memory, the first one in the low half.
#[inline(always)]
pub(in crate::backend::cpu) fn pair([first, second]: [i32; 2]) -> u32 {
    u32::from(first as u16) | u32::from(second as u16) << 16
}

/// A number as it lies in memory.
pub(in crate::backend::cpu) trait Element: Copy + Send + Sync + 'static {
    fn load<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Floats;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Floats {
        simd.load(values)
    }
}

impl Element for HalfBits {
    #[inline(always)]
    fn load<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Floats {
        simd.load_half(values)
    }
}

/// The bits of a `bf16`.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(in crate::backend::cpu) struct Bf16Bits(pub(in crate::backend::cpu) u16);

impl Element for Bf16Bits {
    #[inline(always)]
    fn load<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Floats {
        simd.load_bf16(&values.map(|value| value.0))
    }
}

/// `2^x`, to about 2 units in the last place; beyond -126 to 127 it is taken to be that.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    exp2_up_to_127(simd, simd.min(x, simd.splat(127.0)))
}

/// As [`exp2`], of what is not beyond 127.
///
/// Source: `exp2f` of the Cephes library.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "as Cephes has them, cut to what an `f32` takes")]
pub(super) fn exp2_up_to_127<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    const COEFFICIENTS: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437_4e-3, 5.550_332_5e-2, 0.240_226_48, LN_2];
    let x = simd.max(x, simd.splat(-126.0));
    let exponent = simd.round(x);
    let rest = simd.sub(x, exponent);
    let mut value = simd.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        value = simd.mul_add(value, rest, simd.splat(*coefficient));
    }
    simd.times_exp2(simd.mul_add(value, rest, simd.splat(1.0)), exponent)
}

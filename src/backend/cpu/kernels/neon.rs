//! Sixteen lanes in four registers: NEON with dot products (Armv8.2: Graviton2 and later, Apple M1 and later).

#![expect(unsafe_code, reason = "instructions that the CPU must have")]
#![expect(unused_unsafe, reason = "`each!` says that its instructions are present within what says so, too")]

use super::block::{Block, ToQuads};
use super::simd::{HalfBits, Kernel, LANES, Shifts, Simd};
use std::arch::{aarch64::*, asm, is_aarch64_feature_detected};

/// The proof that this CPU has the instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Neon(());

impl Neon {
    pub(in crate::backend::cpu) fn detect() -> Option<Self> {
        let present = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        present.then_some(Self(()))
    }
}

/// An expression of instructions that a [`Neon`] at hand proves to be there.
macro_rules! present {
    ($instructions:expr) => {
        // SAFETY: a value of `Neon` is made only where the CPU has the instructions; what is read and
        // written are references to arrays of the size that the instructions take, unaligned.
        unsafe { $instructions }
    };
}

const QUARTER: usize = LANES / 4;
const REGISTERS: usize = 4;

/// The same instruction for each register; not `map`, whose closure is not always inlined.
macro_rules! each {
    ($idx:ident => $instruction:expr) => {
        present!([
            {
                const $idx: usize = 0;
                $instruction
            },
            {
                const $idx: usize = 1;
                $instruction
            },
            {
                const $idx: usize = 2;
                $instruction
            },
            {
                const $idx: usize = 3;
                $instruction
            },
        ])
    };
}

impl Simd for Neon {
    type Floats = [float32x4_t; REGISTERS];
    type Ints = [int32x4_t; REGISTERS];
    type Bytes = [uint8x16_t; REGISTERS];
    /// The first ones of the pairs, and the second ones.
    type Pairs = [[int16x4_t; REGISTERS]; 2];
    const ROWS: usize = 4;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn compiled<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        present!(compiled(self, kernel))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [present!(vdupq_n_f32(value)); REGISTERS]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Floats {
        each!(I => vld1q_f32(values.as_ptr().add(I * QUARTER)))
    }

    #[inline(always)]
    fn load_half(self, values: &[HalfBits; LANES]) -> Self::Floats {
        each!(I => widened(vld1_u16(values.as_ptr().add(I * QUARTER))))
    }

    #[inline(always)]
    fn load_bf16(self, values: &[u16; LANES]) -> Self::Floats {
        each!(I => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(values.as_ptr().add(I * QUARTER)))))
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        let _: [(); REGISTERS] = each!(I => vst1q_f32(to.as_mut_ptr().add(I * QUARTER), values[I]));
    }

    #[inline(always)]
    fn add(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vaddq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn sub(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vsubq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn mul(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vmulq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn div(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vdivq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn mul_add(self, left: Self::Floats, right: Self::Floats, sum: Self::Floats) -> Self::Floats {
        each!(I => vfmaq_f32(sum[I], left[I], right[I]))
    }

    #[inline(always)]
    fn max(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vmaxq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn min(self, left: Self::Floats, right: Self::Floats) -> Self::Floats {
        each!(I => vminq_f32(left[I], right[I]))
    }

    #[inline(always)]
    fn abs(self, values: Self::Floats) -> Self::Floats {
        each!(I => vabsq_f32(values[I]))
    }

    #[inline(always)]
    fn round(self, values: Self::Floats) -> Self::Floats {
        each!(I => vrndnq_f32(values[I]))
    }

    #[inline(always)]
    fn times_exp2(self, values: Self::Floats, exponents: Self::Floats) -> Self::Floats {
        each!(I => {
            let biased = vaddq_s32(vcvtq_s32_f32(exponents[I]), vdupq_n_s32(127));
            vmulq_f32(values[I], vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased)))
        })
    }

    #[inline(always)]
    fn exponents(self, values: Self::Floats) -> Self::Floats {
        each!(I => {
            let biased = vshrq_n_u32::<23>(vreinterpretq_u32_f32(values[I]));
            vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(biased), vdupq_n_s32(127)))
        })
    }

    #[inline(always)]
    fn keep_first(self, values: Self::Floats, count: usize, other: f32) -> Self::Floats {
        const WITHIN: [u32; QUARTER] = [0, 1, 2, 3];
        let count = count.min(LANES) as u32;
        each!(I => {
            let lanes = vaddq_u32(vld1q_u32(WITHIN.as_ptr()), vdupq_n_u32((I * QUARTER) as u32));
            vbslq_f32(vcltq_u32(lanes, vdupq_n_u32(count)), values[I], vdupq_n_f32(other))
        })
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        present!({
            let eight = [vaddq_f32(values[0], values[2]), vaddq_f32(values[1], values[3])];
            let four = vaddq_f32(eight[0], eight[1]);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }

    #[inline(always)]
    fn maximum(self, values: Self::Floats) -> f32 {
        present!(vmaxvq_f32(vmaxq_f32(vmaxq_f32(values[0], values[1]), vmaxq_f32(values[2], values[3]))))
    }

    #[inline(always)]
    fn maxima(self, values: [Self::Floats; 2]) -> [f32; 2] {
        values.map(|values| self.maximum(values))
    }

    #[inline(always)]
    fn quantise<const BLOCKS: usize>(
        self,
        values: [[[Self::Floats; 2]; 2]; BLOCKS],
        to: [&mut Block; BLOCKS],
    ) {
        Block::quantise(self, values, to);
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes {
        each!(I => vld1q_u8(bytes.as_ptr().add(I * LANES)))
    }

    #[inline(always)]
    fn prefetch<T>(self, line: &[T], distance: usize) {
        // Any address will do: one that is not mapped is not fetched.
        let address = line.as_ptr().wrapping_byte_add(distance);
        present!(asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags)));
    }

    #[inline(always)]
    fn low_nibbles(self, bytes: Self::Bytes) -> Self::Bytes {
        each!(I => vandq_u8(bytes[I], vdupq_n_u8(0xf)))
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: Self::Bytes) -> Self::Bytes {
        each!(I => vshrq_n_u8::<4>(bytes[I]))
    }

    // The instruction takes signed bytes: of eight bits they become so by 128 less.
    #[inline(always)]
    fn begin_dots<const BITS: u32>(self, start: [i32; 2]) -> Self::Ints {
        // Signed bytes have nothing too much in their sums.
        let [even, odd] = if BITS == 8 { [1 << 3; 2] } else { start };
        let both = i64::from(odd) << 32 | i64::from(even as u32);
        [present!(vreinterpretq_s32_s64(vdupq_n_s64(both))); REGISTERS]
    }

    #[inline(always)]
    fn dot<const BITS: u32>(self, sums: Self::Ints, bytes: Self::Bytes, quads: [i8; 8]) -> Self::Ints {
        let quads =
            present!(vreinterpretq_s8_s64(vdupq_n_s64(i64::from_ne_bytes(quads.map(|value| value as u8)))));
        let sign = if BITS == 8 { 0x80 } else { 0 };
        each!(I => added_dot(sums[I], vreinterpretq_s8_u8(veorq_u8(bytes[I], vdupq_n_u8(sign))), quads))
    }

    #[inline(always)]
    fn dots_as_pairs<const BITS: u32>(
        self,
        [first, second]: [Self::Ints; 2],
        _start: [i32; 2],
        Shifts { pair, .. }: Shifts,
    ) -> Self::Pairs {
        let [low, high] = [pair as i16, (pair >> 16) as i16];
        let half = |shift: i16| if BITS == 8 { 1 << shift >> 1 << (BITS - 4) } else { 0i32 };
        let half =
            present!(vreinterpretq_s32_s64(vdupq_n_s64(i64::from(half(high)) << 32 | i64::from(half(low)))));
        // To the left by less than nothing.
        let bits = present!(vdupq_n_s32(4 - BITS as i32));
        let first: [int16x4_t; REGISTERS] =
            each!(I => vqmovn_s32(vshlq_s32(vaddq_s32(first[I], half), bits)));
        let second: [int16x4_t; REGISTERS] =
            each!(I => vqmovn_s32(vshlq_s32(vaddq_s32(second[I], half), bits)));
        [
            each!(I => vshl_s16(vuzp1_s16(first[I], second[I]), vdup_n_s16(-low))),
            each!(I => vshl_s16(vuzp2_s16(first[I], second[I]), vdup_n_s16(-high))),
        ]
    }

    #[inline(always)]
    fn load_quads(self, quads: &[u32; LANES]) -> Self::Bytes {
        each!(I => vreinterpretq_u8_u32(vld1q_u32(quads.as_ptr().add(I * QUARTER))))
    }

    #[inline(always)]
    fn begin_quads(self, _start: i32) -> Self::Ints {
        // Signed bytes have nothing too much in their sums.
        self.no_pairs()
    }

    #[inline(always)]
    fn dot_quad(self, sums: Self::Ints, bytes: Self::Bytes, quad: u32) -> Self::Ints {
        let quads = present!(vreinterpretq_s8_u32(vdupq_n_u32(quad)));
        each!(I => added_dot(sums[I], vreinterpretq_s8_u8(veorq_u8(bytes[I], vdupq_n_u8(0x80))), quads))
    }

    #[inline(always)]
    fn to_bytes(self, values: Self::Floats) -> [u32; LANES / 4] {
        let mut words = [0; LANES / 4];
        present!(vst1q_u32(words.as_mut_ptr(), vreinterpretq_u32_s8(bytes(values))));
        words
    }

    #[inline(always)]
    fn hadamard(self, [a, b, c, d]: Self::Floats) -> Self::Floats {
        let values: Self::Floats = present!({
            let (sums, differences) =
                ([vaddq_f32(a, c), vaddq_f32(b, d)], [vsubq_f32(a, c), vsubq_f32(b, d)]);
            [
                vaddq_f32(sums[0], sums[1]),
                vsubq_f32(sums[0], sums[1]),
                vaddq_f32(differences[0], differences[1]),
                vsubq_f32(differences[0], differences[1]),
            ]
        });
        let values: Self::Floats = each!(I => {
            let sums = vadd_f32(vget_low_f32(values[I]), vget_high_f32(values[I]));
            vcombine_f32(sums, vsub_f32(vget_low_f32(values[I]), vget_high_f32(values[I])))
        });
        each!(I => {
            let other = vrev64q_f32(values[I]);
            vtrn1q_f32(vaddq_f32(values[I], other), vsubq_f32(values[I], other))
        })
    }

    #[inline(always)]
    fn load_pairs(self, pairs: &[u32; LANES]) -> Self::Pairs {
        let parts: [int16x4x2_t; REGISTERS] = each!(I => vld2_s16(pairs.as_ptr().add(I * QUARTER).cast()));
        [each!(I => parts[I].0), each!(I => parts[I].1)]
    }

    #[inline(always)]
    fn load_byte_pairs(self, pairs: &[u32; LANES / 2]) -> Self::Pairs {
        // Sixteen first numbers and sixteen second ones.
        let int8x16x2_t(first, second) = present!(vld2q_s8(pairs.as_ptr().cast()));
        present!([quarters(first), quarters(second)])
    }

    #[inline(always)]
    fn no_pairs(self) -> Self::Ints {
        [present!(vdupq_n_s32(0)); REGISTERS]
    }

    #[inline(always)]
    fn splat_pair(self, pair: u32) -> Self::Pairs {
        [pair as i16, (pair >> 16) as i16].map(|number| [present!(vdup_n_s16(number)); REGISTERS])
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::Ints, left: Self::Pairs, right: Self::Pairs) -> Self::Ints {
        let sums: Self::Ints = each!(I => vmlal_s16(sums[I], left[0][I], right[0][I]));
        each!(I => vmlal_s16(sums[I], left[1][I], right[1][I]))
    }

    #[inline(always)]
    fn to_pairs(self, values: Self::Floats) -> [u32; LANES / 2] {
        let mut pairs = [0u32; LANES / 2];
        let _: [(); REGISTERS] = each!(I => {
            let narrow = vqmovn_s32(vcvtnq_s32_f32(values[I]));
            vst1_s16(pairs.as_mut_ptr().cast::<i16>().add(I * QUARTER), narrow)
        });
        pairs
    }

    #[inline(always)]
    fn to_floats(self, sums: Self::Ints) -> Self::Floats {
        each!(I => vcvtq_f32_s32(sums[I]))
    }

    #[inline(always)]
    fn in_order(self, sums: Self::Ints) -> Self::Ints {
        sums
    }
}

impl ToQuads for Neon {
    #[inline(always)]
    fn to_quads(self, [first, second]: [[Self::Floats; 2]; 2]) -> ([[i8; 8]; 8], [[i32; 2]; 2]) {
        let (mut quads, mut starts) = ([[0; 8]; 8], [[0; 2]; 2]);
        for part in 0..2 {
            present!({
                let halves = [bytes(first[part]), bytes(second[part])];
                let [low, high] = [vreinterpretq_s32_s8(halves[0]), vreinterpretq_s32_s8(halves[1])];
                let to = quads[4 * part..].as_mut_ptr().cast::<i8>();
                vst1q_s8(to, vreinterpretq_s8_s32(vzip1q_s32(low, high)));
                vst1q_s8(to.add(LANES), vreinterpretq_s8_s32(vzip2q_s32(low, high)));
                starts[part] = [-8 * i32::from(vaddlvq_s8(halves[0])), -8 * i32::from(vaddlvq_s8(halves[1]))];
            });
        }
        (quads, starts)
    }
}

/// To the nearest whole numbers, of eight bits.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
unsafe fn bytes(values: [float32x4_t; REGISTERS]) -> int8x16_t {
    let whole: [int32x4_t; REGISTERS] = each!(I => vcvtnq_s32_f32(values[I]));
    present!({
        let low = vcombine_s16(vqmovn_s32(whole[0]), vqmovn_s32(whole[1]));
        let high = vcombine_s16(vqmovn_s32(whole[2]), vqmovn_s32(whole[3]));
        vcombine_s8(vqmovn_s16(low), vqmovn_s16(high))
    })
}

/// Sixteen numbers of eight bits as such of sixteen.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
unsafe fn quarters(numbers: int8x16_t) -> [int16x4_t; REGISTERS] {
    present!({
        let (low, high) = (vmovl_s8(vget_low_s8(numbers)), vmovl_high_s8(numbers));
        [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)]
    })
}

/// Four `f16`, by their bits, as `f32`.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
unsafe fn widened(bits: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: it works on registers alone; its intrinsic is not in every compiler that the crate takes.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {bits:v}.4h", wide = lateout(vreg) wide, bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// To each lane's sum, the products of its four bytes.
///
/// # Safety
/// The CPU must have the dot product.
#[inline(always)]
unsafe fn added_dot(mut sums: int32x4_t, left: int8x16_t, right: int8x16_t) -> int32x4_t {
    // SAFETY: it works on registers alone; its intrinsic is not stable yet.
    unsafe {
        asm!("sdot {sums:v}.4s, {left:v}.16b, {right:v}.16b", sums = inlateout(vreg) sums,
            left = in(vreg) left, right = in(vreg) right, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

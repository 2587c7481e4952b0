//! Sixteen lanes in two registers: AVX2 with FMA and F16C (x86-64 since 2013), and with AVX-VNNI where there is no
//! AVX-512 (Intel since Alder Lake).

#![expect(unsafe_code, reason = "instructions that the CPU must have")]

use super::block::{Block, ToQuads};
use super::simd::{HalfBits, Kernel, LANES, Shifts, Simd};
use std::arch::{asm, x86_64::*};

/// The proof that this CPU has the instructions, with `VNNI` those of AVX-VNNI too.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    pub(in crate::backend::cpu) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        present.then_some(Self(()))
    }
}

/// An expression of instructions that an [`Avx2`] at hand proves to be there.
macro_rules! present {
    ($instructions:expr) => {
        // SAFETY: a value of `Avx2` is made only where the CPU has the instructions; what is read and
        // written are references to arrays of the size that the instructions take, unaligned.
        unsafe { $instructions }
    };
}

const HALF: usize = LANES / 2;

#[inline(always)]
fn halves<T>(values: &[T; LANES]) -> [*const T; 2] {
    [values.as_ptr(), values[HALF..].as_ptr()]
}

#[inline(always)]
fn halves_mut<T>(values: &mut [T; LANES]) -> [*mut T; 2] {
    let (low, high) = values.split_at_mut(HALF);
    [low.as_mut_ptr(), high.as_mut_ptr()]
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];
    type Bytes = [__m256i; 2];
    type Pairs = [__m256i; 2];
    const ROWS: usize = 4;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn with_vnni<K: Kernel>(simd: Avx2<true>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        fn without<K: Kernel>(simd: Avx2<false>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // The same value, under the one name that its type can have here.
        if VNNI { present!(with_vnni(Avx2(()), kernel)) } else { present!(without(Avx2(()), kernel)) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [__m256; 2] {
        [present!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [__m256; 2] {
        let [low, high] = halves(values);
        present!([_mm256_loadu_ps(low), _mm256_loadu_ps(high)])
    }

    #[inline(always)]
    fn load_half(self, values: &[HalfBits; LANES]) -> [__m256; 2] {
        let [low, high] = halves(values);
        present!([
            _mm256_cvtph_ps(_mm_loadu_si128(low.cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(high.cast())),
        ])
    }

    #[inline(always)]
    fn load_bf16(self, values: &[u16; LANES]) -> [__m256; 2] {
        let [low, high] = halves(values);
        present!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(low.cast())))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(high.cast())))),
        ])
    }

    #[inline(always)]
    fn store(self, values: [__m256; 2], to: &mut [f32; LANES]) {
        let [low, high] = halves_mut(to);
        present!({
            _mm256_storeu_ps(low, values[0]);
            _mm256_storeu_ps(high, values[1]);
        });
    }

    #[inline(always)]
    fn add(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_add_ps(left[0], right[0]), _mm256_add_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn sub(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_sub_ps(left[0], right[0]), _mm256_sub_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn mul(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_mul_ps(left[0], right[0]), _mm256_mul_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn div(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_div_ps(left[0], right[0]), _mm256_div_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn max(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_max_ps(left[0], right[0]), _mm256_max_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn min(self, left: [__m256; 2], right: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_min_ps(left[0], right[0]), _mm256_min_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn mul_add(self, left: [__m256; 2], right: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
        present!([_mm256_fmadd_ps(left[0], right[0], sum[0]), _mm256_fmadd_ps(left[1], right[1], sum[1])])
    }

    #[inline(always)]
    fn abs(self, values: [__m256; 2]) -> [__m256; 2] {
        present!({
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, values[0]), _mm256_andnot_ps(sign, values[1])]
        })
    }

    #[inline(always)]
    fn round(self, values: [__m256; 2]) -> [__m256; 2] {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        present!([_mm256_round_ps::<NEAREST>(values[0]), _mm256_round_ps::<NEAREST>(values[1])])
    }

    #[inline(always)]
    fn times_exp2(self, values: [__m256; 2], exponents: [__m256; 2]) -> [__m256; 2] {
        let powers = present!({
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(exponents[0]), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(exponents[1]), bias);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
            ]
        });
        self.mul(values, powers)
    }

    #[inline(always)]
    fn exponents(self, values: [__m256; 2]) -> [__m256; 2] {
        present!({
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_sub_epi32(_mm256_srli_epi32::<23>(_mm256_castps_si256(values[0])), bias);
            let high = _mm256_sub_epi32(_mm256_srli_epi32::<23>(_mm256_castps_si256(values[1])), bias);
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        })
    }

    #[inline(always)]
    fn keep_first(self, values: [__m256; 2], count: usize, other: f32) -> [__m256; 2] {
        present!({
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let count = count.min(LANES) as i32;
            let low = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
            let high = _mm256_cmpgt_epi32(_mm256_set1_epi32(count - HALF as i32), lanes);
            let other = _mm256_set1_ps(other);
            [
                _mm256_blendv_ps(other, values[0], _mm256_castsi256_ps(low)),
                _mm256_blendv_ps(other, values[1], _mm256_castsi256_ps(high)),
            ]
        })
    }

    #[inline(always)]
    fn sum(self, values: [__m256; 2]) -> f32 {
        present!({
            let eight = _mm256_add_ps(values[0], values[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn maximum(self, values: [__m256; 2]) -> f32 {
        present!({
            let eight = _mm256_max_ps(values[0], values[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn maxima(self, values: [[__m256; 2]; 2]) -> [f32; 2] {
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
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> [__m256i; 2] {
        let (low, high) = bytes.split_at(4 * HALF);
        present!([_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()),])
    }

    #[inline(always)]
    fn prefetch<T>(self, line: &[T], distance: usize) {
        // Any address will do: one that is not mapped is not fetched.
        present!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_byte_add(distance).cast()));
    }

    #[inline(always)]
    fn low_nibbles(self, bytes: [__m256i; 2]) -> [__m256i; 2] {
        let mask = present!(_mm256_set1_epi8(0xf));
        present!([_mm256_and_si256(bytes[0], mask), _mm256_and_si256(bytes[1], mask)])
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: [__m256i; 2]) -> [__m256i; 2] {
        self.low_nibbles(present!([_mm256_srli_epi16::<4>(bytes[0]), _mm256_srli_epi16::<4>(bytes[1])]))
    }

    // Without VNNI, sums of four bits are 32 of 16 bits, which eight times two products of four and seven bits do not
    // leave: they are widened once a block, and what they begin with is added then. Those of more bits are 16 of
    // 32 bits. The instruction saturates at 16 bits, which two products of seven bits do not reach; bytes of eight are
    // made signed, 128 less, and their signs given to what they meet.
    #[inline(always)]
    fn begin_dots<const BITS: u32>(self, start: [i32; 2]) -> [__m256i; 2] {
        match BITS {
            4 if !VNNI => [present!(_mm256_setzero_si256()); 2],
            8 if !VNNI => [present!(_mm256_set1_epi32(1 << 3)); 2],
            _ => [present!(self::start(start)); 2],
        }
    }

    #[inline(always)]
    fn dot<const BITS: u32>(self, sums: [__m256i; 2], bytes: [__m256i; 2], quads: [i8; 8]) -> [__m256i; 2] {
        let quads = present!(_mm256_set1_epi64x(i64::from_le_bytes(quads.map(|value| value as u8))));
        self.dot_vector::<BITS>(sums, bytes, quads)
    }

    #[inline(always)]
    fn dots_as_pairs<const BITS: u32>(
        self,
        [mut first, mut second]: [[__m256i; 2]; 2],
        start: [i32; 2],
        shifts: Shifts,
    ) -> [__m256i; 2] {
        if !VNNI && BITS == 4 {
            present!({
                let start = self::start(start);
                (first, second) = (added(widened(first), start), added(widened(second), start));
            });
        }
        // Only lanes of 32 bits can each be shifted by a count of their own.
        let shifts = present!(_mm256_cvtepu16_epi32(_mm_set1_epi32(shifts.pair as i32)));
        if !VNNI && BITS == 8 {
            present!({
                let one = _mm256_sllv_epi32(_mm256_set1_epi32(1), shifts);
                let half = _mm256_slli_epi32::<4>(_mm256_srli_epi32::<1>(one));
                (first, second) = (added(first, half), added(second, half));
            });
        }
        present!({
            let shifts = _mm256_add_epi32(shifts, _mm256_set1_epi32(BITS as i32 - 4));
            [
                _mm256_packs_epi32(_mm256_srav_epi32(first[0], shifts), _mm256_srav_epi32(second[0], shifts)),
                _mm256_packs_epi32(_mm256_srav_epi32(first[1], shifts), _mm256_srav_epi32(second[1], shifts)),
            ]
        })
    }

    #[inline(always)]
    fn load_quads(self, quads: &[u32; LANES]) -> [__m256i; 2] {
        self.load_pairs(quads)
    }

    #[inline(always)]
    fn begin_quads(self, start: i32) -> [__m256i; 2] {
        // Without VNNI bytes of eight bits are made signed.
        [present!(_mm256_set1_epi32(if VNNI { start } else { 0 })); 2]
    }

    #[inline(always)]
    fn dot_quad(self, sums: [__m256i; 2], bytes: [__m256i; 2], quad: u32) -> [__m256i; 2] {
        self.dot_vector::<8>(sums, bytes, present!(_mm256_set1_epi32(quad as i32)))
    }

    #[inline(always)]
    fn to_bytes(self, values: [__m256; 2]) -> [u32; LANES / 4] {
        let mut words = [0; LANES / 4];
        present!(_mm_storeu_si128(words.as_mut_ptr().cast(), bytes(values)));
        words
    }

    #[inline(always)]
    fn hadamard(self, [low, high]: [__m256; 2]) -> [__m256; 2] {
        present!([eight_lanes(_mm256_add_ps(low, high)), eight_lanes(_mm256_sub_ps(low, high))])
    }

    #[inline(always)]
    fn load_pairs(self, pairs: &[u32; LANES]) -> [__m256i; 2] {
        let [low, high] = halves(pairs);
        present!([_mm256_loadu_si256(low.cast()), _mm256_loadu_si256(high.cast())])
    }

    #[inline(always)]
    fn load_byte_pairs(self, pairs: &[u32; LANES / 2]) -> [__m256i; 2] {
        let (low, high) = pairs.split_at(LANES / 4);
        present!([
            _mm256_cvtepi8_epi16(_mm_loadu_si128(low.as_ptr().cast())),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(high.as_ptr().cast())),
        ])
    }

    #[inline(always)]
    fn no_pairs(self) -> [__m256i; 2] {
        [present!(_mm256_setzero_si256()); 2]
    }

    #[inline(always)]
    fn splat_pair(self, pair: u32) -> [__m256i; 2] {
        [present!(_mm256_set1_epi32(pair as i32)); 2]
    }

    #[inline(always)]
    fn dot_pairs(self, sums: [__m256i; 2], left: [__m256i; 2], right: [__m256i; 2]) -> [__m256i; 2] {
        if VNNI {
            return present!([
                _mm256_dpwssd_avx_epi32(sums[0], left[0], right[0]),
                _mm256_dpwssd_avx_epi32(sums[1], left[1], right[1]),
            ]);
        }
        present!([
            _mm256_add_epi32(sums[0], _mm256_madd_epi16(left[0], right[0])),
            _mm256_add_epi32(sums[1], _mm256_madd_epi16(left[1], right[1])),
        ])
    }

    #[inline(always)]
    fn to_pairs(self, values: [__m256; 2]) -> [u32; LANES / 2] {
        let mut pairs = [0; LANES / 2];
        present!({
            let (low, high) = (_mm256_cvtps_epi32(values[0]), _mm256_cvtps_epi32(values[1]));
            // Packing works in each half of a register: the quarters come as 0, 2, 1, 3.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), words);
        });
        pairs
    }

    #[inline(always)]
    fn to_floats(self, sums: [__m256i; 2]) -> [__m256; 2] {
        present!([_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])])
    }

    #[inline(always)]
    fn in_order(self, [low, high]: [__m256i; 2]) -> [__m256i; 2] {
        /// No instruction, but one that the compiler keeps in its place.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn barrier(mut sums: __m256i) -> __m256i {
            // SAFETY: it does nothing.
            unsafe { asm!("/* {0} */", inout(ymm_reg) sums, options(nomem, nostack, preserves_flags)) };
            sums
        }
        present!([barrier(low), barrier(high)])
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// Adds to each lane the product of its four bytes with those of the same lane of `quads`.
    #[inline(always)]
    fn dot_vector<const BITS: u32>(
        self,
        sums: [__m256i; 2],
        bytes: [__m256i; 2],
        quads: __m256i,
    ) -> [__m256i; 2] {
        if VNNI {
            return present!([
                _mm256_dpbusd_avx_epi32(sums[0], bytes[0], quads),
                _mm256_dpbusd_avx_epi32(sums[1], bytes[1], quads),
            ]);
        }
        let pairs = match BITS {
            8 => present!({
                let sign = _mm256_set1_epi8(i8::MIN);
                let signed = [_mm256_xor_si256(bytes[0], sign), _mm256_xor_si256(bytes[1], sign)];
                [
                    _mm256_maddubs_epi16(_mm256_abs_epi8(signed[0]), _mm256_sign_epi8(quads, signed[0])),
                    _mm256_maddubs_epi16(_mm256_abs_epi8(signed[1]), _mm256_sign_epi8(quads, signed[1])),
                ]
            }),
            _ => present!([_mm256_maddubs_epi16(bytes[0], quads), _mm256_maddubs_epi16(bytes[1], quads)]),
        };
        if BITS == 4 {
            return present!([_mm256_add_epi16(sums[0], pairs[0]), _mm256_add_epi16(sums[1], pairs[1])]);
        }
        present!({
            let pairs = widened(pairs);
            [_mm256_add_epi32(sums[0], pairs[0]), _mm256_add_epi32(sums[1], pairs[1])]
        })
    }
}

impl<const VNNI: bool> ToQuads for Avx2<VNNI> {
    #[inline(always)]
    fn to_quads(
        self,
        [[first, second], [third, fourth]]: [[[__m256; 2]; 2]; 2],
    ) -> ([[i8; 8]; 8], [[i32; 2]; 2]) {
        present!(quads([[bytes(first), bytes(second)], [bytes(third), bytes(fourth)]]))
    }
}

/// What the sums of the even and of the odd lanes begin with.
#[inline]
#[target_feature(enable = "avx2")]
fn start([even, odd]: [i32; 2]) -> __m256i {
    _mm256_set1_epi64x(i64::from(odd) << 32 | i64::from(even as u32))
}

#[inline]
#[target_feature(enable = "avx2")]
fn added(sums: [__m256i; 2], to_each: __m256i) -> [__m256i; 2] {
    [_mm256_add_epi32(sums[0], to_each), _mm256_add_epi32(sums[1], to_each)]
}

/// The sums of neighbours of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(pairs: [__m256i; 2]) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    [_mm256_madd_epi16(pairs[0], ones), _mm256_madd_epi16(pairs[1], ones)]
}

/// The Hadamard transform of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_lanes(mut values: __m256) -> __m256 {
    let other = _mm256_permute_ps::<0b10_11_00_01>(values);
    values = _mm256_blend_ps::<0b1010_1010>(_mm256_add_ps(other, values), _mm256_sub_ps(other, values));
    let other = _mm256_permute_ps::<0b01_00_11_10>(values);
    values = _mm256_blend_ps::<0b1100_1100>(_mm256_add_ps(other, values), _mm256_sub_ps(other, values));
    let other = _mm256_permute2f128_ps::<0x01>(values, values);
    _mm256_blend_ps::<0b1111_0000>(_mm256_add_ps(other, values), _mm256_sub_ps(other, values))
}

/// To the nearest whole numbers, of eight bits.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(values: [__m256; 2]) -> __m128i {
    let (low, high) = (_mm256_cvtps_epi32(values[0]), _mm256_cvtps_epi32(values[1]));
    // Packing works in each half of a register: the quarters come as 0, 2, 1, 3.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
}

/// The bytes of two halves, their quads in turns, and minus eight times their sums.
#[inline]
#[target_feature(enable = "avx2")]
fn quads([first, second]: [[__m128i; 2]; 2]) -> ([[i8; 8]; 8], [[i32; 2]; 2]) {
    let parts = [
        _mm256_set_m128i(_mm_unpackhi_epi32(first[0], second[0]), _mm_unpacklo_epi32(first[0], second[0])),
        _mm256_set_m128i(_mm_unpackhi_epi32(first[1], second[1]), _mm_unpacklo_epi32(first[1], second[1])),
    ];
    let (eights, minus_ones) = (_mm256_set1_epi8(8), _mm256_set1_epi16(-1));
    // Of each part four pairs of lanes, of the first half and the second.
    let lanes = [
        _mm256_madd_epi16(_mm256_maddubs_epi16(eights, parts[0]), minus_ones),
        _mm256_madd_epi16(_mm256_maddubs_epi16(eights, parts[1]), minus_ones),
    ];
    let low = _mm256_unpacklo_epi64(lanes[0], lanes[1]);
    let both = _mm256_add_epi32(low, _mm256_unpackhi_epi64(lanes[0], lanes[1]));
    let both = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
    let (mut quads, mut sums) = ([[0; 8]; 8], [[0; 2]; 2]);
    // SAFETY: the arrays are as large as what is written, unaligned.
    unsafe {
        _mm256_storeu_si256(quads.as_mut_ptr().cast(), parts[0]);
        _mm256_storeu_si256(quads[4..].as_mut_ptr().cast(), parts[1]);
        _mm_storeu_si128(sums.as_mut_ptr().cast(), both);
    }
    (quads, sums)
}

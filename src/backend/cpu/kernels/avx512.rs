//! Sixteen lanes in one register: AVX-512 with VNNI (Intel since Ice Lake, AMD since Zen 4).

#![expect(unsafe_code, reason = "instructions that the CPU must have")]

use super::avx512_blocks;
use super::block::Block;
use super::simd::{HalfBits, Kernel, LANES, Shifts, Simd};
use std::arch::{asm, x86_64::*};

/// The proof that this CPU has the instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Avx512(());

impl Avx512 {
    pub(in crate::backend::cpu) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

/// An expression of instructions that an [`Avx512`] at hand proves to be there.
macro_rules! present {
    ($instructions:expr) => {
        // SAFETY: a value of `Avx512` is made only where the CPU has the instructions; what is read
        // and written are references to arrays of the size that the instruction takes, unaligned.
        unsafe { $instructions }
    };
}

impl Simd for Avx512 {
    type Floats = __m512;
    type Ints = __m512i;
    type Bytes = __m512i;
    type Pairs = __m512i;
    const ROWS: usize = 8;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        present!(compiled(self, kernel))
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        present!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        present!(_mm512_loadu_ps(values.as_ptr()))
    }

    #[inline(always)]
    fn load_half(self, values: &[HalfBits; LANES]) -> __m512 {
        present!(_mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bf16(self, values: &[u16; LANES]) -> __m512 {
        present!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(values.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn store(self, values: __m512, to: &mut [f32; LANES]) {
        present!(_mm512_storeu_ps(to.as_mut_ptr(), values));
    }

    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_add_ps(left, right))
    }

    #[inline(always)]
    fn sub(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_sub_ps(left, right))
    }

    #[inline(always)]
    fn mul(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_mul_ps(left, right))
    }

    #[inline(always)]
    fn div(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_div_ps(left, right))
    }

    #[inline(always)]
    fn mul_add(self, left: __m512, right: __m512, sum: __m512) -> __m512 {
        present!(_mm512_fmadd_ps(left, right, sum))
    }

    #[inline(always)]
    fn max(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_max_ps(left, right))
    }

    #[inline(always)]
    fn min(self, left: __m512, right: __m512) -> __m512 {
        present!(_mm512_min_ps(left, right))
    }

    #[inline(always)]
    fn abs(self, values: __m512) -> __m512 {
        present!(_mm512_abs_ps(values))
    }

    #[inline(always)]
    fn round(self, values: __m512) -> __m512 {
        present!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(values))
    }

    #[inline(always)]
    fn times_exp2(self, values: __m512, exponents: __m512) -> __m512 {
        present!(_mm512_scalef_ps(values, exponents))
    }

    #[inline(always)]
    fn exponents(self, values: __m512) -> __m512 {
        present!(_mm512_getexp_ps(values))
    }

    #[inline(always)]
    fn keep_first(self, values: __m512, count: usize, other: f32) -> __m512 {
        let kept = if count < LANES { (1u16 << count) - 1 } else { u16::MAX };
        present!(_mm512_mask_blend_ps(kept, _mm512_set1_ps(other), values))
    }

    #[inline(always)]
    fn sum(self, values: __m512) -> f32 {
        present!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(values), _mm512_extractf32x8_ps::<1>(values));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn maximum(self, values: __m512) -> f32 {
        present!(_mm512_reduce_max_ps(values))
    }

    #[inline(always)]
    fn maxima(self, [first, second]: [__m512; 2]) -> [f32; 2] {
        present!({
            let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(first, second);
            let both = _mm512_max_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(first, second));
            let both = _mm512_max_ps(both, _mm512_shuffle_f32x4::<0b10_11_00_01>(both, both));
            let both = _mm512_max_ps(both, _mm512_permute_ps::<0b01_00_11_10>(both));
            let both = _mm512_max_ps(both, _mm512_permute_ps::<0b10_11_00_01>(both));
            let second = _mm512_extractf32x4_ps::<2>(both);
            [_mm_cvtss_f32(_mm512_castps512_ps128(both)), _mm_cvtss_f32(second)]
        })
    }

    #[inline(always)]
    fn quantise<const BLOCKS: usize>(self, values: [[[__m512; 2]; 2]; BLOCKS], to: [&mut Block; BLOCKS]) {
        present!(avx512_blocks::quantise(values, to))
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> __m512i {
        present!(_mm512_loadu_si512(bytes.as_ptr().cast()))
    }

    #[inline(always)]
    fn prefetch<T>(self, line: &[T], distance: usize) {
        // Any address will do: one that is not mapped is not fetched.
        present!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_byte_add(distance).cast()));
    }

    #[inline(always)]
    fn low_nibbles(self, bytes: __m512i) -> __m512i {
        present!(_mm512_and_si512(bytes, _mm512_set1_epi8(0xf)))
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: __m512i) -> __m512i {
        present!(_mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(0xf)))
    }

    #[inline(always)]
    fn begin_dots<const BITS: u32>(self, [even, odd]: [i32; 2]) -> __m512i {
        present!(_mm512_set1_epi64(i64::from(odd) << 32 | i64::from(even as u32)))
    }

    #[inline(always)]
    fn dot<const BITS: u32>(self, sums: __m512i, bytes: __m512i, quads: [i8; 8]) -> __m512i {
        let quads = i64::from_le_bytes(quads.map(|value| value as u8));
        present!(_mm512_dpbusd_epi32(sums, bytes, _mm512_set1_epi64(quads)))
    }

    #[inline(always)]
    fn dots_as_pairs<const BITS: u32>(
        self,
        [first, second]: [__m512i; 2],
        _start: [i32; 2],
        Shifts { pair, of_bytes: [even, odd] }: Shifts,
    ) -> __m512i {
        if BITS == 8 {
            // One shift of each for all.
            return present!({
                let shifts = _mm512_set1_epi64(i64::from(odd) << 32 | i64::from(even));
                _mm512_packs_epi32(_mm512_srav_epi32(first, shifts), _mm512_srav_epi32(second, shifts))
            });
        }
        present!({
            let count = _mm_cvtsi32_si128(BITS as i32 - 4);
            let (first, second) = (_mm512_sra_epi32(first, count), _mm512_sra_epi32(second, count));
            _mm512_srav_epi16(_mm512_packs_epi32(first, second), self.splat_pair(pair))
        })
    }

    #[inline(always)]
    fn load_quads(self, quads: &[u32; LANES]) -> __m512i {
        present!(_mm512_loadu_si512(quads.as_ptr().cast()))
    }

    #[inline(always)]
    fn begin_quads(self, start: i32) -> __m512i {
        present!(_mm512_set1_epi32(start))
    }

    #[inline(always)]
    fn dot_quad(self, sums: __m512i, bytes: __m512i, quad: u32) -> __m512i {
        present!(_mm512_dpbusd_epi32(sums, bytes, _mm512_set1_epi32(quad as i32)))
    }

    #[inline(always)]
    fn to_bytes(self, values: __m512) -> [u32; LANES / 4] {
        let mut words = [0; LANES / 4];
        present!({
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(values));
            _mm_storeu_si128(words.as_mut_ptr().cast(), bytes);
        });
        words
    }

    #[inline(always)]
    fn hadamard(self, mut values: __m512) -> __m512 {
        present!({
            // Not sums and differences and a choice between them, which the compiler makes more instructions of.
            macro_rules! signs {
                ($minus:expr) => {
                    _mm512_mask_blend_ps($minus, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0))
                };
            }
            let other = _mm512_permute_ps::<0b10_11_00_01>(values);
            values = _mm512_fmadd_ps(values, signs!(0xaaaa), other);
            let other = _mm512_permute_ps::<0b01_00_11_10>(values);
            values = _mm512_fmadd_ps(values, signs!(0xcccc), other);
            let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(values, values);
            values = _mm512_fmadd_ps(values, signs!(0xf0f0), other);
            let other = _mm512_shuffle_f32x4::<0b01_00_11_10>(values, values);
            _mm512_fmadd_ps(values, signs!(0xff00), other)
        })
    }

    #[inline(always)]
    fn load_pairs(self, pairs: &[u32; LANES]) -> __m512i {
        present!(_mm512_loadu_si512(pairs.as_ptr().cast()))
    }

    #[inline(always)]
    fn load_byte_pairs(self, pairs: &[u32; LANES / 2]) -> __m512i {
        present!(_mm512_cvtepi8_epi16(_mm256_loadu_si256(pairs.as_ptr().cast())))
    }

    #[inline(always)]
    fn no_pairs(self) -> __m512i {
        present!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn splat_pair(self, pair: u32) -> __m512i {
        present!(_mm512_set1_epi32(pair as i32))
    }

    #[inline(always)]
    fn dot_pairs(self, sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        /// The instruction by its name: the compiler would make two of its intrinsic, a product and a sum.
        #[inline]
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn dot(mut sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
            // SAFETY: it works on registers alone.
            unsafe {
                asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) sums, in(zmm_reg) left, in(zmm_reg) right,
                    options(pure, nomem, nostack, preserves_flags));
            }
            sums
        }
        present!(dot(sums, left, right))
    }

    #[inline(always)]
    fn to_pairs(self, values: __m512) -> [u32; LANES / 2] {
        let mut pairs = [0; LANES / 2];
        present!({
            let narrow = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(values));
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), narrow);
        });
        pairs
    }

    #[inline(always)]
    fn to_floats(self, sums: __m512i) -> __m512 {
        present!(_mm512_cvtepi32_ps(sums))
    }

    #[inline(always)]
    fn in_order(self, sums: __m512i) -> __m512i {
        /// No instruction, but one that the compiler keeps in its place.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn barrier(mut sums: __m512i) -> __m512i {
            // SAFETY: it does nothing.
            unsafe { asm!("/* {0} */", inout(zmm_reg) sums, options(nomem, nostack, preserves_flags)) };
            sums
        }
        present!(barrier(sums))
    }
}

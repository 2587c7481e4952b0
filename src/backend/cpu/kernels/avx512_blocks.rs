//! Rounding up to four blocks at once in registers of 512 bits: what is one number for each half of a block is computed
//! for eight halves side by side.

#![expect(unsafe_code, reason = "instructions that the CPU must have")]

use super::block::{Block, LARGEST_QUANT, MAX_SHIFT, SMALLEST};
use std::{arch::x86_64::*, mem::offset_of};

/// Values of the two halves of a block.
pub(super) type Values = [[__m512; 2]; 2];

/// Of two numbers the one further from zero, without its sign.
const LARGER_MAGNITUDE: i32 = 0b10_11;

/// As [`Block::quantise`]. There are no closures in here: they would not be compiled for these instructions.
///
/// Inlined: as a function by itself it took a third longer.
///
/// # Safety
/// The CPU must have the instructions of [`Avx512`](super::avx512::Avx512), and what this is inlined into be compiled for
/// them.
#[inline(always)]
pub(super) unsafe fn quantise<const BLOCKS: usize>(values: [Values; BLOCKS], to: [&mut Block; BLOCKS]) {
    // SAFETY: the caller's; what is written, unaligned, are an array of as many floats, and a block as it is laid out.
    unsafe {
        const { assert!(0 < BLOCKS && BLOCKS <= 4) };
        let mut magnitudes = [_mm512_setzero_ps(); 8];
        for (idx, magnitude) in magnitudes[..2 * BLOCKS].iter_mut().enumerate() {
            let [first, second] = values[idx / 2][idx % 2];
            *magnitude = _mm512_range_ps::<LARGER_MAGNITUDE>(first, second);
        }
        let halves = maxima(magnitudes);
        let others = _mm256_permute_ps::<0b10_11_00_01>(halves);
        let largest = _mm256_max_ps(halves, others);
        let steps = _mm256_sub_epi32(_mm256_castps_si256(largest), _mm256_castps_si256(halves));
        let shifts = _mm256_min_epu32(_mm256_srli_epi32::<23>(steps), _mm256_set1_epi32(MAX_SHIFT as i32));
        let has_inverse = _mm256_cmp_ps_mask::<_CMP_GE_OQ>(largest, _mm256_set1_ps(SMALLEST));
        let inverse = _mm256_maskz_div_ps(has_inverse, _mm256_set1_ps(LARGEST_QUANT), largest);
        let exponents = _mm256_slli_epi32::<23>(_mm256_add_epi32(shifts, _mm256_set1_epi32(127)));
        let mut factors = [0.0; 8];
        let scaled = _mm256_mul_ps(inverse, _mm256_castsi256_ps(exponents));
        _mm256_storeu_ps(factors.as_mut_ptr(), scaled);
        // No number if a half is none: what is largest of the two does not say so.
        let zero = _mm256_setzero_ps();
        let nothing = _mm256_fmadd_ps(zero, halves, _mm256_mul_ps(zero, others));
        let scales = _mm256_fmadd_ps(largest, _mm256_set1_ps(1.0 / LARGEST_QUANT), nothing);

        let mut eights = [_mm512_setzero_si512(); 4];
        let mut quants = eights;
        for block in 0..BLOCKS {
            let mut words = [_mm512_setzero_si512(); 2];
            for part in 0..2 {
                let [first, second] = [values[block][0][part], values[block][1][part]];
                let first = _mm512_mul_ps(first, _mm512_set1_ps(factors[2 * block]));
                let second = _mm512_mul_ps(second, _mm512_set1_ps(factors[2 * block + 1]));
                // In each lane four of the first half, and four of the second.
                words[part] = _mm512_packs_epi32(_mm512_cvtps_epi32(first), _mm512_cvtps_epi32(second));
            }
            // A lane has a quad of each part.
            let bytes = _mm512_packs_epi16(words[0], words[1]);
            quants[block] = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes);
            eights[block] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(8), quants[block]);
        }
        // Of each part and each half of the four blocks, minus eight times the sum of the quants.
        let two = _mm512_add_epi32(
            _mm512_unpacklo_epi64(eights[0], eights[1]),
            _mm512_unpackhi_epi64(eights[0], eights[1]),
        );
        let others = _mm512_add_epi32(
            _mm512_unpacklo_epi64(eights[2], eights[3]),
            _mm512_unpackhi_epi64(eights[2], eights[3]),
        );
        let four = _mm512_add_epi32(
            _mm512_shuffle_i32x4::<0b10_00_10_00>(two, others),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(two, others),
        );
        let four = _mm512_shuffle_i32x4::<0b11_01_10_00>(four, four);
        let first = _mm256_sub_epi32(_mm256_setzero_si256(), _mm512_castsi512_si256(four));
        let second = _mm256_sub_epi32(_mm256_setzero_si256(), _mm512_extracti64x4_epi64::<1>(four));

        let roundings = _mm256_srli_epi32::<1>(_mm256_sllv_epi32(_mm256_set1_epi32(1), shifts));
        let wholes = _mm256_add_epi32(first, second);
        let starts = _mm256_add_epi32(wholes, roundings);
        let (first, second) = (_mm256_add_epi32(first, roundings), _mm256_add_epi32(second, roundings));
        let byte_starts = _mm256_add_epi32(_mm256_slli_epi32::<4>(starts), _mm256_set1_epi32(8));
        let sums = _mm256_srav_epi32(_mm256_sub_epi32(roundings, wholes), shifts);
        // In each lane the sums of two blocks, then their shifts: of each block side by side.
        let pairs = _mm256_shuffle_epi32::<0b11_01_10_00>(_mm256_packs_epi32(sums, shifts));
        let of_bytes = _mm256_add_epi32(shifts, _mm256_set1_epi32(4));
        let scales = _mm256_castps_si256(scales);
        let rest = by_block([pairs, of_bytes, scales, scales]);
        let starts = by_block([starts, first, second, byte_starts]);
        for (block, to) in to.into_iter().enumerate() {
            const {
                assert!(offset_of!(Block, starts) == 64 && offset_of!(Block, byte_starts) == 88);
                assert!(offset_of!(Block, sums) == 96 && offset_of!(Block, shifts) == 100);
                assert!(offset_of!(Block, scale) == 112 && size_of::<Block>() == 120);
            };
            let to: *mut u64 = std::ptr::from_mut(to).cast();
            _mm512_storeu_si512(to.cast(), quants[block]);
            _mm256_storeu_si256(to.add(8).cast(), starts[block]);
            _mm_storeu_si128(to.add(12).cast(), _mm256_castsi256_si128(rest[block]));
            _mm_storel_epi64(to.add(14).cast(), _mm256_extracti128_si256::<1>(rest[block]));
        }
    }
}

/// The largest number of each register.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn maxima(values: [__m512; 8]) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        // The halves of two against each other, then the quarters of two and two, and so on.
        let mut halved = [values[0]; 4];
        for idx in 0..4 {
            let (first, second) = (values[2 * idx], values[2 * idx + 1]);
            halved[idx] = _mm512_max_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(first, second),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(first, second),
            );
        }
        let mut quarters = [halved[0]; 2];
        for idx in 0..2 {
            let (first, second) = (halved[2 * idx], halved[2 * idx + 1]);
            quarters[idx] = _mm512_max_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(first, second),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(first, second),
            );
        }
        let all = _mm512_max_ps(
            _mm512_shuffle_ps::<0b01_00_01_00>(quarters[0], quarters[1]),
            _mm512_shuffle_ps::<0b11_10_11_10>(quarters[0], quarters[1]),
        );
        let all = _mm512_max_ps(all, _mm512_permute_ps::<0b10_11_00_01>(all));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all))
    }
}

/// Of numbers of the four blocks, two of each, those of each block.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn by_block([first, second, third, fourth]: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let low = [_mm256_unpacklo_epi64(first, second), _mm256_unpacklo_epi64(third, fourth)];
        let high = [_mm256_unpackhi_epi64(first, second), _mm256_unpackhi_epi64(third, fourth)];
        [
            _mm256_permute2x128_si256::<0x20>(low[0], low[1]),
            _mm256_permute2x128_si256::<0x20>(high[0], high[1]),
            _mm256_permute2x128_si256::<0x31>(low[0], low[1]),
            _mm256_permute2x128_si256::<0x31>(high[0], high[1]),
        ]
    }
}

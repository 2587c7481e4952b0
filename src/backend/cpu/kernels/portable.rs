//! Sixteen lanes in plain Rust, for any CPU.

use super::block::{Block, ToQuads};
use super::simd::{HalfBits, Kernel, LANES, Shifts, Simd};
use half::f16;
use std::array::from_fn;

#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Portable;

impl Simd for Portable {
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Bytes = [u8; 4 * LANES];
    type Pairs = [[i16; 2]; LANES];
    const ROWS: usize = 8;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [f32; LANES] {
        *values
    }

    #[inline(always)]
    fn load_half(self, values: &[HalfBits; LANES]) -> [f32; LANES] {
        values.map(|bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, values: &[u16; LANES]) -> [f32; LANES] {
        values.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    fn store(self, values: [f32; LANES], to: &mut [f32; LANES]) {
        *to = values;
    }

    #[inline(always)]
    fn add(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane] + right[lane])
    }

    #[inline(always)]
    fn sub(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane] - right[lane])
    }

    #[inline(always)]
    fn mul(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane] * right[lane])
    }

    #[inline(always)]
    fn div(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane] / right[lane])
    }

    #[inline(always)]
    fn mul_add(self, left: [f32; LANES], right: [f32; LANES], sum: [f32; LANES]) -> [f32; LANES] {
        // Not `f32::mul_add`: without the instruction, that is a call of a slow function.
        from_fn(|lane| left[lane] * right[lane] + sum[lane])
    }

    #[inline(always)]
    fn max(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane].max(right[lane]))
    }

    #[inline(always)]
    fn min(self, left: [f32; LANES], right: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| left[lane].min(right[lane]))
    }

    #[inline(always)]
    fn abs(self, values: [f32; LANES]) -> [f32; LANES] {
        values.map(f32::abs)
    }

    #[inline(always)]
    fn round(self, values: [f32; LANES]) -> [f32; LANES] {
        values.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn times_exp2(self, values: [f32; LANES], exponents: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| values[lane] * f32::from_bits(((exponents[lane] as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn exponents(self, values: [f32; LANES]) -> [f32; LANES] {
        values.map(|value| ((value.to_bits() >> 23) as i32 - 127) as f32)
    }

    #[inline(always)]
    fn keep_first(self, values: [f32; LANES], count: usize, other: f32) -> [f32; LANES] {
        from_fn(|lane| if lane < count { values[lane] } else { other })
    }

    #[inline(always)]
    fn sum(self, mut values: [f32; LANES]) -> f32 {
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                values[lane] += values[lane + half];
            }
        }
        values[0]
    }

    #[inline(always)]
    fn maximum(self, values: [f32; LANES]) -> f32 {
        values.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn maxima(self, values: [[f32; LANES]; 2]) -> [f32; 2] {
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
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> [u8; 4 * LANES] {
        *bytes
    }

    #[inline(always)]
    fn prefetch<T>(self, _line: &[T], _distance: usize) {}

    #[inline(always)]
    fn low_nibbles(self, bytes: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        bytes.map(|byte| byte & 0xf)
    }

    #[inline(always)]
    fn high_nibbles(self, bytes: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        bytes.map(|byte| byte >> 4)
    }

    #[inline(always)]
    fn begin_dots<const BITS: u32>(self, start: [i32; 2]) -> [i32; LANES] {
        from_fn(|lane| start[lane % 2])
    }

    #[inline(always)]
    fn dot<const BITS: u32>(
        self,
        sums: [i32; LANES],
        bytes: [u8; 4 * LANES],
        quads: [i8; 8],
    ) -> [i32; LANES] {
        from_fn(|lane| {
            let product =
                |idx: usize| i32::from(bytes[4 * lane + idx]) * i32::from(quads[4 * (lane % 2) + idx]);
            (0..4).fold(sums[lane], |sum, idx| sum + product(idx))
        })
    }

    #[inline(always)]
    fn dots_as_pairs<const BITS: u32>(
        self,
        groups: [[i32; LANES]; 2],
        _start: [i32; 2],
        shifts: Shifts,
    ) -> [[i16; 2]; LANES] {
        let shifts = halves(shifts.pair);
        from_fn(|lane| {
            let at = lane / 4 * 4 + lane % 2 * 2;
            let sum = |idx: usize| groups[lane % 4 / 2][at + idx] >> (BITS - 4) >> shifts[idx];
            [sum(0) as i16, sum(1) as i16]
        })
    }

    #[inline(always)]
    fn load_quads(self, quads: &[u32; LANES]) -> [u8; 4 * LANES] {
        *quads.map(u32::to_le_bytes).as_flattened().first_chunk().expect("four bytes a word")
    }

    #[inline(always)]
    fn begin_quads(self, start: i32) -> [i32; LANES] {
        [start; LANES]
    }

    #[inline(always)]
    fn dot_quad(self, sums: [i32; LANES], bytes: [u8; 4 * LANES], quad: u32) -> [i32; LANES] {
        let quad = quad.to_le_bytes().map(|byte| i32::from(byte as i8));
        from_fn(|lane| {
            let [a, b, c, d] = from_fn(|idx| i32::from(bytes[4 * lane + idx]) * quad[idx]);
            sums[lane] + (a + b) + (c + d)
        })
    }

    #[inline(always)]
    fn to_bytes(self, values: [f32; LANES]) -> [u32; LANES / 4] {
        from_fn(|word| {
            u32::from_le_bytes(from_fn(|byte| values[4 * word + byte].round_ties_even() as i8 as u8))
        })
    }

    #[inline(always)]
    fn hadamard(self, mut values: [f32; LANES]) -> [f32; LANES] {
        for distance in [1, 2, 4, 8] {
            values = from_fn(|lane| {
                let other = values[lane ^ distance];
                if lane & distance == 0 { other + values[lane] } else { other - values[lane] }
            });
        }
        values
    }

    #[inline(always)]
    fn load_pairs(self, pairs: &[u32; LANES]) -> [[i16; 2]; LANES] {
        pairs.map(halves)
    }

    #[inline(always)]
    fn load_byte_pairs(self, pairs: &[u32; LANES / 2]) -> [[i16; 2]; LANES] {
        let numbers = pairs.map(|pairs| pairs.to_le_bytes().map(|byte| i16::from(byte as i8)));
        *numbers.as_flattened().as_chunks::<2>().0.first_chunk().expect("two pairs a word")
    }

    #[inline(always)]
    fn no_pairs(self) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn splat_pair(self, pair: u32) -> [[i16; 2]; LANES] {
        [halves(pair); LANES]
    }

    #[inline(always)]
    fn dot_pairs(
        self,
        sums: [i32; LANES],
        left: [[i16; 2]; LANES],
        right: [[i16; 2]; LANES],
    ) -> [i32; LANES] {
        let product = |lane: usize, idx: usize| i32::from(left[lane][idx]) * i32::from(right[lane][idx]);
        from_fn(|lane| sums[lane].wrapping_add(product(lane, 0)).wrapping_add(product(lane, 1)))
    }

    #[inline(always)]
    fn to_pairs(self, values: [f32; LANES]) -> [u32; LANES / 2] {
        let number = |idx: usize| u32::from(values[idx].round_ties_even() as i16 as u16);
        from_fn(|pair| number(2 * pair) | number(2 * pair + 1) << 16)
    }

    #[inline(always)]
    fn to_floats(self, sums: [i32; LANES]) -> [f32; LANES] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn in_order(self, sums: [i32; LANES]) -> [i32; LANES] {
        sums
    }
}

impl ToQuads for Portable {
    #[inline(always)]
    fn to_quads(self, halves: [[[f32; LANES]; 2]; 2]) -> ([[i8; 8]; 8], [[i32; 2]; 2]) {
        let halves = halves.map(|half| half.map(|part| part.map(|value| value.round_ties_even() as i8)));
        let quads = from_fn(|quad| from_fn(|idx| halves[idx / 4][quad / 4][4 * (quad % 4) + idx % 4]));
        let start = |part: [i8; LANES]| -8 * part.iter().map(|&byte| i32::from(byte)).sum::<i32>();
        (quads, from_fn(|part| from_fn(|half| start(halves[half][part]))))
    }
}

/// The two numbers of a pair.
fn halves(pair: u32) -> [i16; 2] {
    [pair as i16, (pair >> 16) as i16]
}

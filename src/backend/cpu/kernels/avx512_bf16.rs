//! Products of `bf16` with `bf16`, two inputs an instruction: AVX-512 with BF16 on AMD since Zen 4.

#![expect(unsafe_code, reason = "instructions that the CPU must have")]

use super::{
    avx512::Avx512,
    product::{Finish, finish},
    simd::{LANES, Simd},
};
use crate::backend::cpu::view::{View, ViewMut};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

/// The proof that this CPU has the instructions, and gains by them.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Bf16Dots(Avx512);

/// Two neighbouring weights of an output, as their bits.
pub(in crate::backend::cpu) type Bf16Pair = [u16; 2];

/// Inputs that are rounded at a time; of each output so many are stored, the last ones zeros.
pub(in crate::backend::cpu) const BF16_INPUTS: usize = 2 * LANES;

/// `output = finish(input · panelsᵀ)`, the inputs rounded to `bf16` too.
pub(in crate::backend::cpu) struct Bf16Product<'a> {
    /// Of all panels: `[panel, pair, lane]`.
    pub(in crate::backend::cpu) weights: &'a [Bf16Pair],
    pub(in crate::backend::cpu) panels: Range<usize>,
    pub(in crate::backend::cpu) input: View<'a, f32>,
    pub(in crate::backend::cpu) output: ViewMut<'a, f32>,
    pub(in crate::backend::cpu) finish: Finish<'a>,
}

impl Bf16Dots {
    /// `None` on Intel's processors, where two multiply-adds take half the time of this one instruction.
    pub(in crate::backend::cpu) fn detect() -> Option<Self> {
        // Once: a hypervisor answers each time.
        static IS_AMD: LazyLock<bool> = LazyLock::new(|| {
            let vendor = __cpuid(0);
            [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
        });
        let simd = Avx512::detect()?;
        (*IS_AMD && is_x86_feature_detected!("avx512bf16")).then_some(Self(simd))
    }

    pub(in crate::backend::cpu) fn run(self, product: Bf16Product<'_>) {
        thread_local! {
            /// Kept for the next product.
            static INPUTS: RefCell<Vec<[i32; LANES]>> = const { RefCell::new(Vec::new()) };
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")]
        fn compiled(simd: Avx512, mut product: Bf16Product<'_>, inputs: &mut Vec<[i32; LANES]>) {
            let rows = product.input.rows();
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    8.. => product.rows::<8>(simd, row, inputs),
                    4.. => product.rows::<4>(simd, row, inputs),
                    2.. => product.rows::<2>(simd, row, inputs),
                    _ => product.rows::<1>(simd, row, inputs),
                };
            }
        }
        // SAFETY: a value of this type is made only where the CPU has the instructions.
        INPUTS.with_borrow_mut(|inputs| unsafe { compiled(self.0, product, inputs) });
    }
}

impl Bf16Product<'_> {
    /// The products of `ROWS` rows with all panels; returns how many rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")]
    fn rows<const ROWS: usize>(
        &mut self,
        simd: Avx512,
        first_row: usize,
        inputs: &mut Vec<[i32; LANES]>,
    ) -> usize {
        inputs.clear();
        for row in self.input.rows_from::<ROWS>(first_row) {
            inputs.extend(row.chunks(BF16_INPUTS).map(|chunk| rounded(chunk)));
        }
        let chunks = inputs.len() / ROWS;
        let mut rows = [&inputs[..chunks]; ROWS];
        for (idx, row) in rows.iter_mut().enumerate() {
            *row = &inputs[idx * chunks..][..chunks];
        }
        for panel in self.panels.clone() {
            self.tile(simd, panel, first_row, rows);
        }
        ROWS
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")]
    fn tile<const ROWS: usize>(
        &mut self,
        simd: Avx512,
        panel: usize,
        first_row: usize,
        rows: [&[[i32; LANES]]; ROWS],
    ) {
        let chunks = rows[0].len();
        let (lanes, _) = self.weights.as_chunks::<LANES>();
        let (weights, _) = lanes.as_chunks::<LANES>();
        let weights = &weights[panel * chunks..][..chunks];

        // Two sums a row, so that neither waits for the other.
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (chunk, weights) in weights.iter().enumerate() {
            let mut inputs = [&rows[0][chunk]; ROWS];
            for row in 1..ROWS {
                inputs[row] = &rows[row][chunk];
            }
            let (pairs, _) = weights.as_chunks::<2>();
            for (idx, [even, odd]) in pairs.iter().enumerate() {
                let (even, odd) = (load(even), load(odd));
                for row in 0..ROWS {
                    let [first, second] = &mut sums[row];
                    *first = _mm512_dpbf16_ps(*first, even, splat(inputs[row][2 * idx]));
                    *second = _mm512_dpbf16_ps(*second, odd, splat(inputs[row][2 * idx + 1]));
                }
            }
        }
        let column = (panel - self.panels.start) * LANES;
        for (row, [first, second]) in sums.into_iter().enumerate() {
            finish(simd, simd.add(first, second), self.output.row(first_row + row), column, self.finish);
        }
    }
}

/// Inputs as pairs of `bf16`, to the nearest, ties to even; zeros behind the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(inputs: &[f32]) -> [i32; LANES] {
    let mut padded = [0.0; BF16_INPUTS];
    let inputs = inputs.first_chunk::<BF16_INPUTS>().unwrap_or_else(|| {
        padded[..inputs.len()].copy_from_slice(inputs);
        &padded
    });
    let mut pairs = [0; LANES];
    // SAFETY: both arrays have the size that the instructions read and write, unaligned.
    unsafe {
        let (first, second) = (_mm512_loadu_ps(inputs.as_ptr()), _mm512_loadu_ps(inputs[LANES..].as_ptr()));
        let bf16s: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
        _mm512_storeu_si512(pairs.as_mut_ptr().cast(), bf16s);
    }
    pairs
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn load(pairs: &[Bf16Pair; LANES]) -> __m512bh {
    // SAFETY: the array has the size that is read, unaligned; any bits are numbers.
    unsafe { std::mem::transmute(_mm512_loadu_si512(pairs.as_ptr().cast())) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn splat(pair: i32) -> __m512bh {
    // SAFETY: any bits are numbers.
    unsafe { std::mem::transmute(_mm512_set1_epi32(pair)) }
}

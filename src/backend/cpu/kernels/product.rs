//! Matrix products, sixteen outputs at a time.
//!
//! A panel is sixteen neighbouring outputs of a matrix, laid out so that one load takes the next four
//! inputs (integers) or the next input (floats) of all sixteen. Up to [`Simd::ROWS`] rows of activations pass
//! each weight as it is unpacked, so that a few rows cost what reading the weights costs.

use super::{
    block::{BLOCK_LEN, Block},
    simd::{Element, Kernel, LANES, Simd},
};
use crate::backend::cpu::view::{View, ViewMut};
use std::ops::Range;

/// Bytes that four inputs of a panel take.
const QUAD_BYTES: usize = 4 * LANES;
const QUADS_PER_BLOCK: usize = BLOCK_LEN / 4;

/// How far ahead weights are asked for: the processor's own guesses stop where a page of memory ends.
const PREFETCH_BYTES: usize = 4096;

/// What is done with a product.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) enum Finish<'a> {
    Store,
    /// Plus these, of the same columns as the output.
    Bias(&'a [f32]),
    /// Added to what is there.
    Accumulate,
}

/// `output = finish(input · panelsᵀ)` for weights that are whole numbers with a scale a block.
///
/// A quant has `BITS` bits, and a weight is `scale * (quant - BIAS)`, or `scale * quant + minimum` with `MINIMA`.
pub(in crate::backend::cpu) struct IntegerProduct<
    'a,
    E,
    const BITS: u32,
    const MINIMA: bool,
    const SCALES_PER_BLOCK: usize,
    const BIAS: i32,
> {
    /// Of all panels: `[panel, block, quad, lane, 4]`; of four bits, quads 4 to 7 are the high nibbles of
    /// quads 0 to 3.
    pub(in crate::backend::cpu) quants: &'a [u8],
    /// Of all panels: `[panel, block, scale, lane]`, with `MINIMA` each scale followed by the minimum.
    pub(in crate::backend::cpu) scales: &'a [E],
    /// Panels to multiply with.
    pub(in crate::backend::cpu) panels: Range<usize>,
    pub(in crate::backend::cpu) input: View<'a, Block>,
    /// The columns of these panels; the last one may have fewer than sixteen.
    pub(in crate::backend::cpu) output: ViewMut<'a, f32>,
    pub(in crate::backend::cpu) finish: Finish<'a>,
}

impl<E: Element, const BITS: u32, const MINIMA: bool, const SCALES_PER_BLOCK: usize, const BIAS: i32> Kernel
    for IntegerProduct<'_, E, BITS, MINIMA, SCALES_PER_BLOCK, BIAS>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let rows = self.input.rows();
        for panel in self.panels.clone() {
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    8.. if S::ROWS >= 8 => self.tile::<S, 8>(simd, panel, row),
                    4.. => self.tile::<S, 4>(simd, panel, row),
                    2.. => self.tile::<S, 2>(simd, panel, row),
                    _ => self.tile::<S, 1>(simd, panel, row),
                };
            }
        }
    }
}

impl<E: Element, const BITS: u32, const MINIMA: bool, const SCALES_PER_BLOCK: usize, const BIAS: i32>
    IntegerProduct<'_, E, BITS, MINIMA, SCALES_PER_BLOCK, BIAS>
{
    const NIBBLES: bool = BITS == 4;
    const QUADS_STORED: usize = if Self::NIBBLES { QUADS_PER_BLOCK / 2 } else { QUADS_PER_BLOCK };
    const SCALE_ROWS: usize = SCALES_PER_BLOCK * if MINIMA { 2 } else { 1 };

    /// The products of `ROWS` rows with one panel; returns how many rows.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, panel: usize, first_row: usize) -> usize {
        let rows = self.input.rows_from::<ROWS>(first_row);
        let n_blocks = rows[0].len();
        let (quads, _) = self.quants.as_chunks::<QUAD_BYTES>();
        let quads = &quads[panel * n_blocks * Self::QUADS_STORED..][..n_blocks * Self::QUADS_STORED];
        let (scales, _) = self.scales.as_chunks::<LANES>();
        let scales = &scales[panel * n_blocks * Self::SCALE_ROWS..][..n_blocks * Self::SCALE_ROWS];

        let mut sums = [simd.splat(0.0); ROWS];
        for block in 0..n_blocks {
            let quads = &quads[block * Self::QUADS_STORED..][..Self::QUADS_STORED];
            let scales = &scales[block * Self::SCALE_ROWS..][..Self::SCALE_ROWS];
            let mut blocks = [&rows[0][block]; ROWS];
            for row in 1..ROWS {
                blocks[row] = &rows[row][block];
            }
            for part in 0..SCALES_PER_BLOCK {
                let scale = E::load(simd, &scales[part]);
                let minima = match MINIMA {
                    true => E::load(simd, &scales[1]),
                    false => simd.mul(scale, simd.splat(-BIAS as f32)),
                };
                if BITS == 8 && !S::DOTS_OF_BYTES {
                    const {
                        assert!(BITS != 8 || SCALES_PER_BLOCK == 1, "all bytes of a block are summed at once")
                    };
                    let low = nibble_dots::<S, ROWS, false>(simd, quads, blocks);
                    add_dots::<S, ROWS, 4>(simd, low, scale, blocks, &mut sums);
                    let high = nibble_dots::<S, ROWS, true>(simd, quads, blocks);
                    let scale = simd.mul(scale, simd.splat(16.0));
                    add_dots::<S, ROWS, 4>(simd, high, scale, blocks, &mut sums);
                } else {
                    let dots = self::dots::<S, ROWS, BITS, SCALES_PER_BLOCK>(simd, quads, blocks, part);
                    add_dots::<S, ROWS, BITS>(simd, dots, scale, blocks, &mut sums);
                }
                for row in 0..ROWS {
                    let sum = match SCALES_PER_BLOCK {
                        1 => blocks[row].scaled_sum,
                        _ => blocks[row].scaled_half_sums[part],
                    };
                    sums[row] = simd.mul_add(minima, simd.splat(sum), sums[row]);
                }
            }
        }
        let column = (panel - self.panels.start) * LANES;
        for (row, sums) in sums.into_iter().enumerate() {
            finish(simd, sums, self.output.row(first_row + row), column, self.finish);
        }
        ROWS
    }
}

/// Sums over the weights of a block that share a scale, which are all or the `part`th half.
#[inline(always)]
fn dots<S: Simd, const ROWS: usize, const BITS: u32, const SCALES_PER_BLOCK: usize>(
    simd: S,
    quads: &[[u8; QUAD_BYTES]],
    blocks: [&Block; ROWS],
    part: usize,
) -> [S::Ints; ROWS] {
    let mut dots = [simd.no_dots::<BITS>(); ROWS];
    if BITS == 4 {
        for (idx, quad) in quads.iter().enumerate() {
            simd.prefetch(quad, PREFETCH_BYTES);
            let (low, high) = simd.nibbles(simd.load_bytes(quad));
            for row in 0..ROWS {
                let sum = simd.dot::<BITS>(dots[row], low, blocks[row].quad(idx));
                dots[row] = simd.in_order(sum);
            }
            for row in 0..ROWS {
                let sum = simd.dot::<BITS>(dots[row], high, blocks[row].quad(idx + QUADS_PER_BLOCK / 2));
                dots[row] = simd.in_order(sum);
            }
        }
    } else {
        let len = QUADS_PER_BLOCK / SCALES_PER_BLOCK;
        for (idx, quad) in quads.iter().enumerate().skip(part * len).take(len) {
            simd.prefetch(quad, PREFETCH_BYTES);
            let weights = simd.load_bytes(quad);
            for row in 0..ROWS {
                let sum = simd.dot::<BITS>(dots[row], weights, blocks[row].quad(idx));
                dots[row] = simd.in_order(sum);
            }
        }
    }
    dots
}

/// Sums over the low or the `HIGH` four bits of a block of bytes.
#[inline(always)]
fn nibble_dots<S: Simd, const ROWS: usize, const HIGH: bool>(
    simd: S,
    quads: &[[u8; QUAD_BYTES]],
    blocks: [&Block; ROWS],
) -> [S::Ints; ROWS] {
    let mut dots = [simd.no_dots::<4>(); ROWS];
    for (idx, quad) in quads.iter().enumerate() {
        if !HIGH {
            simd.prefetch(quad, PREFETCH_BYTES);
        }
        let (low, high) = simd.nibbles(simd.load_bytes(quad));
        for row in 0..ROWS {
            let sum = simd.dot::<4>(dots[row], if HIGH { high } else { low }, blocks[row].quad(idx));
            dots[row] = simd.in_order(sum);
        }
    }
    dots
}

/// Adds sums of a block of weights to those of their rows.
#[inline(always)]
fn add_dots<S: Simd, const ROWS: usize, const BITS: u32>(
    simd: S,
    dots: [S::Ints; ROWS],
    scale: S::Floats,
    blocks: [&Block; ROWS],
    sums: &mut [S::Floats; ROWS],
) {
    for row in 0..ROWS {
        let scaled = simd.scale_dots::<BITS>(dots[row], scale);
        sums[row] = simd.mul_add(scaled, simd.splat(blocks[row].scale), sums[row]);
    }
}

/// `output = finish(input · panelsᵀ)` for weights that are floats.
pub(in crate::backend::cpu) struct FloatProduct<'a, E> {
    /// Of all panels: `[panel, input, lane]`.
    pub(in crate::backend::cpu) weights: &'a [E],
    pub(in crate::backend::cpu) panels: Range<usize>,
    pub(in crate::backend::cpu) input: View<'a, f32>,
    pub(in crate::backend::cpu) output: ViewMut<'a, f32>,
    pub(in crate::backend::cpu) finish: Finish<'a>,
}

impl<E: Element> Kernel for FloatProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let rows = self.input.rows();
        for panel in self.panels.clone() {
            let mut row = 0;
            while row < rows {
                // Half as many at once as integers, but for the 32 registers of sixteen lanes: a row has two sums.
                row += match rows - row {
                    8.. if S::ROWS >= 8 => self.tile::<S, 8>(simd, panel, row),
                    4.. if S::ROWS >= 8 => self.tile::<S, 4>(simd, panel, row),
                    2.. => self.tile::<S, 2>(simd, panel, row),
                    _ => self.tile::<S, 1>(simd, panel, row),
                };
            }
        }
    }
}

impl<E: Element> FloatProduct<'_, E> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, panel: usize, first_row: usize) -> usize {
        let rows = self.input.rows_from::<ROWS>(first_row);
        let inputs = rows[0].len();
        let (weights, _) = self.weights.as_chunks::<LANES>();
        let weights = &weights[panel * inputs..][..inputs];

        // Two sums a row, of the even and the odd inputs, so that neither waits for the other. The two are
        // written out: chosen by a number that is not known here, they would not stay in registers.
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        let (pairs, last) = weights.as_chunks::<2>();
        for (idx, [even, odd]) in pairs.iter().enumerate() {
            let (even, odd) = (E::load(simd, even), E::load(simd, odd));
            for row in 0..ROWS {
                let sum = &mut sums[row];
                sum[0] = simd.mul_add(even, simd.splat(rows[row][2 * idx]), sum[0]);
                sum[1] = simd.mul_add(odd, simd.splat(rows[row][2 * idx + 1]), sum[1]);
            }
        }
        for weights in last {
            let weights = E::load(simd, weights);
            for row in 0..ROWS {
                sums[row][0] = simd.mul_add(weights, simd.splat(rows[row][inputs - 1]), sums[row][0]);
            }
        }
        let column = (panel - self.panels.start) * LANES;
        for (row, [even, odd]) in sums.into_iter().enumerate() {
            finish(simd, simd.add(even, odd), self.output.row(first_row + row), column, self.finish);
        }
        ROWS
    }
}

#[inline(always)]
pub(super) fn finish<S: Simd>(simd: S, sums: S::Floats, row: &mut [f32], column: usize, finish: Finish<'_>) {
    let bias = match finish {
        Finish::Bias(bias) => &bias[column..],
        Finish::Store | Finish::Accumulate => &[],
    };
    let row = &mut row[column..];
    if let Some(to) = row.first_chunk_mut::<LANES>() {
        let sums = match (finish, bias.first_chunk::<LANES>()) {
            (Finish::Accumulate, _) => simd.add(simd.load(to), sums),
            (_, Some(bias)) => simd.add(sums, simd.load(bias)),
            _ => sums,
        };
        return simd.store(sums, to);
    }
    let mut values = [0.0; LANES];
    simd.store(sums, &mut values);
    finish_few(&values, row, bias, matches!(finish, Finish::Accumulate));
}

/// Fewer than sixteen columns, the last ones of a matrix.
#[cold]
#[inline(never)]
fn finish_few(values: &[f32; LANES], row: &mut [f32], bias: &[f32], accumulate: bool) {
    for (idx, to) in row.iter_mut().enumerate() {
        let before = if accumulate { *to } else { bias.get(idx).copied().unwrap_or(0.0) };
        *to = before + values[idx];
    }
}

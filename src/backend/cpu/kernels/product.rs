//! Matrix products, sixteen outputs at a time.
//!
//! A panel is sixteen neighbouring outputs of a matrix, laid out so that one load takes the next four
//! inputs (integers) or the next input (floats) of all sixteen. Up to eight rows of activations pass
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
                    8.. => self.tile::<S, 8>(simd, panel, row),
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
            if Self::NIBBLES {
                let mut dots = start::<S, ROWS, BIAS>(simd, blocks, 0..2);
                for (idx, quad) in quads.iter().enumerate() {
                    let (low, high) = simd.nibbles(simd.load_bytes(quad));
                    for row in 0..ROWS {
                        dots[row] = simd.dot::<BITS>(dots[row], low, blocks[row].quad(idx));
                        dots[row] =
                            simd.dot::<BITS>(dots[row], high, blocks[row].quad(idx + QUADS_PER_BLOCK / 2));
                    }
                }
                self::scale(simd, &mut sums, dots, blocks, E::load(simd, &scales[0]));
            } else {
                let quads_per_scale = QUADS_PER_BLOCK / SCALES_PER_BLOCK;
                for part in 0..SCALES_PER_BLOCK {
                    let halves = if SCALES_PER_BLOCK == 1 { 0..2 } else { part..part + 1 };
                    let mut dots = start::<S, ROWS, BIAS>(simd, blocks, halves);
                    for idx in part * quads_per_scale..(part + 1) * quads_per_scale {
                        let weights = simd.load_bytes(&quads[idx]);
                        for row in 0..ROWS {
                            dots[row] = simd.dot::<BITS>(dots[row], weights, blocks[row].quad(idx));
                        }
                    }
                    self::scale(simd, &mut sums, dots, blocks, E::load(simd, &scales[part]));
                }
            }
            if MINIMA {
                let minima = E::load(simd, &scales[1]);
                for row in 0..ROWS {
                    sums[row] = simd.mul_add(minima, simd.splat(blocks[row].scaled_sum), sums[row]);
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

/// The integer sums begin with what the weights' common bias takes off.
#[inline(always)]
fn start<S: Simd, const ROWS: usize, const BIAS: i32>(
    simd: S,
    blocks: [&Block; ROWS],
    halves: Range<usize>,
) -> [S::Ints; ROWS] {
    let mut dots = [simd.splat_int(0); ROWS];
    if BIAS != 0 {
        for row in 0..ROWS {
            let mut sum = 0;
            for half in halves.clone() {
                sum += blocks[row].half_sums[half];
            }
            dots[row] = simd.splat_int(-BIAS * sum);
        }
    }
    dots
}

#[inline(always)]
fn scale<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [S::Floats; ROWS],
    dots: [S::Ints; ROWS],
    blocks: [&Block; ROWS],
    scale: S::Floats,
) {
    for row in 0..ROWS {
        let scaled = simd.mul(simd.to_floats(dots[row]), scale);
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
                row += match rows - row {
                    8.. => self.tile::<S, 8>(simd, panel, row),
                    4.. => self.tile::<S, 4>(simd, panel, row),
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

        // Two sums a row, of the even and the odd inputs, so that neither waits for the other.
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        for input in 0..inputs {
            let weights = E::load(simd, &weights[input]);
            for row in 0..ROWS {
                let sum = &mut sums[row][input % 2];
                *sum = simd.mul_add(weights, simd.splat(rows[row][input]), *sum);
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
fn finish<S: Simd>(simd: S, sums: S::Floats, row: &mut [f32], column: usize, finish: Finish<'_>) {
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
    for (idx, to) in row.iter_mut().enumerate() {
        *to = match finish {
            Finish::Store => values[idx],
            Finish::Bias(_) => values[idx] + bias[idx],
            Finish::Accumulate => *to + values[idx],
        };
    }
}

//! Matrix products, sixteen outputs at a time.
//!
//! A panel is sixteen neighbouring outputs of a matrix, laid out so that one load takes the next eight
//! inputs of half of them (integers) or the next input of all (floats). Up to [`Simd::ROWS`] rows of activations pass
//! each weight as it is unpacked, so that a few rows cost what reading the weights costs.

use super::{
    block::{Block, HALF_LEN},
    simd::{Element, Kernel, LANES, Simd},
};
use crate::backend::cpu::view::{View, ViewMut};
use std::ops::Range;

/// Bytes that are loaded at once: four for each lane.
pub(in crate::backend::cpu) const LINE_BYTES: usize = 4 * LANES;
const QUADS_PER_HALF: usize = HALF_LEN / 4;

/// How many bytes ahead weights are asked for. A row takes less time than weights to be read, and what the processor
/// guesses by itself serves it best; more rows take so long that its guesses come too late or not at all. Measured on
/// Zen 4.
const fn bytes_ahead(rows: usize) -> usize {
    if rows == 1 { 2048 } else { 8192 }
}

/// What is done with a product.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) enum Finish<'a> {
    Store,
    /// Plus these, of the same columns as the output.
    Bias(&'a [f32]),
    /// Added to what is there.
    Accumulate,
}

/// `output = finish(input · panelsᵀ)` for weights that are whole numbers with a scale for half a block or less.
///
/// A weight is `unit * (scale * (quant - 2^(BITS - 1)) / 2^(BITS - 4) + 8 * offset)`: `unit` is its output's, `quant`
/// has `BITS` bits, `scale` and `offset` are whole numbers that it shares with its neighbours in the row. There is an
/// offset with `OFFSETS` alone. So what a block's scale meets is added up in whole numbers: of the multiplications for a
/// block of four bits, sixteen of nineteen are of its quants.
pub(in crate::backend::cpu) struct IntegerProduct<
    'a,
    const BITS: u32,
    const OFFSETS: bool,
    const PARTS: usize,
> {
    /// Of all panels: `[panel, block, line]`. The first lines of a block have scales, a pair a lane: a number of each
    /// half of the block. There is a line for each `PARTS`th of a half, and with `OFFSETS` one for the offsets of
    /// the half; no number is beyond [`MAX_SCALE`].
    ///
    /// Then come the quants: `[quad, group, lane, 4]`, the outputs in two groups of eight. The even lanes are inputs of
    /// the first half of the block, the odd ones of the second; which output a lane is of, [`output_of`] says. Of
    /// four bits, the two groups lie in one line, the first one in the low bits of its bytes.
    pub(in crate::backend::cpu) lines: &'a [u8],
    /// Of all panels: `[panel, lane]`.
    pub(in crate::backend::cpu) units: &'a [f32],
    /// Panels to multiply with.
    pub(in crate::backend::cpu) panels: Range<usize>,
    pub(in crate::backend::cpu) input: View<'a, Block>,
    /// The columns of these panels; the last one may have fewer than sixteen.
    pub(in crate::backend::cpu) output: ViewMut<'a, f32>,
    pub(in crate::backend::cpu) finish: Finish<'a>,
}

/// Largest scale and offset: the four products of a block with them, of eight times the sum of 32 quants at most, then
/// fit into 32 bits.
pub(in crate::backend::cpu) const MAX_SCALE: f32 = 16_384.0;

/// The output of a panel that a lane of quants is of.
///
/// Packing two registers of sums into one of 16 bits takes turns between them, four outputs at a time.
pub(in crate::backend::cpu) fn output_of(group: usize, lane: usize) -> usize {
    let nth = lane / 2;
    4 * (nth / 2) + 2 * group + nth % 2
}

impl<const BITS: u32, const OFFSETS: bool, const PARTS: usize> Kernel
    for IntegerProduct<'_, BITS, OFFSETS, PARTS>
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
                    7 if S::ROWS >= 8 => self.tile::<S, 7>(simd, panel, row),
                    6 if S::ROWS >= 8 => self.tile::<S, 6>(simd, panel, row),
                    5 if S::ROWS >= 8 => self.tile::<S, 5>(simd, panel, row),
                    4.. => self.tile::<S, 4>(simd, panel, row),
                    3 => self.tile::<S, 3>(simd, panel, row),
                    2 => self.tile::<S, 2>(simd, panel, row),
                    _ => self.tile::<S, 1>(simd, panel, row),
                };
            }
        }
    }
}

impl<const BITS: u32, const OFFSETS: bool, const PARTS: usize> IntegerProduct<'_, BITS, OFFSETS, PARTS> {
    const SCALE_LINES: usize = PARTS + if OFFSETS { 1 } else { 0 };
    const LINES: usize = Self::SCALE_LINES + QUADS_PER_HALF * if BITS == 4 { 1 } else { 2 };

    /// The products of `ROWS` rows with one panel; returns how many rows.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, panel: usize, first_row: usize) -> usize {
        const { assert!(!OFFSETS || PARTS == 1, "an offset is of a whole half") };
        let rows = self.input.rows_from::<ROWS>(first_row);
        let n_blocks = rows[0].len();
        let (lines, _) = self.lines.as_chunks::<LINE_BYTES>();
        let lines = &lines[panel * n_blocks * Self::LINES..][..n_blocks * Self::LINES];

        let mut sums = [simd.splat(0.0); ROWS];
        for block in 0..n_blocks {
            let lines = &lines[block * Self::LINES..][..Self::LINES];
            let (scales, quants) = lines.split_at(Self::SCALE_LINES);
            for line in scales {
                simd.prefetch(line, bytes_ahead(ROWS));
            }
            let mut blocks = [&rows[0][block]; ROWS];
            for row in 1..ROWS {
                blocks[row] = &rows[row][block];
            }
            for part in 0..PARTS {
                let mut starts = [[0; 2]; ROWS];
                for row in 0..ROWS {
                    starts[row] = blocks[row].starts::<BITS, PARTS>(part);
                }
                let quads = part * QUADS_PER_HALF / PARTS..(part + 1) * QUADS_PER_HALF / PARTS;
                let [first, second] = dots::<S, ROWS, BITS>(simd, quants, blocks, starts, quads);
                let scale = simd.load_pairs(&words(&scales[part]));
                for row in 0..ROWS {
                    let Block { sums: row_sums, shifts, scale: row_scale, .. } = *blocks[row];
                    let mut sum = simd.no_pairs();
                    if OFFSETS {
                        let offset = simd.load_pairs(&words(&scales[PARTS]));
                        sum = simd.dot_pairs(sum, offset, simd.splat_pair(row_sums));
                    }
                    let pairs = simd.dots_as_pairs::<BITS>([first[row], second[row]], starts[row], shifts);
                    let sum = simd.to_floats(simd.dot_pairs(sum, pairs, scale));
                    sums[row] = simd.mul_add(sum, simd.splat(row_scale), sums[row]);
                }
            }
        }
        let (units, _) = self.units.as_chunks::<LANES>();
        let units = simd.load(&units[panel]);
        let column = (panel - self.panels.start) * LANES;
        for (row, sums) in sums.into_iter().enumerate() {
            finish(simd, simd.mul(sums, units), self.output.row(first_row + row), column, self.finish);
        }
        ROWS
    }
}

/// A line of pairs.
#[inline(always)]
fn words(line: &[u8; LINE_BYTES]) -> [u32; LANES] {
    let (words, _) = line.as_chunks::<4>();
    let mut pairs = [0; LANES];
    for (pair, word) in pairs.iter_mut().zip(words) {
        *pair = u32::from_le_bytes(*word);
    }
    pairs
}

/// Where the quants of a group of outputs lie in the lines of a block.
#[derive(Clone, Copy)]
enum Group {
    /// In the low bits of each.
    Low,
    /// In the high bits of each.
    High,
    /// In every other one, from the first or from the second on.
    Every2nd(usize),
}

/// Sums over some quads of a block, of both groups of outputs.
#[inline(always)]
fn dots<S: Simd, const ROWS: usize, const BITS: u32>(
    simd: S,
    lines: &[[u8; LINE_BYTES]],
    rows: [&Block; ROWS],
    starts: [[i32; 2]; ROWS],
    quads: Range<usize>,
) -> [[S::Ints; ROWS]; 2] {
    let groups = match BITS {
        4 => [Group::Low, Group::High],
        _ => [Group::Every2nd(0), Group::Every2nd(1)],
    };
    if S::ROWS >= 8 {
        return group_dots::<S, ROWS, BITS, 2>(simd, lines, groups, rows, starts, quads);
    }
    // There are not the registers for both at once.
    let [first, second] = groups;
    let [first] = group_dots::<S, ROWS, BITS, 1>(simd, lines, [first], rows, starts, quads.clone());
    let [second] = group_dots::<S, ROWS, BITS, 1>(simd, lines, [second], rows, starts, quads);
    [first, second]
}

/// Sums over some quads of a block, of some groups of outputs.
#[inline(always)]
fn group_dots<S: Simd, const ROWS: usize, const BITS: u32, const GROUPS: usize>(
    simd: S,
    lines: &[[u8; LINE_BYTES]],
    groups: [Group; GROUPS],
    rows: [&Block; ROWS],
    starts: [[i32; 2]; ROWS],
    quads: Range<usize>,
) -> [[S::Ints; ROWS]; GROUPS] {
    let mut sums = [[simd.begin_dots::<BITS>(starts[0]); ROWS]; GROUPS];
    for row in 1..ROWS {
        let start = simd.begin_dots::<BITS>(starts[row]);
        for sums in &mut sums {
            sums[row] = start;
        }
    }
    for quad in quads {
        for group in 0..GROUPS {
            let line = match groups[group] {
                Group::Low | Group::High => &lines[quad],
                Group::Every2nd(first) => &lines[2 * quad + first],
            };
            let bytes = simd.load_bytes(line);
            let weights = match groups[group] {
                Group::Low => simd.low_nibbles(bytes),
                Group::High => simd.high_nibbles(bytes),
                Group::Every2nd(_) => bytes,
            };
            if !matches!(groups[group], Group::High) {
                simd.prefetch(line, bytes_ahead(ROWS));
            }
            for row in 0..ROWS {
                let sum = simd.dot::<BITS>(sums[group][row], weights, rows[row].quants[quad]);
                sums[group][row] = simd.in_order(sum);
            }
        }
    }
    sums
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

//! What happens to a row between matrix products: the norm, and the gated activation.

use super::{
    block::{Block, Values, quantise},
    simd::{Kernel, LANES, Simd, exp2},
};
use crate::backend::cpu::view::{View, ViewMut};
use std::f32::consts::LOG2_E;

/// `x / sqrt(mean(x²) + epsilon) * weight` of one row, as floats, blocks or both.
pub(in crate::backend::cpu) struct RmsNorm<'a> {
    pub(in crate::backend::cpu) input: &'a [f32],
    pub(in crate::backend::cpu) weight: &'a [f32],
    pub(in crate::backend::cpu) epsilon: f32,
    /// Empty if not wanted.
    pub(in crate::backend::cpu) floats: &'a mut [f32],
    /// Empty if not wanted.
    pub(in crate::backend::cpu) blocks: &'a mut [Block],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { input, weight, epsilon, floats, blocks } = self;
        let (chunks, rest) = input.as_chunks::<LANES>();
        // Four sums, so that none waits for another.
        let mut squares = [simd.splat(0.0); 4];
        let (fours, last) = chunks.as_chunks::<4>();
        for four in fours {
            for idx in 0..4 {
                let values = simd.load(&four[idx]);
                squares[idx] = simd.mul_add(values, values, squares[idx]);
            }
        }
        for chunk in last {
            let values = simd.load(chunk);
            squares[0] = simd.mul_add(values, values, squares[0]);
        }
        let squares = simd.add(simd.add(squares[0], squares[1]), simd.add(squares[2], squares[3]));
        let sum = simd.sum(squares) + rest.iter().map(|value| value * value).sum::<f32>();
        let factor = 1.0 / (sum / input.len() as f32 + epsilon).sqrt();

        quantise(simd, &Normed { input, weight, factor }, blocks);
        for ((value, weight), to) in input.iter().zip(weight).zip(floats) {
            *to = value * factor * weight;
        }
    }
}

struct Normed<'a> {
    input: &'a [f32],
    weight: &'a [f32],
    factor: f32,
}

impl Values for Normed<'_> {
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, block: usize) -> [[S::Floats; 2]; 2] {
        let (mut normed, weights) = (self.input.load(simd, block), self.weight.load(simd, block));
        for half in 0..2 {
            for part in 0..2 {
                let scaled = simd.mul(normed[half][part], simd.splat(self.factor));
                normed[half][part] = simd.mul(scaled, weights[half][part]);
            }
        }
        normed
    }
}

/// `silu(gate) * up`, into `gate`.
pub(in crate::backend::cpu) struct Gate<'a> {
    pub(in crate::backend::cpu) gate: &'a mut [f32],
    pub(in crate::backend::cpu) up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gates, gates_rest) = self.gate.as_chunks_mut::<LANES>();
        let (ups, ups_rest) = self.up.as_chunks::<LANES>();
        for (gate, up) in gates.iter_mut().zip(ups) {
            let gated = silu_times(simd, simd.load(gate), simd.load(up));
            simd.store(gated, gate);
        }
        if !gates_rest.is_empty() {
            let (mut gate, mut up) = ([0.0; LANES], [0.0; LANES]);
            gate[..gates_rest.len()].copy_from_slice(gates_rest);
            up[..ups_rest.len()].copy_from_slice(ups_rest);
            let gated = silu_times(simd, simd.load(&gate), simd.load(&up));
            simd.store(gated, &mut gate);
            gates_rest.copy_from_slice(&gate[..gates_rest.len()]);
        }
    }
}

/// `silu(gate) * up` of rows of a block or half of one, as blocks.
pub(in crate::backend::cpu) struct GateBlocks<'a> {
    pub(in crate::backend::cpu) gate: View<'a, f32>,
    pub(in crate::backend::cpu) up: View<'a, f32>,
    /// One column.
    pub(in crate::backend::cpu) blocks: ViewMut<'a, Block>,
}

impl Kernel for GateBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let rows = self.gate.rows();
        let mut row = 0;
        // The rows that are rounded together are written out: an array of them would be filled twice.
        while row < rows {
            let first = self.gated(simd, row);
            row += match rows - row {
                4.. => {
                    let others =
                        [self.gated(simd, row + 1), self.gated(simd, row + 2), self.gated(simd, row + 3)];
                    self.round(simd, row, [first, others[0], others[1], others[2]])
                }
                3 => {
                    let others = [self.gated(simd, row + 1), self.gated(simd, row + 2)];
                    self.round(simd, row, [first, others[0], others[1]])
                }
                2 => {
                    let second = self.gated(simd, row + 1);
                    self.round(simd, row, [first, second])
                }
                _ => self.round(simd, row, [first]),
            };
        }
    }
}

impl GateBlocks<'_> {
    #[inline(always)]
    fn gated<S: Simd>(&self, simd: S, row: usize) -> [[S::Floats; 2]; 2] {
        let mut gated = self.gate.row(row).load(simd, 0);
        let ups = self.up.row(row).load(simd, 0);
        for half in 0..2 {
            for part in 0..2 {
                gated[half][part] = silu_times(simd, gated[half][part], ups[half][part]);
            }
        }
        gated
    }

    /// Returns how many rows.
    #[inline(always)]
    fn round<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        first: usize,
        values: [[[S::Floats; 2]; 2]; ROWS],
    ) -> usize {
        simd.quantise(values, self.blocks.rows_from::<ROWS>(first).map(|row| &mut row[0]));
        ROWS
    }
}

#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::Floats, up: S::Floats) -> S::Floats {
    let decay = exp2(simd, simd.mul(gate, simd.splat(-LOG2_E)));
    simd.mul(simd.div(gate, simd.add(simd.splat(1.0), decay)), up)
}

//! What happens to a row between matrix products: the norm, and the gated activation.

use super::{
    block::{BLOCK_LEN, Block, load_halves},
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
        let mut squares = simd.splat(0.0);
        for chunk in chunks {
            let values = simd.load(chunk);
            squares = simd.mul_add(values, values, squares);
        }
        let sum = simd.sum(squares) + rest.iter().map(|value| value * value).sum::<f32>();
        let factor = 1.0 / (sum / input.len() as f32 + epsilon).sqrt();

        let weighted = input.chunks(BLOCK_LEN).zip(weight.chunks(BLOCK_LEN));
        for ((values, weights), block) in weighted.zip(blocks) {
            let (values, weights) = (load_halves(simd, values), load_halves(simd, weights));
            let mut normed = values;
            for (idx, half) in normed.iter_mut().enumerate() {
                for (part, value) in half.iter_mut().enumerate() {
                    *value = simd.mul(simd.mul(*value, simd.splat(factor)), weights[idx][part]);
                }
            }
            *block = Block::quantise(simd, normed);
        }
        for ((value, weight), to) in input.iter().zip(weight).zip(floats) {
            *to = value * factor * weight;
        }
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
        for row in 0..self.gate.rows() {
            let mut gated = load_halves(simd, self.gate.row(row));
            let ups = load_halves(simd, self.up.row(row));
            for half in 0..2 {
                for part in 0..2 {
                    gated[half][part] = silu_times(simd, gated[half][part], ups[half][part]);
                }
            }
            self.blocks.row(row)[0] = Block::quantise(simd, gated);
        }
    }
}

#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::Floats, up: S::Floats) -> S::Floats {
    let decay = exp2(simd, simd.mul(gate, simd.splat(-LOG2_E)));
    simd.mul(simd.div(gate, simd.add(simd.splat(1.0), decay)), up)
}

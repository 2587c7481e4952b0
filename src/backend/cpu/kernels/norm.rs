//! What happens to a row between matrix products: the norm, and the gated activation.

use super::{
    block::{BLOCK_LEN, Block, load_pair},
    simd::{Kernel, LANES, Simd, exp2},
};
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

        if !blocks.is_empty() {
            let (input, _) = input.as_chunks::<BLOCK_LEN>();
            let (weight, _) = weight.as_chunks::<BLOCK_LEN>();
            for ((values, weight), block) in input.iter().zip(weight).zip(blocks) {
                let (values, weights) = (load_pair(simd, values), load_pair(simd, weight));
                let factor = simd.splat(factor);
                let first = simd.mul(simd.mul(values[0], factor), weights[0]);
                let second = simd.mul(simd.mul(values[1], factor), weights[1]);
                *block = Block::quantise(simd, [first, second]);
            }
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

#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::Floats, up: S::Floats) -> S::Floats {
    let decay = exp2(simd, simd.mul(gate, simd.splat(-LOG2_E)));
    simd.mul(simd.div(gate, simd.add(simd.splat(1.0), decay)), up)
}

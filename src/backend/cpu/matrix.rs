//! A weight matrix in panels of sixteen outputs, as the kernels read it.

use super::{
    kernels::{Bf16Bits, Block, Finish, FloatProduct, HalfBits, IntegerProduct, Isa, LANES},
    pool::Pool,
    stored::{self, WeightBlock},
    view::{View, ViewMut},
};
use crate::model::{StoredTensor, TensorType};
use half::f16;
use std::ops::Range;

/// Weights in a block.
const BLOCK_LEN: usize = 32;
/// A cache line, where the quants of a panel begin.
const LINE: usize = 64;

/// The matrix of a linear layer, filled up with zeros to whole panels.
pub(super) struct Matrix {
    outputs: usize,
    form: Form,
}

/// Integers are exactly those of the file; K types have their two scales multiplied out.
enum Form {
    F32(Vec<f32>),
    F16(Vec<HalfBits>),
    BF16(Vec<Bf16Bits>),
    Q4_0(Integers<HalfBits>),
    Q4_1(Integers<HalfBits>),
    Q8_0(Integers<HalfBits>),
    Q4K(Integers<f32>),
    /// All types of five bits, which are rare: with a scale and a minimum.
    Q5(Integers<f32>),
    Q6K(Integers<f32>),
}

/// Laid out as [`IntegerProduct`] says.
struct Integers<E> {
    quants: AlignedBytes,
    scales: Vec<E>,
}

/// The rows that a matrix is multiplied with, in the forms there are.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) floats: Option<View<'a, f32>>,
    pub(super) blocks: Option<View<'a, Block>>,
}

impl<'a> Input<'a> {
    pub(super) fn part(&self, rows: Range<usize>) -> Self {
        Self {
            floats: self.floats.map(|floats| floats.part(rows.clone())),
            blocks: self.blocks.map(|blocks| blocks.part(rows)),
        }
    }
}

impl Matrix {
    /// Packs a tensor, decoded first if `decoded`.
    pub(super) fn pack(tensor: &StoredTensor, decoded: bool, pool: &mut Pool) -> Self {
        let (outputs, inputs) = (tensor.shape()[0], tensor.shape()[1]);
        let bytes = tensor.bytes();
        let row = |row: usize| {
            let row_bytes = bytes.len() / outputs;
            &bytes[row * row_bytes..][..row_bytes]
        };
        let words = |output: usize, input: usize| {
            let row = row(output);
            u16::from_le_bytes([row[2 * input], row[2 * input + 1]])
        };
        let small = |block: fn(&[u8]) -> WeightBlock, len: usize| {
            move |output: usize, nth: usize| block(&row(output)[nth * len..][..len])
        };
        let large = |block: fn(&[u8], usize) -> WeightBlock, len: usize| {
            move |output: usize, nth: usize| block(&row(output)[nth / 8 * len..][..len], nth % 8)
        };
        let five_bits = Layout { minima: true, ..Layout::BYTES };
        let mut packer = Packer { outputs, inputs, pool };
        let form = match tensor.tensor_type() {
            _ if decoded => Form::F32(packer.floats(decode_rows(tensor))),
            TensorType::F32 => Form::F32(packer.floats(decode_rows(tensor))),
            TensorType::F16 => Form::F16(packer.floats(|output, row: &mut [HalfBits]| {
                row.iter_mut().enumerate().for_each(|(input, to)| *to = words(output, input));
            })),
            TensorType::BF16 => Form::BF16(packer.floats(|output, row: &mut [Bf16Bits]| {
                row.iter_mut().enumerate().for_each(|(input, to)| *to = Bf16Bits(words(output, input)));
            })),
            TensorType::Q4_0 => {
                Form::Q4_0(packer.integers(small(stored::q4_0, 18), Layout::NIBBLES, to_half))
            }
            TensorType::Q4_1 => {
                let layout = Layout { minima: true, ..Layout::NIBBLES };
                Form::Q4_1(packer.integers(small(stored::q4_1, 20), layout, to_half))
            }
            TensorType::Q5_0 => Form::Q5(packer.integers(small(stored::q5_0, 22), five_bits, |scale| scale)),
            TensorType::Q5_1 => Form::Q5(packer.integers(small(stored::q5_1, 24), five_bits, |scale| scale)),
            TensorType::Q5K => Form::Q5(packer.integers(large(stored::q5_k, 176), five_bits, |scale| scale)),
            TensorType::Q8_0 => Form::Q8_0(packer.integers(small(stored::q8_0, 34), Layout::BYTES, to_half)),
            TensorType::Q4K => {
                let layout = Layout { minima: true, ..Layout::NIBBLES };
                Form::Q4K(packer.integers(large(stored::q4_k, 144), layout, |scale| scale))
            }
            TensorType::Q6K => {
                let layout = Layout { scales_per_block: 2, ..Layout::BYTES };
                Form::Q6K(packer.integers(large(stored::q6_k, 210), layout, |scale| scale))
            }
        };
        Self { outputs, form }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Whether a tensor is multiplied with blocks of integers, once packed; with floats otherwise.
    pub(super) fn takes_blocks(tensor: &StoredTensor, decoded: bool) -> bool {
        let is_float = matches!(tensor.tensor_type(), TensorType::F32 | TensorType::F16 | TensorType::BF16);
        !decoded && !is_float
    }

    /// `output = finish(input · matrixᵀ)` for the outputs of some panels, which are the columns of
    /// `output`.
    ///
    /// # Panics
    /// If the input does not come in the form that the matrix takes.
    pub(super) fn multiply(
        &self,
        isa: Isa,
        panels: Range<usize>,
        input: Input<'_>,
        output: ViewMut<'_, f32>,
        finish: Finish<'_>,
    ) {
        let task = Task { isa, panels, input, output, finish };
        match &self.form {
            Form::F32(weights) => task.floats(weights),
            Form::F16(weights) => task.floats(weights),
            Form::BF16(weights) => task.floats(weights),
            Form::Q4_0(integers) => task.integers::<_, 4, false, 1, 8>(integers),
            Form::Q4_1(integers) => task.integers::<_, 4, true, 1, 0>(integers),
            Form::Q8_0(integers) => task.integers::<_, 8, false, 1, 128>(integers),
            Form::Q4K(integers) => task.integers::<_, 4, true, 1, 0>(integers),
            Form::Q5(integers) => task.integers::<_, 5, true, 1, 0>(integers),
            Form::Q6K(integers) => task.integers::<_, 6, false, 2, 32>(integers),
        }
    }
}

/// Reads rows as `f32`.
fn decode_rows(tensor: &StoredTensor) -> impl Fn(usize, &mut [f32]) + Sync {
    |output, row| tensor.read_rows(output, row)
}

fn to_half(value: f32) -> HalfBits {
    // It came from one: nothing is rounded.
    f16::from_f32(value).to_bits()
}

/// The arguments of [`Matrix::multiply`].
struct Task<'a> {
    isa: Isa,
    panels: Range<usize>,
    input: Input<'a>,
    output: ViewMut<'a, f32>,
    finish: Finish<'a>,
}

impl Task<'_> {
    fn floats<E: super::kernels::Element>(self, weights: &[E]) {
        let input = self.input.floats.expect("the plan prepares floats for a matrix of floats");
        let Self { isa, panels, output, finish, .. } = self;
        isa.run(FloatProduct { weights, panels, input, output, finish });
    }

    fn integers<
        E: super::kernels::Element,
        const BITS: u32,
        const MINIMA: bool,
        const SCALES_PER_BLOCK: usize,
        const BIAS: i32,
    >(
        self,
        integers: &Integers<E>,
    ) {
        let input = self.input.blocks.expect("the plan prepares blocks for a matrix of integers");
        let (quants, scales) = (integers.quants.as_slice(), integers.scales.as_slice());
        let Self { isa, panels, output, finish, .. } = self;
        isa.run(IntegerProduct::<'_, E, BITS, MINIMA, SCALES_PER_BLOCK, BIAS> {
            quants,
            scales,
            panels,
            input,
            output,
            finish,
        });
    }
}

/// How the blocks of a type lie in a panel.
#[derive(Clone, Copy)]
struct Layout {
    nibbles: bool,
    minima: bool,
    scales_per_block: usize,
}

impl Layout {
    const NIBBLES: Self = Self { nibbles: true, minima: false, scales_per_block: 1 };
    const BYTES: Self = Self { nibbles: false, ..Self::NIBBLES };
}

/// Shares the panels of a matrix out among the threads.
struct Packer<'a> {
    outputs: usize,
    inputs: usize,
    pool: &'a mut Pool,
}

impl Packer<'_> {
    fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// `[panel, input, lane]` of rows that `read` writes.
    fn floats<E: Copy + Default + Send>(&mut self, read: impl Fn(usize, &mut [E]) + Sync) -> Vec<E> {
        let &mut Self { outputs, inputs, .. } = self;
        let panels = self.panels();
        let mut packed = vec![E::default(); panels * inputs * LANES];
        let view = ViewMut::new(&mut packed, panels, inputs * LANES);
        self.pool.tiles(view, 1, &[0, inputs * LANES], |panel, _, mut tile| {
            let mut row = vec![E::default(); inputs];
            for (lane, output) in (panel * LANES..outputs).take(LANES).enumerate() {
                read(output, &mut row);
                for (to, value) in tile.row(0).chunks_exact_mut(LANES).zip(&row) {
                    to[lane] = *value;
                }
            }
        });
        packed
    }

    /// Blocks that `read` takes from a row, as [`IntegerProduct`] wants them.
    fn integers<E: Copy + Default + Send>(
        &mut self,
        read: impl Fn(usize, usize) -> WeightBlock + Sync,
        layout: Layout,
        scale: impl Fn(f32) -> E + Sync,
    ) -> Integers<E> {
        let &mut Self { outputs, inputs, .. } = self;
        let (panels, blocks) = (self.panels(), inputs / BLOCK_LEN);
        let quants_len = if layout.nibbles { BLOCK_LEN / 2 } else { BLOCK_LEN } * LANES;
        let scales_len = layout.scales_per_block * if layout.minima { 2 * LANES } else { LANES };
        let mut quants = AlignedBytes::new(panels * blocks * quants_len);
        let mut scales = vec![E::default(); panels * blocks * scales_len];
        let read_into = |panel: usize, put: &mut dyn FnMut(usize, usize, &WeightBlock)| {
            for (lane, output) in (panel * LANES..outputs).take(LANES).enumerate() {
                for block in 0..blocks {
                    put(lane, block, &read(output, block));
                }
            }
        };
        let view = ViewMut::new(quants.as_mut_slice(), panels, blocks * quants_len);
        self.pool.tiles(view, 1, &[0, blocks * quants_len], |panel, _, mut tile| {
            let panel_quants = tile.row(0);
            read_into(panel, &mut |lane, block, weights| {
                put_quants(
                    &weights.quants,
                    layout,
                    lane,
                    &mut panel_quants[block * quants_len..][..quants_len],
                );
            });
        });
        let view = ViewMut::new(&mut scales, panels, blocks * scales_len);
        self.pool.tiles(view, 1, &[0, blocks * scales_len], |panel, _, mut tile| {
            let panel_scales = tile.row(0);
            read_into(panel, &mut |lane, block, weights| {
                let to = &mut panel_scales[block * scales_len..][..scales_len];
                to[lane] = scale(weights.scales[0]);
                if layout.minima {
                    to[LANES + lane] = scale(weights.minimum);
                } else if layout.scales_per_block == 2 {
                    to[LANES + lane] = scale(weights.scales[1]);
                }
            });
        });
        Integers { quants, scales }
    }
}

/// Puts a row's block in its lane: `[quad, lane, 4]`.
fn put_quants(quants: &[u8; BLOCK_LEN], layout: Layout, lane: usize, to: &mut [u8]) {
    let (quads, _) = quants.as_chunks::<4>();
    let half = quads.len() / 2;
    for (idx, to) in to.chunks_exact_mut(4 * LANES).enumerate() {
        let to = &mut to[4 * lane..][..4];
        if layout.nibbles {
            for (to, (low, high)) in to.iter_mut().zip(quads[idx].iter().zip(quads[idx + half])) {
                *to = low | high << 4;
            }
        } else {
            to.copy_from_slice(&quads[idx]);
        }
    }
}

/// Bytes that begin with a cache line.
struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + LINE - 1];
        let start = bytes.as_ptr().align_offset(LINE);
        // `align_offset` may decline; then the bytes are merely not aligned.
        Self { start: if start < LINE { start } else { 0 }, bytes, len }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

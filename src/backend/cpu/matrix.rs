//! A weight matrix in panels of sixteen outputs, as the kernels read it.

#[cfg(target_arch = "x86_64")]
use super::kernels::{Bf16Dots, Bf16Pair, Bf16Product};
use super::{
    kernels::{
        BLOCK_LEN, Bf16Bits, Block, Element, Finish, FloatProduct, HalfBits, IntegerProduct, Isa, LANES,
    },
    pack::{Integers, Layout, Packer},
    packed::PackedMemory,
    pool::Pool,
    view::{View, ViewMut},
};
use crate::backend::stored::{self, WeightBlock};
use crate::model::{StoredTensor, TensorType};
use half::f16;
use std::borrow::Cow;
use std::ops::Range;

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
    #[cfg(target_arch = "x86_64")]
    BF16Pairs(Bf16Dots, Vec<Bf16Pair>),
    Q4_0(Integers<HalfBits>),
    Q4_1(Integers<HalfBits>),
    Q8_0(Integers<HalfBits>),
    Q4K(Integers<f32>),
    /// All types of five bits, which are rare: with a scale and a minimum.
    Q5(Integers<f32>),
    Q6K(Integers<f32>),
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
    /// Packs a tensor, decoded first if `decoded`; otherwise as its blocks, if it has them.
    pub(super) fn pack(
        tensor: &StoredTensor,
        decoded: bool,
        memory: &mut PackedMemory,
        pool: &mut Pool,
    ) -> Self {
        let (outputs, inputs) = (tensor.shape()[0], tensor.shape()[1]);
        let (tensor_type, bytes) = match (tensor.block_type(), tensor.tensor_type()) {
            (None, TensorType::F32) => (TensorType::F32, Cow::default()),
            _ if decoded => (TensorType::F32, Cow::default()),
            (Some(block_type), _) => (block_type, tensor.blocks()),
            (None, float_type) => (float_type, tensor.bytes()),
        };
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
        let mut packer = Packer { outputs, inputs, memory, pool };
        let form = match tensor_type {
            TensorType::F32 => Form::F32(packer.floats(decode_rows(tensor))),
            TensorType::F16 => Form::F16(packer.floats(|output, row: &mut [HalfBits]| {
                row.iter_mut().enumerate().for_each(|(input, to)| *to = words(output, input));
            })),
            TensorType::BF16 => bf16(&mut packer, words),
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

    /// Bytes of [`PackedMemory`] that packing a tensor takes.
    pub(super) fn packed_bytes(tensor: &StoredTensor, decoded: bool) -> usize {
        if !Self::takes_blocks(tensor, decoded) {
            return 0;
        }
        let nibbles =
            matches!(tensor.block_type(), Some(TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4K));
        let layout = if nibbles { Layout::NIBBLES } else { Layout::BYTES };
        let (panels, blocks) = (tensor.shape()[0].div_ceil(LANES), tensor.shape()[1] / BLOCK_LEN);
        panels * blocks * layout.quants_len()
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Whether a tensor is multiplied with blocks of integers, once packed; with floats otherwise.
    pub(super) fn takes_blocks(tensor: &StoredTensor, decoded: bool) -> bool {
        !decoded && tensor.block_type().is_some()
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
            #[cfg(target_arch = "x86_64")]
            Form::BF16Pairs(dots, weights) => task.bf16_pairs(*dots, weights),
            Form::Q4_0(integers) => task.integers::<_, 4, false, 1, 8>(integers),
            Form::Q4_1(integers) => task.integers::<_, 4, true, 1, 0>(integers),
            Form::Q8_0(integers) => task.integers::<_, 8, false, 1, 128>(integers),
            Form::Q4K(integers) => task.integers::<_, 4, true, 1, 0>(integers),
            Form::Q5(integers) => task.integers::<_, 5, true, 1, 0>(integers),
            Form::Q6K(integers) => task.integers::<_, 6, false, 2, 32>(integers),
        }
    }
}

/// Where the processor multiplies pairs, rows are rounded to `bf16` as they meet them: they are as exact as the weights
/// then, and pass twice as many an instruction.
fn bf16(packer: &mut Packer<'_>, words: impl Fn(usize, usize) -> u16 + Sync) -> Form {
    #[cfg(target_arch = "x86_64")]
    if let Some(dots) = Bf16Dots::detect() {
        return Form::BF16Pairs(dots, packer.bf16_pairs(words));
    }
    Form::BF16(packer.floats(|output, row: &mut [Bf16Bits]| {
        row.iter_mut().enumerate().for_each(|(input, to)| *to = Bf16Bits(words(output, input)));
    }))
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
    fn floats<E: Element>(self, weights: &[E]) {
        let input = self.input.floats.expect("the plan prepares floats for a matrix of floats");
        let Self { isa, panels, output, finish, .. } = self;
        isa.run(FloatProduct { weights, panels, input, output, finish });
    }

    #[cfg(target_arch = "x86_64")]
    fn bf16_pairs(self, dots: Bf16Dots, weights: &[Bf16Pair]) {
        let input = self.input.floats.expect("the plan prepares floats for a matrix of floats");
        let Self { panels, output, finish, .. } = self;
        dots.run(Bf16Product { weights, panels, input, output, finish });
    }

    fn integers<
        E: Element,
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

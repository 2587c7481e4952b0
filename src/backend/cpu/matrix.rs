//! A weight matrix in panels of sixteen outputs, as the kernels read it.

#[cfg(target_arch = "x86_64")]
use super::kernels::{Bf16Dots, Bf16Pair, Bf16Product};
use super::{
    kernels::{Bf16Bits, Block, Element, Finish, FloatProduct, HalfBits, IntegerProduct, Isa, LANES},
    pack::{Integers, Layout, Packer},
    packed::PackedMemory,
    pool::Pool,
    view::{View, ViewMut},
};
use crate::backend::stored::{self, WeightBlock};
use crate::model::{StoredTensor, TensorType};
use std::borrow::Cow;
use std::ops::Range;

/// The matrix of a linear layer, filled up with zeros to whole panels.
pub(super) struct Matrix {
    outputs: usize,
    form: Form,
}

/// Integers are exactly those of the file, their scales and minima rounded to 16 bits, of a row's largest.
enum Form {
    F32(Vec<f32>),
    F16(Vec<HalfBits>),
    BF16(Vec<Bf16Bits>),
    #[cfg(target_arch = "x86_64")]
    BF16Pairs(Bf16Dots, Vec<Bf16Pair>),
    /// With a minimum.
    Q4(Integers),
    /// Without.
    Q4_0(Integers),
    /// All types of five bits, which are rare: with a minimum.
    Q5(Integers),
    Q6K(Integers),
    Q8_0(Integers),
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
        let mut packer = Packer { outputs, inputs, memory, pool };
        let form = match tensor_type {
            TensorType::F32 => Form::F32(packer.floats(decode_rows(tensor))),
            TensorType::F16 => Form::F16(packer.floats(|output, row: &mut [HalfBits]| {
                row.iter_mut().enumerate().for_each(|(input, to)| *to = words(output, input));
            })),
            TensorType::BF16 => bf16(&mut packer, words),
            TensorType::Q4_0 => Form::Q4_0(packer.integers(small(stored::q4_0, 18), layout(tensor_type))),
            TensorType::Q4_1 => Form::Q4(packer.integers(small(stored::q4_1, 20), layout(tensor_type))),
            TensorType::Q5_0 => Form::Q5(packer.integers(small(stored::q5_0, 22), layout(tensor_type))),
            TensorType::Q5_1 => Form::Q5(packer.integers(small(stored::q5_1, 24), layout(tensor_type))),
            TensorType::Q8_0 => Form::Q8_0(packer.integers(small(stored::q8_0, 34), layout(tensor_type))),
            TensorType::Q4K => Form::Q4(packer.integers(large(stored::q4_k, 144), layout(tensor_type))),
            TensorType::Q5K => Form::Q5(packer.integers(large(stored::q5_k, 176), layout(tensor_type))),
            TensorType::Q6K => Form::Q6K(packer.integers(large(stored::q6_k, 210), layout(tensor_type))),
        };
        Self { outputs, form }
    }

    /// Bytes of [`PackedMemory`] that packing a tensor takes.
    pub(super) fn packed_bytes(tensor: &StoredTensor, decoded: bool) -> usize {
        if !Self::takes_blocks(tensor, decoded) {
            return 0;
        }
        let block_type = tensor.block_type().expect("who takes blocks has them");
        layout(block_type).packed_bytes(tensor.shape()[0], tensor.shape()[1])
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Of all weights.
    pub(super) fn bytes(&self) -> usize {
        match &self.form {
            Form::F32(weights) => size_of_val(&weights[..]),
            Form::F16(weights) => size_of_val(&weights[..]),
            Form::BF16(weights) => size_of_val(&weights[..]),
            #[cfg(target_arch = "x86_64")]
            Form::BF16Pairs(_, weights) => size_of_val(&weights[..]),
            Form::Q4(weights)
            | Form::Q4_0(weights)
            | Form::Q5(weights)
            | Form::Q6K(weights)
            | Form::Q8_0(weights) => weights.lines.len(),
        }
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
            Form::Q4(integers) => task.integers::<4, true, 1>(integers),
            Form::Q4_0(integers) => task.integers::<4, false, 1>(integers),
            Form::Q5(integers) => task.integers::<5, true, 1>(integers),
            Form::Q6K(integers) => task.integers::<6, false, 2>(integers),
            Form::Q8_0(integers) => task.integers::<8, false, 1>(integers),
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

/// How the blocks of a type are packed.
fn layout(block_type: TensorType) -> Layout {
    match block_type {
        TensorType::Q4_0 => Layout::Q4_0,
        TensorType::Q4_1 | TensorType::Q4K => Layout::Q4,
        TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q5K => Layout::Q5,
        TensorType::Q6K => Layout::Q6K,
        TensorType::Q8_0 => Layout::Q8_0,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => unreachable!("floats have no blocks"),
    }
}

/// Reads rows as `f32`.
fn decode_rows(tensor: &StoredTensor) -> impl Fn(usize, &mut [f32]) + Sync {
    |output, row| tensor.read_rows(output, row)
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

    fn integers<const BITS: u32, const OFFSETS: bool, const PARTS: usize>(self, integers: &Integers) {
        let input = self.input.blocks.expect("the plan prepares blocks for a matrix of integers");
        let Integers { lines, units } = integers;
        let Self { isa, panels, output, finish, .. } = self;
        isa.run(IntegerProduct::<'_, BITS, OFFSETS, PARTS> {
            lines: lines.as_slice(),
            units,
            panels,
            input,
            output,
            finish,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{BLOCK_LEN, Quantise};
    use super::*;
    use crate::model::Model;
    use std::path::Path;

    /// What a row meets is what the reference decodes, but for the rounding of the row and of scales.
    #[test]
    fn packed_matrices_multiply_as_the_reference_decodes() {
        for tensor_type in TensorType::ALL {
            let path =
                format!("{}/tests/fixtures/golden/gguf-{tensor_type}.gguf", env!("CARGO_MANIFEST_DIR"));
            let model = Model::open(&path, Path::new("models")).unwrap();
            let mut checked = 0;
            for tensor in model.tensors().filter(|tensor| tensor.shape().len() == 2) {
                checked += usize::from(tensor.tensor_type() == tensor_type);
                check(tensor);
            }
            assert!(checked > 3, "{tensor_type}");
        }
    }

    fn check(tensor: &StoredTensor) {
        const ROWS: usize = 3;
        let (outputs, inputs) = (tensor.shape()[0], tensor.shape()[1]);
        let mut pool = Pool::with_threads(1).unwrap();
        let sizes = Matrix::takes_blocks(tensor, false).then(|| Matrix::packed_bytes(tensor, false));
        let mut memory = PackedMemory::new(sizes.into_iter()).unwrap();
        let matrix = Matrix::pack(tensor, false, &mut memory, &mut pool);
        memory.finish().unwrap();

        let values: Vec<f32> = (0..ROWS * inputs).map(|idx| (idx as f32 * 0.37).sin()).collect();
        let mut blocks = vec![Block::default(); ROWS * inputs.div_ceil(BLOCK_LEN)];
        for isa in Isa::available() {
            for (values, blocks) in values.chunks(inputs).zip(blocks.chunks_mut(inputs.div_ceil(BLOCK_LEN))) {
                isa.run(Quantise { values, blocks });
            }
            let input = Input {
                floats: Some(View::new(&values, ROWS, inputs)),
                blocks: Some(View::new(&blocks, ROWS, inputs.div_ceil(BLOCK_LEN))),
            };
            let mut output = vec![f32::NAN; ROWS * outputs];
            let view = ViewMut::new(&mut output, ROWS, outputs);
            matrix.multiply(isa, 0..matrix.panels(), input, view, Finish::Store);

            let mut weights = vec![0.0; inputs];
            for idx in 0..outputs {
                tensor.read_rows(idx, &mut weights);
                let length = weights.iter().map(|weight| weight * weight).sum::<f32>().sqrt();
                for row in 0..ROWS {
                    let expected: f32 =
                        weights.iter().zip(&values[row * inputs..]).map(|(left, right)| left * right).sum();
                    let actual = output[row * outputs + idx];
                    let near = (actual - expected).abs() <= 0.02 * length;
                    let name = format!("{isa:?}, {}, {}", tensor.tensor_type(), tensor.name());
                    assert!(near, "{name}, output {idx}: {actual}, not {expected}");
                }
            }
        }
    }
}

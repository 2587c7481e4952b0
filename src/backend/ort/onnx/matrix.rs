//! Matrices of quantised weights, multiplied as the integers they are.
//!
//! `MatMulNBits` takes unsigned integers of 4 or 8 bits, a scale for each block of a row, and what integer
//! stands for 0: `w = scale * (u - zero)`. The blocks of GGUF are that, bit for bit, but that some have a
//! minimum too: `w = scale * q + minimum`. What is left of a minimum once the integers are centred is the same
//! for all weights of a block, so it is a product of its own, of the sums of the input's blocks, and no weight
//! is rounded: `x · wᵀ = x · (scale * (u - zero))ᵀ + sums(x) · offsetsᵀ`.
//!
//! What is rounded is the input, to 8-bit integers a block at a time: accuracy level 4. In [`Form::Int4`] the weights
//! are, too: see [`rounded`].

use super::{
    builder::Builder,
    lower::Form,
    model::{Attribute, ElementType, Operator},
    rounded,
};
use crate::{
    backend::stored::{self, WeightBlock},
    model::{StoredTensor, TensorType},
};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// Weights in a block of [`WeightBlock`].
pub(super) const BLOCK_LEN: usize = 32;
/// The input is rounded to 8-bit integers.
const ACCURACY_LEVEL: i64 = 4;

/// How the blocks of a type are taken over.
struct Blocks {
    /// Reads the nth 32 weights of a stored block.
    read: fn(&[u8], usize) -> WeightBlock,
    /// Of an integer in ONNX.
    bits: usize,
    /// The integer that stands for 0 in the stored block: `w = scale * (q - bias) + minimum`.
    bias: u8,
    /// The integer in the middle of the type's.
    centre: u8,
    /// Weights that share a scale.
    scale_len: usize,
}

impl Blocks {
    fn of(tensor_type: TensorType) -> Option<Self> {
        let four = Self { read: stored::q4_k, bits: 4, bias: 0, centre: 8, scale_len: BLOCK_LEN };
        let five = Self { read: stored::q5_k, bits: 8, centre: 16, ..four };
        Some(match tensor_type {
            TensorType::F32 | TensorType::F16 | TensorType::BF16 => return None,
            TensorType::Q4_0 => Self { read: |block, _| stored::q4_0(block), bias: 8, ..four },
            TensorType::Q4_1 => Self { read: |block, _| stored::q4_1(block), ..four },
            TensorType::Q4K => four,
            TensorType::Q5_0 => Self { read: |block, _| stored::q5_0(block), ..five },
            TensorType::Q5_1 => Self { read: |block, _| stored::q5_1(block), ..five },
            TensorType::Q5K => five,
            TensorType::Q6K => Self { read: stored::q6_k, bias: 32, centre: 32, scale_len: 16, ..five },
            TensorType::Q8_0 => Self { read: |block, _| stored::q8_0(block), bias: 128, centre: 128, ..five },
        })
    }

    /// What stands for 0 in ONNX where nothing else is said.
    fn zero(&self) -> u8 {
        if self.bits == 4 { 8 } else { 128 }
    }

    /// What is left of a minimum, 0 in most types.
    fn offset(&self, block: &WeightBlock) -> f32 {
        block.scales[0] * (f32::from(self.centre) - f32::from(self.bias)) + block.minimum
    }

    fn pack(&self, block: &WeightBlock, to: &mut Vec<u8>) {
        let integers = block.quants.map(|quant| quant.wrapping_sub(self.centre).wrapping_add(self.zero()));
        match self.bits {
            4 => to.extend(integers.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4)),
            _ => to.extend(integers),
        }
    }
}

/// Rows of a matrix as `MatMulNBits` takes them.
#[derive(Default)]
pub(super) struct Packed {
    /// `[outputs, blocks, bytes of a block]`
    pub(super) integers: Vec<u8>,
    /// `[outputs, blocks]`
    pub(super) scales: Vec<f32>,
    /// `[outputs, half as many bytes as there are blocks]`: the integers that stand for 0, where a form has them.
    pub(super) zeros: Vec<u8>,
    /// `[outputs, blocks of 32]`
    offsets: Vec<f32>,
}

impl Packed {
    fn row(blocks: &Blocks, stored: &[u8], tensor_type: TensorType) -> Self {
        let mut packed = Self::default();
        for stored in stored.chunks_exact(tensor_type.block_bytes()) {
            for nth in 0..tensor_type.block_len() / BLOCK_LEN {
                let block = (blocks.read)(stored, nth);
                blocks.pack(&block, &mut packed.integers);
                packed.scales.extend(&block.scales[..BLOCK_LEN / blocks.scale_len]);
                packed.offsets.push(blocks.offset(&block));
            }
        }
        packed
    }

    fn add(&mut self, other: Self) {
        self.integers.extend(other.integers);
        self.scales.extend(other.scales);
        self.zeros.extend(other.zeros);
        self.offsets.extend(other.offsets);
    }

    /// The rows of a tensor after those that are there.
    fn add_stored(&mut self, blocks: &Blocks, tensor: &StoredTensor, tensor_type: TensorType) {
        let stored = tensor.blocks();
        let row_bytes = stored.len() / tensor.shape()[0];
        let rows: Vec<Self> =
            stored.par_chunks_exact(row_bytes).map(|row| Self::row(blocks, row, tensor_type)).collect();
        rows.into_iter().for_each(|row| self.add(row));
    }

    /// The rows of a tensor, rounded to 4 bits, after those that are there.
    fn add_rounded(&mut self, tensor: &StoredTensor) {
        let values = tensor.to_f32();
        let rows: Vec<Self> = values.par_chunks_exact(tensor.shape()[1]).map(rounded::row).collect();
        rows.into_iter().for_each(|row| self.add(row));
    }
}

/// The products of one graph, and what they share.
pub(super) struct IntegerProducts {
    form: Form,
    /// The sums of an input's blocks, by the input's name.
    sums: HashMap<String, String>,
}

impl IntegerProducts {
    pub(super) fn new(form: Form) -> Self {
        Self { form, sums: HashMap::new() }
    }

    /// Bits of an integer, and weights that share a scale; `None` if the weights are multiplied as floats.
    fn layout(&self, tensor: &StoredTensor) -> Option<(usize, usize)> {
        match self.form {
            Form::Portable => None,
            Form::Fast => {
                let blocks = Blocks::of(tensor.block_type()?)?;
                Some((blocks.bits, blocks.scale_len))
            }
            Form::Int4 => tensor.shape()[1].is_multiple_of(BLOCK_LEN).then_some((rounded::BITS, BLOCK_LEN)),
        }
    }

    /// Whether [`multiply`](Self::multiply) takes these matrices at once.
    pub(super) fn can_join(&self, tensors: &[&StoredTensor]) -> bool {
        let mut layouts = tensors.iter().map(|tensor| self.layout(tensor));
        let first = layouts.next().flatten();
        first.is_some() && layouts.all(|layout| layout == first)
    }

    /// `input · matrixᵀ` for each matrix, one beside another; `None` if the weights are no integers.
    ///
    /// # Errors
    /// The weights cannot be written.
    pub(super) fn multiply<W: Write>(
        &mut self,
        builder: &mut Builder<W>,
        matrices: &[(String, &StoredTensor)],
        input: &str,
    ) -> io::Result<Option<String>> {
        let Some((bits, scale_len)) = self.layout(matrices[0].1) else { return Ok(None) };
        let inputs = matrices[0].1.shape()[1];
        let mut packed = Packed::default();
        for (_, tensor) in matrices {
            match (self.form, tensor.block_type()) {
                (Form::Fast, Some(tensor_type)) => {
                    let blocks = Blocks::of(tensor_type).expect("its layout is known");
                    packed.add_stored(&blocks, tensor, tensor_type);
                }
                _ => packed.add_rounded(tensor),
            }
        }
        let outputs = packed.scales.len() / (inputs / scale_len);
        let names: Vec<&str> = matrices.iter().map(|(name, _)| name.as_str()).collect();
        let name = names.join("+");

        let per_row = inputs / scale_len;
        let shape = [outputs, per_row, scale_len * bits / 8];
        let integers =
            builder.tensor(&format!("{name}.integers"), ElementType::U8, &shape, &packed.integers)?;
        let scales = builder.floats(&format!("{name}.scales"), &[outputs, per_row], &packed.scales)?;
        let mut operands = vec![input, &integers, &scales];
        let zeros;
        if !packed.zeros.is_empty() {
            let shape = [outputs, per_row.div_ceil(2)];
            zeros = builder.tensor(&format!("{name}.zeros"), ElementType::U8, &shape, &packed.zeros)?;
            operands.push(&zeros);
        }
        let product = builder.fresh("MatMulNBits");
        let attributes = vec![
            ("K", Attribute::Integer(inputs as i64)),
            ("N", Attribute::Integer(outputs as i64)),
            ("bits", Attribute::Integer(bits as i64)),
            ("block_size", Attribute::Integer(scale_len as i64)),
            ("accuracy_level", Attribute::Integer(ACCURACY_LEVEL)),
        ];
        let operator = Operator::Contrib("MatMulNBits");
        builder.node(operator, &operands, &[&product], attributes);
        if packed.offsets.iter().all(|&offset| offset == 0.0) {
            return Ok(Some(product));
        }
        let shape = [outputs, inputs / BLOCK_LEN];
        let offsets = builder.floats(&format!("{name}.offsets"), &shape, &packed.offsets)?;
        let sums = self.sums(builder, input, inputs / BLOCK_LEN);
        let transposed = vec![("transB", Attribute::Integer(1))];
        Ok(Some(builder.call_with("Gemm", &[&sums, &offsets, &product], transposed)))
    }

    /// `[T, blocks]` of `[T, inputs]`.
    fn sums<W: Write>(&mut self, builder: &mut Builder<W>, input: &str, blocks: usize) -> String {
        if let Some(sums) = self.sums.get(input) {
            return sums.clone();
        }
        // Nothing is left to be inferred: there may be no rows.
        let blocks = builder.reshape(input, &[0, blocks as i64, BLOCK_LEN as i64]);
        let axes = builder.integers(&[-1]);
        let keep = vec![("keepdims", Attribute::Integer(0))];
        let sums = builder.call_with("ReduceSum", &[&blocks, &axes], keep);
        self.sums.insert(input.to_owned(), sums.clone());
        sums
    }
}

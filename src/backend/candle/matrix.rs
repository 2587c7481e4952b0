//! A weight matrix, multiplied so that a row of the product depends on that row of the input alone.
//!
//! candle's `f32` product is the `gemm` crate's, which chooses its kernel by the shape, and different
//! kernels sum in different orders. Read in its source (`gemm-common/src/gemm.rs`, 0.19) and held by
//! the tests of this file, the choice is the same for all row counts when
//!
//! - there are at least [`MIN_ROWS`] rows: a single one goes to a matrix-vector kernel;
//! - the matrix lies input-major, `[in, out]`: a small product of two contiguous inner dimensions goes
//!   to a dot-product kernel (and this way it need not be repacked, which is also faster);
//! - there are more than 64 outputs: a product of at most 64 by 64 is cut differently along the sum.
//!
//! What is left, the tiles of rows and outputs and their threads, does not cut the sum.

use crate::model::StoredTensor;
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// Rows a product must have.
pub(super) const MIN_ROWS: usize = 2;
/// Outputs a product must have; fewer are filled up with zeros.
const MIN_OUTPUTS: usize = 65;
/// A tile of this many outputs is decoded at a time when weights stay as stored: its `f32` form should
/// stay in the cache, and be large enough to share out among threads.
const STORED_TILE_OUTPUTS: usize = 512;

/// The matrix of a linear layer.
pub(super) enum Matrix {
    /// Decoded once.
    F32(Tile),
    /// Decoded a tile at a time whenever it is used: small and slow. The results are the same.
    Stored(StoredTensor),
}

impl Matrix {
    pub(super) fn new(tensor: &StoredTensor, stored: bool) -> Result<Self> {
        if stored {
            return Ok(Self::Stored(tensor.clone()));
        }
        Ok(Self::F32(Tile::decode(tensor, 0, tensor.shape()[0])?))
    }

    /// `input · matrixᵀ`, `[rows, out]` of `[rows, in]`.
    pub(super) fn apply(&self, input: &Tensor) -> Result<Tensor> {
        debug_assert!(input.dim(0)? >= MIN_ROWS, "a single row is summed in another order");
        match self {
            Self::F32(tile) => tile.apply(input),
            Self::Stored(tensor) => {
                let outputs = tensor.shape()[0];
                let tiles = (0..outputs).step_by(STORED_TILE_OUTPUTS).map(|first| {
                    let count = STORED_TILE_OUTPUTS.min(outputs - first);
                    Tile::decode(tensor, first, count)?.apply(input)
                });
                Tensor::cat(&tiles.collect::<Result<Vec<_>>>()?, 1)
            }
        }
    }
}

/// Neighbouring outputs of a matrix, decoded.
pub(super) struct Tile {
    /// `[in, max(out, MIN_OUTPUTS)]`, contiguous.
    weights: Tensor,
    outputs: usize,
}

impl Tile {
    fn decode(tensor: &StoredTensor, first: usize, outputs: usize) -> Result<Self> {
        let inputs = tensor.shape()[1];
        let mut rows = vec![0.0; outputs * inputs];
        tensor.read_rows(first, &mut rows);
        let width = outputs.max(MIN_OUTPUTS);
        let weights = Tensor::from_vec(transposed(&rows, inputs, width), (inputs, width), &Device::Cpu)?;
        Ok(Self { weights, outputs })
    }

    fn apply(&self, input: &Tensor) -> Result<Tensor> {
        let product = input.matmul(&self.weights)?;
        if product.dim(1)? == self.outputs {
            return Ok(product);
        }
        product.narrow(1, 0, self.outputs)?.contiguous()
    }
}

/// `[inputs, width]` of `rows`, `[_, inputs]`, with zeros where there are fewer than `width` rows.
fn transposed(rows: &[f32], inputs: usize, width: usize) -> Vec<f32> {
    // As many values as a cache line holds: each line that is read is used whole.
    const INPUTS_PER_TASK: usize = 16;
    let mut columns = vec![0.0; inputs * width];
    columns.par_chunks_mut(INPUTS_PER_TASK * width).enumerate().for_each(|(task, columns)| {
        let first_input = task * INPUTS_PER_TASK;
        let task_inputs = columns.len() / width;
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            for (idx, value) in row[first_input..first_input + task_inputs].iter().enumerate() {
                columns[idx * width + output] = *value;
            }
        }
    });
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the first rows of a product come out the same, to the last bit, for any row count.
    #[track_caller]
    fn check_rows_do_not_matter(outputs: usize, inputs: usize) {
        let noise = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|idx| ((idx * 7919 + salt) % 10_007) as f32 / 10_007.0 - 0.5).collect()
        };
        let width = outputs.max(MIN_OUTPUTS);
        let weights = transposed(&noise(outputs * inputs, 1), inputs, width);
        let weights = Tensor::from_vec(weights, (inputs, width), &Device::Cpu).unwrap();
        let tile = Tile { weights, outputs };
        let input = Tensor::from_vec(noise(300 * inputs, 5), (300, inputs), &Device::Cpu).unwrap();
        let product = |rows: usize| -> Vec<Vec<f32>> {
            tile.apply(&input.narrow(0, 0, rows).unwrap()).unwrap().to_vec2().unwrap()
        };
        let whole = product(300);
        for rows in [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 127, 128, 129, 257] {
            let part = product(rows);
            let same =
                part.iter().flatten().zip(whole.iter().flatten()).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{rows} rows of {inputs} by {outputs} outputs differ from 300");
        }
    }

    #[test]
    fn the_number_of_rows_does_not_matter() {
        for outputs in [1, 2, 16, 63, 64, 65, 96, 192, 257, 576] {
            for inputs in [1, 3, 16, 64, 257, 512, 513, 576, 1536] {
                check_rows_do_not_matter(outputs, inputs);
            }
        }
        check_rows_do_not_matter(96, 5000);
        check_rows_do_not_matter(5000, 96);
    }
}

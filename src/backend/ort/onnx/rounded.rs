//! Weights of any kind as 4-bit integers: `w ≈ scale * (u - zero)`, a scale and a zero for each 32 of a row.

use super::matrix::{BLOCK_LEN, Packed};

pub(super) const BITS: usize = 4;
const LARGEST: f32 = 15.0;
/// How wide the integers' range is tried, of the weights' own: a narrower one cuts off a weight or two, and rounds the
/// others less.
const WIDTHS: [f32; 3] = [1.0, 0.9, 0.8];

struct Block {
    scale: f32,
    zero: f32,
    integers: [f32; BLOCK_LEN],
    /// Squares of what each weight is off, added up.
    error: f32,
}

impl Block {
    /// The nearest of the blocks that are tried.
    fn nearest(weights: &[f32; BLOCK_LEN]) -> Self {
        let smallest = weights.iter().copied().fold(0.0, f32::min);
        let largest = weights.iter().copied().fold(0.0, f32::max);
        let tries = WIDTHS.map(|width| {
            let scale = width * (largest - smallest) / LARGEST;
            let zero = if scale == 0.0 { 0.0 } else { (-smallest / scale).round().clamp(0.0, LARGEST) };
            Self::fitted(weights, scale, zero)
        });
        tries.into_iter().min_by(|left, right| left.error.total_cmp(&right.error)).expect("some are tried")
    }

    /// The scale that fits best to the integers that `scale` makes, and the integers that it makes in turn.
    fn fitted(weights: &[f32; BLOCK_LEN], scale: f32, zero: f32) -> Self {
        let centred = round(weights, scale, zero).map(|integer| integer - zero);
        let squares: f32 = centred.iter().map(|integer| integer * integer).sum();
        let products: f32 = weights.iter().zip(centred).map(|(weight, integer)| weight * integer).sum();
        let scale = if squares > 0.0 { products / squares } else { scale };
        let integers = round(weights, scale, zero);
        let off = weights.iter().zip(integers).map(|(weight, integer)| weight - scale * (integer - zero));
        Self { scale, zero, integers, error: off.map(|off| off * off).sum() }
    }
}

fn round(weights: &[f32; BLOCK_LEN], scale: f32, zero: f32) -> [f32; BLOCK_LEN] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    // What is not negative is rounded down by being cut off, for which every CPU has an instruction.
    weights.map(|weight| (weight * inverse + zero + 0.5).clamp(0.0, LARGEST) as i32 as f32)
}

/// A row of a matrix; its length is a multiple of [`BLOCK_LEN`].
pub(super) fn row(weights: &[f32]) -> Packed {
    let blocks: Vec<Block> = weights.as_chunks().0.iter().map(Block::nearest).collect();
    let mut packed = Packed::default();
    for block in &blocks {
        let pairs = block.integers.as_chunks::<2>().0.iter();
        packed.integers.extend(pairs.map(|&[low, high]| low as u8 | (high as u8) << 4));
        packed.scales.push(block.scale);
    }
    // Two in a byte; a row of an odd number has a half that is empty.
    let zeros =
        blocks.chunks(2).map(|pair| pair.iter().rev().fold(0, |zeros, block| zeros << 4 | block.zero as u8));
    packed.zeros.extend(zeros);
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(packed: &Packed) -> Vec<f32> {
        let nibble = |bytes: &[u8], at: usize| f32::from(bytes[at / 2] >> (4 * (at % 2)) & 15);
        let weights = 0..packed.integers.len() * 2;
        weights
            .map(|at| {
                let block = at / BLOCK_LEN;
                packed.scales[block] * (nibble(&packed.integers, at) - nibble(&packed.zeros, block))
            })
            .collect()
    }

    #[test]
    fn what_four_bits_can_say_is_kept() {
        let weights: Vec<f32> =
            (0..96).map(|idx| 0.25 * ((idx * 7 % 16) as f32 - (idx / 32 * 5) as f32)).collect();
        let packed = row(&weights);
        assert_eq!((packed.integers.len(), packed.scales.len(), packed.zeros.len()), (48, 3, 2));
        for (weight, rounded) in weights.iter().zip(unpacked(&packed)) {
            assert!((weight - rounded).abs() < 1e-6, "{weight} became {rounded}");
        }
    }

    #[test]
    fn nothing_is_further_off_than_half_a_step_or_so() {
        let weights: Vec<f32> = (0..320).map(|idx| (idx as f32 * 12.9898).sin() * 3.0).collect();
        for (weight, rounded) in weights.iter().zip(unpacked(&row(&weights))) {
            assert!((weight - rounded).abs() < 0.6 * 6.0 / LARGEST, "{weight} became {rounded}");
        }
    }

    #[test]
    fn blocks_without_weights_are_zeros() {
        let packed = row(&[0.0; BLOCK_LEN]);
        assert!(unpacked(&packed).iter().all(|&weight| weight == 0.0));
    }
}

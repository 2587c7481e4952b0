//! Rotary position embedding of one head.

use crate::model::Pairing;

/// Sines and cosines of every position.
pub(super) struct RotaryTable {
    /// `[context, head_dim / 2]` each.
    cosines: Vec<f32>,
    sines: Vec<f32>,
    pairs: usize,
}

impl RotaryTable {
    pub(super) fn new(inverse_frequencies: &[f32], context_len: usize) -> Self {
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..context_len {
            for frequency in inverse_frequencies {
                // The angle is rounded to f32, as the models were trained with.
                let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
                cosines.push(cosine as f32);
                sines.push(sine as f32);
            }
        }
        Self { cosines, sines, pairs: inverse_frequencies.len() }
    }

    /// Turns a head in place.
    pub(super) fn turn(&self, head: &mut [f32], position: usize, pairing: Pairing) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        let turns = self.cosines[range.clone()].iter().zip(&self.sines[range]);
        match pairing {
            Pairing::Adjacent => {
                for (pair, (cosine, sine)) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                    let [x, y] = *pair;
                    *pair = [x * cosine - y * sine, x * sine + y * cosine];
                }
            }
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(self.pairs);
                for ((x, y), (cosine, sine)) in first.iter_mut().zip(second).zip(turns) {
                    (*x, *y) = (*x * cosine - *y * sine, *x * sine + *y * cosine);
                }
            }
        }
    }
}

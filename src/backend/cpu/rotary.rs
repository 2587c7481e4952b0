//! How far heads are turned at each position.

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

    /// Cosines and sines of a position's pairs.
    pub(super) fn turns(&self, position: usize) -> [&[f32]; 2] {
        let range = position * self.pairs..(position + 1) * self.pairs;
        [&self.cosines[range.clone()], &self.sines[range]]
    }
}

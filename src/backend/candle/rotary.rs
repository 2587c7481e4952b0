//! Rotary position embedding.

use super::plan::Place;
use crate::model::Pairing;

/// Sines and cosines of every position.
pub(super) struct RotaryTable {
    /// `[context, head_dim / 2]`, cosine and sine.
    turns: Vec<(f32, f32)>,
    pairs: usize,
}

impl RotaryTable {
    pub(super) fn new(inverse_frequencies: &[f32], context_len: usize) -> Self {
        let turns = (0..context_len).flat_map(|position| {
            inverse_frequencies.iter().map(move |frequency| {
                // The angle is rounded to f32, as the models were trained with.
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                (cos as f32, sin as f32)
            })
        });
        Self { turns: turns.collect(), pairs: inverse_frequencies.len() }
    }

    /// Turns every head of every token's row in place.
    pub(super) fn turn(&self, rows: &mut [f32], places: &[Place], pairing: Pairing) {
        let head_dim = 2 * self.pairs;
        let width = rows.len() / places.len();
        for (row, place) in rows.chunks_exact_mut(width).zip(places) {
            let turns = &self.turns[place.position * self.pairs..][..self.pairs];
            for head in row.chunks_exact_mut(head_dim) {
                for (pair, &(cos, sin)) in turns.iter().enumerate() {
                    let (first, second) = match pairing {
                        Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                        Pairing::Halves => (pair, pair + self.pairs),
                    };
                    let (x, y) = (head[first], head[second]);
                    head[first] = x * cos - y * sin;
                    head[second] = x * sin + y * cos;
                }
            }
        }
    }
}

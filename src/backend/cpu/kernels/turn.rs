//! Rotary position embedding of one head.

use super::simd::{Kernel, Simd};
use crate::model::Pairing;

/// The head turned, and times a scale. Plain loops: what matters is that they are compiled for wide registers.
pub(in crate::backend::cpu) struct Turn<'a> {
    pub(in crate::backend::cpu) head: &'a [f32],
    /// Of each pair.
    pub(in crate::backend::cpu) cosines: &'a [f32],
    pub(in crate::backend::cpu) sines: &'a [f32],
    pub(in crate::backend::cpu) pairing: Pairing,
    pub(in crate::backend::cpu) scale: f32,
    /// As long as the head.
    pub(in crate::backend::cpu) to: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Self { head, cosines, sines, pairing, scale, to } = self;
        let pairs = cosines.len();
        let (turned, others) = head.split_at(2 * pairs);
        let (to, to_others) = to.split_at_mut(2 * pairs);
        match pairing {
            Pairing::Adjacent => {
                let turns = cosines.iter().zip(sines);
                let both = turned.as_chunks::<2>().0.iter().zip(to.as_chunks_mut::<2>().0);
                for (([x, y], to), (cosine, sine)) in both.zip(turns) {
                    *to = [(x * cosine - y * sine) * scale, (x * sine + y * cosine) * scale];
                }
            }
            Pairing::Halves => {
                let (first, second) = turned.split_at(pairs);
                let (to_first, to_second) = to.split_at_mut(pairs);
                for idx in 0..pairs {
                    let (x, y, cosine, sine) = (first[idx], second[idx], cosines[idx], sines[idx]);
                    to_first[idx] = (x * cosine - y * sine) * scale;
                    to_second[idx] = (x * sine + y * cosine) * scale;
                }
            }
        }
        for (to, value) in to_others.iter_mut().zip(others) {
            *to = value * scale;
        }
    }
}

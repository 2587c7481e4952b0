//! What a chip could do at the very most, from its bandwidth and its arithmetic: a prediction, never a
//! measurement, and nothing that a report could mix up with one.
//!
//! A step reads every weight once and each sequence's keys and values, and computes two operations for
//! each weight and token. The longer of the two is the least a step can take; what real programs lose on
//! the way (launches, collectives between cores, sampling, the host) comes on top.

use serde::Serialize;

/// A chip as its maker describes it (AWS Neuron documentation, "Neuron hardware").
pub(super) struct Chip {
    pub(super) name: &'static str,
    /// Of its memory.
    pub(super) bytes_per_second: f64,
    /// Dense BF16.
    pub(super) operations_per_second: f64,
    /// The smallest instance with one.
    pub(super) instance: Option<&'static str>,
    /// Cores that share the model at the default settings.
    pub(super) cores: u32,
}

const GIB: f64 = (1_u64 << 30) as f64;

pub(super) const CHIPS: [Chip; 4] = [
    Chip {
        name: "Inferentia2",
        bytes_per_second: 820.0 * GIB,
        operations_per_second: 190e12,
        instance: Some("inf2.xlarge"),
        cores: 2,
    },
    Chip {
        name: "Trainium1",
        bytes_per_second: 820.0 * GIB,
        operations_per_second: 190e12,
        instance: Some("trn1.2xlarge"),
        cores: 2,
    },
    Chip {
        name: "Trainium2",
        bytes_per_second: 2.9e12,
        operations_per_second: 667e12,
        instance: None,
        cores: 4,
    },
    Chip {
        name: "Trainium3",
        bytes_per_second: 4.9e12,
        operations_per_second: 671e12,
        instance: None,
        cores: 4,
    },
];

/// Two collectives in each layer, and what one takes at the least: a few microseconds.
const COLLECTIVES_PER_LAYER: f64 = 2.0;
const COLLECTIVE_SECONDS: f64 = 4e-6;

/// What of a model bears on the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ModelShape {
    pub parameters: usize,
    pub layers: usize,
    /// Keys and values of one position in all layers, in numbers.
    pub cache_numbers_per_position: usize,
}

/// The least a step can take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) memory_seconds: f64,
    pub(super) arithmetic_seconds: f64,
    /// Only where the chip's cores share the model.
    pub(super) collective_seconds: f64,
}

impl Bounds {
    /// One step of `sequences`, each with `positions` behind it, in BF16.
    pub(super) fn of_step(chip: &Chip, model: &ModelShape, sequences: f64, positions: f64) -> Self {
        const BF16_BYTES: f64 = 2.0;
        let weights = model.parameters as f64;
        let cache = model.cache_numbers_per_position as f64 * positions * sequences;
        Self {
            memory_seconds: (weights + cache) * BF16_BYTES / chip.bytes_per_second,
            arithmetic_seconds: 2.0 * weights * sequences / chip.operations_per_second,
            collective_seconds: if chip.cores > 1 {
                COLLECTIVES_PER_LAYER * model.layers as f64 * COLLECTIVE_SECONDS
            } else {
                0.0
            },
        }
    }

    /// The longer of memory and arithmetic, and the collectives, which wait for both.
    pub(super) fn seconds(self) -> f64 {
        self.memory_seconds.max(self.arithmetic_seconds) + self.collective_seconds
    }

    pub(super) fn limit(self) -> &'static str {
        let longest = self.memory_seconds.max(self.arithmetic_seconds).max(self.collective_seconds);
        if longest == self.collective_seconds {
            "collectives"
        } else if longest == self.memory_seconds {
            "memory"
        } else {
            "arithmetic"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bound_by_what_takes_longest() {
        let chip =
            Chip { name: "a", bytes_per_second: 1e9, operations_per_second: 1e12, instance: None, cores: 1 };
        let model = ModelShape { parameters: 500_000_000, layers: 10, cache_numbers_per_position: 1000 };
        let one = Bounds::of_step(&chip, &model, 1.0, 0.0);
        assert_eq!((one.memory_seconds, one.arithmetic_seconds), (1.0, 1e-3));
        assert_eq!((one.seconds(), one.limit()), (1.0, "memory"));
        // A gigabyte of keys and values doubles it.
        assert_eq!(Bounds::of_step(&chip, &model, 1.0, 500_000.0).memory_seconds, 2.0);
        assert_eq!(Bounds::of_step(&chip, &model, 4000.0, 0.0).limit(), "arithmetic");
        let shared = Bounds::of_step(&Chip { cores: 2, ..chip }, &model, 1.0, 0.0);
        assert!((shared.seconds() - 1.0 - 80e-6).abs() < 1e-12);
    }
}

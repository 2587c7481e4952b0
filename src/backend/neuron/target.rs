//! The chips that programs are compiled for, and what the compiler is told.

use super::hlo::{Bucket, Family};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What `neuronx-cc --target` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Inf2,
    Trn1,
    Trn1n,
    Trn2,
    Trn3,
}

/// Physical cores that a program runs on as one logical core. More than 1 is for Trn2 and Trn3 alone.
pub const LNC: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no target `{0}` (there is: inf2, trn1, trn1n, trn2, trn3)")]
pub struct UnknownTarget(String);

impl Target {
    pub(super) const ALL: [Self; 5] = [Self::Inf2, Self::Trn1, Self::Trn1n, Self::Trn2, Self::Trn3];

    pub fn name(self) -> &'static str {
        match self {
            Self::Inf2 => "inf2",
            Self::Trn1 => "trn1",
            Self::Trn1n => "trn1n",
            Self::Trn2 => "trn2",
            Self::Trn3 => "trn3",
        }
    }

    /// Whether so many cores of the chip, or of its neighbours, can exchange what each has; `true` as well where
    /// nobody says.
    ///
    /// Source: the runtime's "Unsupported topology" (optimum-neuron issue 619), and the ring that Inf2's chips
    /// of two cores are.
    pub(super) fn has_ring_of(self, ranks: usize) -> bool {
        match self {
            Self::Inf2 => ranks == 1 || ranks.is_multiple_of(2),
            Self::Trn1 | Self::Trn1n => matches!(ranks, 1 | 2 | 8 | 16) || ranks.is_multiple_of(32),
            Self::Trn2 | Self::Trn3 => true,
        }
    }

    /// What the compiler is told of a program, but for where it is and where to write to; always in this order.
    ///
    /// Source: AWS's own command lines for language models (`neuronx-distributed-inference`, `model_wrapper.py`),
    /// which have a prefill optimised less, too.
    pub fn flags(self, bucket: Bucket) -> Vec<String> {
        let optimisation = match bucket.family() {
            Family::Decode | Family::ShortRows => "-O2",
            Family::Prefill => "-O1",
        };
        let lnc = format!("--lnc={LNC}");
        let flags = [
            "--framework",
            "XLA",
            "--target",
            self.name(),
            "--model-type=transformer",
            "--auto-cast=none",
            &lnc,
            optimisation,
            "--internal-hlo2tensorizer-options=--verify-hlo=true",
        ];
        flags.map(str::to_owned).to_vec()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        Self::ALL
            .into_iter()
            .find(|target| target.name() == text)
            .ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for target in Target::ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
            assert_eq!(serde_json::to_string(&target).unwrap(), format!("\"{target}\""));
        }
        assert!("inf1".parse::<Target>().is_err());
    }

    #[test]
    fn cores_that_have_no_ring_share_no_model() {
        let shared = |target: Target| (1..=32).filter(|&ranks| target.has_ring_of(ranks)).collect::<Vec<_>>();
        assert_eq!(shared(Target::Trn1), [1, 2, 8, 16, 32]);
        assert_eq!(shared(Target::Inf2)[..4], [1, 2, 4, 6]);
    }

    #[test]
    fn a_prefill_is_optimised_less() {
        let flags = |bucket: &str| Target::Trn1.flags(bucket.parse().unwrap()).join(" ");
        let expected = "--framework XLA --target trn1 --model-type=transformer --auto-cast=none --lnc=1 -O2 \
                        --internal-hlo2tensorizer-options=--verify-hlo=true";
        assert_eq!(flags("4x1x512"), expected);
        assert_eq!(flags("1x8x512"), expected);
        assert_eq!(flags("1x64x512"), expected.replace("-O2", "-O1"));
    }
}

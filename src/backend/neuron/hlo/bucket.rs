//! The shapes that a model is compiled for.
//!
//! A device program has fixed shapes, so a step is padded up to the smallest program that holds it. A
//! bucket is three numbers, slots by row width by context: how many sequences, how many tokens of each, and
//! how many positions attention looks back over. There are three families:
//!
//! - decode: one token for each of several slots, at several contexts, since reading the KV cache is most of
//!   what a step at a long context does;
//! - short rows, of 8 tokens: those that a grammar forces, or a draft to be checked;
//! - prefill: a long row of one slot, of which only one position's logits are wanted.
//!
//! A bucket of one slot serves any slot; one of several serves the first so many.

use std::{fmt, str::FromStr};

/// Slots by row width by context; written `8x1x2048`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    pub slots: usize,
    /// Tokens in each slot's row.
    pub width: usize,
    /// Positions attention looks over, the row's own included.
    pub context: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Decode,
    ShortRows,
    Prefill,
}

/// The KV cache that all programs of a model share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePlan {
    /// Sequences. The cache has one slot more, where padding is written.
    pub slots: usize,
    /// Positions of each.
    pub context: usize,
}

/// Why a bucket is not one, or not one of a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBucket {
    #[error(
        "`{0}` is not a bucket: it is three numbers above 0, slots x row width x context, as in 8x1x2048"
    )]
    Form(String),
    #[error("the bucket {bucket} has more slots or positions than the KV cache, {slots} slots of {context}")]
    PastCache { bucket: Bucket, slots: usize, context: usize },
    #[error("the bucket {bucket} has rows of more than {SHORT_ROW} tokens for several slots")]
    Shape { bucket: Bucket },
    #[error(
        "the bucket {bucket} has {tokens} tokens a step, more than the {limit} positions of the KV cache or of its own context"
    )]
    Tokens { bucket: Bucket, tokens: usize, limit: usize },
}

const SHORT_ROW: usize = 8;
const FIRST_CONTEXT: usize = 256;
const FIRST_PREFILL: usize = 64;
const LAST_PREFILL: usize = 1024;

impl Bucket {
    pub fn family(self) -> Family {
        match self.width {
            1 => Family::Decode,
            2..=SHORT_ROW => Family::ShortRows,
            _ => Family::Prefill,
        }
    }

    /// Tokens of a step, padding included.
    pub fn tokens(self) -> usize {
        self.slots * self.width
    }

    /// Positions whose logits a step yields.
    pub fn logits(self) -> usize {
        match self.family() {
            Family::Decode | Family::ShortRows => self.tokens(),
            Family::Prefill => 1,
        }
    }

    /// Which of its rows is a slot's.
    pub fn line(self, slot: usize) -> usize {
        if self.slots == 1 { 0 } else { slot }
    }

    /// # Errors
    /// If a step of it would not fit the cache. A padded token is written to a position of the scratch slot
    /// of its own, so that there must be as many positions as tokens.
    pub fn check(self, plan: CachePlan) -> Result<(), BadBucket> {
        let CachePlan { slots, context } = plan;
        let bucket = self;
        if self.slots > slots || self.context > context {
            return Err(BadBucket::PastCache { bucket, slots, context });
        }
        if self.family() == Family::Prefill && self.slots > 1 {
            return Err(BadBucket::Shape { bucket });
        }
        let (tokens, limit) = (self.tokens(), if self.slots == 1 { self.context } else { context });
        if tokens > limit || self.width > self.context {
            return Err(BadBucket::Tokens { bucket, tokens, limit: limit.min(self.context) });
        }
        Ok(())
    }

    /// The buckets a cache is served with if nobody asks for others.
    pub fn defaults(plan: CachePlan) -> Vec<Self> {
        let CachePlan { slots, context } = plan;
        let slot_counts = doubling(4, slots, if slots > 1 { Some(1) } else { None });
        let mut buckets = Vec::new();
        for &slots in &slot_counts {
            let contexts = doubling(FIRST_CONTEXT, context, None);
            buckets.extend(contexts.into_iter().map(|context| Self { slots, width: 1, context }));
            buckets.push(Self { slots, width: SHORT_ROW.min(context), context });
        }
        let widths = doubling(FIRST_PREFILL, context.min(LAST_PREFILL), None);
        buckets.extend(widths.into_iter().map(|width| Self { slots: 1, width, context }));
        buckets.retain(|bucket| bucket.check(plan).is_ok());
        buckets.sort_unstable();
        buckets.dedup();
        buckets
    }
}

/// `before`, then `first`, twice that and so on below `last`, then `last`.
fn doubling(first: usize, last: usize, before: Option<usize>) -> Vec<usize> {
    let powers = std::iter::successors(Some(first), |size| size.checked_mul(2));
    before.into_iter().chain(powers.take_while(|&size| size < last)).chain([last]).collect()
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.slots, self.width, self.context)
    }
}

impl FromStr for Bucket {
    type Err = BadBucket;

    fn from_str(text: &str) -> Result<Self, BadBucket> {
        let numbers: Option<Vec<usize>> =
            text.split('x').map(|number| number.parse().ok().filter(|&number| number > 0)).collect();
        match numbers.as_deref() {
            Some(&[slots, width, context]) if slots.checked_mul(width).is_some() => {
                Ok(Self { slots, width, context })
            }
            _ => Err(BadBucket::Form(text.to_owned())),
        }
    }
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::ShortRows => "short-rows",
            Self::Prefill => "prefill",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_defaults(slots: usize, context: usize, expected: &str) {
        let buckets = Bucket::defaults(CachePlan { slots, context });
        let buckets: Vec<String> = buckets.iter().map(Bucket::to_string).collect();
        assert_eq!(buckets.join(" "), expected);
    }

    #[test]
    fn the_default_buckets_are_few_and_end_with_what_the_cache_holds() {
        check_defaults(
            8,
            2048,
            "1x1x256 1x1x512 1x1x1024 1x1x2048 1x8x2048 1x64x2048 1x128x2048 1x256x2048 1x512x2048 \
             1x1024x2048 4x1x256 4x1x512 4x1x1024 4x1x2048 4x8x2048 8x1x256 8x1x512 8x1x1024 8x1x2048 \
             8x8x2048",
        );
        check_defaults(1, 100, "1x1x100 1x8x100 1x64x100 1x100x100");
        check_defaults(3, 256, "1x1x256 1x8x256 1x64x256 1x128x256 1x256x256 3x1x256 3x8x256");
        check_defaults(1, 1, "1x1x1");
        check_defaults(9, 4, "1x1x4 1x4x4 4x1x4");
    }

    #[test]
    fn a_bucket_is_read_as_it_is_written() {
        for text in ["8x1x2048", "1x1024x2048"] {
            assert_eq!(text.parse::<Bucket>().unwrap().to_string(), text);
        }
        for text in ["", "8x1", "8x1x0", "8x-1x2", "1x1x1x1", "99999999999x99999999999x1"] {
            assert_eq!(text.parse::<Bucket>(), Err(BadBucket::Form(text.to_owned())));
        }
    }

    #[test]
    fn a_bucket_that_a_cache_cannot_hold_is_refused() {
        let plan = CachePlan { slots: 4, context: 128 };
        let check = |text: &str| text.parse::<Bucket>().unwrap().check(plan);
        assert_eq!(check("4x8x64"), Ok(()));
        assert_eq!(check("1x128x128"), Ok(()));
        assert!(matches!(check("5x1x128"), Err(BadBucket::PastCache { .. })));
        assert!(matches!(check("4x1x129"), Err(BadBucket::PastCache { .. })));
        assert!(matches!(check("2x16x128"), Err(BadBucket::Shape { .. })));
        assert!(matches!(check("1x64x32"), Err(BadBucket::Tokens { .. })));
    }
}

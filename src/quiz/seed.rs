//! Numbers that follow from a seed: the same seed and the same place give the same number.

/// What a derived number is for, so that no two uses share one.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Sampling = 1,
    Choices = 2,
    Truth = 3,
    Candidates = 4,
    Angle = 5,
}

/// A number for one purpose at one attempt of one item.
pub(super) fn derive(seed: u64, purpose: Purpose, index: usize, attempt: usize) -> u64 {
    [purpose as u64, index as u64, attempt as u64]
        .into_iter()
        .fold(seed, |state, word| split_mix(state ^ split_mix(word)))
}

/// Fisher-Yates, with numbers that follow from `seed`.
pub(super) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = split_mix(state);
        // The bias of a remainder is below 2^-57 for the few items there are.
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014), one step: a bijection that scatters neighbours.
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn places_do_not_share_numbers() {
        let mut seen = HashSet::new();
        for seed in 0..10 {
            for index in 0..50 {
                for attempt in 0..4 {
                    for purpose in [Purpose::Sampling, Purpose::Choices, Purpose::Truth] {
                        assert!(seen.insert(derive(seed, purpose, index, attempt)));
                    }
                }
            }
        }
    }

    #[test]
    fn shuffles_reach_every_order() {
        let mut counts = [0; 4];
        for seed in 0..4000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut items, split_mix(seed));
            counts[items.iter().position(|item| *item == 0).unwrap()] += 1;
        }
        // 1000 each; five standard deviations are about 137.
        assert!(counts.iter().all(|count| (860..1140).contains(count)), "{counts:?}");
    }
}

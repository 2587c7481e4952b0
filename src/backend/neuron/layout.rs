//! Where a slot's part of a cache lies.

use std::ops::Range;

/// One array of the cache, `[slots + 1, kv_heads, context, head_dim]`, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheLayout {
    pub(super) kv_heads: usize,
    pub(super) context: usize,
    /// Of one head at one position.
    pub(super) row_bytes: usize,
}

impl CacheLayout {
    /// Where the bytes of a slot's positions are: a stretch for each head.
    pub(super) fn stretches(
        self,
        slot: usize,
        positions: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> {
        let Self { kv_heads, context, row_bytes } = self;
        let size = positions.len() * row_bytes;
        (0..kv_heads).map(move |head| {
            let start = ((slot * kv_heads + head) * context + positions.start) * row_bytes;
            start..start + size
        })
    }

    /// What the first `len` positions of a slot take.
    pub(super) fn prefix_bytes(self, len: usize) -> usize {
        self.kv_heads * len * self.row_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_a_slot_are_a_stretch_of_each_head() {
        let layout = CacheLayout { kv_heads: 2, context: 10, row_bytes: 4 };
        let of = |slot, positions| layout.stretches(slot, positions).collect::<Vec<_>>();
        assert_eq!(of(0, 0..10), [0..40, 40..80]);
        assert_eq!(of(1, 7..10), [108..120, 148..160]);
        assert_eq!(of(1, 0..3), [80..92, 120..132]);
        assert_eq!(layout.prefix_bytes(3), 24);
    }
}

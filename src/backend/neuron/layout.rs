//! Where a slot's part of a cache lies.

/// One array of the cache, `[slots + 1, kv_heads, context, head_dim]`, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheLayout {
    pub(super) kv_heads: usize,
    pub(super) context: usize,
    /// Of one head at one position.
    pub(super) row_bytes: usize,
}

impl CacheLayout {
    /// Offset and length, in bytes, of the shortest stretch that has the first `len` positions of every head of a
    /// slot. What it has beside them is of positions past `len`.
    pub(super) fn prefix(self, slot: usize, len: usize) -> (usize, usize) {
        let Self { kv_heads, context, row_bytes } = self;
        let rows = if len == 0 { 0 } else { (kv_heads - 1) * context + len };
        (slot * kv_heads * context * row_bytes, rows * row_bytes)
    }

    /// Offset and length, in bytes, of a slot's positions from `from` on: a stretch for each head.
    pub(super) fn tail(self, slot: usize, from: usize) -> impl Iterator<Item = (usize, usize)> {
        let Self { kv_heads, context, row_bytes } = self;
        let size = (context - from) * row_bytes;
        (0..kv_heads).map(move |head| (((slot * kv_heads + head) * context + from) * row_bytes, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reaches_from_the_first_head_to_the_last() {
        let layout = CacheLayout { kv_heads: 3, context: 100, row_bytes: 4 };
        assert_eq!(layout.prefix(0, 100), (0, 1200));
        assert_eq!(layout.prefix(2, 10), (2400, 840));
        assert_eq!(layout.prefix(1, 0), (1200, 0));
    }

    #[test]
    fn a_tail_is_the_rest_of_every_head() {
        let layout = CacheLayout { kv_heads: 2, context: 10, row_bytes: 4 };
        assert_eq!(layout.tail(1, 7).collect::<Vec<_>>(), [(108, 12), (148, 12)]);
    }
}

//! Memory that begins with a cache line. A register can be as wide as one, and takes twice as long to read or to write where
//! it lies across two.

use std::ops::{Deref, DerefMut, Range};

const LINE_BYTES: usize = 64;

/// A value that begins with a line.
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// Values of which the first begins with a line. There are always as many.
#[derive(Default)]
pub(super) struct AlignedVec<T> {
    values: Vec<T>,
    used: Range<usize>,
}

impl<T: Clone + Default> AlignedVec<T> {
    pub(super) fn new(len: usize) -> Self {
        // One of so many neighbours begins with a line, if any does.
        let spare = LINE_BYTES / align_of::<T>();
        let values = vec![T::default(); len + spare];
        let start = values.as_ptr().align_offset(LINE_BYTES).min(spare);
        Self { values, used: start..start + len }
    }
}

impl<T> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.used.clone()]
    }
}

impl<T> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.used.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::kernels::Block;

    #[test]
    fn values_begin_with_a_line() {
        fn check<T: Clone + Default>() {
            for len in 0..40 {
                let mut values = AlignedVec::<T>::new(len);
                assert_eq!((values.len(), values.as_ptr().addr() % LINE_BYTES), (len, 0));
                assert_eq!(values.as_mut_ptr().addr() % LINE_BYTES, 0);
            }
        }
        check::<f32>();
        check::<Block>();
    }
}

//! Handles as the caller has them, and what they stand for.

use std::collections::BTreeMap;

/// Handles of one kind, by the address that the caller has. One that is freed is never given out again, so
/// that its use is always noticed.
pub(crate) struct Handles<T> {
    live: BTreeMap<usize, T>,
    given: usize,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Handles { live: BTreeMap::new(), given: 0 }
    }
}

impl<T> Handles<T> {
    /// An address that is no memory's, and no other handle's.
    pub(crate) fn insert(&mut self, kind: Kind, value: T) -> usize {
        self.given += 1;
        let handle = kind as u64 as usize + self.given * size_of::<usize>();
        self.live.insert(handle, value);
        handle
    }

    /// Something that has an address of its own.
    pub(crate) fn insert_at(&mut self, address: usize, value: T) {
        self.live.insert(address, value);
    }

    pub(crate) fn get(&self, handle: usize) -> Option<&T> {
        self.live.get(&handle)
    }

    pub(crate) fn get_mut(&mut self, handle: usize) -> Option<&mut T> {
        self.live.get_mut(&handle)
    }

    pub(crate) fn remove(&mut self, handle: usize) -> Option<T> {
        self.live.remove(&handle)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.live.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn clear(&mut self) {
        self.live.clear();
    }
}

/// Where the handles of a kind begin.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Kind {
    Model = 0x1000_0000_0000,
    Set = 0x2000_0000_0000,
    Tensor = 0x3000_0000_0000,
}

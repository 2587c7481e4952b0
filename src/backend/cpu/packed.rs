//! The memory that integer weights are repacked into: one for all matrices, in huge pages where there are
//! any. A step reads all of it, and looks up each page on the way: with small pages it takes a fifth longer.

use memmap2::{Mmap, MmapMut};
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// Where the pieces begin: a multiple of a cache line.
const ALIGNMENT: usize = 64;

/// Memory that is handed out once, written, and then only read.
pub(super) struct PackedMemory {
    memory: MmapMut,
    used: usize,
    finished: Arc<OnceLock<Mmap>>,
}

/// A piece of it, to read when it is finished.
pub(super) struct PackedBytes {
    memory: Arc<OnceLock<Mmap>>,
    range: Range<usize>,
}

/// So many bytes of zeros, in huge pages where there are any: without them it is slower, not wrong.
pub(super) fn huge_pages(len: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

impl PackedMemory {
    /// Room for pieces of these sizes.
    pub(super) fn new(sizes: impl Iterator<Item = usize>) -> std::io::Result<Self> {
        let memory = huge_pages(sizes.map(|size| size.next_multiple_of(ALIGNMENT)).sum())?;
        Ok(Self { memory, used: 0, finished: Arc::default() })
    }

    /// The next piece, and its bytes to be written.
    ///
    /// # Panics
    /// If it was not among the sizes.
    pub(super) fn take(&mut self, len: usize) -> (PackedBytes, &mut [u8]) {
        let range = self.used..self.used + len;
        self.used = range.end.next_multiple_of(ALIGNMENT);
        (PackedBytes { memory: Arc::clone(&self.finished), range: range.clone() }, &mut self.memory[range])
    }

    /// From here on the pieces can be read.
    pub(super) fn finish(self) -> std::io::Result<()> {
        let memory = self.memory.make_read_only()?;
        assert!(self.finished.set(memory).is_ok(), "it is finished once");
        Ok(())
    }
}

impl PackedBytes {
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.memory.get().expect("matrices are read when all are packed")[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_what_was_written() {
        let mut memory = PackedMemory::new([3, 100, 0, 64].into_iter()).unwrap();
        let pieces: Vec<_> = [3, 100, 0, 64]
            .into_iter()
            .enumerate()
            .map(|(idx, len)| {
                let (piece, bytes) = memory.take(len);
                assert_eq!((bytes.len(), bytes.as_ptr().align_offset(ALIGNMENT)), (len, 0));
                bytes.fill(idx as u8 + 1);
                piece
            })
            .collect();
        memory.finish().unwrap();
        for (idx, (piece, len)) in pieces.iter().zip([3, 100, 0, 64]).enumerate() {
            assert_eq!(piece.as_slice(), vec![idx as u8 + 1; len]);
        }
    }
}

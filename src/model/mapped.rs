//! A file as a slice of bytes: the one place of this room that needs `unsafe`.

use super::ModelError;
use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A read-only memory map of a whole file, cheap to clone.
#[derive(Clone)]
pub(super) struct MappedFile {
    path: Arc<PathBuf>,
    map: Arc<memmap2::Mmap>,
}

impl MappedFile {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let read_error = |source| ModelError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(read_error)?;
        if !file.metadata().map_err(read_error)?.is_file() {
            return Err(read_error(std::io::Error::other("not a regular file")));
        }
        // SAFETY: the bytes are only ever read as plain old data, which any bit pattern is. A process
        // that cuts the file while it is mapped can still end us with SIGBUS; model files are put in
        // place whole by a rename (`pull`) and replaced the same way, never rewritten.
        #[expect(unsafe_code, reason = "a memory map; a model is too large to be read into memory")]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(read_error)?;
        Ok(Self { path: Arc::new(path.to_path_buf()), map: Arc::new(map) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives back the memory that `range` takes, and what else its pages hold. Whoever reads them again finds the file's
    /// bytes, from the system's cache of it or from the disk. Only a wish.
    pub(super) fn let_go(&self, range: Range<usize>) {
        #[cfg(unix)]
        if !range.is_empty() {
            // SAFETY: what may be lost by this is what was written to a map and not to its file; nothing is ever
            // written to this one, so that every reader sees the same bytes before and after.
            #[expect(unsafe_code, reason = "as above")]
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// KiB of memory that this process holds of the file.
    fn resident(path: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let path = path.canonicalize().unwrap();
        let of_file = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let size = of_file.into_iter().find_map(|line| line.strip_prefix("Rss:")).expect("it is mapped");
        size.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_is_let_go_leaves_memory_and_reads_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..1 << 22).map(|idx: u32| (idx % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mapped = MappedFile::open(file.path()).unwrap();
        assert!(mapped.bytes() == content);
        let before = resident(file.path());
        mapped.let_go(1 << 20..content.len() - 1000);
        let after = resident(file.path());
        assert!(before >= 4096 && after <= 1280, "{before} KiB, then {after}");
        mapped.let_go(10..10);
        assert!(mapped.bytes() == content);
    }
}

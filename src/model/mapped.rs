//! A file as a slice of bytes: the one place of this room that needs `unsafe`.

use super::ModelError;
use std::{
    fs::File,
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
}

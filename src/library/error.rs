use std::io;
use std::path::PathBuf;
use tantivy::TantivyError;

/// Why a library cannot be used, or a file not be added. Nothing was added when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("there is no library in {}; make one with `mondai library add FILE --library {}`", folder.display(), folder.display())]
    Missing { folder: PathBuf },
    #[error("{} holds something else than a library: {reason}; name another folder", folder.display())]
    NotALibrary { folder: PathBuf, reason: String },
    #[error("the library in {} is damaged ({reason}); remove the folder and add its files again", folder.display())]
    Damaged { folder: PathBuf, reason: String },
    #[error("another process is adding to the library in {}; wait for it, then try again", folder.display())]
    Busy { folder: PathBuf },
    #[error("the library in {} cannot be written to", folder.display())]
    Unwritable { folder: PathBuf, source: TantivyError },
    #[error("the library cannot be searched")]
    Search { source: TantivyError },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// What the file holds cannot be added.
    #[error("{}{}: {reason}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    BadFile {
        path: PathBuf,
        /// From 1; of a file that is read line by line.
        line: Option<usize>,
        reason: String,
    },
}

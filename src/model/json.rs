//! Reads the JSON files of a Hugging Face folder.

use super::ModelError;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The index of a model of a thousand shards takes a few megabytes.
const MAX_JSON_BYTES: u64 = 64 << 20;

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let read_error = |source| ModelError::Read { path: path.to_path_buf(), source };
    let invalid =
        |reason: String| ModelError::Invalid { path: path.to_path_buf(), field: "JSON".to_owned(), reason };
    let bytes = std::fs::metadata(path).map_err(read_error)?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(invalid(format!("{bytes} bytes are too many for it ({MAX_JSON_BYTES} at most)")));
    }
    let text = std::fs::read(path).map_err(read_error)?;
    serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))
}

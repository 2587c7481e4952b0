//! The text side's files in a Hugging Face folder.

use serde_json::Value;
use std::{fs::File, io::Read, path::Path};

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The largest real `tokenizer.json` we know is some 35 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The contents of a file; `None` if there is no such file.
///
/// # Errors
/// A sentence that begins with the file's name.
pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    let read = || {
        let mut contents = Vec::new();
        File::open(folder.join(name))?.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
        Ok::<_, std::io::Error>(contents)
    };
    match read() {
        Ok(contents) if contents.len() as u64 > MAX_FILE_BYTES => {
            Err(format!("{name}: larger than {MAX_FILE_BYTES} bytes"))
        }
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The same for a file that holds JSON.
pub(super) fn read_json(folder: &Path, name: &str) -> Result<Option<Value>, String> {
    let Some(contents) = read(folder, name)? else { return Ok(None) };
    serde_json::from_slice(&contents).map(Some).map_err(|error| format!("{name}: {error}"))
}

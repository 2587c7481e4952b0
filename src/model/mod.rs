//! What a model is: its config, its graph and its weights, read from a GGUF file or a Hugging Face
//! folder. Uses no other room. Absent: devices, tensors of any framework, tokenisation.

mod gguf;

pub use gguf::{GgufMetadata, MetadataValue};
use std::path::{Path, PathBuf};

/// A model read from disk: everything about it but the running.
///
/// Cheap to open: weights stay memory-mapped until a backend takes them.
pub struct Model {
    /// The name it is served under: the manifest's folder, or the file's stem.
    pub name: String,
    /// The GGUF file or the folder it was read from.
    pub path: PathBuf,
    // config, graph, weights, text side: filled in by the room's own files
}

impl Model {
    /// Opens a model by manifest name (`models/NAME/`), GGUF file or Hugging Face folder.
    pub fn open(_spec: &str, _models_dir: &Path) -> Result<Self, ModelError> {
        todo!()
    }

    /// Where the vocabulary and the chat template are.
    pub fn text_source(&self) -> TextSource<'_> {
        todo!()
    }

    /// The manifest's chat template, if it overrides the model's.
    pub fn chat_template_override(&self) -> Option<&str> {
        todo!()
    }
}

/// Where a model's text side is read from.
pub enum TextSource<'a> {
    Gguf(&'a GgufMetadata),
    /// A Hugging Face folder: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json`.
    Folder(&'a Path),
}

/// Why a model cannot be read. Every variant names the file, and the field or tensor in it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path}: {field}: {reason}")]
    Invalid { path: PathBuf, field: String, reason: String },
}

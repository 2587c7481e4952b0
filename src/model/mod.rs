//! What a model is: its config, its graph and its weights, read from a GGUF file or a Hugging Face
//! folder. Uses no other room. Absent: devices, tensors of any framework, tokenisation.

mod gguf;
mod manifest;
mod mapped;
mod tensor_type;

pub use gguf::{GgufMetadata, MetadataValue};
pub use manifest::{Manifest, Source};
use std::path::{Path, PathBuf};
pub use tensor_type::TensorType;

/// A model read from disk: everything about it but the running.
///
/// Cheap to open: weights stay memory-mapped until a backend takes them.
pub struct Model {
    /// The name it is served under: the manifest's folder, or the file's stem.
    pub name: String,
    /// The GGUF file or the folder it was read from.
    pub path: PathBuf,
    chat_template: Option<String>,
    gguf: Option<gguf::GgufFile>,
}

impl Model {
    /// Opens a model by manifest name (`models/NAME/`), GGUF file or Hugging Face folder.
    ///
    /// # Errors
    /// [`ModelError::NotPulled`] if the manifest's file has not been fetched yet;
    /// [`ModelError::UnknownName`] if `spec` is none of the three.
    pub fn open(spec: &str, models_dir: &Path) -> Result<Self, ModelError> {
        let path = Path::new(spec);
        if path.exists() && !(manifest::is_plain_name(spec) && models_dir.join(spec).exists()) {
            let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            return Self::open_path(name, path, None);
        }
        let manifest = Manifest::read(models_dir, spec)?;
        let path = manifest.file_path();
        if !path.is_file() {
            return Err(ModelError::NotPulled { name: manifest.name, path });
        }
        Self::open_path(manifest.name, &path, manifest.chat_template)
    }

    fn open_path(name: String, path: &Path, chat_template: Option<String>) -> Result<Self, ModelError> {
        let gguf = if path.is_dir() { None } else { Some(gguf::GgufFile::open(path)?) };
        Ok(Self { name, path: path.to_path_buf(), chat_template, gguf })
    }

    /// Where the vocabulary and the chat template are.
    pub fn text_source(&self) -> TextSource<'_> {
        match &self.gguf {
            Some(gguf) => TextSource::Gguf(&gguf.metadata),
            None => TextSource::Folder(&self.path),
        }
    }

    /// The manifest's chat template, if it overrides the model's.
    pub fn chat_template_override(&self) -> Option<&str> {
        self.chat_template.as_deref()
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
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the model `{name}` is not downloaded ({path} is missing); run `mondai pull {name}`")]
    NotPulled { name: String, path: PathBuf },
    #[error("`{name}` is neither a GGUF file, a model folder nor a name in {models_dir} (known: {known})")]
    UnknownName { name: String, models_dir: PathBuf, known: String },
}

//! What a model is: its config, its graph and its weights, read from a GGUF file or a Hugging Face
//! folder. Uses no other room. Absent: devices, tensors of any framework, tokenisation.

mod adapter;
mod arch;
mod config;
mod dequantise;
mod gguf;
mod graph;
mod json;
mod manifest;
mod mapped;
mod quantise;
mod tensor_type;
mod weight_name;
mod weights;

pub use arch::Architecture;
pub use config::{ModelConfig, Rope, RopeScaling};
pub use gguf::{GgufMetadata, MetadataValue};
pub use graph::{AttentionShape, CacheShape, Graph, HeadPath, Node, NodeId, Pairing, Weight, WeightId};
pub use manifest::{Download, KeyBits, Manifest, QuizTexts, Source, Weights};
pub use tensor_type::TensorType;
pub use weight_name::{Part, WeightName};
pub use weights::StoredTensor;

use adapter::Adapter;
use gguf::GgufFile;
use std::path::{Path, PathBuf};
use weights::TensorFiles;

/// A model read from disk: everything about it but the running.
///
/// Cheap to open: weights stay memory-mapped until a backend takes them.
pub struct Model {
    /// The name it is served under: the manifest's folder, or the file's stem.
    pub name: String,
    /// The GGUF file or the folder it was read from.
    pub path: PathBuf,
    pub config: ModelConfig,
    pub graph: Graph,
    /// In the order of the graph's weights.
    weights: Vec<StoredTensor>,
    tensors: TensorFiles,
    /// `None` for a folder.
    metadata: Option<GgufMetadata>,
    chat_template: Option<String>,
    quiz_texts: Option<QuizTexts>,
    /// What is merged into the weights, in that order.
    adapters: Vec<PathBuf>,
    /// As its manifest says.
    pub key_bits: KeyBits,
}

impl Model {
    /// Opens a model by manifest name (`models/NAME/`), GGUF file or Hugging Face folder.
    ///
    /// # Errors
    /// [`ModelError::NotPulled`] if the manifest's file has not been fetched yet;
    /// [`ModelError::UnknownName`] if `spec` is none of the three.
    pub fn open(spec: &str, models_dir: &Path) -> Result<Self, ModelError> {
        match named_path(spec, models_dir) {
            Some(path) => Self::open_path(Self::name_of(spec, models_dir), path),
            None => Self::open_manifest(Manifest::read(models_dir, spec)?, models_dir),
        }
    }

    /// What the model that [`open`](Self::open) opens is called; the model need not be there.
    pub fn name_of(spec: &str, models_dir: &Path) -> String {
        let Some(path) = named_path(spec, models_dir) else { return spec.to_owned() };
        // A folder's name may have dots (`Llama-3.2-1B`).
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    fn open_manifest(manifest: Manifest, models_dir: &Path) -> Result<Self, ModelError> {
        let mut model = match &manifest.weights {
            Weights::Downloaded(download) => {
                let path = manifest.folder.join(&download.file);
                if !path.is_file() {
                    return Err(ModelError::NotPulled { name: manifest.name, path });
                }
                Self::open_path(manifest.name, &path)?
            }
            Weights::Adapted { adapter, .. } => {
                let base = manifest.base(models_dir)?.expect("an adapted model has a base");
                let base = Self::open_manifest(base, models_dir)?;
                Self { name: manifest.name, ..base.with_adapter(&manifest.folder.join(adapter))? }
            }
        };
        model.chat_template = manifest.chat_template.or(model.chat_template);
        model.quiz_texts = manifest.quiz.or(model.quiz_texts);
        model.key_bits = manifest.key_bits.unwrap_or(model.key_bits);
        Ok(model)
    }

    fn open_path(name: String, path: &Path) -> Result<Self, ModelError> {
        if let Some(path) = onnx_instead_of_weights(path) {
            return Err(ModelError::OnnxAlone { path });
        }
        let (config, tensors, metadata) = if path.is_dir() {
            (config::from_folder(path)?, TensorFiles::from_folder(path)?, None)
        } else {
            let gguf = GgufFile::open(path)?;
            let tensors = TensorFiles::from_gguf(&gguf);
            (config::from_gguf(&gguf, &tensors)?, tensors, Some(gguf.metadata))
        };
        let graph = config.architecture.graph(&config);
        let weights = tensors.resolve(&graph)?;
        let (chat_template, quiz_texts, adapters) = (None, None, Vec::new());
        let path = path.to_path_buf();
        Ok(Self {
            name,
            path,
            config,
            graph,
            weights,
            tensors,
            metadata,
            chat_template,
            quiz_texts,
            adapters,
            key_bits: KeyBits::default(),
        })
    }

    /// The model with a LoRA adapter merged in: a PEFT folder or its safetensors file, or a GGUF file.
    /// It is named after both.
    ///
    /// # Errors
    /// [`ModelError::Invalid`]: the adapter is damaged, made for another model, or does more than add a
    /// product to weights.
    pub fn with_adapter(mut self, path: &Path) -> Result<Self, ModelError> {
        for (weight, update) in Adapter::open(path)?.updates(&self)? {
            self.tensors.merge(self.graph.weights()[weight].name, update);
        }
        self.weights = self.tensors.resolve(&self.graph)?;
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        self.name = format!("{}+{}", self.name, stem.unwrap_or(path.as_os_str()).to_string_lossy());
        self.adapters.push(path.to_path_buf());
        Ok(self)
    }

    /// The tensor of one of the graph's weights; its shape is the one the graph expects.
    pub fn weight(&self, weight: WeightId) -> &StoredTensor {
        &self.weights[weight.0]
    }

    /// The tensors of all matrices that rows are multiplied with.
    pub fn matrices(&self) -> impl Iterator<Item = &StoredTensor> {
        self.graph.nodes().filter_map(|(_, node)| match *node {
            Node::Linear { weight, .. } | Node::Head { weight, .. } => Some(self.weight(weight)),
            _ => None,
        })
    }

    /// All tensors of the model's files, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors.iter()
    }

    /// Where the vocabulary and the chat template are.
    pub fn text_source(&self) -> TextSource<'_> {
        match &self.metadata {
            Some(metadata) => TextSource::Gguf(metadata),
            None => TextSource::Folder(&self.path),
        }
    }

    /// The adapters merged into the weights.
    pub fn adapters(&self) -> &[PathBuf] {
        &self.adapters
    }

    /// What the manifest says a quiz is asked for with, if it does.
    pub fn quiz_texts(&self) -> Option<&QuizTexts> {
        self.quiz_texts.as_ref()
    }

    /// The manifest's chat template, if it overrides the model's.
    pub fn chat_template_override(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

/// The path that a model is named by, if it is no name in the models folder.
fn named_path<'a>(spec: &'a str, models_dir: &Path) -> Option<&'a Path> {
    let is_known = manifest::is_plain_name(spec) && models_dir.join(spec).exists();
    Some(Path::new(spec)).filter(|path| path.exists() && !is_known)
}

/// Where a model's text side is read from.
pub enum TextSource<'a> {
    Gguf(&'a GgufMetadata),
    /// A Hugging Face folder: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json`.
    Folder(&'a Path),
}

/// The ONNX model that somebody exported, where there is nothing else to be read.
fn onnx_instead_of_weights(path: &Path) -> Option<PathBuf> {
    if path.extension().is_some_and(|extension| extension == "onnx") {
        return Some(path.to_owned());
    }
    let has = |file: &str| path.join(file).is_file();
    let exported =
        ["model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx"].into_iter().find(|file| has(file))?;
    let has_weights = has("model.safetensors") || has("model.safetensors.index.json");
    (!has_weights).then(|| path.join(exported))
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
    #[error(
        "{path} is an ONNX model that was exported elsewhere, and such are not run: mondai writes its own from the weights \
         it was made of, so model.safetensors with config.json, or a GGUF file, is missing"
    )]
    OnnxAlone { path: PathBuf },
    #[error("the model `{name}` is not downloaded ({path} is missing); run `mondai pull {name}`")]
    NotPulled { name: String, path: PathBuf },
    #[error("`{name}` is neither a GGUF file, a model folder nor a name in {models_dir} (known: {known})")]
    UnknownName { name: String, models_dir: PathBuf, known: String },
}

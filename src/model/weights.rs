//! The tensors of a model's files: named, checked against the file, and still on disk.

mod safetensors_files;

use super::{
    ModelError, TensorType,
    dequantise::dequantise,
    gguf::GgufFile,
    graph::Graph,
    mapped::MappedFile,
    weight_name::{Naming, Part, WeightName},
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
};

/// A tensor on disk: cheap to clone, decoded when asked.
#[derive(Clone)]
pub struct StoredTensor {
    file: MappedFile,
    /// As the file calls it.
    name: String,
    tensor_type: TensorType,
    /// Outermost dimension first; a row of the innermost is whole blocks.
    shape: Vec<usize>,
    range: Range<usize>,
}

impl StoredTensor {
    /// As the file calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The blocks as they lie in the file, row after row.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// All values, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        dequantise(self.tensor_type, self.bytes(), &mut values);
        values
    }

    /// Rows of the innermost dimension from `first` on, as many as `values` holds.
    ///
    /// # Panics
    /// If there are not that many, or `values` is not whole rows.
    pub fn read_rows(&self, first: usize, values: &mut [f32]) {
        let row_len = *self.shape.last().expect("a tensor has a dimension");
        assert!(values.len().is_multiple_of(row_len), "whole rows");
        let byte_len = |values: usize| values / self.tensor_type.block_len() * self.tensor_type.block_bytes();
        let bytes = &self.bytes()[byte_len(first * row_len)..][..byte_len(values.len())];
        dequantise(self.tensor_type, bytes, values);
    }
}

/// All tensors of a model's files.
pub(super) struct TensorFiles {
    /// The file or folder errors name.
    path: PathBuf,
    naming: Naming,
    tensors: BTreeMap<String, StoredTensor>,
}

impl TensorFiles {
    pub(super) fn from_gguf(gguf: &GgufFile) -> Self {
        let tensors = gguf.tensors.iter().map(|tensor| {
            let stored = StoredTensor {
                file: gguf.file.clone(),
                name: tensor.name.clone(),
                tensor_type: tensor.tensor_type,
                shape: tensor.shape.clone(),
                range: tensor.bytes.clone(),
            };
            (tensor.name.clone(), stored)
        });
        Self { path: gguf.file.path().to_path_buf(), naming: Naming::Gguf, tensors: tensors.collect() }
    }

    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    pub(super) fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let tensors = safetensors_files::open(folder)?;
        Ok(Self { path: folder.to_path_buf(), naming: Naming::HuggingFace, tensors })
    }

    pub(super) fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    pub(super) fn contains(&self, name: WeightName) -> bool {
        self.tensors.contains_key(&name.in_file(self.naming))
    }

    /// All tensors, sorted by the file's names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors.values()
    }

    /// The tensors of a graph's weights, in their order, with the shapes the graph expects.
    ///
    /// A tensor that the graph has no use for is an error too: the file means another computation.
    pub(super) fn resolve(&self, graph: &Graph) -> Result<Vec<StoredTensor>, ModelError> {
        let mut resolved = Vec::with_capacity(graph.weights().len());
        for weight in graph.weights() {
            let file_name = weight.name.in_file(self.naming);
            let Some(tensor) = self.tensors.get(&file_name) else {
                return Err(self.fault(&file_name, "is missing".to_owned()));
            };
            if tensor.shape != weight.shape {
                let (actual, expected) = (&tensor.shape, &weight.shape);
                return Err(self.fault(
                    &file_name,
                    format!("its shape is {actual:?}, the config asks for {expected:?}"),
                ));
            }
            resolved.push(tensor.clone());
        }
        let used: HashSet<&str> = resolved.iter().map(|tensor| tensor.name.as_str()).collect();
        match self.tensors.keys().find(|name| !used.contains(name.as_str()) && !self.may_be_unused(name)) {
            Some(name) => Err(self.fault(name, "the architecture has no such tensor".to_owned())),
            None => Ok(resolved),
        }
    }

    /// Tensors whose content is already known from the config, or from the embedding they repeat.
    fn may_be_unused(&self, name: &str) -> bool {
        let tied_head = WeightName { part: Part::Head, layer: None }.in_file(Naming::HuggingFace);
        match self.naming {
            Naming::Gguf => name == ROPE_FACTORS,
            Naming::HuggingFace => name == tied_head || name.ends_with(".rotary_emb.inv_freq"),
        }
    }

    fn fault(&self, tensor: &str, reason: String) -> ModelError {
        ModelError::Invalid { path: self.path.clone(), field: format!("tensor {tensor}"), reason }
    }
}

/// Divisors of the rotary frequencies, one for each pair; how GGUF writes Llama 3's rope scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

//! Opens the safetensors files of a Hugging Face folder.

use super::StoredTensor;
use crate::model::{ModelError, TensorType, json, manifest::is_plain_name, mapped::MappedFile};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Which shard holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn open(folder: &Path) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let index_path = folder.join(INDEX_FILE);
    if !index_path.is_file() {
        return open_file(&folder.join(SINGLE_FILE));
    }

    let invalid = |field: &str, reason: String| ModelError::Invalid {
        path: index_path.clone(),
        field: field.to_owned(),
        reason,
    };
    let index: Index = json::read(&index_path)?;
    let mut tensors = BTreeMap::new();
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    for shard in shards {
        if !is_plain_name(shard) {
            return Err(invalid("weight_map", format!("`{shard}` is not a plain file name")));
        }
        add_file(&mut tensors, &folder.join(shard))?;
    }
    for (name, shard) in &index.weight_map {
        if tensors.get(name).is_none_or(|tensor: &StoredTensor| tensor.path() != folder.join(shard)) {
            return Err(invalid(&format!("tensor {name}"), format!("`{shard}` does not hold it")));
        }
    }
    Ok(tensors)
}

pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let mut tensors = BTreeMap::new();
    add_file(&mut tensors, path)?;
    Ok(tensors)
}

/// The tensors of these names and shapes; what else the file holds is nobody's business.
pub(super) fn open_named(
    path: &Path,
    wanted: &[(String, Vec<usize>)],
) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let file = OneFile::open(path)?;
    let named = wanted.iter().map(|(name, shape)| {
        let info = file.metadata.info(name).ok_or_else(|| file.fault(name, "is missing".to_owned()))?;
        if info.shape != *shape {
            return Err(file.fault(name, format!("its shape is {:?}, not {shape:?}", info.shape)));
        }
        Ok((name.clone(), file.tensor(name, info)?))
    });
    named.collect()
}

fn add_file(tensors: &mut BTreeMap<String, StoredTensor>, path: &Path) -> Result<(), ModelError> {
    let file = OneFile::open(path)?;
    for (name, info) in file.metadata.tensors() {
        let stored = file.tensor(&name, info)?;
        if tensors.contains_key(&name) {
            return Err(file.fault(&name, "another file holds it too".to_owned()));
        }
        tensors.insert(name, stored);
    }
    Ok(())
}

/// A file and its header.
struct OneFile {
    file: MappedFile,
    metadata: Metadata,
    data_start: usize,
}

impl OneFile {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let file = MappedFile::open(path)?;
        // The crate checks that the header fits the file and that the tensors fill it without overlap.
        let (header_len, metadata) =
            SafeTensors::read_metadata(file.bytes()).map_err(|error| ModelError::Invalid {
                path: path.to_path_buf(),
                field: "header".to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self { file, metadata, data_start: size_of::<u64>() + header_len })
    }

    fn tensor(&self, name: &str, info: &TensorInfo) -> Result<StoredTensor, ModelError> {
        let tensor_type = match info.dtype {
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            other => {
                let reason = format!("its type {other:?} is not supported (supported: F32 F16 BF16)");
                return Err(self.fault(name, reason));
            }
        };
        let (start, end) = info.data_offsets;
        Ok(StoredTensor {
            file: self.file.clone(),
            name: name.to_owned(),
            tensor_type,
            shape: info.shape.clone(),
            range: self.data_start + start..self.data_start + end,
            updates: Vec::new(),
        })
    }

    fn fault(&self, tensor: &str, reason: String) -> ModelError {
        let (path, field) = (self.file.path().to_path_buf(), format!("tensor {tensor}"));
        ModelError::Invalid { path, field, reason }
    }
}

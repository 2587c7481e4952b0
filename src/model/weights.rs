//! The tensors of a model's files: named, checked against the file, and still on disk.

mod safetensors_files;

use super::{
    ModelError, TensorType,
    dequantise::dequantise,
    gguf::GgufFile,
    graph::Graph,
    mapped::MappedFile,
    quantise::q8_0,
    weight_name::{Naming, Part, WeightName},
};
use rayon::prelude::*;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A tensor on disk: cheap to clone, decoded when asked.
///
/// What adapters add to it is merged in when it is read. A merged tensor is `f32`: in the base's few bits
/// it would lose what the adapter learnt. A backend that computes with integers asks for its
/// [blocks](StoredTensor::blocks).
#[derive(Clone)]
pub struct StoredTensor {
    file: MappedFile,
    /// As the file calls it.
    name: String,
    tensor_type: TensorType,
    /// Outermost dimension first; a row of the innermost is whole blocks.
    shape: Vec<usize>,
    range: Range<usize>,
    updates: Vec<Update>,
}

/// What an adapter adds to a matrix: `b · a`, in `f32`.
#[derive(Clone)]
pub(super) struct Update {
    /// `[rank, columns]`
    a: Arc<[f32]>,
    /// `[rows, rank]`, the adapter's scale included.
    b: Arc<[f32]>,
}

impl Update {
    pub(super) fn new(a: Arc<[f32]>, b: Arc<[f32]>) -> Self {
        Self { a, b }
    }

    /// Adds its part to whole rows of the matrix, from `first` on.
    fn add_to(&self, first: usize, columns: usize, values: &mut [f32]) {
        let rank = self.a.len() / columns;
        let addition = Addition { a: &self.a, coefficients: &self.b[first * rank..], rank, columns, values };
        pulp::Arch::new().dispatch(addition);
    }
}

/// Rows of an [`Update`] to be added, in registers as wide as there are. A product and a sum stay two
/// roundings, so that every machine merges the same weights.
struct Addition<'a> {
    a: &'a [f32],
    /// Those of the rows.
    coefficients: &'a [f32],
    rank: usize,
    columns: usize,
    values: &'a mut [f32],
}

/// Values whose sums stay in registers from the first product to the last.
const TILE: usize = 32;

impl pulp::WithSimd for Addition<'_> {
    type Output = ();

    // Inlined, as all it calls has to be, to be compiled once for each kind of registers.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { a, coefficients, rank, columns, values } = self;
        let whole = columns / TILE * TILE;
        // What all rows want of `a` stays in the core's cache: a tile at a time.
        for start in (0..whole).step_by(TILE) {
            for (row, coefficients) in values.chunks_exact_mut(columns).zip(coefficients.chunks_exact(rank)) {
                let tile = row[start..].first_chunk_mut::<TILE>().expect("a whole tile");
                let mut sums = *tile;
                for (coefficient, a) in coefficients.iter().zip(a.chunks_exact(columns)) {
                    let a = a[start..].first_chunk::<TILE>().expect("a whole tile");
                    for idx in 0..TILE {
                        sums[idx] += coefficient * a[idx];
                    }
                }
                *tile = sums;
            }
        }
        for (row, coefficients) in values.chunks_exact_mut(columns).zip(coefficients.chunks_exact(rank)) {
            for (coefficient, a) in coefficients.iter().zip(a.chunks_exact(columns)) {
                for (value, a) in row[whole..].iter_mut().zip(&a[whole..]) {
                    *value += coefficient * a;
                }
            }
        }
    }
}

/// Values that one task of the thread pool decodes: enough to hide the cost of a task, few enough to be in its
/// core's cache for what is done to them next.
const VALUES_PER_TASK: usize = 1 << 14;

impl StoredTensor {
    /// The tensors of a safetensors file that have these names and shapes, by name.
    ///
    /// # Errors
    /// Names the file and what of it cannot be used: one is missing, say, or of another shape.
    pub fn open_named(
        safetensors: &Path,
        wanted: &[(String, Vec<usize>)],
    ) -> Result<BTreeMap<String, Self>, ModelError> {
        safetensors_files::open_named(safetensors, wanted)
    }

    /// As the file calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// F32 if an adapter is merged into it.
    pub fn tensor_type(&self) -> TensorType {
        if self.updates.is_empty() { self.tensor_type } else { TensorType::F32 }
    }

    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The blocks of its type, row after row: as they lie in the file, unless an adapter is merged in.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        if self.updates.is_empty() {
            return Cow::Borrowed(self.bytes_in_file());
        }
        Cow::Owned(self.to_f32().into_iter().flat_map(f32::to_le_bytes).collect())
    }

    /// How many bytes its blocks are.
    pub fn byte_len(&self) -> usize {
        self.elements() / self.tensor_type().block_len() * self.tensor_type().block_bytes()
    }

    /// The type of [`StoredTensor::blocks`]; `None` if its numbers are floats in the file.
    pub fn block_type(&self) -> Option<TensorType> {
        let is_blocks = self.tensor_type.block_len() > 1;
        is_blocks.then_some(if self.updates.is_empty() { self.tensor_type } else { TensorType::Q8_0 })
    }

    /// Quants with their scales, row after row: as they lie in the file, or of Q8_0 if an adapter is merged
    /// in, since eight bits keep what it learnt.
    ///
    /// # Panics
    /// If there is no [`StoredTensor::block_type`].
    pub fn blocks(&self) -> Cow<'_, [u8]> {
        assert!(self.block_type().is_some(), "`{}` holds floats", self.name);
        match self.updates.is_empty() {
            true => Cow::Borrowed(self.bytes_in_file()),
            false => Cow::Owned(self.merged_blocks()),
        }
    }

    fn merged_blocks(&self) -> Vec<u8> {
        let (row_len, rows) = (self.row_len(), self.rows_per_task());
        let row_bytes = row_len / TensorType::Q8_0.block_len() * TensorType::Q8_0.block_bytes();
        let mut blocks = vec![0; self.elements() / row_len * row_bytes];
        let of_rows = blocks.par_chunks_mut(rows * row_bytes).enumerate();
        of_rows.for_each_init(
            || vec![0.0; rows * row_len],
            |values, (idx, blocks)| {
                let values = &mut values[..blocks.len() / row_bytes * row_len];
                self.decode_rows(idx * rows, values);
                q8_0(values, blocks);
            },
        );
        blocks
    }

    fn bytes_in_file(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// Gives back the memory that reading it took. It can be read again, from the file.
    pub fn let_go(&self) {
        self.file.let_go(self.range.clone());
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// All values, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        self.read_rows(0, &mut values);
        values
    }

    /// Rows of the innermost dimension from `first` on, as many as `values` holds.
    ///
    /// # Panics
    /// If there are not that many, or `values` is not whole rows.
    pub fn read_rows(&self, first: usize, values: &mut [f32]) {
        let (row_len, rows) = (self.row_len(), self.rows_per_task());
        if values.len() <= rows * row_len {
            // A row of an embedding, in every step: no thread is woken for it.
            return self.decode_rows(first, values);
        }
        let of_rows = values.par_chunks_mut(rows * row_len).enumerate();
        of_rows.for_each(|(idx, values)| self.decode_rows(first + idx * rows, values));
    }

    fn decode_rows(&self, first: usize, values: &mut [f32]) {
        let row_len = self.row_len();
        assert!(values.len().is_multiple_of(row_len), "whole rows");
        let byte_len = |values: usize| values / self.tensor_type.block_len() * self.tensor_type.block_bytes();
        let bytes = &self.bytes_in_file()[byte_len(first * row_len)..][..byte_len(values.len())];
        dequantise(self.tensor_type, bytes, values);
        for update in &self.updates {
            update.add_to(first, row_len, values);
        }
    }

    fn row_len(&self) -> usize {
        *self.shape.last().expect("a tensor has a dimension")
    }

    fn rows_per_task(&self) -> usize {
        (VALUES_PER_TASK / self.row_len().max(1)).max(1)
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
                updates: Vec::new(),
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

    /// Opens one safetensors file.
    pub(super) fn from_safetensors(path: &Path) -> Result<Self, ModelError> {
        let tensors = safetensors_files::open_file(path)?;
        Ok(Self { path: path.to_path_buf(), naming: Naming::HuggingFace, tensors })
    }

    /// Merges what an adapter adds into a weight of the model.
    pub(super) fn merge(&mut self, name: WeightName, update: Update) {
        let tensor = self.tensors.get_mut(&name.in_file(self.naming));
        tensor.expect("the graph's weights are resolved").updates.push(update);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quantise::q8_0;

    const ROWS: usize = 401;
    const RANK: usize = 3;

    fn numbers(len: usize, step: usize) -> Vec<f32> {
        (0..len).map(|idx| ((idx * step) % 255) as f32 / 100.0 - 1.27).collect()
    }

    /// A tensor of that many columns in a file of its own, with an adapter, and what it is with that. It is more values
    /// than a task takes, the last task of fewer rows.
    fn merged(tensor_type: TensorType, columns: usize, bytes: &[u8]) -> (StoredTensor, Vec<f32>) {
        let (a, b) = (numbers(RANK * columns, 11), numbers(ROWS * RANK, 13));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut tensor = StoredTensor {
            file: MappedFile::open(file.path()).unwrap(),
            name: "weight".to_owned(),
            tensor_type,
            shape: vec![ROWS, columns],
            range: 0..bytes.len(),
            updates: Vec::new(),
        };
        let mut expected = tensor.to_f32();
        for (row, values) in expected.chunks_exact_mut(columns).enumerate() {
            for rank in 0..RANK {
                for (value, a) in values.iter_mut().zip(&a[rank * columns..]) {
                    *value += b[row * RANK + rank] * a;
                }
            }
        }
        tensor.updates.push(Update::new(a.into(), b.into()));
        (tensor, expected)
    }

    #[test]
    fn merged_rows_are_the_whole_at_once() {
        const COLUMNS: usize = 96;
        let mut blocks = vec![0; ROWS * COLUMNS / 32 * 34];
        q8_0(&numbers(ROWS * COLUMNS, 7), &mut blocks);
        let (tensor, expected) = merged(TensorType::Q8_0, COLUMNS, &blocks);
        assert_eq!(tensor.to_f32(), expected);
        q8_0(&expected, &mut blocks);
        assert_eq!(*tensor.blocks(), blocks);
        tensor.let_go();
        assert_eq!(*tensor.blocks(), blocks);
    }

    #[test]
    fn columns_that_are_no_whole_tiles_are_merged() {
        const COLUMNS: usize = 100;
        let bytes: Vec<u8> = numbers(ROWS * COLUMNS, 7).into_iter().flat_map(f32::to_le_bytes).collect();
        let (tensor, expected) = merged(TensorType::F32, COLUMNS, &bytes);
        assert_eq!(tensor.to_f32(), expected);
    }
}

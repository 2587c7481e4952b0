//! Reads the header of a GGUF file: metadata, and where each tensor lies.
//!
//! A file may come from anywhere, so nothing in it is believed before it is checked against the
//! file's own size: counts and lengths before memory is asked for, offsets before a byte is read.
//!
//! Source: ggml/docs/gguf.md, versions 2 and 3, little-endian.

use super::{ModelError, TensorType, mapped::MappedFile, tensor_type::unsupported_gguf_type_name};
use std::{collections::HashSet, fmt::Display, ops::Range, path::Path};

/// The metadata of a GGUF file: key-value pairs in file order.
#[derive(Debug)]
pub struct GgufMetadata {
    entries: Vec<(String, MetadataValue)>,
}

/// One metadata value; integers of every width are widened.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Vec<MetadataValue>),
}

impl GgufMetadata {
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// All pairs, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Reads only the header of a file.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Ok(GgufFile::open(path)?.metadata)
    }
}

impl MetadataValue {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// A whole number that is not negative, whatever width it was stored in.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[MetadataValue]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// An open GGUF file whose header has been checked.
pub(super) struct GgufFile {
    pub(super) file: MappedFile,
    pub(super) metadata: GgufMetadata,
    pub(super) tensors: Vec<GgufTensor>,
}

/// Where a tensor lies in the file.
#[derive(Clone, Debug)]
pub(super) struct GgufTensor {
    pub(super) name: String,
    /// Outermost dimension first (GGUF writes the innermost first).
    pub(super) shape: Vec<usize>,
    pub(super) tensor_type: TensorType,
    pub(super) bytes: Range<usize>,
}

impl GgufFile {
    /// # Errors
    /// [`ModelError::Invalid`] names the header field, metadata key or tensor that is wrong.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = MappedFile::open(path)?;
        let (metadata, tensors) = read_header(file.bytes()).map_err(|Fault { field, reason }| {
            ModelError::Invalid { path: path.to_path_buf(), field, reason }
        })?;
        Ok(Self { file, metadata, tensors })
    }
}

const DEFAULT_ALIGNMENT: u64 = 32;
/// As GGML_MAX_DIMS, ggml.h.
const MAX_DIMENSIONS: u32 = 4;
/// Real files do not nest arrays at all.
const MAX_ARRAY_DEPTH: usize = 4;
/// Bounds the memory of the decoded metadata, whose values are larger than their bytes in the file:
/// some 128 MiB. A vocabulary of 256k entries takes about 1.3 million values.
const MAX_VALUES: usize = 4 << 20;

/// What is wrong with which field; the caller knows the file.
#[derive(Debug)]
struct Fault {
    field: String,
    reason: String,
}

type Checked<T> = Result<T, String>;

/// Names the field a reading failed at.
trait InField<T> {
    fn in_field(self, field: impl Display) -> Result<T, Fault>;
}

impl<T> InField<T> for Checked<T> {
    fn in_field(self, field: impl Display) -> Result<T, Fault> {
        self.map_err(|reason| Fault { field: field.to_string(), reason })
    }
}

fn read_header(bytes: &[u8]) -> Result<(GgufMetadata, Vec<GgufTensor>), Fault> {
    let mut reader = Reader { bytes, at: 0, values_left: MAX_VALUES };
    reader.magic_and_version().in_field("header")?;
    let tensor_count = reader.count(MIN_TENSOR_INFO_BYTES).in_field("tensor count")?;
    let entry_count = reader.count(MIN_ENTRY_BYTES).in_field("metadata count")?;

    let mut entries = Vec::with_capacity(entry_count);
    let mut keys = HashSet::with_capacity(entry_count);
    for idx in 0..entry_count {
        let key = reader.string().in_field(format_args!("metadata key {idx}"))?;
        let value = reader.tagged_value().in_field(&key)?;
        if !keys.insert(key.clone()) {
            return Err("appears twice".to_owned()).in_field(key);
        }
        entries.push((key, value));
    }
    let metadata = GgufMetadata { entries };
    let alignment = alignment(&metadata).in_field("general.alignment")?;

    let mut infos = Vec::with_capacity(tensor_count);
    let mut names = HashSet::with_capacity(tensor_count);
    for idx in 0..tensor_count {
        let name = reader.string().in_field(format_args!("tensor {idx}: name"))?;
        let info = reader.tensor_info().in_field(format_args!("tensor {name}"))?;
        if !names.insert(name.clone()) {
            return Err("appears twice".to_owned()).in_field(format_args!("tensor {name}"));
        }
        infos.push((name, info));
    }
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    let tensors = place_tensors(infos, data_start, alignment, bytes.len() as u64)?;
    Ok((metadata, tensors))
}

fn alignment(metadata: &GgufMetadata) -> Checked<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value.as_u64() {
        Some(value) if value.is_power_of_two() && (8..=1 << 20).contains(&value) => Ok(value),
        _ => Err(format!("{value:?} is not a power of two between 8 and 1 MiB")),
    }
}

/// Turns offsets into byte ranges that lie in the file and share no byte.
fn place_tensors(
    infos: Vec<(String, TensorInfo)>,
    data_start: u64,
    alignment: u64,
    file_len: u64,
) -> Result<Vec<GgufTensor>, Fault> {
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, TensorInfo { shape, tensor_type, byte_len, offset }) in infos {
        let fault = |reason| Err(Fault { field: format!("tensor {name}"), reason });
        if !offset.is_multiple_of(alignment) {
            return fault(format!("its offset {offset} is not a multiple of the alignment {alignment}"));
        }
        let start = data_start.checked_add(offset);
        let Some((start, end)) = start
            .and_then(|start| Some((start, start.checked_add(byte_len)?)))
            .filter(|&(_, end)| end <= file_len)
        else {
            return fault(format!(
                "{byte_len} bytes at offset {offset} of the data, which starts at {data_start}, \
                 run past the end of the file ({file_len} bytes)"
            ));
        };
        // Both fit `usize`: the file of that length is mapped.
        tensors.push(GgufTensor { name, shape, tensor_type, bytes: start as usize..end as usize });
    }

    let mut by_start: Vec<&GgufTensor> = tensors.iter().collect();
    by_start.sort_by_key(|tensor| tensor.bytes.start);
    for pair in by_start.windows(2) {
        if pair[1].bytes.start < pair[0].bytes.end {
            let reason = format!("overlaps tensor {}", pair[0].name);
            return Err(reason).in_field(format_args!("tensor {}", pair[1].name));
        }
    }
    Ok(tensors)
}

/// A key's length, a type, a one-byte value.
const MIN_ENTRY_BYTES: usize = 8 + 4 + 1;
/// A name's length, the dimension count, one dimension, a type, an offset.
const MIN_TENSOR_INFO_BYTES: usize = 8 + 4 + 8 + 4 + 8;

struct TensorInfo {
    shape: Vec<usize>,
    tensor_type: TensorType,
    byte_len: u64,
    offset: u64,
}

/// Reads little-endian values from the front of a file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more metadata values may be read.
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Checked<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let taken = left.get(..len).ok_or_else(|| {
            format!("{len} bytes at {} run past the end of the file ({})", self.at, self.bytes.len())
        })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("`take` returns as many bytes as asked for"))
    }

    fn u32(&mut self) -> Checked<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Checked<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `min_bytes` each in what is left of the file.
    fn count(&mut self, min_bytes: usize) -> Checked<usize> {
        let count = self.u64()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= left / min_bytes => Ok(count),
            _ => Err(format!("{count} cannot fit the {left} bytes left in the file")),
        }
    }

    fn magic_and_version(&mut self) -> Checked<()> {
        if self.take(4)? != b"GGUF" {
            return Err("not a GGUF file (its first four bytes are not `GGUF`)".to_owned());
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            version if (1..=3).contains(&version.swap_bytes()) => {
                Err("big-endian GGUF files are not supported".to_owned())
            }
            version => Err(format!("GGUF version {version} is not supported (2 and 3 are)")),
        }
    }

    fn string(&mut self) -> Checked<String> {
        let len = self.count(1)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| format!("not valid UTF-8: {error}"))
    }

    fn tagged_value(&mut self) -> Checked<MetadataValue> {
        let value_type = self.u32()?;
        self.value(value_type, 0)
    }

    fn value(&mut self, value_type: u32, depth: usize) -> Checked<MetadataValue> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or_else(|| format!("the metadata has more than {MAX_VALUES} values"))?;
        Ok(match value_type {
            UINT8 => MetadataValue::Unsigned(u8::from_le_bytes(self.array()?).into()),
            INT8 => MetadataValue::Signed(i8::from_le_bytes(self.array()?).into()),
            UINT16 => MetadataValue::Unsigned(u16::from_le_bytes(self.array()?).into()),
            INT16 => MetadataValue::Signed(i16::from_le_bytes(self.array()?).into()),
            UINT32 => MetadataValue::Unsigned(self.u32()?.into()),
            INT32 => MetadataValue::Signed(i32::from_le_bytes(self.array()?).into()),
            FLOAT32 => MetadataValue::Float(f32::from_le_bytes(self.array()?).into()),
            BOOL => match self.take(1)?[0] {
                0 => MetadataValue::Bool(false),
                1 => MetadataValue::Bool(true),
                byte => return Err(format!("{byte} is not a bool")),
            },
            STRING => MetadataValue::String(self.string()?),
            ARRAY => self.value_array(depth)?,
            UINT64 => MetadataValue::Unsigned(self.u64()?),
            INT64 => MetadataValue::Signed(i64::from_le_bytes(self.array()?)),
            FLOAT64 => MetadataValue::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("{value_type} is not a metadata value type")),
        })
    }

    fn value_array(&mut self, depth: usize) -> Checked<MetadataValue> {
        if depth == MAX_ARRAY_DEPTH {
            return Err(format!("arrays are nested more than {MAX_ARRAY_DEPTH} deep"));
        }
        let element_type = self.u32()?;
        let min_bytes = match element_type {
            UINT8 | INT8 | BOOL => 1,
            UINT16 | INT16 => 2,
            UINT32 | INT32 | FLOAT32 => 4,
            UINT64 | INT64 | FLOAT64 | STRING => 8,
            ARRAY => 4 + 8,
            _ => return Err(format!("{element_type} is not a metadata value type")),
        };
        let len = self.count(min_bytes)?;
        if len > self.values_left {
            return Err(format!("an array of {len} takes the metadata past {MAX_VALUES} values"));
        }
        let mut values = Vec::with_capacity(len);
        for _ in 0..len {
            values.push(self.value(element_type, depth + 1)?);
        }
        Ok(MetadataValue::Array(values))
    }

    /// Everything of a tensor's entry but its name.
    fn tensor_info(&mut self) -> Checked<TensorInfo> {
        let dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(format!("{dimensions} dimensions (1 to {MAX_DIMENSIONS} are supported)"));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut elements = 1usize;
        for _ in 0..dimensions {
            let dimension =
                usize::try_from(self.u64()?).map_err(|_| "a dimension is too large".to_owned())?;
            elements = elements.checked_mul(dimension).ok_or("its shape is too large")?;
            shape.push(dimension);
        }
        if elements == 0 {
            return Err(format!("a dimension of {shape:?} is zero"));
        }
        let type_id = self.u32()?;
        let tensor_type = TensorType::from_gguf(type_id).ok_or_else(|| {
            let name = unsupported_gguf_type_name(type_id).map_or(format!("{type_id}"), str::to_owned);
            let supported = TensorType::ALL.map(TensorType::name).join(" ");
            format!("its type {name} is not supported (supported: {supported})")
        })?;
        let row_len = shape[0];
        if !row_len.is_multiple_of(tensor_type.block_len()) {
            let block_len = tensor_type.block_len();
            return Err(format!("its rows of {row_len} are not whole {tensor_type} blocks of {block_len}"));
        }
        let byte_len = tensor_type.byte_len(elements).ok_or("its size is too large")? as u64;
        let offset = self.u64()?;
        shape.reverse();
        Ok(TensorInfo { shape, tensor_type, byte_len, offset })
    }
}

// `gguf_metadata_value_type` of the specification.
const UINT8: u32 = 0;
const INT8: u32 = 1;
const UINT16: u32 = 2;
const INT16: u32 = 3;
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const UINT64: u32 = 10;
const INT64: u32 = 11;
const FLOAT64: u32 = 12;

#[cfg(test)]
mod tests;

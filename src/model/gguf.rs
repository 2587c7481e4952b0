use super::ModelError;
use std::path::Path;

/// The metadata of a GGUF file: key-value pairs in file order.
pub struct GgufMetadata {}

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
    pub fn get(&self, _key: &str) -> Option<&MetadataValue> {
        todo!()
    }

    /// Reads only the header of a file.
    pub fn read(_path: &Path) -> Result<Self, ModelError> {
        todo!()
    }
}

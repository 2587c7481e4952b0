//! What an ONNX model is, read from its file: for `mondai inspect`, whoever wrote it.
//!
//! Numbers are the fields' of onnx/onnx.proto. Absent: the weights' own numbers.

use crate::backend::protobuf::{Field, Fields, Malformed};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Description {
    pub name: String,
    /// Who wrote it, and which version of that.
    pub producer: String,
    pub ir_version: u64,
    /// The sets of operators by domain; ONNX's own has no name.
    pub opsets: BTreeMap<String, u64>,
    pub inputs: Vec<ValueDescription>,
    pub outputs: Vec<ValueDescription>,
    /// How many nodes there are of each operator.
    pub operators: BTreeMap<String, usize>,
    pub initializers: usize,
    /// Of initializers, in the model and in files beside it.
    pub inline_bytes: u64,
    pub external_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ValueDescription {
    pub name: String,
    /// As ONNX tools write it.
    pub element: &'static str,
    /// Sizes, and names of those that are a step's.
    pub shape: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not an ONNX model: {reason}")]
    Invalid { path: PathBuf, reason: String },
}

impl Description {
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, DescribeError> {
        let path = path.to_owned();
        match fs::read(&path) {
            Err(source) => Err(DescribeError::Read { path, source }),
            Ok(bytes) => Self::parse(&bytes)
                .map_err(|Malformed| DescribeError::Invalid { path, reason: Malformed.to_string() }),
        }
    }

    fn parse(model: &[u8]) -> Result<Self, Malformed> {
        let mut description = Self::default();
        let mut has_graph = false;
        for field in Fields::new(model) {
            match field? {
                (1, Field::Varint(version)) => description.ir_version = version,
                (2 | 3, Field::Bytes(producer)) => {
                    let space = if description.producer.is_empty() { "" } else { " " };
                    description.producer += &format!("{space}{}", text(producer));
                }
                (7, Field::Bytes(graph)) => {
                    has_graph = true;
                    description.read_graph(graph)?;
                }
                (8, Field::Bytes(opset)) => {
                    let (mut domain, mut version) = (String::new(), 0);
                    for field in Fields::new(opset) {
                        match field? {
                            (1, Field::Bytes(name)) => domain = text(name),
                            (2, Field::Varint(number)) => version = number,
                            _ => {}
                        }
                    }
                    description.opsets.insert(domain, version);
                }
                _ => {}
            }
        }
        if has_graph { Ok(description) } else { Err(Malformed) }
    }

    fn read_graph(&mut self, graph: &[u8]) -> Result<(), Malformed> {
        for field in Fields::new(graph) {
            match field? {
                (1, Field::Bytes(node)) => {
                    let (mut operator, mut domain) = (String::new(), String::new());
                    for field in Fields::new(node) {
                        match field? {
                            (4, Field::Bytes(name)) => operator = text(name),
                            (7, Field::Bytes(name)) if !name.is_empty() => domain = text(name) + ".",
                            _ => {}
                        }
                    }
                    *self.operators.entry(domain + &operator).or_default() += 1;
                }
                (2, Field::Bytes(name)) => self.name = text(name),
                (5, Field::Bytes(tensor)) => self.read_initializer(tensor)?,
                (11, Field::Bytes(value)) => self.inputs.push(ValueDescription::parse(value)?),
                (12, Field::Bytes(value)) => self.outputs.push(ValueDescription::parse(value)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_initializer(&mut self, tensor: &[u8]) -> Result<(), Malformed> {
        self.initializers += 1;
        for field in Fields::new(tensor) {
            match field? {
                // float_data, int32_data, string_data, int64_data, raw_data, double_data and uint64_data.
                (4..=7 | 9..=11, Field::Bytes(data)) => self.inline_bytes += data.len() as u64,
                (13, Field::Bytes(entry)) => {
                    let (mut is_length, mut value) = (false, String::new());
                    for field in Fields::new(entry) {
                        match field? {
                            (1, Field::Bytes(key)) => is_length = key == b"length",
                            (2, Field::Bytes(number)) => value = text(number),
                            _ => {}
                        }
                    }
                    if is_length {
                        let length = value.parse().map_err(|_| Malformed)?;
                        self.external_bytes = self.external_bytes.saturating_add(length);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl ValueDescription {
    fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let mut description = Self { element: "?", ..Self::default() };
        for field in Fields::new(value) {
            match field? {
                (1, Field::Bytes(name)) => description.name = text(name),
                (2, Field::Bytes(type_proto)) => {
                    for field in Fields::new(type_proto) {
                        if let (1, Field::Bytes(tensor)) = field? {
                            description.read_tensor_type(tensor)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(description)
    }

    fn read_tensor_type(&mut self, tensor: &[u8]) -> Result<(), Malformed> {
        for field in Fields::new(tensor) {
            match field? {
                (1, Field::Varint(element)) => self.element = element_name(element),
                (2, Field::Bytes(shape)) => {
                    for dimension in Fields::new(shape) {
                        if let (1, Field::Bytes(dimension)) = dimension? {
                            // One that says nothing may be of any size.
                            let mut size = "?".to_owned();
                            for field in Fields::new(dimension) {
                                match field? {
                                    (1, Field::Varint(number)) => size = number.to_string(),
                                    (2, Field::Bytes(name)) => size = text(name),
                                    _ => {}
                                }
                            }
                            self.shape.push(size);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Source: `TensorProto.DataType`, onnx.proto.
fn element_name(element: u64) -> &'static str {
    match element {
        1 => "float",
        2 => "uint8",
        3 => "int8",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        10 => "float16",
        11 => "double",
        16 => "bfloat16",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ort::onnx::{Form, Runner, lower};
    use crate::model::Model;

    fn bytes() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/gguf-Q4_1.gguf");
        let model = Model::open(path, Path::new("models")).unwrap();
        let runner = Runner::Elsewhere { context_len: 64 };
        lower(&model, Form::Fast, runner, io::sink()).unwrap().to_bytes("weights")
    }

    #[test]
    fn what_is_written_is_described() {
        let description = Description::parse(&bytes()).unwrap();
        assert!(description.producer.starts_with("mondai "), "{}", description.producer);
        assert_eq!(description.opsets, [(String::new(), 17), ("com.microsoft".to_owned(), 1)].into());
        assert!(description.operators["com.microsoft.MatMulNBits"] > 3);
        assert_eq!(description.inputs[0].name, "tokens");
        assert_eq!(
            (description.inputs[0].element, &*description.inputs[0].shape),
            ("int64", &["T".to_owned()][..])
        );
        assert!(description.external_bytes > description.inline_bytes && description.inline_bytes > 0);
    }

    #[test]
    fn cut_and_flipped_models_do_no_harm() {
        let bytes = bytes();
        for len in (0..bytes.len()).step_by(37) {
            let _ = Description::parse(&bytes[..len]);
        }
        for at in (0..bytes.len()).step_by(13) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x80;
            let _ = Description::parse(&flipped);
        }
        assert_eq!(Description::parse(b""), Err(Malformed));
        assert_eq!(Description::parse(b"GGUF, or near enough"), Err(Malformed));
    }
}

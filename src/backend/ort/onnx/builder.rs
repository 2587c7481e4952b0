//! Writes a model node by node, and its weights to a file as they come.

use super::model::{
    Attribute, Data, Dimension, ElementType, Initializer, Model, Node, Operator, Operator::Standard,
    ValueInfo,
};
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// Constants up to this size stand in the model itself, where ONNX Runtime can reason with them.
const MAX_INLINE_BYTES: usize = 1024;
/// Where external data begins: what the format asks for, so that it can be mapped into memory.
const ALIGNMENT: u64 = 4096;

pub(super) struct Builder<W> {
    model: Model,
    /// Shapes and indices that were asked for before.
    constants: HashMap<Vec<i64>, String>,
    /// Values that were asked for before, by operator and inputs.
    values: HashMap<(&'static str, Vec<String>), String>,
    weights: W,
    /// Bytes written to `weights`.
    written: u64,
}

impl<W: Write> Builder<W> {
    pub(super) fn new(name: String, weights: W) -> Self {
        let model = Model {
            name,
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            initializers: Vec::new(),
        };
        Self { model, constants: HashMap::new(), values: HashMap::new(), weights, written: 0 }
    }

    pub(super) fn finish(mut self) -> io::Result<Model> {
        self.weights.flush()?;
        Ok(self.model)
    }

    pub(super) fn input(&mut self, name: &str, element: ElementType, shape: &[Dimension]) -> String {
        self.model.inputs.push(ValueInfo { name: name.to_owned(), element, shape: shape.to_vec() });
        name.to_owned()
    }

    /// Makes a node's value an output of the graph, under the name it has.
    pub(super) fn output(&mut self, name: &str, shape: &[Dimension]) {
        let shape = shape.to_vec();
        self.model.outputs.push(ValueInfo { name: name.to_owned(), element: ElementType::F32, shape });
    }

    /// A standard operator with one output.
    pub(super) fn call(&mut self, operator: &'static str, inputs: &[&str]) -> String {
        self.call_with(operator, inputs, Vec::new())
    }

    pub(super) fn call_with(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let name = self.fresh(operator);
        self.node(Standard(operator), inputs, &[&name], attributes);
        name
    }

    /// A standard operator with one output, written once however often it is asked for.
    pub(super) fn once(&mut self, operator: &'static str, inputs: &[&str]) -> String {
        let key = (operator, inputs.iter().map(|&name| name.to_owned()).collect());
        if let Some(value) = self.values.get(&key) {
            return value.clone();
        }
        let value = self.call(operator, inputs);
        self.values.insert(key, value.clone());
        value
    }

    /// A name for a value that no other has.
    pub(super) fn fresh(&self, operator: &str) -> String {
        format!("{operator}_{}", self.model.nodes.len())
    }

    pub(super) fn node(
        &mut self,
        operator: Operator,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.model.nodes.push(Node { operator, inputs: owned(inputs), outputs: owned(outputs), attributes });
    }

    /// `-1` is whatever is left, `0` as it was.
    pub(super) fn reshape(&mut self, input: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.call("Reshape", &[input, &shape])
    }

    pub(super) fn transpose(&mut self, input: &str, permutation: &[i64]) -> String {
        self.call_with("Transpose", &[input], vec![("perm", Attribute::Integers(permutation.to_vec()))])
    }

    /// A vector of shape or index numbers.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.constants.get(values) {
            return name.clone();
        }
        let name = format!("integers_{}", self.constants.len());
        self.constants.insert(values.to_vec(), name.clone());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.inline(&name, ElementType::I64, vec![values.len()], bytes);
        name
    }

    /// A scalar.
    pub(super) fn scalar(&mut self, name: &str, value: f32) -> String {
        if self.model.initializers.iter().all(|initializer| initializer.name != name) {
            self.inline(name, ElementType::F32, Vec::new(), value.to_le_bytes().to_vec());
        }
        name.to_owned()
    }

    fn inline(&mut self, name: &str, element: ElementType, shape: Vec<usize>, bytes: Vec<u8>) {
        let data = Data::Inline(bytes);
        self.model.initializers.push(Initializer { name: name.to_owned(), element, shape, data });
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> io::Result<String> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, ElementType::F32, shape, &bytes)
    }

    /// A constant tensor; one of that name is written once.
    ///
    /// # Errors
    /// The weights file cannot be written.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        element: ElementType,
        shape: &[usize],
        bytes: &[u8],
    ) -> io::Result<String> {
        debug_assert_eq!(bytes.len(), shape.iter().product::<usize>() * element.size(), "{name}");
        if bytes.len() <= MAX_INLINE_BYTES {
            self.inline(name, element, shape.to_vec(), bytes.to_vec());
            return Ok(name.to_owned());
        }
        let offset = self.written.next_multiple_of(ALIGNMENT);
        let padding = [0; ALIGNMENT as usize];
        self.weights.write_all(&padding[..(offset - self.written) as usize])?;
        self.weights.write_all(bytes)?;
        let len = bytes.len() as u64;
        self.written = offset + len;
        let data = Data::External { offset, len };
        self.model.initializers.push(Initializer {
            name: name.to_owned(),
            element,
            shape: shape.to_vec(),
            data,
        });
        Ok(name.to_owned())
    }

    pub(super) fn has_initializer(&self, name: &str) -> bool {
        self.model.initializers.iter().any(|initializer| initializer.name == name)
    }
}

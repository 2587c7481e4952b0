//! A model as the bytes of a `ModelProto`.
//!
//! Numbers are the fields' of onnx/onnx.proto. The same model is always the same bytes.

use super::lower::own;
use super::model::{
    Attribute, CONTRIB_DOMAIN, Data, Dimension, IR_VERSION, Initializer, Model, Node, OPSET, ValueInfo,
};
use crate::backend::protobuf::Message;

impl Model {
    /// The serialised `ModelProto`; `weights_file` is the name, in the model's own folder, of the file that
    /// external data is in.
    pub fn to_bytes(&self, weights_file: &str) -> Vec<u8> {
        let mut proto = Message::default();
        proto.integer(1, IR_VERSION);
        proto.text(2, env!("CARGO_PKG_NAME"));
        proto.text(3, env!("CARGO_PKG_VERSION"));
        proto.message(7, |graph| self.write_graph(graph, weights_file));
        proto.message(8, |opset| opset.integer(2, OPSET));
        for domain in [CONTRIB_DOMAIN, own::DOMAIN] {
            if self.nodes.iter().any(|node| node.operator.domain() == domain) {
                proto.message(8, |opset| {
                    opset.text(1, domain);
                    opset.integer(2, 1);
                });
            }
        }
        proto.into_bytes()
    }

    fn write_graph(&self, graph: &mut Message, weights_file: &str) {
        for node in &self.nodes {
            graph.message(1, |proto| write_node(proto, node));
        }
        graph.text(2, &self.name);
        for initializer in &self.initializers {
            graph.message(5, |proto| write_initializer(proto, initializer, weights_file));
        }
        for input in &self.inputs {
            graph.message(11, |proto| write_value_info(proto, input));
        }
        for output in &self.outputs {
            graph.message(12, |proto| write_value_info(proto, output));
        }
    }
}

fn write_node(proto: &mut Message, node: &Node) {
    node.inputs.iter().for_each(|input| proto.item(1, input));
    node.outputs.iter().for_each(|output| proto.item(2, output));
    // Unique, as every value has one node.
    proto.text(3, &node.outputs[0]);
    proto.text(4, node.operator.name());
    for (name, attribute) in &node.attributes {
        proto.message(5, |proto| write_attribute(proto, name, attribute));
    }
    proto.text(7, node.operator.domain());
}

fn write_attribute(proto: &mut Message, name: &str, attribute: &Attribute) {
    const FLOAT: i64 = 1;
    const INT: i64 = 2;
    const INTS: i64 = 7;
    proto.text(1, name);
    let attribute_type = match attribute {
        Attribute::Float(value) => {
            proto.float(2, *value);
            FLOAT
        }
        Attribute::Integer(value) => {
            proto.integer(3, *value);
            INT
        }
        Attribute::Integers(values) => {
            proto.integers(8, values.iter().copied());
            INTS
        }
    };
    proto.integer(20, attribute_type);
}

fn write_initializer(proto: &mut Message, initializer: &Initializer, weights_file: &str) {
    const EXTERNAL: i64 = 1;
    proto.sizes(1, initializer.shape.iter().copied());
    proto.integer(2, initializer.element as i64);
    proto.text(8, &initializer.name);
    match &initializer.data {
        Data::Inline(bytes) => proto.bytes(9, bytes),
        Data::External { offset, len } => {
            let [offset, len] = [offset, len].map(u64::to_string);
            for (key, value) in [("location", weights_file), ("offset", &offset), ("length", &len)] {
                proto.message(13, |entry| {
                    entry.text(1, key);
                    entry.text(2, value);
                });
            }
            proto.integer(14, EXTERNAL);
        }
    }
}

fn write_value_info(proto: &mut Message, value: &ValueInfo) {
    proto.text(1, &value.name);
    proto.message(2, |type_proto| {
        type_proto.message(1, |tensor| {
            tensor.integer(1, value.element as i64);
            tensor.message(2, |shape| {
                for dimension in &value.shape {
                    shape.message(1, |proto| match dimension {
                        Dimension::Fixed(size) => proto.integer(1, *size as i64),
                        Dimension::Named(name) => proto.text(2, name),
                    });
                }
            });
        });
    });
}

//! The fourth lowering: a model's graph as an ONNX model, and its weights as a file beside it.
//!
//! Read in this order: `model` what an ONNX model is and `encode` its bytes, `builder`, [`lower()`], `attention`,
//! and `matrix` and `rounded` for quantised weights; `emit` writes the files, and `describe` reads anybody's. Uses `model`.
//! Absent: ONNX Runtime; who runs what comes out is no matter here.

mod attention;
mod builder;
mod describe;
mod emit;
mod encode;
mod lower;
mod matrix;
mod model;
mod rounded;

pub use describe::{DescribeError, Description, ValueDescription};
pub use emit::{EmitError, MODEL_FILE, WEIGHTS_FILE, emit};
pub use lower::{Form, Runner, cache_names, lower, names, own};

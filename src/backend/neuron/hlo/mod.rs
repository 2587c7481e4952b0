//! The third lowering: a model's graph as HLO, XLA's intermediate language, one module a bucket.
//!
//! A module is what `neuronx-cc` makes a device's program of, and what XLA runs on a CPU unchanged. Read in
//! this order: `module` what a module is and `encode` its bytes, `infer` the shapes, `builder`, [`verify()`] the rules,
//! `bucket` the shapes a model is compiled for, `split` what of it each of several ranks has, `draw` how a token is chosen,
//! and [`lower()`].
//!
//! Pure: values in, bytes out. Uses `model`. Absent: files, processes, devices, and the weights' own numbers,
//! which are parameters of a module and no part of it.

mod attention;
mod bucket;
mod builder;
mod draw;
mod encode;
mod infer;
mod lower;
mod module;
mod ranges;
mod split;
mod verify;

pub use bucket::{BadBucket, Bucket, CachePlan, Family};
pub use builder::BuildError;
pub(super) use draw::{DRAW_NUMBERS, DRAWN_NUMBERS, LEAST_LOG_WEIGHT, WORD_TOKENS};
pub(super) use lower::{DRAWN, LOGITS};
pub use lower::{Input, InputSource, LowerError, Lowered, Precision, Sampling, Variant, lower, rotary_table};
pub(super) use module::ALIAS_SUFFIX;
pub use module::{ArrayShape, ElementType, Module, Shape};
pub use split::Indivisible;
pub use verify::{Rule, Violation, verify};

//! The Neuron runtime library, `libnrt`, opened when it is needed.
//!
//! Three layers, each using the one before: [`sys`] what C says, [`result`] one function a call with its status
//! as a [`Result`], [`safe`] handles that free themselves. [`status`] says what a status means, [`dtype`] what a
//! number for a tensor's type means. Outside, calls are made through [`safe`] alone.
//!
//! May use `target`. Absent: models, programs, threads. Handles stay on the thread that made
//! them, as nothing the library's makers write promises more.

#![allow(unsafe_code)]

mod dtype;
mod result;
mod safe;
mod status;
mod sys;

pub(super) use dtype::Numbering;
pub(super) use result::NrtError;
pub(super) use safe::{LoadedProgram, Rank, Runtime, Tensor, TensorInfo, TensorSet, Usage};
pub(super) use status::Remedy;

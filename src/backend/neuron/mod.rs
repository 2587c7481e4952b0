//! The way to a NeuronCore, as far as it goes: a model's graph as the programs that the Neuron compiler takes
//! ([`hlo`], [`programs`]), written to a folder ([`emit`]) or compiled ([`compile`]) with what their inputs mean
//! ([`sidecar`]), and a folder of compiled ones opened and checked ([`artifact`]).
//!
//! Nothing here loads a program or runs on a device. May use `model`.

pub mod artifact;
pub mod compile;
pub mod emit;
pub mod hlo;
pub mod neff;
pub mod neuronx_cc;
pub mod programs;
pub mod sidecar;
mod target;
mod values;

pub use target::{LNC, Target};

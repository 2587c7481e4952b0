//! The way to a NeuronCore, as far as it goes: a model's graph as the programs that the Neuron compiler takes
//! ([`hlo`]), written to a folder ([`emit`]) with what their inputs mean ([`sidecar`]).
//!
//! Nothing here compiles, loads or runs on a device. May use `model`.

pub mod emit;
pub mod hlo;
pub mod sidecar;
mod values;

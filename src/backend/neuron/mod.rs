//! The way to a NeuronCore.
//!
//! Before a server runs: a model's graph as the programs that the Neuron compiler takes ([`hlo`], [`programs`]),
//! written to a folder ([`emit`]) or compiled ([`compile`]) with what their inputs mean ([`sidecar`]).
//!
//! In a server: a folder of compiled programs, opened and checked ([`artifact`]); the runtime library (`nrt`); how a
//! step's rows become runs of programs (`step`) and what of them is drawn there (`draws`); what lies on a core
//! (`memory`), the programs bound to it (`loaded`) and what runs there (`worker`), on a thread of its own (`core`); the
//! cores that hold the model together (`replica`); and all of them behind one [`Backend`](super::Backend) (`device`),
//! as it is asked for (`options`). [`doctor`] says what a machine lacks.
//!
//! May use `model`. Absent: a queue; and nothing of it has run on a device yet, only on the fake library
//! of `tests/fake_nrt/`.

pub mod artifact;
pub mod compile;
mod core;
pub(super) mod device;
pub mod doctor;
mod draws;
pub mod emit;
pub mod hlo;
mod layout;
mod loaded;
mod memory;
pub mod neff;
pub mod neuronx_cc;
mod nrt;
mod options;
pub mod programs;
mod replica;
pub mod sidecar;
mod step;
mod target;
mod values;
mod worker;

pub use options::{DeviceOptions, Patience, Progress, ranks};
pub use target::{LNC, Target, UnknownTarget};

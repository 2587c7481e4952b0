//! A libnrt for machines without a NeuronCore, and a compiler to go with it.
//!
//! The library `libfake_nrt.so` has the C interface of libnrt, and is stricter than it: whatever the header
//! asks of a caller is checked, and what was done wrong is counted. It runs a program's real HLO on real XLA,
//! through a PJRT plugin for CPUs. The program `neuronx-cc` takes the command line of the real one, holds HLO
//! to the real one's rules, and packs it into a file of the form of a NEFF.
//!
//! It depends on nothing of mondai: it is an independent judge of what mondai emits and calls. Nothing here
//! says anything about an accelerator's speed, and everything says that it is simulated.
//!
//! Read in this order: [`hlo`] what is read of a module, [`rules`] what the compiler refuses, [`neff`] the file,
//! `runtime` what the library knows, `program` and `pjrt` how a program runs, `indices` how its indices are
//! checked, `abi` the functions, and `settings` and `faults` for what the environment can ask for.

mod abi;
mod faults;
mod handles;
pub mod hlo;
mod indices;
mod memory;
pub mod neff;
mod pjrt;
mod program;
mod proto;
pub mod rules;
mod runtime;
mod settings;
mod status;

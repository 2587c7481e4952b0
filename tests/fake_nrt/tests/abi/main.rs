//! The fake itself, through the functions that its clients load, and its compiler through its command line.
//!
//! All tests share one library in one process, so each takes the [`library::Library`] for itself and starts with
//! a fresh one.

mod compiler;
mod execution;
mod faults;
mod library;
mod lifecycle;
mod loading;
mod program;
mod ranks;
mod tensors;

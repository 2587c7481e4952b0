//! cli
pub mod probe;
pub mod pull;

//! cli
pub mod pull;

//! Everything through a public door: one binary, a module a theme.

mod contract;
mod engine;
mod structured;
mod text;

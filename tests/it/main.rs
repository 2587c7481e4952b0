//! Everything through a public door: one binary, a module a theme.

mod text;

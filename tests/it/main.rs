//! Everything through a public door: one binary, a module a theme.

mod adapters;
mod bench;
mod cli;
mod clients;
mod compile;
mod contract;
mod default_model;
mod draws;
mod engine;
mod eval;
mod grammar;
mod hlo;
mod http;
mod library;
mod logits;
mod models;
mod neuron;
mod ort;
mod page;
mod quiz;
mod rounding;
mod served;
mod structured;
mod text;

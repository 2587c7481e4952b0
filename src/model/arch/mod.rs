//! The architectures: one short file each, all over the same decoder.

mod decoder;
mod llama;
mod qwen2;
mod qwen3;

use super::{
    config::ModelConfig,
    graph::{Graph, Pairing},
    weight_name::Naming,
};

/// The model families that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, TinyLlama.
    Llama,
    /// Qwen 2 and 2.5: biased query, key and value projections.
    Qwen2,
    /// Qwen 3, dense: a norm on each query and key head.
    Qwen3,
}

impl Architecture {
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// As `general.architecture` of GGUF and `model_type` of Hugging Face call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// How rotation pairs the rows of queries and keys in a form of file: llama.cpp's converter moves
    /// those of llama next to each other.
    pub(super) fn pairing(self, naming: Naming) -> Pairing {
        match (self, naming) {
            (Self::Llama, Naming::Gguf) => Pairing::Adjacent,
            _ => Pairing::Halves,
        }
    }

    /// Writes the model down.
    pub(super) fn graph(self, config: &ModelConfig) -> Graph {
        match self {
            Self::Llama => llama::graph(config),
            Self::Qwen2 => qwen2::graph(config),
            Self::Qwen3 => qwen3::graph(config),
        }
    }
}

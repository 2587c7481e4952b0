//! What lies on a core for as long as its thread lives: weights and other constants, and the KV cache.

use super::core::CoreError;
use super::hlo::{ArrayShape, Input, InputSource};
use super::layout::CacheLayout;
use super::nrt::{NrtError, Runtime, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub(super) struct Memory {
    pub(super) core: usize,
    pub(super) runtime: Arc<Runtime>,
    layout: CacheLayout,
    /// Constants and caches, by the names of the inputs that they are bound to.
    shared: HashMap<String, Rc<Tensor>>,
    /// Keys and values of each layer.
    caches: Vec<Rc<Tensor>>,
}

impl Memory {
    /// Makes room for the inputs that all programs share, and clears the cache: memory holds anything at first.
    pub(super) fn allocate(
        runtime: Arc<Runtime>,
        core: usize,
        layout: CacheLayout,
        inputs: &[Input],
    ) -> Result<Self, CoreError> {
        let mut memory = Self { core, runtime, layout, shared: HashMap::new(), caches: Vec::new() };
        for input in inputs.iter().filter(|input| !input.source.is_of_step()) {
            let tensor = memory.tensor(&input.name, &input.shape)?;
            if input.source == InputSource::Cache {
                memory.call(tensor.zero(0, tensor.size()))?;
                memory.caches.push(Rc::clone(&tensor));
            }
            memory.shared.insert(input.name.clone(), tensor);
        }
        Ok(memory)
    }

    /// What an input of that name is bound to in every program.
    pub(super) fn shared(&self, name: &str) -> Option<&Rc<Tensor>> {
        self.shared.get(name)
    }

    pub(super) fn constant(&self, name: &str, bytes: &[u8]) -> Result<(), CoreError> {
        match self.shared.get(name) {
            Some(tensor) if tensor.size() == bytes.len() => self.call(tensor.write(0, bytes)),
            _ => Err(self.refuse(format!("no program has an input {name} of {} bytes", bytes.len()))),
        }
    }

    /// Zeros what a slot holds from a position on.
    pub(super) fn clear(&self, slot: usize, from: usize) -> Result<(), CoreError> {
        for cache in &self.caches {
            for at in self.layout.stretches(slot, from..self.layout.context) {
                self.call(cache.zero(at.start, at.len()))?;
            }
        }
        Ok(())
    }

    pub(super) fn copy_prefix(&self, from: usize, to: usize, len: usize) -> Result<(), CoreError> {
        let layout = self.layout;
        for cache in &self.caches {
            // What a slot has past its prefix stays there: it may be no number.
            for (from, to) in layout.stretches(from, 0..len).zip(layout.stretches(to, 0..len)) {
                self.call(cache.copy_within(from.start, to.start, from.len()))?;
            }
        }
        Ok(())
    }

    /// What a slot holds of each cache, one after another, each head by head.
    pub(super) fn read_prefix(&self, slot: usize, len: usize, bytes: &mut Vec<u8>) -> Result<(), CoreError> {
        let layout = self.layout;
        bytes.resize(layout.prefix_bytes(len) * self.caches.len(), 0);
        let mut left = bytes.as_mut_slice();
        for cache in &self.caches {
            for at in layout.stretches(slot, 0..len) {
                let (stretch, rest) = left.split_at_mut(at.len());
                self.call(cache.read(at.start, stretch))?;
                left = rest;
            }
        }
        Ok(())
    }

    pub(super) fn write_prefix(&self, slot: usize, len: usize, bytes: &[u8]) -> Result<(), CoreError> {
        let mut left = bytes;
        for cache in &self.caches {
            for at in self.layout.stretches(slot, 0..len) {
                let (stretch, rest) = left.split_at(at.len());
                self.call(cache.write(at.start, stretch))?;
                left = rest;
            }
        }
        Ok(())
    }

    pub(super) fn tensor(&self, name: &str, shape: &ArrayShape) -> Result<Rc<Tensor>, CoreError> {
        self.call(Tensor::allocate(&self.runtime, self.core, shape.bytes(), name)).map(Rc::new)
    }

    pub(super) fn call<T>(&self, result: Result<T, NrtError>) -> Result<T, CoreError> {
        result.map_err(|error| CoreError::Call { core: self.core, error })
    }

    pub(super) fn refuse(&self, reason: String) -> CoreError {
        CoreError::Open { core: self.core, reason }
    }
}

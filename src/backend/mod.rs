//! Runs one model on one device, a step at a time.
//!
//! Below this line there is no queue, no async and no lock: token ids and positions go in, logits come out, and the
//! call blocks until they are there. May use `model`. No sampling either, but for a device that can draw a token where
//! its logits are, so that they need not be fetched: that is asked for row by row, and is what the host would do. Its
//! threads, if it has some, do the engine's work between steps, of which it knows nothing.
//!
//! A backend asked for by name opens or fails; it never falls back to another.

pub mod candle;
pub mod cpu;
pub mod neuron;
pub mod ort;
mod protobuf;
mod rules;
pub mod scripted;
mod stored;

pub use ort::OrtOptions;

use crate::model::Model;
use crate::text::TokenId;

/// The name of the backend that runs on NeuronCores.
pub const NEURON: &str = neuron::device::NAME;

/// Opens a model on the backend of that name.
///
/// # Errors
/// [`BackendError::UnknownName`] lists the known ones; [`BackendError::Open`]: this model, with these
/// options, cannot be prepared for it.
pub fn open(name: &str, model: &Model, options: &OpenOptions) -> Result<Box<dyn Backend>, BackendError> {
    match name {
        candle::NAME => Ok(Box::new(candle::CandleBackend::open(model, options)?)),
        cpu::NAME => Ok(Box::new(cpu::CpuBackend::open(model, options)?)),
        ort::NAME => Ok(Box::new(ort::OrtBackend::open(model, options)?)),
        NEURON => Ok(Box::new(neuron::device::NeuronBackend::open(model, options)?)),
        _ => {
            let known = [cpu::NAME, candle::NAME, ort::NAME, NEURON].join(", ");
            Err(BackendError::UnknownName { name: name.to_owned(), known })
        }
    }
}

/// What a backend is to be prepared for.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Sequences that can hold a KV cache at the same time.
    pub slots: usize,
    /// Positions a slot can hold; 0 takes the model's own context, 2048 at most.
    pub context_len: usize,
    /// Tokens one step may have, over all its rows.
    pub max_step_tokens: usize,
    pub weights: WeightsForm,
    /// What the `ort` backend needs, and no other.
    pub ort: OrtOptions,
    /// Of the neuron backend alone.
    pub device: neuron::DeviceOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            slots: 4,
            context_len: 0,
            max_step_tokens: 256,
            weights: WeightsForm::Auto,
            ort: OrtOptions::default(),
            device: neuron::DeviceOptions::default(),
        }
    }
}

/// In what form a backend keeps a model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsForm {
    /// As is best for the backend and the model's size.
    #[default]
    Auto,
    /// Decoded when the model is opened.
    F32,
    /// As they are in the file.
    Stored,
}

/// One model on one device. Owned by the engine thread; calls block.
pub trait Backend: Send {
    /// What the device was prepared for: fixed when the backend is opened.
    fn limits(&self) -> &Limits;

    /// Runs one step: for each row, keeps the first `start` positions of its slot, writes `tokens`
    /// after them, and puts the logits of the positions asked for into `logits`, row by row, and the
    /// tokens to be drawn.
    ///
    /// Everything past the written tokens in the slot is forgotten, so a step that failed may be
    /// repeated, and a shorter `start` takes tokens back. A slot appears in at most one row. What a
    /// row yields does not depend on the other rows, nor on how its positions were split into steps.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`]: the backend must be reopened. [`BackendError::SlotsLost`]: some slots must not
    /// be used again. [`BackendError::Step`]: it failed, or
    /// a row breaks these rules or the [`Limits`] (no such slot, a `start` past what the slot holds, no
    /// tokens, too many, a draw where there are none); the positions before each row's `start` are as they were.
    /// [`BackendError::NotANumber`]: as that, but what those positions hold may be to blame.
    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError>;

    /// Tokens that the last step ran beside its rows' own, since a program's shape is fixed.
    fn padded_tokens(&self) -> usize {
        0
    }

    /// Copies the first `len` positions of one slot's KV cache to another (prefix reuse).
    ///
    /// Everything past them in `to` is forgotten.
    ///
    /// # Errors
    /// As [`Backend::extend`].
    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError>;

    /// Runs `task` for each of `0..tasks` once, and returns when all are done: on the threads that steps run on, where a
    /// backend has some that wait for the next one.
    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// What a backend was prepared for when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The backend's name, as in `--backend`.
    pub backend: &'static str,
    /// A stand-in runs for the device: what comes out is right, how fast says nothing.
    pub simulated: bool,
    /// Sequences that can hold a KV cache at the same time.
    pub slots: usize,
    /// Positions a slot can hold.
    pub context_len: usize,
    /// Length of one row of logits.
    pub vocab_size: usize,
    /// Rows one step may have.
    pub max_step_rows: usize,
    /// Tokens one step may have, over all its rows.
    pub max_step_tokens: usize,
    /// Rows may have a [`Draw`].
    pub draws: bool,
}

/// A sequence's fixed place in the KV cache, `0..limits.slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// One sequence's part in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    pub slot: Slot,
    /// Positions of the slot that are kept.
    pub start: usize,
    /// Tokens written after them; at least one.
    pub tokens: &'a [TokenId],
    /// Logits are wanted for `tokens[logits_from..]`; `tokens.len()` asks for none.
    pub logits_from: usize,
    /// The tokens that may come after the last one, a bit each in words of 32, lowest first; `None`: any. Of the
    /// last one's logits only theirs are wanted: the others may be negative infinity.
    pub allowed: Option<&'a [u32]>,
    /// One of them is to be drawn by the logits of the last one, which need not be among those wanted.
    pub draw: Option<Draw>,
}

/// How a backend draws a token: as `sampling` does with these numbers, up to what rounding moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0 is greedy: the likeliest token, of several the lowest, whatever the other numbers are.
    pub temperature: f32,
    /// 0 keeps every token.
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    /// From 0 to below 1: the share of all weight, in order of ids, at which the token stands.
    pub uniform: f64,
}

/// A token that a backend drew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    pub token: TokenId,
    /// After the softmax of the logits as the model gave them.
    pub logprob: f32,
}

/// What one step yields, kept between steps so that no step allocates: its logits, and the tokens drawn.
///
/// Shape `[len, vocab_size]`, `f32`, row-major.
#[derive(Debug)]
pub struct Logits {
    vocab_size: usize,
    len: usize,
    /// As long as the longest step had it: to clear what is written anyway takes as long as to write it.
    data: Vec<f32>,
    drawn: Vec<Drawn>,
}

impl Logits {
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, len: 0, data: Vec::new(), drawn: Vec::new() }
    }

    /// Makes room for `len` rows, and none for tokens drawn; the rows' content is unspecified until written.
    pub fn resize(&mut self, len: usize) {
        self.len = len;
        let longest = self.data.len().max(len * self.vocab_size);
        self.data.resize(longest, 0.0);
        self.drawn.clear();
    }

    /// Makes room for so many tokens drawn.
    pub fn resize_drawn(&mut self, len: usize) {
        self.drawn.resize(len, Drawn { token: 0, logprob: f32::NAN });
    }

    /// One of each row that asked for it, in their order.
    pub fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    pub fn drawn_mut(&mut self) -> &mut [Drawn] {
        &mut self.drawn
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn row(&self, idx: usize) -> &[f32] {
        assert!(idx < self.len, "the step has so many rows of logits");
        &self.data[idx * self.vocab_size..][..self.vocab_size]
    }

    pub fn row_mut(&mut self, idx: usize) -> &mut [f32] {
        assert!(idx < self.len, "the step has so many rows of logits");
        &mut self.data[idx * self.vocab_size..][..self.vocab_size]
    }

    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.vocab_size).take(self.len)
    }

    /// All rows, one after another.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data[..self.len * self.vocab_size]
    }
}

/// Why a step or an opening failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device is gone; the backend must be reopened.
    #[error("the {backend} device is lost")]
    DeviceLost {
        backend: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// These slots are gone for good, and what they held; the backend goes on with the others. Nothing of the
    /// call was done.
    #[error("the {backend} backend has lost {} of its slots", slots.len())]
    SlotsLost {
        backend: &'static str,
        slots: Vec<Slot>,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This step failed; the backend can go on.
    #[error("a step of the {backend} backend failed")]
    Step {
        backend: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came of a row is no number; the backend can go on. Whoever held the slot before, or wrote what was copied
    /// to it, may have left that there: a row from position 0 on finds nothing of it.
    #[error("a step of the {backend} backend came to no number")]
    NotANumber {
        backend: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("there is no backend `{name}` (there is: {known})")]
    UnknownName { name: String, known: String },
    /// The model cannot be prepared for this backend.
    #[error("cannot open the {backend} backend")]
    Open {
        backend: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

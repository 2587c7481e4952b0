//! Models on ONNX Runtime: the graph as an ONNX model, and a library that runs it.
//!
//! Opening a model writes it to a folder that is gone when this returns, on a file system where a mapped file
//! outlives its name; ONNX Runtime maps the weights from there. In [`Form::Portable`] nothing is rounded, and
//! it is the reference (`candle/`) to the order of its sums.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `onnx/` | from the graph to the files of an ONNX model |
//! | `library.rs` | loading ONNX Runtime |
//! | `provider.rs`, `threads.rs` | what it is to compute on |
//! | `operator.rs` | attention, which it is brought |
//! | `session.rs`, `step.rs` | a model in it, and what a run of it reads |

mod library;
pub mod onnx;
mod operator;
mod provider;
mod session;
mod step;
mod threads;

use super::cpu::CachedAttention;
use super::{
    Backend, BackendError, Limits, Logits, OpenOptions, Row, Slot, WeightsForm,
    rules::{self, Held},
};
use crate::model::Model;
use onnx::{Form, MODEL_FILE, Runner};
use session::{Session, SessionPlan};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use step::Inputs;

pub(super) const NAME: &str = "ort";

/// Which ONNX Runtime is to run a model, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrtOptions {
    /// The library, `libonnxruntime.so`; a process can load one.
    pub library: Option<PathBuf>,
    /// An execution provider that the library has, `CUDA` or `CUDAExecutionProvider`; `None` for the CPU. One that
    /// has memory of its own is slow: attention is the CPU's, and what it reads and yields goes to and fro.
    pub provider: Option<String>,
    /// How a model is written for it, where weights are not asked for as `f32`.
    pub form: Form,
}

/// There is no room for the files of a model.
#[derive(Debug, thiserror::Error)]
#[error("the model's files cannot be kept in {folder} while it is opened; TMPDIR can name another folder")]
struct NoScratch {
    folder: PathBuf,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl NoScratch {
    fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { folder: std::env::temp_dir(), source: source.into() }
    }
}

/// See the [module](self).
pub struct OrtBackend {
    limits: Limits,
    session: Session,
    /// The session's, which each step is to be told of.
    attention: Arc<Mutex<CachedAttention>>,
    held: Held,
    doubles_a_lone_token: bool,
}

impl OrtBackend {
    /// # Errors
    /// [`BackendError::Open`]: there is no such library, it is not ONNX Runtime or too old, the options do not fit
    /// the model, there is no room for its files, or memory does not suffice.
    pub fn open(model: &Model, options: &OpenOptions) -> Result<Self, BackendError> {
        Self::prepare(model, options).map_err(|source| BackendError::Open { backend: NAME, source })
    }

    fn prepare(
        model: &Model,
        options: &OpenOptions,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = rules::limits(NAME, model, options)?;
        let library = options.ort.library.as_deref().ok_or(library::LibraryError::NotNamed)?;
        let environment = library::load(library)?;
        let form = match options.weights {
            WeightsForm::F32 => Form::Portable,
            WeightsForm::Auto | WeightsForm::Stored => options.ort.form,
        };
        let attention = CachedAttention::new(model, &limits, form == Form::Portable)?;
        let attention = Arc::new(Mutex::new(attention));
        let folder = tempfile::Builder::new().prefix("mondai-onnx-").tempdir().map_err(NoScratch::new)?;
        onnx::emit(model, form, Runner::Backend, folder.path()).map_err(NoScratch::new)?;
        let path = folder.path().join(MODEL_FILE);
        let plan = SessionPlan {
            library,
            model: &path,
            attention: Arc::clone(&attention),
            provider: options.ort.provider.as_deref(),
            threads: threads::physical_cores(),
        };
        let session = Session::open(&environment, &plan)?;
        let held = Held::nothing(limits.slots);
        Ok(Self {
            limits,
            session,
            attention,
            held,
            // In the portable form there is no quantised product.
            doubles_a_lone_token: form != Form::Portable && step::sums_a_lone_row_alone(),
        })
    }

    fn run(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), ort::Error> {
        let inputs = Inputs::new(rows, self.doubles_a_lone_token);
        self.attention().begin_step(inputs.places.iter().copied());
        logits.resize(inputs.selected.len());
        self.session.run(&inputs, logits.as_mut_slice())?;
        // Without those that came twice.
        logits.resize(rows.iter().map(|row| row.tokens.len() - row.logits_from).sum());
        Ok(())
    }

    fn attention(&self) -> MutexGuard<'_, CachedAttention> {
        // A step that broke off left nothing that the next one counts on: what it wrote is not held.
        self.attention.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for OrtBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn extend(&mut self, rows: &[Row<'_>], logits: &mut Logits) -> Result<(), BackendError> {
        let step_error = |source| BackendError::Step { backend: NAME, source };
        self.held.begin_step(&self.limits, rows).map_err(|rule| step_error(rule.into()))?;
        self.run(rows, logits).map_err(|error| step_error(error.into()))?;
        self.held.end_step(rows);
        Ok(())
    }

    fn copy_prefix(&mut self, from: Slot, to: Slot, len: usize) -> Result<(), BackendError> {
        self.held
            .begin_copy(&self.limits, from, to, len)
            .map_err(|rule| BackendError::Step { backend: NAME, source: rule.into() })?;
        self.attention().copy_prefix(from, to, len);
        self.held.end_copy(to, len);
        Ok(())
    }
}

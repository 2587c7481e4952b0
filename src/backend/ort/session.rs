//! A model in ONNX Runtime, run on memory that is ours.
//!
//! It goes past the `ort` crate, which copies what it does not own.

#![expect(unsafe_code, reason = "memory that is bound for a run")]

use super::{library::LibraryError, onnx::names, operator, provider, step::Inputs};
use crate::backend::cpu::CachedAttention;
use ort::{
    AsPointer,
    environment::Environment,
    logging::LogLevel,
    memory::MemoryInfo,
    session::{
        IoBinding, Session as OrtSession,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{PrimitiveTensorElementType, Shape, TensorRefMut},
};
use std::{
    ffi::CString,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Between two operators of a step; most are done in less.
const SPIN_US: &str = "30";

pub(super) struct Session {
    session: OrtSession,
    binding: IoBinding,
}

/// What is to be opened, and how.
pub(super) struct SessionPlan<'a> {
    /// ONNX Runtime's; for errors to name.
    pub(super) library: &'a Path,
    pub(super) model: &'a Path,
    pub(super) attention: Arc<Mutex<CachedAttention>>,
    pub(super) provider: Option<&'a str>,
    pub(super) threads: usize,
}

impl Session {
    /// # Errors
    /// The library lacks the provider; or ONNX Runtime's: it cannot read the model, lacks an operator, or memory
    /// does not suffice.
    pub(super) fn open(
        environment: &Environment,
        plan: &SessionPlan<'_>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut builder = session_builder(environment, plan)?;
        if let Some(provider) = plan.provider {
            provider::append(&mut builder, &provider::find(provider)?)?;
        }
        // ONNX Runtime (1.32.0) keeps a list of domains for the whole process, and two sessions that are made at once
        // both find that theirs is not there yet.
        static OPENING: Mutex<()> = Mutex::new(());
        let opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let session = builder
            .commit_from_file(plan.model)
            .map_err(|source| LibraryError::CannotOpen { path: plan.library.to_owned(), source })?;
        drop(opening);
        let binding = session.create_binding()?;
        Ok(Self { session, binding })
    }

    /// Runs a step; `logits` is as long as the selected tokens' logits are.
    pub(super) fn run(&mut self, inputs: &Inputs, logits: &mut [f32]) -> Result<(), ort::Error> {
        let selected = inputs.selected.len();
        self.bind_input(names::TOKENS, &inputs.tokens, &[inputs.tokens.len()])?;
        self.bind_input(names::SELECTED, &inputs.selected, &[selected])?;
        let vocab_size = logits.len().checked_div(selected).unwrap_or(self.vocab_size());
        let name = CString::new(names::LOGITS).expect("names have no NUL");
        // SAFETY: `logits` is borrowed until the run below is over, and nothing else runs this binding.
        unsafe {
            let value = tensor(logits.as_mut_ptr(), &[selected, vocab_size])?;
            let status = (ort::api().BindOutput)(self.binding.ptr_mut(), name.as_ptr(), value.ptr());
            ort::Error::result_from_status(status)?;
        }
        // SAFETY: session and binding live, and what is bound does until the call is over; nobody else runs them.
        unsafe {
            let run = ort::api().RunWithBinding;
            ort::Error::result_from_status(run(self.session.ptr_mut(), std::ptr::null(), self.binding.ptr()))
        }
    }

    fn vocab_size(&self) -> usize {
        let logits = self.session.outputs().iter().find(|output| output.name() == names::LOGITS);
        let shape = logits.and_then(|output| output.dtype().tensor_shape());
        shape.and_then(|shape| shape.last().copied()).map_or(0, |size| size as usize)
    }

    /// Binds what a run only reads.
    fn bind_input(&mut self, name: &str, values: &[i64], shape: &[usize]) -> Result<(), ort::Error> {
        let name = CString::new(name).expect("names have no NUL");
        // SAFETY: `values` lives until its run is over, which is the only one that sees it: each run binds
        // all of its inputs anew. ONNX Runtime does not write to an input that is no output.
        unsafe {
            let value = tensor(values.as_ptr().cast_mut(), shape)?;
            let status = (ort::api().BindInput)(self.binding.ptr_mut(), name.as_ptr(), value.ptr());
            ort::Error::result_from_status(status)
        }
    }
}

fn session_builder(environment: &Environment, plan: &SessionPlan<'_>) -> Result<SessionBuilder, ort::Error> {
    Ok(OrtSession::builder(environment)?
        .with_operators(operator::domain(Arc::clone(&plan.attention))?)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(plan.threads)?
        // A step has hundreds of operators, and a thread that sleeps after each is woken late; one that spins for as
        // long as it may takes the CPUs from whoever else has work: there, steps took four times as long.
        .with_intra_op_spinning(true)?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_US)?
        // A plan of memory would be kept for each shape that a step ever had.
        .with_memory_pattern(false)?
        // Errors come back to whoever asked, who logs them.
        .with_log_level(LogLevel::Fatal)?)
}

/// A tensor over memory that is somebody else's.
///
/// # Safety
/// The memory holds as many values as the shape says, for as long as what the tensor is bound to may run.
unsafe fn tensor<T: PrimitiveTensorElementType + std::fmt::Debug>(
    memory: *mut T,
    shape: &[usize],
) -> Result<TensorRefMut<'static, T>, ort::Error> {
    let shape = Shape::new(shape.iter().map(|&size| size as i64));
    // SAFETY: as the caller promises.
    unsafe { TensorRefMut::from_raw(MemoryInfo::default(), memory.cast(), shape) }
}

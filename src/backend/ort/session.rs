//! A model in ONNX Runtime, run on memory that is ours.
//!
//! It goes past the `ort` crate, which copies what it does not own, and lets nobody bind the same memory as an
//! input and as an output, which is how a cache is updated in place.

#![expect(unsafe_code, reason = "memory that is bound for a run, some of it as input and output at once")]

use super::{
    cache::KvCache,
    denormals,
    library::LibraryError,
    onnx::{cache_names, names},
    provider,
    step::Inputs,
};
use crate::model::CacheShape;
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
use std::{ffi::CString, ops::Range, path::Path};

/// Between two operators of a step; most are done in less.
const SPIN_US: &str = "30";

pub(super) struct Session {
    session: OrtSession,
    binding: IoBinding,
    caches: Vec<CacheNames>,
    bound: Option<BoundCache>,
}

/// What is to be opened, and how.
pub(super) struct SessionPlan<'a> {
    /// ONNX Runtime's; for errors to name.
    pub(super) library: &'a Path,
    pub(super) model: &'a Path,
    pub(super) layers: usize,
    pub(super) provider: Option<&'a str>,
    pub(super) threads: usize,
}

/// Of a layer's keys and of its values.
type CacheNames = [BoundTwice; 2];

/// The part of the cache that is bound, and [`KvCache::changes`] when it was.
#[derive(PartialEq)]
struct BoundCache {
    slots: Range<usize>,
    context: usize,
    changes: u64,
}

struct BoundTwice {
    input: CString,
    output: CString,
}

impl Session {
    /// # Errors
    /// The library lacks the provider; or ONNX Runtime's: it cannot read the model, lacks an operator, or memory
    /// does not suffice.
    pub(super) fn open(
        environment: &Environment,
        plan: &SessionPlan<'_>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut builder = session_builder(environment, plan.threads)?;
        if let Some(provider) = plan.provider {
            provider::append(&mut builder, &provider::find(provider)?)?;
        }
        let session = denormals::kept(|| builder.commit_from_file(plan.model))
            .map_err(|source| LibraryError::CannotOpen { path: plan.library.to_owned(), source })?;
        let binding = session.create_binding()?;
        let c_string = |name: String| CString::new(name).expect("names have no NUL");
        let caches = (0..plan.layers).map(|layer| {
            cache_names(layer)
                .map(|(input, output)| BoundTwice { input: c_string(input), output: c_string(output) })
        });
        Ok(Self { session, binding, caches: caches.collect(), bound: None })
    }

    /// Runs the rows of a step; `logits` is as long as the selected tokens' logits are.
    pub(super) fn run(
        &mut self,
        inputs: &Inputs,
        cache: &mut KvCache,
        logits: &mut [f32],
    ) -> Result<(), ort::Error> {
        self.bind_cache(inputs.slots.clone(), cache)?;
        let (slots, tokens) = (inputs.slots.len(), inputs.tokens.len());
        self.bind_input(names::TOKENS, &inputs.tokens, &[tokens])?;
        self.bind_input(names::POSITIONS, &inputs.positions, &[tokens])?;
        self.bind_input(names::SELECTED, &inputs.selected, &[inputs.selected.len()])?;
        self.bind_input(names::CONTEXT, &inputs.context, &[inputs.context.len()])?;
        let kv_heads = cache.shape().kv_heads;
        let heads = inputs.attended_cells.len() / (3 * tokens);
        self.bind_input(names::CACHE_CELLS, &inputs.cache_cells, &[tokens, kv_heads, 3])?;
        let queries = inputs.last_seen.len() / slots;
        self.bind_input(names::QUERY_CELLS, &inputs.query_cells, &[slots, kv_heads, queries, 2])?;
        self.bind_input(names::ATTENDED_CELLS, &inputs.attended_cells, &[tokens, heads, 3])?;
        self.bind_input(names::LAST_SEEN, &inputs.last_seen, &[slots, 1, queries, 1])?;

        let selected = inputs.selected.len();
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
            ort::Error::result_from_status(denormals::run(run, self.session.ptr_mut(), self.binding.ptr()))
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

    /// Binds the cache of some slots, as input and as output.
    fn bind_cache(&mut self, slots: Range<usize>, cache: &mut KvCache) -> Result<(), ort::Error> {
        let (context, changes) = (cache.bound_context(), cache.changes());
        let wanted = Some(BoundCache { slots: slots.clone(), context, changes });
        if self.bound == wanted {
            return Ok(());
        }
        self.bound = None;
        let CacheShape { kv_heads, head_dim, .. } = cache.shape();
        let shape = [slots.len(), kv_heads, context, head_dim];
        for (layer, names) in self.caches.iter().enumerate() {
            for (memory, name) in cache.bound(layer, slots.start, slots.len()).into_iter().zip(names) {
                // SAFETY: the cache's memory is had when a backend is opened, never moved, and dropped after the
                // session; whoever calls `run` has it borrowed, and what is bound is bound anew once anybody else
                // has written to it. That it is bound twice is no race: the one operator that
                // reads the input, `ScatterND`, sees that it is the output and writes its own rows alone, and
                // all others read the output, after it.
                unsafe {
                    let value = tensor(memory.as_mut_ptr(), &shape)?;
                    let binding = self.binding.ptr_mut();
                    let status = (ort::api().BindInput)(binding, name.input.as_ptr(), value.ptr());
                    ort::Error::result_from_status(status)?;
                    let status = (ort::api().BindOutput)(binding, name.output.as_ptr(), value.ptr());
                    ort::Error::result_from_status(status)?;
                }
            }
        }
        self.bound = wanted;
        Ok(())
    }
}

fn session_builder(environment: &Environment, threads: usize) -> Result<SessionBuilder, ort::Error> {
    Ok(OrtSession::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // A step has hundreds of operators, and a thread that sleeps after each is woken late; one that spins for as
        // long as it may takes the CPUs from whoever else has work: there, steps took four times as long.
        .with_intra_op_spinning(true)?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_US)?
        // Of a hidden position's weight: as an exponential's, they are most of what a softmax takes.
        .with_flush_to_zero()?
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

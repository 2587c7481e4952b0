//! Handles that keep what they need alive and free themselves.
//!
//! A handle holds the [`Runtime`], so that the library is closed last; a [`TensorSet`] holds its tensors, which
//! the header wants to live as long as the set. No handle is `Send`: one is used and freed by the thread that
//! made it. A drop logs what the library says and never panics.

use super::super::target::Target;
use super::{
    result::{NrtError, core_number},
    sys::{Api, LoadError, NrtModel, NrtTensor, NrtTensorSet},
};
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::mem::{size_of, size_of_val};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The library, ready for use: initialised when the first is opened, closed when the last is gone.
pub(crate) struct Runtime {
    api: Api,
    version: Version,
}

/// Which library it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Major, minor, patch and maintenance.
    pub(crate) numbers: [u64; 4],
    pub(crate) detail: String,
}

impl Version {
    /// A stand-in for a device: what it computes is right, how fast says nothing.
    pub(crate) fn simulated(&self) -> bool {
        self.detail.contains("simulated")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch, maintenance] = self.numbers;
        write!(f, "{major}.{minor}.{patch}.{maintenance}")?;
        if self.simulated() { write!(f, " (simulated)") } else { Ok(()) }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the Neuron runtime {version} at {library} cannot be used: {error}")]
    Init { library: String, version: String, error: String },
}

/// What kind of chip a machine has, as far as programs tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inf2,
    Trn1,
    Trn2,
    Trn3,
    Other(u32),
}

impl Family {
    /// Whether it runs what is compiled for a target: Inferentia2 and Trainium1 have the same cores.
    pub(crate) fn runs(self, target: Target) -> bool {
        match self {
            Self::Inf2 | Self::Trn1 => matches!(target, Target::Inf2 | Target::Trn1 | Target::Trn1n),
            Self::Trn2 => target == Target::Trn2,
            Self::Trn3 => target == Target::Trn3,
            Self::Other(_) => true,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inf2 => f.write_str("inf2"),
            Self::Trn1 => f.write_str("trn1"),
            Self::Trn2 => f.write_str("trn2"),
            Self::Trn3 => f.write_str("trn3"),
            Self::Other(number) => write!(f, "family {number}"),
        }
    }
}

/// Of one core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) used: usize,
    pub(crate) limit: usize,
}

/// One a process: the library can be initialised only once, and whoever opens it while it is open shares it.
static OPEN: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());

impl Runtime {
    /// Opens the library at `path`, or where its package puts it, and claims the cores that the environment of
    /// the process names. Takes seconds.
    ///
    /// # Errors
    /// [`OpenError`]: there is no library, it lacks a function, or it finds no device.
    pub(crate) fn open(path: Option<&Path>) -> Result<Arc<Self>, OpenError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = open.upgrade() {
            return Ok(runtime);
        }
        let api = Api::open(path)?;
        let version = version(&api);
        // SAFETY: the lock lets one thread get here, and a second time only after the library was closed, when it
        // answers with a status.
        unsafe { api.init() }.map_err(|error| OpenError::Init {
            library: api.path.display().to_string(),
            version: version.to_string(),
            error: error.to_string(),
        })?;
        tracing::info!(library = %api.path.display(), %version, "the Neuron runtime is open");
        let runtime = Arc::new(Self { api, version });
        *open = Arc::downgrade(&runtime);
        Ok(runtime)
    }

    /// What can be said of the library without a device.
    pub(crate) fn look(path: Option<&Path>) -> Result<(String, Version, Option<u32>), LoadError> {
        let api = Api::open(path)?;
        Ok((api.path.display().to_string(), version(&api), api.total_cores().ok()))
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// Cores that the process may use; they are numbered from 0.
    pub(crate) fn visible_cores(&self) -> Result<usize, NrtError> {
        Ok(self.api.visible_cores()? as usize)
    }

    /// `None` where the library does not tell.
    pub(crate) fn family(&self) -> Option<Family> {
        let info = self.api.instance_info()?.ok()?;
        Some(match info.family {
            4 | 7 => Family::Inf2,
            2 | 3 => Family::Trn1,
            5 | 6 | 8..=13 => Family::Trn2,
            14 | 15 => Family::Trn3,
            other => Family::Other(other),
        })
    }

    /// `None` where the library does not tell.
    pub(crate) fn memory(&self, core: usize) -> Option<Memory> {
        let stats = self.api.memory_stats(u32::try_from(core).ok()?)?.ok()?;
        Some(Memory { used: stats.bytes_used, limit: stats.bytes_limit })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Nobody opens it while it is being closed.
        let _open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: every handle holds the runtime, so none is left.
        unsafe { self.api.close() }
    }
}

fn version(api: &Api) -> Version {
    match api.version() {
        Ok(raw) => {
            Version { numbers: [raw.major, raw.minor, raw.patch, raw.maintenance], detail: text(&raw.detail) }
        }
        Err(error) => {
            tracing::warn!(%error, "the Neuron runtime does not tell its version");
            Version { numbers: [0; 4], detail: String::new() }
        }
    }
}

/// Up to the zero that ends it, or the whole array.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&char| char as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Memory of one core.
pub(crate) struct Tensor {
    runtime: Arc<Runtime>,
    raw: NonNull<NrtTensor>,
    core: usize,
    size: usize,
}

impl Tensor {
    /// `size` bytes, which hold anything; the name is for the library's logs.
    pub(crate) fn allocate(
        runtime: &Arc<Runtime>,
        core: usize,
        size: usize,
        name: &str,
    ) -> Result<Self, NrtError> {
        // SAFETY: a runtime is initialised.
        let raw = unsafe { runtime.api.tensor_allocate(core_number(core), size, &c_name(name)) }?;
        Ok(Self { runtime: Arc::clone(runtime), raw, core, size })
    }

    /// In bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), NrtError> {
        // SAFETY: the tensor lives until it is dropped, and no other thread has it.
        unsafe { self.runtime.api.tensor_read(self.raw, offset, into) }
    }

    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result<(), NrtError> {
        // SAFETY: as of `read`.
        unsafe { self.runtime.api.tensor_write(self.raw, offset, from) }
    }

    /// Writes from the start.
    pub(crate) fn write_integers(&self, from: &[i32]) -> Result<(), NrtError> {
        // SAFETY: integers are bytes, in the order that the device has them in, too.
        self.write(0, unsafe { slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)) })
    }

    /// Writes from the word of that index on.
    pub(crate) fn write_words(&self, first: usize, from: &[u32]) -> Result<(), NrtError> {
        // SAFETY: as of `write_integers`.
        let bytes = unsafe { slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)) };
        self.write(first * size_of::<u32>(), bytes)
    }

    /// Writes from the start.
    pub(crate) fn write_floats(&self, from: &[f32]) -> Result<(), NrtError> {
        // SAFETY: as of `write_integers`.
        self.write(0, unsafe { slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)) })
    }

    /// Reads from the value of that index on.
    pub(crate) fn read_floats(&self, first: usize, into: &mut [f32]) -> Result<(), NrtError> {
        let size = size_of_val(into);
        // SAFETY: any bytes are a float, and nothing else has the slice.
        let bytes = unsafe { slice::from_raw_parts_mut(into.as_mut_ptr().cast(), size) };
        self.read(first * size_of::<f32>(), bytes)
    }

    /// Copies within the core.
    pub(crate) fn copy_within(&self, from: usize, to: usize, size: usize) -> Result<(), NrtError> {
        // SAFETY: as of `read`.
        unsafe { self.runtime.api.tensor_copy((self.raw, from), (self.raw, to), size) }
    }

    pub(crate) fn zero(&self, offset: usize, size: usize) -> Result<(), NrtError> {
        // SAFETY: as of `read`.
        unsafe { self.runtime.api.tensor_zero(self.raw, offset, size) }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: a set that has the tensor holds it, so it is in none.
        unsafe { self.runtime.api.tensor_free(self.raw) }
    }
}

/// Tensors by the names that a program gives its inputs, or its outputs.
pub(crate) struct TensorSet {
    runtime: Arc<Runtime>,
    raw: NonNull<NrtTensorSet>,
    tensors: Vec<Rc<Tensor>>,
}

impl TensorSet {
    pub(crate) fn new(runtime: &Arc<Runtime>) -> Result<Self, NrtError> {
        // SAFETY: a runtime is initialised.
        let raw = unsafe { runtime.api.set_allocate() }?;
        Ok(Self { runtime: Arc::clone(runtime), raw, tensors: Vec::new() })
    }

    pub(crate) fn add(&mut self, name: &str, tensor: &Rc<Tensor>) -> Result<(), NrtError> {
        // SAFETY: both are alive; that the set holds the tensor keeps it so.
        unsafe { self.runtime.api.set_add(self.raw, &c_name(name), tensor.raw) }?;
        self.tensors.push(Rc::clone(tensor));
        Ok(())
    }
}

impl Drop for TensorSet {
    fn drop(&mut self) {
        // SAFETY: nobody else has it; its tensors are dropped after it.
        unsafe { self.runtime.api.set_destroy(self.raw) }
    }
}

/// A compiled program on one core.
pub(crate) struct LoadedProgram {
    runtime: Arc<Runtime>,
    raw: NonNull<NrtModel>,
    core: usize,
}

/// Which of the cores that run a program together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) rank: u32,
    pub(crate) ranks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Input,
    Output,
}

/// What a compiled program says of one of its inputs or outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    pub(crate) usage: Usage,
    /// In bytes.
    pub(crate) size: usize,
    /// In one of two [numberings](super::Numbering).
    pub(crate) dtype: u32,
}

impl LoadedProgram {
    /// A program of several ranks blocks until all of them are being loaded, each by a thread of its own.
    pub(crate) fn load(
        runtime: &Arc<Runtime>,
        core: usize,
        Rank { rank, ranks }: Rank,
        neff: &[u8],
    ) -> Result<Self, NrtError> {
        // Libraries before SDK 2.32 race when programs are loaded at the same time, which ranks have to be.
        static LOADING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = (ranks == 1).then(|| LOADING.lock().unwrap_or_else(PoisonError::into_inner));
        let (core_number, api) = (core_number(core), &runtime.api);
        let raw = match ranks {
            // SAFETY: a runtime is initialised.
            1 => unsafe { api.load(neff, core_number) },
            // SAFETY: as above.
            _ => unsafe { api.load_collectives(neff, core_number, (rank, ranks)) },
        }?;
        Ok(Self { runtime: Arc::clone(runtime), raw, core })
    }

    pub(crate) fn tensors(&self) -> Result<Vec<TensorInfo>, NrtError> {
        // SAFETY: the program is alive, and what is returned is freed below.
        let array = unsafe { self.runtime.api.tensor_info(self.raw) }?;
        // SAFETY: the library wrote `count`, and as many entries after it.
        let infos = unsafe {
            let count = usize::try_from((*array.as_ptr()).count).unwrap_or(0);
            slice::from_raw_parts((&raw const (*array.as_ptr()).entries).cast(), count)
        };
        let infos = infos.iter().map(|info: &super::sys::NrtTensorInfo| TensorInfo {
            name: text(&info.name),
            usage: if info.usage == 0 { Usage::Input } else { Usage::Output },
            size: info.size,
            dtype: info.dtype,
        });
        let infos = infos.collect();
        // SAFETY: everything was copied out of it.
        unsafe { self.runtime.api.free_tensor_info(array) }?;
        Ok(infos)
    }

    /// Runs it once; blocks until the outputs are written.
    pub(crate) fn execute(&mut self, inputs: &TensorSet, outputs: &mut TensorSet) -> Result<(), NrtError> {
        debug_assert!(
            inputs.tensors.iter().chain(&outputs.tensors).all(|tensor| tensor.core == self.core),
            "a program and its tensors are on one core"
        );
        // SAFETY: the three live, and belong to this thread, whose stack is large (`super::super::core`).
        unsafe { self.runtime.api.execute(self.raw, inputs.raw, outputs.raw) }
    }
}

impl Drop for LoadedProgram {
    fn drop(&mut self) {
        // SAFETY: an execution blocks the thread that has the program, so none is in flight.
        if let Err(error) = unsafe { self.runtime.api.unload(self.raw) } {
            tracing::warn!(%error, core = self.core, "a program could not be unloaded");
        }
    }
}

/// Names are ours and have no zero; one that has is cut there.
fn c_name(name: &str) -> CString {
    let name = name.split('\0').next().unwrap_or_default();
    CString::new(name).unwrap_or_else(|_| CStr::to_owned(c""))
}

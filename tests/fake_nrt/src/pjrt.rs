//! XLA for CPUs, through the C interface of a PJRT plugin.
//!
//! Functions are taken by their index in the plugin's table, which only ever grows, and arguments are written
//! by their index in words: every field used is a pointer, a size, or alone in its word. A plugin takes an
//! arguments' struct that is larger than the one it knows, so all are of one size, and zeroed.
//!
//! Source: `xla/pjrt/c/pjrt_c_api.h`.

use crate::hlo::ArrayShape;
use libloading::Library;
use std::{
    ffi::c_void,
    fmt,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    slice,
};

type Word = usize;
type Function = unsafe extern "C" fn(*mut Word) -> *mut c_void;

/// Indices into the plugin's table of functions.
mod function {
    pub(super) const ERROR_DESTROY: usize = 0;
    pub(super) const ERROR_MESSAGE: usize = 1;
    pub(super) const PLUGIN_INITIALIZE: usize = 3;
    pub(super) const EVENT_DESTROY: usize = 5;
    pub(super) const EVENT_AWAIT: usize = 8;
    pub(super) const CLIENT_CREATE: usize = 10;
    pub(super) const CLIENT_ADDRESSABLE_DEVICES: usize = 16;
    pub(super) const CLIENT_COMPILE: usize = 20;
    pub(super) const CLIENT_BUFFER_FROM_HOST_BUFFER: usize = 22;
    pub(super) const LOADED_EXECUTABLE_DESTROY: usize = 50;
    pub(super) const LOADED_EXECUTABLE_EXECUTE: usize = 55;
    pub(super) const BUFFER_DESTROY: usize = 58;
    pub(super) const BUFFER_UNSAFE_POINTER: usize = 73;
}

/// The table follows two words, and a version of three.
const TABLE_OFFSET: usize = 5;
/// More than any struct of arguments has.
const ARGUMENT_WORDS: usize = 64;
/// The most replicas that a program may have: their number is one byte of its options.
pub(crate) const MAX_REPLICAS: usize = 127;
const FORMAT: &[u8] = b"hlo";

#[derive(Debug, thiserror::Error)]
pub(crate) enum PjrtError {
    #[error("cannot load the PJRT plugin {path}: {source}")]
    Load { path: PathBuf, source: libloading::Error },
    #[error("the PJRT plugin {0} has no function table")]
    Table(PathBuf),
    #[error("XLA: {0}")]
    Xla(String),
    #[error("XLA has no device {0}")]
    Device(usize),
    #[error("XLA has no type of element for {0}")]
    Element(i64),
}

/// A client of the plugin; lives as long as the process.
pub(crate) struct Client {
    table: Table,
    client: Word,
    devices: Vec<Word>,
}

/// One of a client's devices, all of which share the host's memory.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    pub(crate) client: &'static Client,
    pub(crate) number: usize,
}

#[derive(Clone, Copy)]
struct Table(NonNull<Word>);

// SAFETY: the table is constant once the plugin is loaded, and a PJRT client may be used by several threads.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

/// The arguments of one call; the first word is its size, the second is for extensions.
struct Arguments([Word; ARGUMENT_WORDS]);

impl Arguments {
    fn new<const N: usize>(words: [Word; N]) -> Self {
        let mut arguments = [0; ARGUMENT_WORDS];
        arguments[0] = size_of_val(&arguments);
        arguments[2..2 + N].copy_from_slice(&words);
        Arguments(arguments)
    }
}

impl Table {
    fn function(self, index: usize) -> Function {
        // SAFETY: the indices in `function` are of the plugin's table, whose entries are such functions.
        unsafe {
            let entry = self.0.as_ptr().add(TABLE_OFFSET + index);
            std::mem::transmute::<Word, Function>(entry.read())
        }
    }

    /// # Safety
    /// The arguments must be those of the function, in the order of its struct.
    unsafe fn call(self, index: usize, arguments: &mut Arguments) -> Result<(), PjrtError> {
        // SAFETY: the caller's promise.
        let error = unsafe { self.function(index)(arguments.0.as_mut_ptr()) };
        if error.is_null() {
            return Ok(());
        }
        let mut message = Arguments::new([error.addr(), 0, 0]);
        // SAFETY: the error is one that the plugin has just given; its text lives as long as it does.
        let text = unsafe {
            self.function(function::ERROR_MESSAGE)(message.0.as_mut_ptr());
            let [_, text, len] = [message.0[2], message.0[3], message.0[4]];
            let bytes = if text == 0 { &[][..] } else { slice::from_raw_parts(text as *const u8, len) };
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.function(function::ERROR_DESTROY)(Arguments::new([error.addr()]).0.as_mut_ptr());
            text
        };
        Err(PjrtError::Xla(text))
    }
}

impl Client {
    /// Loads the plugin, for good, and makes a client, with as many devices as are asked for or a few.
    pub(crate) fn load(path: &Path, devices: Option<usize>) -> Result<Self, PjrtError> {
        let load_error = |source| PjrtError::Load { path: path.to_owned(), source };
        // SAFETY: whoever set the path trusts what the library does when it is loaded. It is never unloaded,
        // since its threads go on running. The function takes nothing and returns a table or null.
        let table = unsafe {
            let library = Library::new(path).map_err(load_error)?;
            let get: libloading::Symbol<'_, unsafe extern "C" fn() -> *mut Word> =
                library.get(b"GetPjrtApi\0").map_err(load_error)?;
            let table = NonNull::new(get()).ok_or_else(|| PjrtError::Table(path.to_owned()));
            std::mem::forget(library);
            Table(table?)
        };
        let name = b"cpu_device_count";
        // A `PJRT_NamedValue`: the name, its length, the type, the value and that it is one.
        const INT64: Word = 1;
        let option =
            Arguments::new([name.as_ptr().expose_provenance(), name.len(), INT64, devices.unwrap_or(0), 1]);
        let options = usize::from(devices.is_some());
        let mut create = Arguments::new([option.0.as_ptr().expose_provenance(), options, 0, 0, 0, 0, 0]);
        // SAFETY: initialising takes no more than the head of a struct; the option outlives the call, and no
        // callback is given.
        unsafe {
            table.call(function::PLUGIN_INITIALIZE, &mut Arguments::new([]))?;
            table.call(function::CLIENT_CREATE, &mut create)?;
        }
        const CREATED: usize = 8;
        let client = create.0[CREATED];
        let mut list = Arguments::new([client, 0, 0]);
        // SAFETY: `client` is what was created; the list of its devices lives as long as it does.
        let devices = unsafe {
            table.call(function::CLIENT_ADDRESSABLE_DEVICES, &mut list)?;
            slice::from_raw_parts(ptr::with_exposed_provenance::<Word>(list.0[3]), list.0[4]).to_vec()
        };
        Ok(Client { table, client, devices })
    }

    /// Compiles a serialised `HloModuleProto`, for good: programs are kept as long as the process lives.
    pub(crate) fn compile(
        &'static self,
        hlo: &[u8],
        outputs: usize,
        replicas: usize,
    ) -> Result<Executable, PjrtError> {
        // A `CompileOptionsProto`: so many replicas of one partition.
        let options = [0x1a, 0x04, 0x20, replicas.min(MAX_REPLICAS) as u8, 0x28, 0x01];
        let [code, format] = [hlo.as_ptr().expose_provenance(), FORMAT.as_ptr().expose_provenance()];
        let program = Arguments::new([code, hlo.len(), format, FORMAT.len()]);
        let mut arguments = Arguments::new([
            self.client,
            program.0.as_ptr().expose_provenance(),
            options.as_ptr().expose_provenance(),
            options.len(),
            0,
        ]);
        // SAFETY: program, options and code outlive the call, which copies what it keeps.
        unsafe { self.table.call(function::CLIENT_COMPILE, &mut arguments)? };
        Ok(Executable { client: self, executable: arguments.0[6], outputs })
    }

    fn destroy(&self, index: usize, object: Word) {
        // SAFETY: objects are destroyed once, by whoever owns them. Where this fails there is nothing to do.
        let _ = unsafe { self.table.call(index, &mut Arguments::new([object])) };
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.client, other.client) && self.number == other.number
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (ptr::from_ref(self.client), self.number).hash(state);
    }
}

impl Device {
    /// Memory as a buffer that shares it. If `may_write`, a program may put an aliased output there.
    ///
    /// # Safety
    /// `data` must be of the shape's size, aligned to 64 bytes, and outlive the buffer.
    pub(crate) unsafe fn view(
        self,
        data: NonNull<u8>,
        shape: &ArrayShape,
        may_write: bool,
    ) -> Result<Buffer, PjrtError> {
        const IMMUTABLE_ZERO_COPY: Word = 2;
        const MUTABLE_ZERO_COPY: Word = 3;
        let dimensions: Vec<i64> = shape.dimensions.iter().map(|dimension| *dimension as i64).collect();
        let Device { client, number } = self;
        let device = *client.devices.get(number).ok_or(PjrtError::Device(number))?;
        let mut arguments = Arguments::new([
            client.client,
            data.as_ptr().expose_provenance(),
            element_type(shape.element)?,
            dimensions.as_ptr().expose_provenance(),
            dimensions.len(),
            0, // byte_strides: dense
            0,
            if may_write { MUTABLE_ZERO_COPY } else { IMMUTABLE_ZERO_COPY },
            device,
            0, // memory: the device's own
            0, // device_layout: row-major
            0,
            0,
        ]);
        // SAFETY: the caller's promise; the dimensions outlive the call.
        unsafe { client.table.call(function::CLIENT_BUFFER_FROM_HOST_BUFFER, &mut arguments)? };
        let [done, buffer] = [arguments.0[13], arguments.0[14]];
        if done != 0 {
            // Of no interest: the memory outlives the buffer.
            client.destroy(function::EVENT_DESTROY, done);
        }
        Ok(Buffer { client, buffer })
    }
}

/// A compiled program.
pub(crate) struct Executable {
    client: &'static Client,
    executable: Word,
    outputs: usize,
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.client.destroy(function::LOADED_EXECUTABLE_DESTROY, self.executable);
    }
}

impl Executable {
    /// Runs the program, each replica on its inputs, and waits for all of them; aliased inputs are consumed.
    pub(crate) fn execute(&self, replicas: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>, PjrtError> {
        let table = self.client.table;
        let inputs: Vec<Vec<Word>> =
            replicas.iter().map(|inputs| inputs.iter().map(|input| input.buffer).collect()).collect();
        let mut outputs: Vec<Vec<Word>> = replicas.iter().map(|_| vec![0; self.outputs]).collect();
        let input_lists: Vec<Word> = inputs.iter().map(|list| list.as_ptr().expose_provenance()).collect();
        let output_lists: Vec<Word> =
            outputs.iter_mut().map(|list| list.as_mut_ptr().expose_provenance()).collect();
        let mut completed: Vec<Word> = vec![0; replicas.len()];
        let options = Arguments::new([]);
        let mut arguments = Arguments::new([
            self.executable,
            options.0.as_ptr().expose_provenance(),
            input_lists.as_ptr().expose_provenance(),
            replicas.len(),
            inputs.first().map_or(0, Vec::len),
            output_lists.as_ptr().expose_provenance(),
            completed.as_mut_ptr().expose_provenance(),
            0, // the devices that it was compiled for
        ]);
        // SAFETY: all lists outlive the call, and are as long as the program's inputs and outputs.
        unsafe { table.call(function::LOADED_EXECUTABLE_EXECUTE, &mut arguments)? };
        // Written through the pointers above.
        let (outputs, completed) = (std::hint::black_box(outputs), std::hint::black_box(completed));
        let owned = |list: Vec<Word>| list.into_iter().map(|buffer| Buffer { client: self.client, buffer });
        let outputs = outputs.into_iter().map(|list| owned(list).collect()).collect();
        let mut finished = Ok(());
        for event in completed {
            // SAFETY: the event is the execution's own.
            let awaited = unsafe { table.call(function::EVENT_AWAIT, &mut Arguments::new([event])) };
            finished = finished.and(awaited);
            self.client.destroy(function::EVENT_DESTROY, event);
        }
        finished.map(|()| outputs)
    }
}

pub(crate) struct Buffer {
    client: &'static Client,
    buffer: Word,
}

impl Buffer {
    /// Where its numbers are.
    pub(crate) fn pointer(&self) -> Result<*const u8, PjrtError> {
        let mut arguments = Arguments::new([self.buffer, 0]);
        // SAFETY: the buffer is a live one.
        unsafe { self.client.table.call(function::BUFFER_UNSAFE_POINTER, &mut arguments)? };
        Ok(ptr::with_exposed_provenance(arguments.0[3]))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.client.destroy(function::BUFFER_DESTROY, self.buffer);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.number).finish()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Buffer").field(&self.buffer).finish()
    }
}

/// `PJRT_Buffer_Type` for a `PrimitiveType`: the same up to 12.
fn element_type(element: i64) -> Result<Word, PjrtError> {
    let others = [(15, 14), (16, 13), (18, 15), (19, 16), (20, 17), (28, 26)];
    let mut known = (1..=12).map(|same| (same, same)).chain(others);
    let found = known.find(|(primitive, _)| *primitive == element);
    found.map(|(_, buffer)| buffer as Word).ok_or(PjrtError::Element(element))
}

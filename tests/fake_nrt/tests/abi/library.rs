//! `libfake_nrt.so`, as a client has it.

use serde_json::Value;
use std::{
    env,
    ffi::{CString, OsString, c_char, c_int, c_void},
    path::Path,
    ptr,
    sync::{Mutex, MutexGuard, OnceLock},
    thread,
};

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const DEVICE: c_int = 0;

/// A handle as the library gives it; 0 is none.
pub(crate) type Handle = usize;

macro_rules! functions {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by their names without `nrt_`.
        pub(crate) struct Functions {
            $(pub(crate) $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Self {
                let name = |name: &str| match name {
                    "report" | "inject" | "reset" => format!("fake_nrt_{name}\0"),
                    _ => format!("nrt_{name}\0"),
                };
                // SAFETY: the types are those of the functions in nrt.h.
                unsafe {
                    Functions { $($name: *library.get(name(stringify!($name)).as_bytes()).expect(stringify!($name)),)* }
                }
            }
        }
    };
}

functions! {
    init(c_int, *const c_char, *const c_char) -> c_int;
    close();
    get_version(*mut u8, usize) -> c_int;
    get_instance_info(*mut u8, usize) -> c_int;
    get_total_vnc_count(*mut u32) -> c_int;
    get_visible_vnc_count(*mut u32) -> c_int;
    get_visible_nc_count(*mut u32) -> c_int;
    get_status_as_str(c_int) -> *const c_char;
    get_vnc_memory_stats(u32, *mut usize, usize, *mut usize) -> c_int;
    load(*const u8, usize, i32, i32, *mut Handle) -> c_int;
    load_collectives(*const u8, usize, i32, i32, u32, u32, *mut Handle) -> c_int;
    unload(Handle) -> c_int;
    get_model_info(Handle, *mut u32, usize, *mut usize) -> c_int;
    get_model_tensor_info(Handle, *mut *const u64) -> c_int;
    free_model_tensor_info(*const u64) -> c_int;
    tensor_allocate(c_int, c_int, usize, *const c_char, *mut Handle) -> c_int;
    tensor_allocate_slice(Handle, usize, usize, *const c_char, *mut Handle) -> c_int;
    tensor_free(*mut Handle);
    tensor_read(Handle, *mut c_void, usize, usize) -> c_int;
    tensor_write(Handle, *const c_void, usize, usize) -> c_int;
    tensor_copy(Handle, usize, Handle, usize, usize) -> c_int;
    tensor_memset(Handle, u64, c_int, usize) -> c_int;
    tensor_get_size(Handle) -> usize;
    tensor_get_va(Handle) -> usize;
    allocate_tensor_set(*mut Handle) -> c_int;
    destroy_tensor_set(*mut Handle);
    add_tensor_to_tensor_set(Handle, *const c_char, Handle) -> c_int;
    get_tensor_from_tensor_set(Handle, *const c_char, *mut Handle) -> c_int;
    execute(Handle, Handle, Handle) -> c_int;
    report(*mut u8, usize) -> usize;
    inject(*const c_char) -> c_int;
    reset();
}

/// The library, and the right to be the only one who uses it.
pub(crate) struct Library {
    pub(crate) functions: &'static Functions,
    /// What the variables that were set had before.
    before: Vec<(&'static str, Option<OsString>)>,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) fn compiler() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_neuronx-cc"))
}

fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        // Cargo builds the library into the folder of the tests that link to it.
        let path = env::current_exe().unwrap().with_file_name("libfake_nrt.so");
        // SAFETY: loading it does nothing.
        let library = unsafe { libloading::Library::new(&path) };
        let library =
            library.unwrap_or_else(|error| panic!("{}: {error}; run scripts/test.sh", path.display()));
        let functions = Functions::load(&library);
        // It stays loaded for as long as the process runs.
        std::mem::forget(library);
        functions
    })
}

impl Library {
    /// A fresh one, which has not been opened.
    pub(crate) fn closed(variables: &[(&'static str, &str)]) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = variables.iter().map(|(name, _)| (*name, env::var_os(name))).collect();
        for (name, value) in variables {
            // SAFETY: only the tests that hold this lock set variables, and only their library reads them.
            unsafe { env::set_var(name, value) };
        }
        let functions = functions();
        // SAFETY: takes nothing.
        unsafe { (functions.reset)() };
        Library { functions, before, _alone: alone }
    }

    /// One that has been opened.
    pub(crate) fn open(variables: &[(&'static str, &str)]) -> Self {
        let library = Self::closed(variables);
        assert_eq!(library.init(), SUCCESS);
        library
    }

    /// One that has been opened and has XLA to run programs on.
    pub(crate) fn with_xla(variables: &[(&'static str, &str)]) -> Self {
        let library = Self::open(variables);
        let plugin = env::var_os("FAKE_NRT_PJRT").filter(|path| Path::new(path).is_file());
        assert!(
            plugin.is_some(),
            "FAKE_NRT_PJRT is no file: run scripts/test.sh, or export what scripts/pjrt-plugin.sh prints"
        );
        library
    }

    pub(crate) fn init(&self) -> c_int {
        // SAFETY: both texts end with a zero.
        unsafe { (self.functions.init)(1, c"".as_ptr(), c"".as_ptr()) }
    }

    pub(crate) fn close(&self) {
        // SAFETY: takes nothing.
        unsafe { (self.functions.close)() };
    }

    /// A tensor of a core.
    pub(crate) fn allocate(&self, core: c_int, size: usize) -> Result<Handle, c_int> {
        self.place(DEVICE, core, size)
    }

    pub(crate) fn place(&self, placement: c_int, core: c_int, size: usize) -> Result<Handle, c_int> {
        // SAFETY: there is room for a handle.
        made(|handle| unsafe { (self.functions.tensor_allocate)(placement, core, size, ptr::null(), handle) })
    }

    pub(crate) fn slice(&self, source: Handle, offset: usize, size: usize) -> Result<Handle, c_int> {
        // SAFETY: as above.
        made(|handle| unsafe {
            (self.functions.tensor_allocate_slice)(source, offset, size, ptr::null(), handle)
        })
    }

    pub(crate) fn free(&self, mut tensor: Handle) {
        // SAFETY: points to a handle.
        unsafe { (self.functions.tensor_free)(&mut tensor) };
        assert_eq!(tensor, 0);
    }

    pub(crate) fn write(&self, tensor: Handle, offset: usize, bytes: &[u8]) -> c_int {
        // SAFETY: as many bytes as are said.
        unsafe { (self.functions.tensor_write)(tensor, bytes.as_ptr().cast(), offset, bytes.len()) }
    }

    pub(crate) fn read(&self, tensor: Handle, offset: usize, size: usize) -> Result<Vec<u8>, c_int> {
        let mut bytes = vec![0; size];
        // SAFETY: as many bytes as are said.
        let status = unsafe { (self.functions.tensor_read)(tensor, bytes.as_mut_ptr().cast(), offset, size) };
        if status == SUCCESS { Ok(bytes) } else { Err(status) }
    }

    pub(crate) fn copy(&self, from: (Handle, usize), to: (Handle, usize), size: usize) -> c_int {
        // SAFETY: handles and numbers.
        unsafe { (self.functions.tensor_copy)(from.0, from.1, to.0, to.1, size) }
    }

    pub(crate) fn set(&self, members: &[(&str, Handle)]) -> Handle {
        // SAFETY: there is room for a handle.
        let set = made(|handle| unsafe { (self.functions.allocate_tensor_set)(handle) }).unwrap();
        for (name, tensor) in members {
            assert_eq!(self.add(set, name, *tensor), SUCCESS);
        }
        set
    }

    pub(crate) fn add(&self, set: Handle, name: &str, tensor: Handle) -> c_int {
        let name = CString::new(name).unwrap();
        // SAFETY: the name ends with a zero.
        unsafe { (self.functions.add_tensor_to_tensor_set)(set, name.as_ptr(), tensor) }
    }

    pub(crate) fn destroy(&self, mut set: Handle) {
        // SAFETY: points to a handle.
        unsafe { (self.functions.destroy_tensor_set)(&mut set) };
        assert_eq!(set, 0);
    }

    pub(crate) fn load(&self, neff: &[u8], core: i32) -> Result<Handle, c_int> {
        // SAFETY: as many bytes as are said, and room for a handle.
        made(|handle| unsafe { (self.functions.load)(neff.as_ptr(), neff.len(), core, -1, handle) })
    }

    /// As one of so many ranks, which waits for the others.
    pub(crate) fn load_rank(&self, neff: &[u8], core: i32, rank: u32, ranks: u32) -> Result<Handle, c_int> {
        let load = self.functions.load_collectives;
        // SAFETY: as many bytes as are said, and room for a handle.
        made(|handle| unsafe { load(neff.as_ptr(), neff.len(), core, -1, rank, ranks, handle) })
    }

    pub(crate) fn unload(&self, model: Handle) -> c_int {
        // SAFETY: a handle.
        unsafe { (self.functions.unload)(model) }
    }

    /// On a thread whose stack is as large as it should be.
    pub(crate) fn execute(&self, model: Handle, inputs: Handle, outputs: Handle) -> c_int {
        execute_on_thread(model, inputs, outputs).join().unwrap()
    }

    pub(crate) fn inject(&self, faults: &str) {
        let faults = CString::new(faults).unwrap();
        // SAFETY: the text ends with a zero.
        assert_eq!(unsafe { (self.functions.inject)(faults.as_ptr()) }, SUCCESS);
    }

    pub(crate) fn report(&self) -> Value {
        // SAFETY: nothing is written where there is no room.
        let len = unsafe { (self.functions.report)(ptr::null_mut(), 0) };
        // A call that is counted in the meantime may make it longer.
        let mut bytes = vec![0; len + 1024];
        // SAFETY: there is as much room as is said.
        let len = unsafe { (self.functions.report)(bytes.as_mut_ptr(), bytes.len()) };
        serde_json::from_slice(&bytes[..len]).unwrap()
    }

    /// What was done wrong, since the last reset.
    pub(crate) fn violations(&self) -> Vec<String> {
        serde_json::from_value(self.report()["violations"].clone()).unwrap()
    }

    /// That exactly one thing was done wrong, whose report has these words.
    #[track_caller]
    pub(crate) fn has_violation(&self, words: &str) {
        let violations = self.violations();
        assert!(violations.len() == 1 && violations[0].contains(words), "{words}: {violations:?}");
    }

    #[track_caller]
    pub(crate) fn has_no_violation(&self) {
        assert_eq!(self.violations(), [""; 0]);
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: takes nothing. Whoever still hangs in it returns.
        unsafe { (self.functions.reset)() };
        for (name, value) in &self.before {
            match value {
                // SAFETY: as for setting them first.
                Some(value) => unsafe { env::set_var(name, value) },
                // SAFETY: as above.
                None => unsafe { env::remove_var(name) },
            }
        }
    }
}

/// What a function gives, if it succeeds.
pub(crate) fn made(make: impl FnOnce(*mut Handle) -> c_int) -> Result<Handle, c_int> {
    let mut handle = 0;
    let status = make(&mut handle);
    if status == SUCCESS { Ok(handle) } else { Err(status) }
}

pub(crate) fn execute_on_thread(model: Handle, inputs: Handle, outputs: Handle) -> thread::JoinHandle<c_int> {
    const STACK: usize = 16 << 20;
    let functions = functions();
    // SAFETY: handles.
    let run = move || unsafe { (functions.execute)(model, inputs, outputs) };
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap()
}

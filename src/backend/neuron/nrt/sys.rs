//! The C side: types as the header lays them out, and the library's functions, found when it is opened.
//!
//! Header: `src/libnrt/include/nrt/*.h` of `aws-neuron/aws-neuron-sdk` at `86a92868` (SDK 2.28). What later
//! libraries added is not used; what earlier ones lack is optional.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::error::Error;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// `NRT_STATUS`. An integer, since libraries return codes that no header of today knows.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NrtStatus(pub(crate) i32);

macro_rules! opaque {
    ($($(#[$about:meta])* $name:ident;)+) => {$(
        $(#[$about])*
        #[repr(C)]
        pub(super) struct $name {
            _private: [u8; 0],
        }
    )+};
}

opaque! {
    /// `nrt_model_t`
    NrtModel;
    /// `nrt_tensor_t`
    NrtTensor;
    /// `nrt_tensor_set_t`
    NrtTensorSet;
}

/// `NRT_FRAMEWORK_TYPE_NO_FW`
pub(super) const NO_FRAMEWORK: c_int = 1;
/// `NRT_TENSOR_PLACEMENT_DEVICE`
pub(super) const ON_DEVICE: c_int = 0;

/// `nrt_version_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct NrtVersion {
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) patch: u64,
    pub(super) maintenance: u64,
    pub(super) detail: [c_char; 128],
    pub(super) git_hash: [c_char; 64],
}

/// `nrt_instance_info_t`. Libraries before SDK 2.28 fill the first two fields only.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct NrtInstanceInfo {
    pub(super) family: u32,
    pub(super) size: u32,
    pub(super) arch_name: [c_char; 16],
    pub(super) device_revision: [c_char; 8],
}

/// `nrt_tensor_info_t`
#[repr(C)]
pub(super) struct NrtTensorInfo {
    pub(super) name: [c_char; 256],
    /// 0: input, 1: output.
    pub(super) usage: u32,
    pub(super) size: usize,
    pub(super) dtype: u32,
    /// `ndim` lengths that the library owns.
    pub(super) shape: *const u32,
    pub(super) ndim: u32,
}

/// `nrt_tensor_info_array_t`, whose entries follow it in place.
#[repr(C)]
pub(super) struct NrtTensorInfoArray {
    pub(super) count: u64,
    pub(super) entries: [NrtTensorInfo; 0],
}

/// `nrt_vnc_memory_stats_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct NrtMemoryStats {
    pub(super) bytes_used: usize,
    pub(super) bytes_limit: usize,
}

/// Sizes and offsets that a C compiler gives the header's structs on x86-64 and AArch64.
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<NrtStatus>() == 4);
    assert!(size_of::<NrtVersion>() == 224 && offset_of!(NrtVersion, git_hash) == 160);
    assert!(size_of::<NrtInstanceInfo>() == 32 && offset_of!(NrtInstanceInfo, device_revision) == 24);
    assert!(size_of::<NrtTensorInfo>() == 296 && align_of::<NrtTensorInfo>() == 8);
    assert!(offset_of!(NrtTensorInfo, usage) == 256 && offset_of!(NrtTensorInfo, size) == 264);
    assert!(offset_of!(NrtTensorInfo, dtype) == 272 && offset_of!(NrtTensorInfo, shape) == 280);
    assert!(offset_of!(NrtTensorInfo, ndim) == 288);
    assert!(offset_of!(NrtTensorInfoArray, entries) == 8);
    assert!(size_of::<NrtMemoryStats>() == 16);
};

/// Why there is no library to call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(
        "no Neuron runtime library: {tried}; install the package aws-neuronx-runtime-lib, or name the library with --neuron-library"
    )]
    NotFound { tried: String },
    #[error("{path} is not a Neuron runtime library that can be used: it has no function {symbol}")]
    NoSymbol { path: PathBuf, symbol: &'static str },
}

macro_rules! api {
    (
        required { $($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)+ }
        optional { $($opt:ident: fn($($opt_arg:ty),*) $(-> $opt_ret:ty)?;)+ }
    ) => {
        /// The functions of one library, which stays open until the process ends.
        pub(super) struct Api {
            /// The file they were found in.
            pub(super) path: PathBuf,
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)+
            $(pub(super) $opt: Option<unsafe extern "C" fn($($opt_arg),*) $(-> $opt_ret)?>,)+
        }

        impl Api {
            fn resolve(path: &Path, library: &Library) -> Result<Self, LoadError> {
                Ok(Self {
                    path: path.to_owned(),
                    $($name: {
                        let symbol = stringify!($name);
                        // SAFETY: the header gives the function of this name this signature.
                        let found = unsafe { library.get(symbol.as_bytes()) };
                        *found.map_err(|_| LoadError::NoSymbol { path: path.to_owned(), symbol })?
                    },)+
                    $($opt: {
                        // SAFETY: as above.
                        unsafe { library.get(stringify!($opt).as_bytes()) }.ok().map(|found| *found)
                    },)+
                })
            }
        }
    };
}

api! {
    required {
        nrt_init: fn(c_int, *const c_char, *const c_char) -> NrtStatus;
        nrt_close: fn();
        nrt_get_version: fn(*mut NrtVersion, usize) -> NrtStatus;
        nrt_load: fn(*const c_void, usize, i32, i32, *mut *mut NrtModel) -> NrtStatus;
        nrt_load_collectives: fn(*const c_void, usize, i32, i32, u32, u32, *mut *mut NrtModel) -> NrtStatus;
        nrt_unload: fn(*mut NrtModel) -> NrtStatus;
        nrt_get_model_tensor_info: fn(*mut NrtModel, *mut *mut NrtTensorInfoArray) -> NrtStatus;
        nrt_free_model_tensor_info: fn(*mut NrtTensorInfoArray) -> NrtStatus;
        nrt_tensor_allocate: fn(c_int, c_int, usize, *const c_char, *mut *mut NrtTensor) -> NrtStatus;
        nrt_tensor_free: fn(*mut *mut NrtTensor);
        nrt_tensor_read: fn(*const NrtTensor, *mut c_void, usize, usize) -> NrtStatus;
        nrt_tensor_write: fn(*mut NrtTensor, *const c_void, usize, usize) -> NrtStatus;
        nrt_tensor_copy: fn(*const NrtTensor, usize, *mut NrtTensor, usize, usize) -> NrtStatus;
        nrt_tensor_memset: fn(*mut NrtTensor, u64, c_int, usize) -> NrtStatus;
        nrt_allocate_tensor_set: fn(*mut *mut NrtTensorSet) -> NrtStatus;
        nrt_destroy_tensor_set: fn(*mut *mut NrtTensorSet);
        nrt_add_tensor_to_tensor_set: fn(*mut NrtTensorSet, *const c_char, *mut NrtTensor) -> NrtStatus;
        nrt_execute: fn(*mut NrtModel, *const NrtTensorSet, *mut NrtTensorSet) -> NrtStatus;
    }
    optional {
        nrt_get_total_vnc_count: fn(*mut u32) -> NrtStatus;
        nrt_get_visible_vnc_count: fn(*mut u32) -> NrtStatus;
        // The names of these two before logical cores.
        nrt_get_total_nc_count: fn(*mut u32) -> NrtStatus;
        nrt_get_visible_nc_count: fn(*mut u32) -> NrtStatus;
        nrt_get_instance_info: fn(*mut NrtInstanceInfo, usize) -> NrtStatus;
        nrt_get_vnc_memory_stats: fn(u32, *mut NrtMemoryStats, usize, *mut usize) -> NrtStatus;
    }
}

/// Where the library is looked for if nobody names it: where its package puts it, then wherever the
/// dynamic loader looks.
const PLACES: [&str; 2] = ["/opt/aws/neuron/lib/libnrt.so.1", "libnrt.so.1"];

impl Api {
    /// Opens the library at `path`, or in the usual places.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, LoadError> {
        let mut tried = Vec::new();
        let places: Vec<&OsStr> = match path {
            Some(path) => vec![path.as_os_str()],
            None => PLACES.iter().map(OsStr::new).collect(),
        };
        for place in places {
            // SAFETY: the library's initialisers run, as in any program that is linked with it.
            match unsafe { Library::open(Some(place), RTLD_NOW | RTLD_LOCAL) } {
                Ok(library) => {
                    let api = Self::resolve(Path::new(place), &library);
                    // Its threads outlive whatever we know of, so it is never closed.
                    std::mem::forget(library);
                    return api;
                }
                // The dynamic loader's own words name the file.
                Err(error) => tried.push(error.source().unwrap_or(&error).to_string()),
            }
        }
        Err(LoadError::NotFound { tried: tried.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = Api::open(Some(Path::new("/no/libnrt.so.1"))).map(drop).expect_err("there is none");
        assert!(matches!(error, LoadError::NotFound { .. }));
        let text = error.to_string();
        assert!(text.contains("/no/libnrt.so.1") && text.contains("--neuron-library"), "{text}");
    }

    #[test]
    fn a_library_that_is_another_is_refused_by_what_it_lacks() {
        let error = Api::open(Some(Path::new("libc.so.6"))).map(drop).expect_err("it is the C library");
        let text = error.to_string();
        assert_eq!(
            text,
            "libc.so.6 is not a Neuron runtime library that can be used: it has no function nrt_init"
        );
    }
}

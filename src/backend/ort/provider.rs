//! What ONNX Runtime computes on: the CPU, or an execution provider that its library was built with.

#![expect(
    unsafe_code,
    reason = "the list of a library's providers is C's, and any of them is chosen by its name"
)]

use super::library::LibraryError;
use ort::{AsPointer, session::builder::SessionBuilder};
use std::{
    ffi::{CStr, CString, c_char},
    ptr,
};

const SUFFIX: &str = "ExecutionProvider";
const CPU: &str = "CPUExecutionProvider";

/// The library's name of the provider asked for, `CUDA` or `CUDAExecutionProvider`.
///
/// # Errors
/// [`LibraryError::NoProvider`] says which there are.
pub(super) fn find(asked: &str) -> Result<String, LibraryError> {
    let known = available();
    let is_it = |name: &String| {
        name.eq_ignore_ascii_case(asked)
            || name.strip_suffix(SUFFIX).is_some_and(|name| name.eq_ignore_ascii_case(asked))
    };
    known.iter().find(|name| is_it(name)).cloned().ok_or_else(|| LibraryError::NoProvider {
        asked: asked.to_owned(),
        known: known.iter().map(|name| name.trim_end_matches(SUFFIX)).collect::<Vec<_>>().join(", "),
    })
}

/// All that the library has, the most specialised first.
fn available() -> Vec<String> {
    let mut names: *mut *mut c_char = ptr::null_mut();
    let mut count = 0;
    // SAFETY: both are written to, and the list is given back below, whence it came.
    let status = unsafe { (ort::api().GetAvailableProviders)(&mut names, &mut count) };
    // SAFETY: a status that was just returned, and is not used again.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || names.is_null() {
        return Vec::new();
    }
    // SAFETY: the call above succeeded: there are `count` strings that end with NUL.
    let owned = (0..count as usize).map(|idx| unsafe { CStr::from_ptr(*names.add(idx)) });
    let owned = owned.map(|name| name.to_string_lossy().into_owned()).collect();
    // SAFETY: the list as it came; nothing borrows from it any more.
    let status = unsafe { (ort::api().ReleaseAvailableProviders)(names, count) };
    // SAFETY: as above. There is nothing to be done if the list stays.
    let _ = unsafe { ort::Error::result_from_status(status) };
    owned
}

/// Has a session compute on the provider of that name, as [`find`] gave it, where it can.
pub(super) fn append(builder: &mut SessionBuilder, name: &str) -> Result<(), ort::Error> {
    if name == CPU {
        // It computes what no other does, without being asked.
        return Ok(());
    }
    let name = CString::new(name).map_err(ort::Error::wrap)?;
    // SAFETY: the options are the builder's, the name lives through the call, and there are no keys and values.
    unsafe {
        let status = (ort::api().SessionOptionsAppendExecutionProvider)(
            builder.ptr_mut(),
            name.as_ptr(),
            ptr::null(),
            ptr::null(),
            0,
        );
        ort::Error::result_from_status(status)
    }
}

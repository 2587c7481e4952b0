//! What tests ask of the fake itself; no other library has these.

use super::text;
use crate::{runtime, status::Status};
use std::{ffi::c_char, slice};

/// The report as JSON, cut to `len - 1` bytes and ended by a zero; returns how long it is.
///
/// # Safety
/// `buffer` has `len` bytes, or `len` is 0.
#[unsafe(no_mangle)]
unsafe extern "C" fn fake_nrt_report(buffer: *mut u8, len: usize) -> usize {
    let report = runtime::lock().report().to_string();
    if !buffer.is_null() && len > 0 {
        // SAFETY: the caller's promise.
        let buffer = unsafe { slice::from_raw_parts_mut(buffer, len) };
        let cut = report.len().min(len - 1);
        buffer[..cut].copy_from_slice(&report.as_bytes()[..cut]);
        buffer[cut] = 0;
    }
    report.len()
}

/// More faults, as in `FAKE_NRT_FAULTS`, whose calls are counted from now on. None takes away all there are.
///
/// # Safety
/// `faults` is null or a text that ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn fake_nrt_inject(faults: *const c_char) -> Status {
    // SAFETY: the caller's promise.
    match runtime::lock().inject(&unsafe { text(faults) }) {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            eprintln!("fake_nrt: {error}");
            Status::INVALID
        }
    }
}

/// Forgets everything, as if the library had just been loaded. Calls that hang return `NRT_TIMEOUT`.
#[unsafe(no_mangle)]
extern "C" fn fake_nrt_reset() {
    runtime::lock().reset();
    runtime::changed();
}

//! Tensor sets: which tensor a program's input or output is.

use super::{call, check, text};
use crate::{handles::Kind, runtime::TensorSet, status::Status};
use std::ffi::c_char;

/// # Safety
/// `set` is null or has room for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_allocate_tensor_set(set: *mut usize) -> Status {
    const NAME: &str = "nrt_allocate_tensor_set";
    call(NAME, |mut guard| {
        check(!set.is_null(), NAME, Status::INVALID, "no room for a handle")?;
        let handle = guard.sets.insert(Kind::Set, TensorSet::default());
        // SAFETY: the caller's promise.
        unsafe { set.write(handle) };
        Ok(())
    })
}

/// # Safety
/// `set` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_destroy_tensor_set(set: *mut usize) {
    const NAME: &str = "nrt_destroy_tensor_set";
    // The caller's pointer is taken back whatever comes of it.
    // SAFETY: the caller's promise.
    let handle = if set.is_null() { 0 } else { unsafe { set.replace(0) } };
    call(NAME, |mut guard| {
        check(handle != 0, NAME, Status::INVALID, "null")?;
        guard.destroy_set(NAME, handle);
        Ok(())
    });
}

/// # Safety
/// `name` is null or a text that ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_add_tensor_to_tensor_set(set: usize, name: *const c_char, tensor: usize) -> Status {
    const NAME: &str = "nrt_add_tensor_to_tensor_set";
    call(NAME, |mut guard| {
        check(!name.is_null(), NAME, Status::INVALID, "no name")?;
        guard.tensor(NAME, tensor)?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) };
        guard.set(NAME, set)?.tensors.insert(name, tensor);
        Ok(())
    })
}

/// # Safety
/// `name` is null or a text that ends with a zero, `tensor` null or room for a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_tensor_from_tensor_set(
    set: usize,
    name: *const c_char,
    tensor: *mut usize,
) -> Status {
    const NAME: &str = "nrt_get_tensor_from_tensor_set";
    call(NAME, |mut guard| {
        check(!name.is_null() && !tensor.is_null(), NAME, Status::INVALID, "a pointer is null")?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) };
        // Absent is an answer here, and no fault of the caller's.
        let member = guard.set(NAME, set)?.tensors.get(&name).copied().ok_or(Status::FAILURE)?;
        // SAFETY: the caller's promise.
        unsafe { tensor.write(member) };
        Ok(())
    })
}

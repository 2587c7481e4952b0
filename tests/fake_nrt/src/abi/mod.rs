//! The functions, as nrt.h declares them.
//!
//! Each counts its call, lets a fault have it, and checks what it is given before it does anything. Pointers to
//! memory are the caller's promise, as they are to the real library; handles are looked up and never followed.
//!
//! Source: `nrt.h`, `nrt_version.h` of SDK 2.28 (2026-02-26), whose types have not changed since 2023.

mod control;
mod execute;
pub(crate) mod info;
mod lifecycle;
mod model;
mod tensor;
mod tensor_set;

use crate::{
    faults::Action,
    runtime::{self, Guard},
    status::Status,
};
use std::ffi::{CStr, c_char};

/// One call of a function that wants the library open.
fn call(function: &'static str, body: impl FnOnce(Guard) -> Result<(), Status>) -> Status {
    let mut guard = runtime::lock();
    let called = guard.count_call(function).and_then(|fault| suffer_and_do(function, guard, fault, body));
    called.err().unwrap_or(Status::SUCCESS)
}

/// One of a function that may be called at any time.
fn call_at_any_time(function: &'static str, body: impl FnOnce(Guard) -> Result<(), Status>) -> Status {
    let mut guard = runtime::lock();
    let count = guard.count(function);
    let fault = guard.fault_of(function, count);
    suffer_and_do(function, guard, fault, body).err().unwrap_or(Status::SUCCESS)
}

fn suffer_and_do(
    function: &'static str,
    mut guard: Guard,
    fault: Option<Action>,
    body: impl FnOnce(Guard) -> Result<(), Status>,
) -> Result<(), Status> {
    guard.halves = fault == Some(Action::HalfSize);
    let Some(action) = fault else { return body(guard) };
    guard = runtime::suffer(guard, action)?;
    match action {
        Action::Return(status) if action.happens_after(function) => body(guard).and(Err(status)),
        Action::Return(status) => Err(status),
        _ => body(guard),
    }
}

/// Says on stderr, as the library does, why a call fails with a status.
fn refuse<T>(function: &str, status: Status, why: impl std::fmt::Display) -> Result<T, Status> {
    eprintln!("fake_nrt: {function}: {}: {why}", status.name().to_string_lossy());
    Err(status)
}

fn check(holds: bool, function: &str, status: Status, why: &str) -> Result<(), Status> {
    if holds { Ok(()) } else { refuse(function, status, why) }
}

/// # Safety
/// A text that ends with a zero, or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

//! Numbers too close to 0 to have all their digits, which a CPU computes with a hundred times slower.
//!
//! The weight of a position that a query must not see passes through them on its way to 0, which is most of what a
//! softmax takes. ONNX Runtime's own threads are told to take them for 0 when a session is made; the thread that calls
//! it takes part in the work, and is told here, for the call alone: Rust's own code counts on the CPU as it was.

#![expect(unsafe_code, reason = "a control register of the CPU, set for a call of C and put back")]

use ort::sys::{OrtIoBinding, OrtRunOptions, OrtSession, OrtStatusPtr};

pub(super) type RunWithBinding =
    unsafe extern "system" fn(*mut OrtSession, *const OrtRunOptions, *const OrtIoBinding) -> OrtStatusPtr;

#[cfg(all(target_arch = "x86_64", unix))]
mod control {
    use super::{OrtIoBinding, OrtSession, OrtStatusPtr, RunWithBinding};
    use std::arch::asm;

    /// Denormal results and operands are zeros: FTZ and DAZ of the register MXCSR.
    const AS_ZEROS: u32 = 1 << 15 | 1 << 6;

    fn mxcsr() -> u32 {
        let mut value = 0_u32;
        // SAFETY: stores the register where there is room for it.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// Calls what changes the register of this thread and leaves it so, and puts it back.
    pub(in super::super) fn kept<T>(change: impl FnOnce() -> T) -> T {
        let before = mxcsr();
        let result = change();
        // SAFETY: loads the register with what it held, which is what Rust counts on.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const before, options(nostack, readonly, preserves_flags))
        };
        result
    }

    /// # Safety
    /// As of the call without this.
    pub(in super::super) unsafe fn run(
        run: RunWithBinding,
        session: *mut OrtSession,
        binding: *const OrtIoBinding,
    ) -> OrtStatusPtr {
        let before = mxcsr();
        let states = [before, before | AS_ZEROS];
        let status: *mut std::ffi::c_void;
        // SAFETY: a call as C makes it, without run options: r12 and r13 are kept by whoever is called, and all that
        // need not be is named. The register is as it was when the block ends.
        unsafe {
            asm!(
                "ldmxcsr [r12 + 4]",
                "call r13",
                "ldmxcsr [r12]",
                in("r12") states.as_ptr(),
                in("r13") run,
                inlateout("rdi") session => _,
                inlateout("rsi") std::ptr::null::<()>() => _,
                inlateout("rdx") binding => _,
                lateout("rax") status,
                clobber_abi("sysv64"),
            );
        }
        OrtStatusPtr(status.cast())
    }
}

#[cfg(not(all(target_arch = "x86_64", unix)))]
mod control {
    use super::{OrtIoBinding, OrtSession, OrtStatusPtr, RunWithBinding};

    pub(in super::super) fn kept<T>(change: impl FnOnce() -> T) -> T {
        change()
    }

    /// # Safety
    /// As of the call without this.
    pub(in super::super) unsafe fn run(
        run: RunWithBinding,
        session: *mut OrtSession,
        binding: *const OrtIoBinding,
    ) -> OrtStatusPtr {
        // SAFETY: the caller's; there is no register here that is known to help.
        unsafe { run(session, std::ptr::null(), binding) }
    }
}

pub(super) use control::{kept, run};

#[cfg(all(test, target_arch = "x86_64", unix))]
mod tests {
    use super::*;
    use std::hint::black_box;

    /// Stands in for ONNX Runtime: whether half of the smallest normal number is 0, as a status.
    unsafe extern "system" fn halve(
        session: *mut OrtSession,
        options: *const OrtRunOptions,
        binding: *const OrtIoBinding,
    ) -> OrtStatusPtr {
        assert!(options.is_null());
        let is_zero = black_box(f32::MIN_POSITIVE) * black_box(0.5) == 0.0;
        OrtStatusPtr(if is_zero { session.cast() } else { binding.cast_mut().cast() })
    }

    #[test]
    fn denormals_are_zeros_within_a_run_alone() {
        let (zero, denormal) = (8 as *mut OrtSession, 16 as *const OrtIoBinding);
        // SAFETY: what is called looks at no pointer.
        let status = unsafe { run(halve, zero, denormal) };
        assert_eq!(status.0.cast(), zero);
        assert!(black_box(f32::MIN_POSITIVE) * black_box(0.5) > 0.0);
    }
}

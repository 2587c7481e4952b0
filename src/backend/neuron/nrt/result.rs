//! One function for each call of the library: pointers in and out as values, a status as an error.
//!
//! All are `unsafe`: a handle must be alive, of this library, and not in use by another call.

use super::{
    status::Remedy,
    sys::{
        Api, NO_FRAMEWORK, NrtInstanceInfo, NrtMemoryStats, NrtModel, NrtStatus, NrtTensor,
        NrtTensorInfoArray, NrtTensorSet, NrtVersion, ON_DEVICE,
    },
};
use std::ffi::{CStr, c_int};
use std::mem::{MaybeUninit, size_of};
use std::ptr::{self, NonNull};

/// A call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} returned {status}")]
pub(crate) struct NrtError {
    pub(crate) call: &'static str,
    pub(crate) status: NrtStatus,
}

impl NrtError {
    pub(crate) fn remedy(self) -> Remedy {
        self.status.remedy()
    }
}

fn check(call: &'static str, status: NrtStatus) -> Result<(), NrtError> {
    match status {
        NrtStatus::SUCCESS => Ok(()),
        status => Err(NrtError { call, status }),
    }
}

/// A handle that a call that succeeded left null is taken for a failure of that call.
fn handle<T>(call: &'static str, status: NrtStatus, raw: *mut T) -> Result<NonNull<T>, NrtError> {
    check(call, status)?;
    NonNull::new(raw).ok_or(NrtError { call, status: NrtStatus::FAILURE })
}

impl Api {
    /// # Safety
    /// Once a process.
    pub(super) unsafe fn init(&self) -> Result<(), NrtError> {
        // SAFETY: both texts are empty and end.
        check("nrt_init", unsafe { (self.nrt_init)(NO_FRAMEWORK, c"".as_ptr(), c"".as_ptr()) })
    }

    /// # Safety
    /// After everything made with this library is gone.
    pub(super) unsafe fn close(&self) {
        // SAFETY: by the caller.
        unsafe { (self.nrt_close)() }
    }

    pub(super) fn version(&self) -> Result<NrtVersion, NrtError> {
        let mut version = MaybeUninit::<NrtVersion>::zeroed();
        // SAFETY: the struct is as long as it is said to be; the call is allowed at any time.
        let status = unsafe { (self.nrt_get_version)(version.as_mut_ptr(), size_of::<NrtVersion>()) };
        check("nrt_get_version", status)?;
        // SAFETY: any bytes are a version.
        Ok(unsafe { version.assume_init() })
    }

    /// `None`: the library has no such function.
    pub(super) fn instance_info(&self) -> Option<Result<NrtInstanceInfo, NrtError>> {
        let call = self.nrt_get_instance_info?;
        let mut info = MaybeUninit::<NrtInstanceInfo>::zeroed();
        // SAFETY: as of `version`.
        let status = unsafe { call(info.as_mut_ptr(), size_of::<NrtInstanceInfo>()) };
        // SAFETY: any bytes are such an info.
        Some(check("nrt_get_instance_info", status).map(|()| unsafe { info.assume_init() }))
    }

    /// Logical cores that the machine has.
    pub(super) fn total_cores(&self) -> Result<u32, NrtError> {
        self.count("nrt_get_total_vnc_count", self.nrt_get_total_vnc_count.or(self.nrt_get_total_nc_count))
    }

    /// Logical cores that this process may use.
    pub(super) fn visible_cores(&self) -> Result<u32, NrtError> {
        let newer = self.nrt_get_visible_vnc_count;
        self.count("nrt_get_visible_vnc_count", newer.or(self.nrt_get_visible_nc_count))
    }

    fn count(
        &self,
        name: &'static str,
        call: Option<unsafe extern "C" fn(*mut u32) -> NrtStatus>,
    ) -> Result<u32, NrtError> {
        let call = call.ok_or(NrtError { call: name, status: NrtStatus::FAILURE })?;
        let mut count = 0;
        // SAFETY: the pointer is to an integer; the call is allowed at any time.
        check(name, unsafe { call(&mut count) })?;
        Ok(count)
    }

    /// `None`: the library has no such function.
    pub(super) fn memory_stats(&self, core: u32) -> Option<Result<NrtMemoryStats, NrtError>> {
        let call = self.nrt_get_vnc_memory_stats?;
        let (mut stats, mut written) = (NrtMemoryStats::default(), 0);
        // SAFETY: the struct is as long as it is said to be, both pointers are to living values.
        let status = unsafe { call(core, &mut stats, size_of::<NrtMemoryStats>(), &mut written) };
        Some(check("nrt_get_vnc_memory_stats", status).map(|()| stats))
    }

    /// # Safety
    /// After [`init`](Self::init).
    pub(super) unsafe fn load(&self, neff: &[u8], core: i32) -> Result<NonNull<NrtModel>, NrtError> {
        let mut model = ptr::null_mut();
        // SAFETY: the bytes live until the call is over, and it copies what it keeps.
        let status = unsafe { (self.nrt_load)(neff.as_ptr().cast(), neff.len(), core, -1, &mut model) };
        handle("nrt_load", status, model)
    }

    /// Returns once every rank of the program is being loaded, each by a thread of its own.
    ///
    /// # Safety
    /// After [`init`](Self::init).
    pub(super) unsafe fn load_collectives(
        &self,
        neff: &[u8],
        core: i32,
        (rank, ranks): (u32, u32),
    ) -> Result<NonNull<NrtModel>, NrtError> {
        let mut model = ptr::null_mut();
        let (bytes, size) = (neff.as_ptr().cast(), neff.len());
        // SAFETY: as of `load`.
        let status = unsafe { (self.nrt_load_collectives)(bytes, size, core, -1, rank, ranks, &mut model) };
        handle("nrt_load_collectives", status, model)
    }

    /// # Safety
    /// The model is not used again.
    pub(super) unsafe fn unload(&self, model: NonNull<NrtModel>) -> Result<(), NrtError> {
        // SAFETY: by the caller.
        check("nrt_unload", unsafe { (self.nrt_unload)(model.as_ptr()) })
    }

    /// # Safety
    /// The model is alive. What is returned is given to [`free_tensor_info`](Self::free_tensor_info) once.
    pub(super) unsafe fn tensor_info(
        &self,
        model: NonNull<NrtModel>,
    ) -> Result<NonNull<NrtTensorInfoArray>, NrtError> {
        let mut info = ptr::null_mut();
        // SAFETY: by the caller.
        let status = unsafe { (self.nrt_get_model_tensor_info)(model.as_ptr(), &mut info) };
        handle("nrt_get_model_tensor_info", status, info)
    }

    /// # Safety
    /// What [`tensor_info`](Self::tensor_info) returned, and nothing of it is used again.
    pub(super) unsafe fn free_tensor_info(&self, info: NonNull<NrtTensorInfoArray>) -> Result<(), NrtError> {
        // SAFETY: by the caller.
        let status = unsafe { (self.nrt_free_model_tensor_info)(info.as_ptr()) };
        check("nrt_free_model_tensor_info", status)
    }

    /// # Safety
    /// After [`init`](Self::init).
    pub(super) unsafe fn tensor_allocate(
        &self,
        core: i32,
        size: usize,
        name: &CStr,
    ) -> Result<NonNull<NrtTensor>, NrtError> {
        let mut tensor = ptr::null_mut();
        // SAFETY: the name ends, and is copied.
        let status = unsafe { (self.nrt_tensor_allocate)(ON_DEVICE, core, size, name.as_ptr(), &mut tensor) };
        handle("nrt_tensor_allocate", status, tensor)
    }

    /// # Safety
    /// The tensor is not used again, and in no set.
    pub(super) unsafe fn tensor_free(&self, tensor: NonNull<NrtTensor>) {
        // SAFETY: by the caller.
        unsafe { (self.nrt_tensor_free)(&mut tensor.as_ptr()) }
    }

    /// # Safety
    /// The tensor is alive.
    pub(super) unsafe fn tensor_read(
        &self,
        tensor: NonNull<NrtTensor>,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), NrtError> {
        // SAFETY: the call blocks until the bytes are there, and writes as many as it is told.
        let status =
            unsafe { (self.nrt_tensor_read)(tensor.as_ptr(), into.as_mut_ptr().cast(), offset, into.len()) };
        check("nrt_tensor_read", status)
    }

    /// # Safety
    /// The tensor is alive.
    pub(super) unsafe fn tensor_write(
        &self,
        tensor: NonNull<NrtTensor>,
        offset: usize,
        from: &[u8],
    ) -> Result<(), NrtError> {
        // SAFETY: the call blocks until the bytes are taken.
        let status =
            unsafe { (self.nrt_tensor_write)(tensor.as_ptr(), from.as_ptr().cast(), offset, from.len()) };
        check("nrt_tensor_write", status)
    }

    /// # Safety
    /// Both tensors are alive.
    pub(super) unsafe fn tensor_copy(
        &self,
        (from, from_offset): (NonNull<NrtTensor>, usize),
        (to, to_offset): (NonNull<NrtTensor>, usize),
        size: usize,
    ) -> Result<(), NrtError> {
        // SAFETY: by the caller.
        let status =
            unsafe { (self.nrt_tensor_copy)(from.as_ptr(), from_offset, to.as_ptr(), to_offset, size) };
        check("nrt_tensor_copy", status)
    }

    /// # Safety
    /// The tensor is alive.
    pub(super) unsafe fn tensor_zero(
        &self,
        tensor: NonNull<NrtTensor>,
        offset: usize,
        size: usize,
    ) -> Result<(), NrtError> {
        // SAFETY: by the caller.
        let status = unsafe { (self.nrt_tensor_memset)(tensor.as_ptr(), offset as u64, 0, size) };
        check("nrt_tensor_memset", status)
    }

    /// # Safety
    /// After [`init`](Self::init).
    pub(super) unsafe fn set_allocate(&self) -> Result<NonNull<NrtTensorSet>, NrtError> {
        let mut set = ptr::null_mut();
        // SAFETY: by the caller.
        let status = unsafe { (self.nrt_allocate_tensor_set)(&mut set) };
        handle("nrt_allocate_tensor_set", status, set)
    }

    /// # Safety
    /// The set is not used again.
    pub(super) unsafe fn set_destroy(&self, set: NonNull<NrtTensorSet>) {
        // SAFETY: by the caller.
        unsafe { (self.nrt_destroy_tensor_set)(&mut set.as_ptr()) }
    }

    /// # Safety
    /// Both are alive, and the tensor outlives the set.
    pub(super) unsafe fn set_add(
        &self,
        set: NonNull<NrtTensorSet>,
        name: &CStr,
        tensor: NonNull<NrtTensor>,
    ) -> Result<(), NrtError> {
        // SAFETY: the name ends, and is copied.
        let status =
            unsafe { (self.nrt_add_tensor_to_tensor_set)(set.as_ptr(), name.as_ptr(), tensor.as_ptr()) };
        check("nrt_add_tensor_to_tensor_set", status)
    }

    /// # Safety
    /// All three are alive, and no other call uses them. The thread's stack is large: the library needs more
    /// than the 2 MiB that Rust gives a thread (aws-neuron-sdk issue 673).
    pub(super) unsafe fn execute(
        &self,
        model: NonNull<NrtModel>,
        inputs: NonNull<NrtTensorSet>,
        outputs: NonNull<NrtTensorSet>,
    ) -> Result<(), NrtError> {
        // SAFETY: by the caller.
        let status = unsafe { (self.nrt_execute)(model.as_ptr(), inputs.as_ptr(), outputs.as_ptr()) };
        check("nrt_execute", status)
    }
}

/// Cores are numbered as the process sees them, from 0.
pub(super) fn core_number(core: usize) -> c_int {
    c_int::try_from(core).unwrap_or(c_int::MAX)
}

//! Tensors: memory of a core, or a little of the host's.

use super::{call, check, refuse, text};
use crate::{
    handles::Kind,
    memory::{ALIGNMENT, Storage, Tensor},
    runtime::{self, Guard},
    status::Status,
};
use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
    sync::Arc,
};

/// `nrt_tensor_placement_t`; `VIRTUAL` (2) was removed.
const DEVICE: c_int = 0;
const HOST: c_int = 1;
const MAX_HOST_BYTES: usize = 4 << 20;
/// Before 2.30 a tensor of this size was undefined behaviour.
const SMALL_LIMIT: usize = 4 << 30;

/// # Safety
/// `name` is a text that ends with a zero, and `tensor` has room for a handle; or they are null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_tensor_allocate(
    placement: c_int,
    vnc: c_int,
    size: usize,
    name: *const c_char,
    tensor: *mut usize,
) -> Status {
    const NAME: &str = "nrt_tensor_allocate";
    call(NAME, |mut guard| {
        check(!tensor.is_null() && size > 0, NAME, Status::INVALID, "no room for a handle, or no size")?;
        let Some(settings) = guard.settings.clone() else { return Err(Status::UNINITIALIZED) };
        if size >= SMALL_LIMIT && settings.version < [2, 30, 0, 0] {
            guard.violation(format!("{NAME}: {size} bytes, and this version's tensors are below 4 GiB"));
            return Err(Status::INVALID);
        }
        let core = match placement {
            DEVICE => {
                Some(usize::try_from(vnc).ok().filter(|core| *core < guard.cores.len()).ok_or_else(|| {
                    eprintln!("fake_nrt: {NAME}: core {vnc} is not visible");
                    Status::INVALID
                })?)
            }
            HOST if size <= MAX_HOST_BYTES => None,
            HOST => return refuse(NAME, Status::INVALID, "a host tensor has at most 4 MiB"),
            _ => {
                return refuse(NAME, Status::INVALID, format_args!("placement {placement} is not to be had"));
            }
        };
        let (meter, limit) = match core {
            Some(core) => (&guard.cores[core].memory, settings.memory),
            None => (&guard.host_memory, usize::MAX),
        };
        let Some(storage) = Storage::allocate(size, Arc::clone(meter), limit) else {
            let why = format!("{size} bytes, with {} of {limit} in use", meter.used());
            return refuse(NAME, Status::RESOURCE, why);
        };
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) };
        let handle = guard.tensors.insert(Kind::Tensor, Arc::new(Tensor::new(storage, core, name)));
        // SAFETY: the caller's promise.
        unsafe { tensor.write(handle) };
        Ok(())
    })
}

/// # Safety
/// As [`nrt_tensor_allocate`].
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_tensor_allocate_slice(
    source: usize,
    offset: usize,
    size: usize,
    name: *const c_char,
    slice: *mut usize,
) -> Status {
    const NAME: &str = "nrt_tensor_allocate_slice";
    call(NAME, |mut guard| {
        let source = guard.tensor(NAME, source)?;
        check(!slice.is_null() && size > 0, NAME, Status::INVALID, "no room for a handle, or no size")?;
        check(source.contains(offset, size), NAME, Status::INVALID, "the slice is not inside its source")?;
        let why = "the slice does not begin at a multiple of 64 bytes, and no document says that it may";
        check(offset.is_multiple_of(ALIGNMENT), NAME, Status::INVALID, why)?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) };
        let handle = guard.tensors.insert(Kind::Tensor, Arc::new(source.slice(offset, size, name)));
        // SAFETY: the caller's promise.
        unsafe { slice.write(handle) };
        Ok(())
    })
}

/// # Safety
/// `tensor` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_tensor_free(tensor: *mut usize) {
    const NAME: &str = "nrt_tensor_free";
    // The caller's pointer is taken back whatever comes of it.
    // SAFETY: the caller's promise.
    let handle = if tensor.is_null() { 0 } else { unsafe { tensor.replace(0) } };
    call(NAME, |mut guard| {
        check(handle != 0, NAME, Status::INVALID, "null")?;
        guard.free_tensor(NAME, handle);
        Ok(())
    });
}

/// A tensor, once no running program uses it, and the start of a range inside it.
fn range(
    function: &'static str,
    mut guard: Guard,
    tensor: usize,
    offset: usize,
    size: usize,
) -> Result<(Guard, *mut u8), Status> {
    let tensor = guard.tensor(function, tensor)?;
    if !tensor.contains(offset, size) {
        let why = format!("{size} bytes at {offset} of {:?}, which has {}", tensor.name, tensor.size);
        return refuse(function, Status::INVALID, why);
    }
    let guard = runtime::wait_until_free(guard, function, &tensor);
    // SAFETY: inside, as has been checked.
    Ok((guard, unsafe { tensor.start().add(offset).as_ptr() }))
}

/// # Safety
/// `buffer` has room for `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_tensor_read(
    tensor: usize,
    buffer: *mut c_void,
    offset: usize,
    size: usize,
) -> Status {
    const NAME: &str = "nrt_tensor_read";
    call(NAME, |guard| {
        let (mut guard, from) = range(NAME, guard, tensor, offset, size)?;
        check(!buffer.is_null(), NAME, Status::INVALID, "no buffer")?;
        guard.transfers.read += size as u64;
        // SAFETY: the range is the tensor's, whose memory is not the caller's; the rest is the caller's promise.
        unsafe { ptr::copy_nonoverlapping(from, buffer.cast(), size) };
        Ok(())
    })
}

/// # Safety
/// `buffer` has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_tensor_write(
    tensor: usize,
    buffer: *const c_void,
    offset: usize,
    size: usize,
) -> Status {
    const NAME: &str = "nrt_tensor_write";
    call(NAME, |guard| {
        let (mut guard, to) = range(NAME, guard, tensor, offset, size)?;
        check(!buffer.is_null(), NAME, Status::INVALID, "no buffer")?;
        guard.transfers.written += size as u64;
        // SAFETY: as for reading.
        unsafe { ptr::copy_nonoverlapping(buffer.cast(), to, size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nrt_tensor_copy(
    source: usize,
    from: usize,
    destination: usize,
    to: usize,
    size: usize,
) -> Status {
    const NAME: &str = "nrt_tensor_copy";
    call(NAME, |mut guard| {
        let (source_tensor, destination_tensor) =
            (guard.tensor(NAME, source)?, guard.tensor(NAME, destination)?);
        if source_tensor.core != destination_tensor.core {
            return refuse(NAME, Status::INVALID, "the tensors are not in the memory of one core");
        }
        let (guard, source_start) = range(NAME, guard, source, from, size)?;
        let (mut guard, destination_start) = range(NAME, guard, destination, to, size)?;
        if source_start.addr().abs_diff(destination_start.addr()) < size {
            guard.violation(format!("{NAME}: the ranges overlap"));
        }
        // SAFETY: both ranges are inside their tensors, and may overlap.
        unsafe { ptr::copy(source_start, destination_start, size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nrt_tensor_memset(tensor: usize, offset: u64, value: c_int, size: usize) -> Status {
    const NAME: &str = "nrt_tensor_memset";
    call(NAME, |guard| {
        let (_guard, start) = range(NAME, guard, tensor, offset as usize, size)?;
        // SAFETY: the range is inside the tensor.
        unsafe { start.write_bytes(value as u8, size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nrt_tensor_get_size(tensor: usize) -> usize {
    const NAME: &str = "nrt_tensor_get_size";
    let mut size = 0;
    call(NAME, |mut guard| {
        size = guard.tensor(NAME, tensor)?.size;
        Ok(())
    });
    size
}

/// An address that is the device's: the host that follows it crashes.
#[unsafe(no_mangle)]
extern "C" fn nrt_tensor_get_va(tensor: usize) -> *mut c_void {
    const NAME: &str = "nrt_tensor_get_va";
    let mut address = ptr::null_mut();
    call(NAME, |mut guard| {
        guard.tensor(NAME, tensor)?;
        address = ptr::without_provenance_mut(tensor);
        Ok(())
    });
    address
}

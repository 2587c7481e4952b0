//! Opening and closing, versions and counts.

use super::{call, call_at_any_time, check, refuse};
use crate::{
    runtime::{self, Phase},
    settings::Settings,
    status::Status,
};
use std::{
    ffi::{c_char, c_int},
    ptr,
    sync::Once,
};

/// `nrt_version_t`
#[repr(C)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    maintenance: u64,
    detail: [u8; 128],
    git_hash: [u8; 64],
}

/// `nrt_instance_info_t`
#[repr(C)]
struct InstanceInfo {
    family: u32,
    size: u32,
    arch_name: [u8; 16],
    device_revision: [u8; 8],
}

const _: () = assert!(size_of::<Version>() == 224 && size_of::<InstanceInfo>() == 32);

/// `NRT_FRAMEWORK_TYPE_PRECHECK`, the last one.
const MAX_FRAMEWORK: c_int = 5;

#[unsafe(no_mangle)]
extern "C" fn nrt_init(framework: c_int, _fw_version: *const c_char, _fal_version: *const c_char) -> Status {
    const NAME: &str = "nrt_init";
    static AT_EXIT: Once = Once::new();
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(error) => return refuse::<()>(NAME, Status::INVALID, error).err().unwrap_or(Status::INVALID),
    };
    // Before the call is counted, since what goes wrong with it is in the settings.
    let mut guard = runtime::lock();
    if guard.phase != Phase::Open {
        guard.read_faults(&settings);
    }
    drop(guard);
    call_at_any_time(NAME, |mut guard| {
        check((1..=MAX_FRAMEWORK).contains(&framework), NAME, Status::INVALID, "no such framework")?;
        match guard.phase {
            Phase::Start => {}
            Phase::Open => {
                guard.violation("nrt_init: it is open already".into());
                return Err(Status::INVALID);
            }
            // Libraries before 2.34 cannot be opened again.
            Phase::Closed if settings.version < [2, 34, 0, 0] => {
                return refuse(NAME, Status::CLOSED, "this version opens once a process");
            }
            Phase::Closed => {}
        }
        guard.open(settings);
        // SAFETY: the function takes nothing, and the library is never unloaded.
        AT_EXIT.call_once(|| unsafe {
            libc::atexit(write_report);
        });
        Ok(())
    })
}

extern "C" fn write_report() {
    runtime::lock().write_report();
}

#[unsafe(no_mangle)]
extern "C" fn nrt_close() {
    call("nrt_close", |mut guard| {
        guard.close();
        guard.write_report();
        Ok(())
    });
}

/// # Safety
/// `version` is null, or has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_version(version: *mut u8, size: usize) -> Status {
    const NAME: &str = "nrt_get_version";
    call_at_any_time(NAME, |guard| {
        let size = guard.size(size);
        check(!version.is_null() && size > 0, NAME, Status::INVALID, "no room for a version")?;
        let [major, minor, patch, maintenance] = settings(NAME)?.version;
        let mut detail = [0; 128];
        let text = b"simulated: no NeuronCore";
        detail[..text.len()].copy_from_slice(text);
        let known = Version { major, minor, patch, maintenance, detail, git_hash: [0; 64] };
        // SAFETY: the caller's promise; older callers have fewer bytes.
        unsafe { copy_struct(&known, version, size) };
        Ok(())
    })
}

/// # Safety
/// `info` is null, or has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_instance_info(info: *mut u8, size: usize) -> Status {
    const NAME: &str = "nrt_get_instance_info";
    call_at_any_time(NAME, |guard| {
        let size = guard.size(size);
        check(!info.is_null() && size >= 8, NAME, Status::INVALID, "no room for an instance")?;
        let instance = settings(NAME)?.instance;
        let mut known = InstanceInfo {
            family: instance.family,
            size: instance.size,
            arch_name: [0; 16],
            device_revision: *b"sim\0\0\0\0\0",
        };
        known.arch_name[..4].copy_from_slice(format!("NCv{}", instance.generation).as_bytes());
        // SAFETY: the caller's promise.
        unsafe { copy_struct(&known, info, size) };
        Ok(())
    })
}

/// As much of a struct as its caller knows.
///
/// # Safety
/// `to` has `size` bytes.
pub(super) unsafe fn copy_struct<T>(from: &T, to: *mut u8, size: usize) {
    // SAFETY: the caller's promise, and no more than the struct has.
    unsafe { ptr::from_ref(from).cast::<u8>().copy_to_nonoverlapping(to, size.min(size_of::<T>())) };
}

/// Those of `nrt_init`; before it, what it would read.
fn settings(function: &str) -> Result<Settings, Status> {
    Settings::from_environment().or_else(|error| refuse(function, Status::INVALID, error))
}

/// # Safety
/// `count` is null or has room for a number.
unsafe fn count(function: &'static str, count: *mut u32, of: fn(&Settings) -> usize) -> Status {
    call_at_any_time(function, |guard| {
        check(!count.is_null(), function, Status::INVALID, "no room for a count")?;
        let known = match &guard.settings {
            Some(known) => of(known),
            None => of(&settings(function)?),
        };
        // SAFETY: the caller's promise.
        unsafe { count.write(known as u32) };
        Ok(())
    })
}

macro_rules! counts {
    ($($name:ident: $of:expr;)*) => {
        $(
            /// # Safety
            /// `number` is null or has room for a number.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(number: *mut u32) -> Status {
                // SAFETY: the caller's promise.
                unsafe { count(stringify!($name), number, $of) }
            }
        )*
    };
}

counts! {
    nrt_get_total_vnc_count: |settings| settings.cores;
    nrt_get_visible_vnc_count: |settings| settings.visible.len();
    nrt_get_total_nc_count: |settings| settings.cores;
    nrt_get_visible_nc_count: |settings| settings.visible.len();
}

#[unsafe(no_mangle)]
extern "C" fn nrt_get_status_as_str(status: Status) -> *const c_char {
    runtime::lock().count("nrt_get_status_as_str");
    status.name().as_ptr()
}

/// `nrt_vnc_memory_stats_t`
#[repr(C)]
struct MemoryStats {
    bytes_used: usize,
    bytes_limit: usize,
}

/// # Safety
/// `stats` has `size` bytes, and `written` room for a number; or they are null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_vnc_memory_stats(
    vnc: u32,
    stats: *mut u8,
    size: usize,
    written: *mut usize,
) -> Status {
    const NAME: &str = "nrt_get_vnc_memory_stats";
    call(NAME, |guard| {
        let size = guard.size(size);
        let has_room = !stats.is_null() && !written.is_null() && size >= size_of::<MemoryStats>();
        check(has_room, NAME, Status::INVALID, "no room for the statistics")?;
        let (Some(core), Some(settings)) = (guard.cores.get(vnc as usize), &guard.settings) else {
            return refuse(NAME, Status::INVALID, format_args!("core {vnc} is not visible"));
        };
        let known = MemoryStats { bytes_used: core.memory.used(), bytes_limit: settings.memory };
        // SAFETY: the caller's promise.
        unsafe {
            copy_struct(&known, stats, size);
            written.write(size_of::<MemoryStats>());
        }
        Ok(())
    })
}

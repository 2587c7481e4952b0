//! Loading and unloading programs.

use super::{call, check, lifecycle::copy_struct, refuse};
use crate::{
    handles::Kind,
    neff::{BadNeff, Neff},
    program::{MAX_RANKS, Program},
    runtime::{self, Guard, Model},
    settings::{Instance, Settings},
    status::Status,
};
use std::slice;

/// # Safety
/// `neff` has `size` bytes, and `model` room for a handle; or they are null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_load(
    neff: *const u8,
    size: usize,
    vnc: i32,
    vnc_count: i32,
    model: *mut usize,
) -> Status {
    // SAFETY: the caller's promise.
    call("nrt_load", |guard| unsafe { load("nrt_load", guard, (neff, size), vnc, vnc_count, None, model) })
}

/// # Safety
/// As [`nrt_load`].
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_load_collectives(
    neff: *const u8,
    size: usize,
    vnc: i32,
    vnc_count: i32,
    device_id: u32,
    device_count: u32,
    model: *mut usize,
) -> Status {
    const NAME: &str = "nrt_load_collectives";
    let rank = Some((device_id, device_count));
    // SAFETY: the caller's promise.
    call(NAME, |guard| unsafe { load(NAME, guard, (neff, size), vnc, vnc_count, rank, model) })
}

/// # Safety
/// As [`nrt_load`].
unsafe fn load(
    function: &'static str,
    guard: Guard,
    (neff, size): (*const u8, usize),
    vnc: i32,
    vnc_count: i32,
    rank: Option<(u32, u32)>,
    model: *mut usize,
) -> Result<(), Status> {
    check(!neff.is_null() && !model.is_null(), function, Status::INVALID, "a pointer is null")?;
    check(vnc_count == -1 || vnc_count == 1, function, Status::LOAD_NOT_ENOUGH_NC, "a program has one core")?;
    let Some(settings) = guard.settings.clone() else { return Err(Status::UNINITIALIZED) };
    let (rank_id, ranks) = rank.map_or((0, 1), |(id, count)| (id as usize, count as usize));
    check_ranks(function, rank_id, ranks, &settings)?;
    let core = match usize::try_from(vnc) {
        Ok(core) if core < guard.cores.len() => core,
        Err(_) if vnc == -1 => first_free(&guard),
        _ => {
            let why = format!("core {vnc} is not one of the {} that are visible", guard.cores.len());
            return refuse(function, Status::LOAD_NOT_ENOUGH_NC, why);
        }
    };
    let size = guard.size(size);
    // Compiling takes seconds, in which others go on.
    drop(guard);
    // SAFETY: the caller's promise.
    let file = unsafe { slice::from_raw_parts(neff, size) };
    let program = unpack(function, file, ranks, &settings)?;
    if program.has_collectives && rank.is_none() {
        return refuse(function, Status::INVALID, "a program with collectives wants nrt_load_collectives");
    }

    let mut guard = runtime::lock();
    guard.check_open(function)?;
    guard.loaded(&program);
    let mut group = None;
    if ranks > 1 {
        let (met, joined) = runtime::meet(guard, function, &program, rank_id)?;
        guard = met;
        group = Some((joined, rank_id));
    }
    let Some(memory) = guard.cores.get(core).map(|core| &core.memory) else { return Err(Status::CLOSED) };
    check(
        memory.take(size, settings.memory),
        function,
        Status::RESOURCE,
        "no device memory is left for the program",
    )?;
    let handle = guard.models.insert(Kind::Model, Model { program, group, core, bytes: size });
    // SAFETY: the caller's promise.
    unsafe { model.write(handle) };
    Ok(())
}

fn check_ranks(function: &str, rank: usize, ranks: usize, settings: &Settings) -> Result<(), Status> {
    check(rank < ranks, function, Status::INVALID, "the rank is not below their number")?;
    let multiple = if settings.instance.name.starts_with("trn1") {
        [2, 8, 16].contains(&ranks)
    } else {
        ranks.is_multiple_of(2)
    };
    let topology = ranks == 1 || ranks.is_multiple_of(32) || multiple;
    check(
        topology,
        function,
        Status::INVALID,
        "Unsupported topology: the chip has no ring of so many ranks",
    )?;
    check(ranks <= MAX_RANKS, function, Status::INVALID, "more ranks than are simulated")?;
    let why = "several ranks want NEURON_RT_ROOT_COMM_ID=address:port";
    check(ranks == 1 || settings.has_root_comm_id, function, Status::INVALID, why)
}

/// The core with the fewest programs.
fn first_free(guard: &Guard) -> usize {
    let loaded = |core: &usize| guard.models.values().filter(|model| model.core == *core).count();
    (0..guard.cores.len()).min_by_key(loaded).unwrap_or(0)
}

fn unpack(
    function: &str,
    file: &[u8],
    ranks: usize,
    settings: &Settings,
) -> Result<std::sync::Arc<Program>, Status> {
    let neff = Neff::unpack(file).or_else(|error| {
        let status = match error {
            BadNeff::Features(_) => Status::UNSUPPORTED_NEFF_VERSION,
            BadNeff::Field { field: "neff_version_major", .. } => Status::UNSUPPORTED_NEFF_VERSION,
            _ => Status::INVALID,
        };
        refuse(function, status, error)
    })?;
    if neff.lnc != settings.lnc {
        let why = format!("the program is for cores of {} and these are of {}", neff.lnc, settings.lnc);
        return refuse(function, Status::INVALID, why);
    }
    let Some(target) = Instance::of(&neff.target) else {
        return refuse(
            function,
            Status::INVALID,
            format_args!("the program is for {}, whatever that is", neff.target),
        );
    };
    let legacy = settings.allow_legacy && target.generation < settings.instance.generation;
    if target.generation != settings.instance.generation && !legacy {
        let why = format!("the program is for {}, and this is {}", target.name, settings.instance.name);
        return refuse(function, Status::HW_ERROR, why);
    }
    Program::compile(&neff.hlo, ranks, settings.pjrt.as_deref())
        .or_else(|error| refuse(function, Status::INVALID, error))
}

#[unsafe(no_mangle)]
extern "C" fn nrt_unload(model: usize) -> Status {
    call("nrt_unload", |mut guard| guard.unload("nrt_unload", model))
}

/// `nrt_model_info_t`
#[repr(C)]
struct ModelInfo {
    vnc: u32,
}

/// # Safety
/// `info` has `size` bytes, and `written` room for a number; or they are null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_model_info(
    model: usize,
    info: *mut u8,
    size: usize,
    written: *mut usize,
) -> Status {
    const NAME: &str = "nrt_get_model_info";
    call(NAME, |mut guard| {
        let known = ModelInfo { vnc: guard.model(NAME, model)?.core as u32 };
        let has_room = !info.is_null() && !written.is_null() && size >= size_of::<ModelInfo>();
        check(has_room, NAME, Status::INVALID, "no room for the information")?;
        // SAFETY: the caller's promise.
        unsafe {
            copy_struct(&known, info, size);
            written.write(size_of::<ModelInfo>());
        }
        Ok(())
    })
}

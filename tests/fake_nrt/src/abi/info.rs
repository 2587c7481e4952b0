//! What a program's inputs and outputs are, as it is told to the caller.

use super::{call, check};
use crate::{
    hlo::{ALIAS_SUFFIX, ArrayShape, Binding},
    program::Program,
    settings::Dtypes,
    status::Status,
};
use std::ffi::c_char;

/// `nrt_tensor_info_t`
#[repr(C)]
struct TensorInfo {
    name: [c_char; NAME_MAX],
    usage: u32,
    size: usize,
    dtype: u32,
    shape: *mut u32,
    ndim: u32,
}

/// `NRT_TENSOR_NAME_MAX`
const NAME_MAX: usize = 256;
const _: () = assert!(size_of::<TensorInfo>() == 296);

const INPUT: u32 = 0;
const OUTPUT: u32 = 1;

/// An array that the caller has the address of: a count, and as many infos after it.
pub(crate) struct TensorInfos {
    words: Vec<u64>,
    /// What the infos point to.
    _shapes: Vec<Box<[u32]>>,
}

// SAFETY: the pointers in it are to what it owns.
unsafe impl Send for TensorInfos {}

impl TensorInfos {
    /// Sizes are told as `size` has it of their bytes.
    fn new(program: &Program, dtypes: Dtypes, size: impl Fn(usize) -> usize) -> Self {
        let inputs = program.inputs.iter().map(|binding| (INPUT, binding));
        // The compiler's convention: the input has the suffix, and what takes its place is called without it.
        let outputs = program.outputs.iter().map(|binding| (OUTPUT, binding));
        let mut shapes: Vec<Box<[u32]>> = Vec::new();
        let mut words = vec![(program.inputs.len() + program.outputs.len()) as u64];
        for (usage, binding) in inputs.chain(outputs) {
            let mut shape: Box<[u32]> = binding.shape.dimensions.iter().map(|size| *size as u32).collect();
            let mut info = info(usage, binding, dtypes, &mut shape);
            info.size = size(info.size);
            shapes.push(shape);
            let info = std::ptr::from_ref(&info).cast::<u64>();
            // SAFETY: an info is that many words, none of which is uninitialised: it was zeroed.
            words.extend((0..size_of::<TensorInfo>() / 8).map(|word| unsafe { info.add(word).read() }));
        }
        TensorInfos { words, _shapes: shapes }
    }
}

fn info(usage: u32, binding: &Binding, dtypes: Dtypes, shape: &mut [u32]) -> TensorInfo {
    // SAFETY: numbers and pointers, all of which may be zero; padding is zeroed too.
    let mut info: TensorInfo = unsafe { std::mem::zeroed() };
    for (to, from) in info.name.iter_mut().zip(binding.name.bytes().take(NAME_MAX - 1)) {
        *to = from as c_char;
    }
    debug_assert!(usage == INPUT || !binding.name.ends_with(ALIAS_SUFFIX));
    info.usage = usage;
    info.size = binding.shape.bytes().unwrap_or(0);
    info.dtype = dtype(&binding.shape, dtypes);
    info.shape = shape.as_mut_ptr();
    info.ndim = shape.len() as u32;
    info
}

/// `nrt_dtype_t` for a `PrimitiveType`: predicates are bytes, 8-bit floats are said to be integers.
fn dtype(shape: &ArrayShape, dtypes: Dtypes) -> u32 {
    let (old, new) = match shape.element {
        1 | 6 => (5, 0x3),
        2 | 19..=25 | 28 | 29 => (4, 0x2),
        3 => (6, 0x4),
        4 => (8, 0x8),
        5 => (10, 0xc),
        7 => (7, 0x5),
        8 => (9, 0x9),
        9 => (11, 0x1),
        10 => (2, 0x7),
        11 => (1, 0xa),
        16 => (3, 0x6),
        _ => (0, 0),
    };
    if dtypes == Dtypes::Old { old } else { new }
}

/// # Safety
/// `infos` is null or has room for a pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn nrt_get_model_tensor_info(model: usize, infos: *mut *const u64) -> Status {
    const NAME: &str = "nrt_get_model_tensor_info";
    call(NAME, |mut guard| {
        let model = guard.model(NAME, model)?;
        check(!infos.is_null(), NAME, Status::INVALID, "no room for a pointer")?;
        let dtypes = guard.settings.as_ref().map_or(Dtypes::New, |settings| settings.dtypes);
        let known = TensorInfos::new(&model.program, dtypes, |size| guard.size(size));
        let address = known.words.as_ptr();
        guard.infos.insert_at(address.addr(), known);
        // SAFETY: the caller's promise.
        unsafe { infos.write(address) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nrt_free_model_tensor_info(infos: usize) -> Status {
    const NAME: &str = "nrt_free_model_tensor_info";
    call(NAME, |mut guard| match guard.infos.remove(infos) {
        Some(_) => Ok(()),
        None => {
            guard.violation(format!("{NAME}: {infos:#x} is no tensor info, or one that was freed"));
            Err(Status::INVALID_HANDLE)
        }
    })
}

//! Programs: which are loaded, which are refused, and what they say of themselves.

use crate::{
    library::{Handle, Library, SUCCESS},
    program::{CACHE_ROWS, Cell, TABLE_ROWS, WIDTH, module_with, neff, neff_for},
};
use fake_nrt::neff::{Contents, pack};
use std::{ffi::CStr, ptr};

#[test]
fn a_program_that_is_not_whole_is_refused() {
    let library = Library::with_xla(&[]);
    let changed = |offset: usize, byte: u8| {
        let mut neff = neff().to_vec();
        neff[offset] = byte;
        library.load(&neff, 0)
    };
    assert_eq!(library.load(b"no program", 0), Err(2));
    assert_eq!(changed(0, 3), Err(2), "pkg_version");
    assert_eq!(changed(24, 3), Err(10), "neff_version_major");
    assert_eq!(changed(547, 0x80), Err(10), "feature_bits");
    assert_eq!(changed(172, neff()[172] ^ 1), Err(2), "hash");
    assert_eq!(changed(1100, neff()[1100] ^ 1), Err(2), "archive");
    assert_eq!(library.load(&neff()[..neff().len() - 1], 0), Err(2));
    assert_eq!(library.report()["live"]["models"], 0);
}

#[test]
fn a_program_runs_on_its_own_generation_of_chips() {
    let library = Library::with_xla(&[]);
    assert!(library.load(&neff_for("trn1"), 0).is_ok(), "the same generation as inf2");
    let hlo = module_with(&[]);
    let packed = |target| {
        pack(&Contents { hlo: &hlo, name: "cell", target, lnc: 1, version: "0", compressed: true }).unwrap()
    };
    assert_eq!(library.load(&packed("trn2"), 0), Err(6));
    assert_eq!(library.load(&packed("inf1"), 0), Err(2));
    assert_eq!(library.load(&neff_for("trn2"), 0), Err(2), "a logical core of two");
    drop(library);
    let library = Library::with_xla(&[("FAKE_NRT_INSTANCE", "trn2"), ("NEURON_LOGICAL_NC_CONFIG", "1")]);
    assert_eq!(library.load(neff(), 0), Err(6));
    drop(library);
    let variables = [
        ("FAKE_NRT_INSTANCE", "trn2"),
        ("NEURON_LOGICAL_NC_CONFIG", "1"),
        ("NEURON_RT_ALLOW_LEGACY_NEFF", "1"),
    ];
    assert!(Library::with_xla(&variables).load(neff(), 0).is_ok());
}

#[test]
fn a_program_is_loaded_on_a_core_that_is_there() {
    let library = Library::with_xla(&[]);
    assert_eq!(library.load(neff(), 2), Err(9));
    assert_eq!(library.load(neff(), -2), Err(9));
    let core = |model: Handle| {
        let (mut core, mut written) = (9, 0);
        // SAFETY: as much room as is said.
        let status = unsafe { (library.functions.get_model_info)(model, &mut core, 4, &mut written) };
        assert_eq!((status, written), (SUCCESS, 4));
        core
    };
    let models = [-1, -1, 1].map(|at| library.load(neff(), at).unwrap());
    assert_eq!(models.map(core), [0, 1, 1]);
    assert_eq!(library.unload(models[0]), SUCCESS);
    library.has_no_violation();
    assert_eq!(library.unload(models[0]), 3);
    library.has_violation("is no model, or one that was freed");
}

#[test]
fn programs_are_device_memory_too() {
    let library = Library::with_xla(&[("FAKE_NRT_MEMORY", "1000")]);
    assert_eq!(library.load(neff(), 0), Err(4));
}

#[test]
fn without_xla_nothing_is_loaded() {
    let library = Library::open(&[("FAKE_NRT_PJRT", "")]);
    let unused = crate::program::instruction(80, "copy", crate::program::shape(11, &[2, 16]), &[25]);
    let contents = Contents {
        hlo: &module_with(&[unused]),
        name: "cell",
        target: "inf2",
        lnc: 1,
        version: "0",
        compressed: true,
    };
    assert_eq!(library.load(&pack(&contents).unwrap(), 0), Err(2));
}

/// What `nrt_tensor_info_t` says: name, usage, size, dtype and shape.
type Info = (String, u32, usize, u32, Vec<u32>);

fn infos(library: &Library, model: Handle) -> Vec<Info> {
    let mut array: *const u64 = ptr::null();
    // SAFETY: room for a pointer; the array is read before it is freed, at the offsets of the header.
    unsafe {
        assert_eq!((library.functions.get_model_tensor_info)(model, &mut array), SUCCESS);
        let count = array.read() as usize;
        let read = |number: usize| {
            let info = array.add(1).cast::<u8>().add(number * 296);
            let word = |offset: usize| info.add(offset).cast::<u32>().read();
            let shape = info.add(280).cast::<*const u32>().read();
            let shape = (0..word(288) as usize).map(|dimension| shape.add(dimension).read()).collect();
            let name = CStr::from_ptr(info.cast()).to_str().unwrap().to_owned();
            (name, word(256), info.add(264).cast::<usize>().read(), word(272), shape)
        };
        let infos = (0..count).map(read).collect();
        assert_eq!((library.functions.free_model_tensor_info)(array), SUCCESS);
        library.has_no_violation();
        assert_eq!((library.functions.free_model_tensor_info)(array), 3);
        infos
    }
}

#[test]
fn inputs_and_outputs_are_told_in_either_numbering_of_types() {
    for (numbering, [s32, f32]) in [("old", [8, 1]), ("new", [8, 10])] {
        let library = Library::with_xla(&[("FAKE_NRT_DTYPES", numbering)]);
        let cell = Cell::load(&library, 0);
        let [cache, table, y] =
            [CACHE_ROWS, TABLE_ROWS, 2].map(|rows| (rows * WIDTH * 4, vec![rows as u32, WIDTH as u32]));
        let expected: [Info; 6] = [
            ("cache.must_alias_input".into(), 0, cache.0, f32, cache.1.clone()),
            ("ids".into(), 0, 8, s32, vec![2]),
            ("row".into(), 0, 4, s32, vec![1]),
            ("table".into(), 0, table.0, f32, table.1),
            ("y".into(), 1, y.0, f32, y.1),
            ("cache".into(), 1, cache.0, f32, cache.1),
        ];
        assert_eq!(infos(&library, cell.model), expected);
        library.has_violation("is no tensor info, or one that was freed");
    }
}

//! Opening, closing, and what may be asked at any time.

use crate::library::{Library, SUCCESS};
use std::ffi::{CStr, c_int};

#[test]
fn what_needs_an_open_library_says_which_it_is() {
    let library = Library::closed(&[]);
    assert_eq!(library.allocate(0, 64), Err(13));
    library.has_violation("nrt_tensor_allocate: called before nrt_init");
    assert_eq!(library.init(), SUCCESS);
    let tensor = library.allocate(0, 64).unwrap();
    library.free(tensor);
    library.close();
    assert_eq!(library.allocate(0, 64), Err(14));
    library.free(0x1234);
    library.close();
    let violations = library.violations();
    assert_eq!(violations.len(), 4, "{violations:?}");
    assert!(violations[1..].iter().all(|violation| violation.ends_with("called after nrt_close")));
}

#[test]
fn it_opens_again_only_from_2_34_on() {
    for (version, expected) in [("2.33.10.0", 14), ("2.34.10.0", SUCCESS)] {
        let library = Library::open(&[("FAKE_NRT_VERSION", version)]);
        library.close();
        assert_eq!(library.init(), expected, "{version}");
        library.has_no_violation();
    }
    let library = Library::open(&[]);
    assert_eq!(library.init(), 2);
    library.has_violation("open already");
}

#[test]
fn what_is_left_at_the_end_is_told() {
    let library = Library::open(&[]);
    library.allocate(1, 640).unwrap();
    library.set(&[]);
    library.close();
    library.has_violation("1 tensors, 1 tensor sets, 0 models and 0 tensor infos are left");
    let report = library.report();
    assert_eq!(report["live"]["tensors"], 1);
    assert_eq!(report["cores"][1]["bytes_in_use"], 640);
    assert_eq!(report["simulated"], true);
    assert_eq!(report["calls"]["nrt_tensor_allocate"], 1);
}

#[test]
fn the_version_is_told_before_it_opens_and_says_that_it_is_simulated() {
    let library = Library::closed(&[("FAKE_NRT_VERSION", "2.31.24.7")]);
    let mut version = [0u8; 224];
    // SAFETY: as many bytes as are said.
    let status = unsafe { (library.functions.get_version)(version.as_mut_ptr(), version.len()) };
    assert_eq!(status, SUCCESS);
    let numbers: Vec<u64> =
        version[..32].as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    assert_eq!(numbers, [2, 31, 24, 7]);
    assert!(CStr::from_bytes_until_nul(&version[32..]).unwrap().to_str().unwrap().contains("simulated"));
}

#[test]
fn cores_are_counted_as_the_environment_has_them() {
    let library = Library::closed(&[("FAKE_NRT_CORES", "4"), ("NEURON_RT_VISIBLE_CORES", "2-3")]);
    let count = |function: unsafe extern "C" fn(*mut u32) -> c_int| {
        let mut count = 0;
        // SAFETY: room for a number.
        assert_eq!(unsafe { function(&mut count) }, SUCCESS);
        count
    };
    let functions = library.functions;
    assert_eq!(count(functions.get_total_vnc_count), 4);
    assert_eq!(count(functions.get_visible_vnc_count), 2);
    assert_eq!(library.init(), SUCCESS);
    assert_eq!(count(functions.get_visible_nc_count), 2);
    assert!(library.allocate(1, 64).is_ok());
    assert_eq!(library.allocate(2, 64), Err(2));
}

#[test]
fn cores_that_are_not_there_fail_the_opening() {
    let library = Library::closed(&[("NEURON_RT_VISIBLE_CORES", "2")]);
    assert_eq!(library.init(), 2);
    assert_eq!(library.allocate(0, 64), Err(13));
}

#[test]
fn the_instance_is_the_one_asked_for() {
    let library = Library::closed(&[("FAKE_NRT_INSTANCE", "trn2")]);
    let mut info = [0u8; 32];
    // SAFETY: as many bytes as are said.
    assert_eq!(unsafe { (library.functions.get_instance_info)(info.as_mut_ptr(), info.len()) }, SUCCESS);
    assert_eq!((info[0], &info[8..12]), (5, b"NCv3".as_slice()));
}

#[test]
fn statuses_have_the_names_of_the_header() {
    let library = Library::closed(&[]);
    for (status, expected) in
        [(0, "NRT_SUCCESS"), (101, "NRT_EXEC_UNIT_UNRECOVERABLE"), (1006, "NRT_EXEC_OOB"), (8, "")]
    {
        // SAFETY: a text that ends with a zero and is never freed.
        let name = unsafe { CStr::from_ptr((library.functions.get_status_as_str)(status)) };
        assert_eq!(name.to_str(), Ok(expected));
    }
}

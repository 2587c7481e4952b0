//! Memory: its size, its bounds, who owns it.

use crate::library::{Library, SUCCESS};
use std::ffi::c_int;

const HOST: c_int = 1;
const VIRTUAL: c_int = 2;

#[test]
fn bytes_are_kept_and_fresh_memory_is_no_number() {
    let library = Library::open(&[]);
    let tensor = library.allocate(0, 256).unwrap();
    assert_eq!(library.read(tensor, 0, 256), Ok(vec![0xff; 256]));
    assert_eq!(library.write(tensor, 100, b"some bytes"), SUCCESS);
    assert_eq!(library.read(tensor, 99, 12).unwrap(), b"\xffsome bytes\xff");
    let moved = &library.report()["tensor_bytes"];
    assert_eq!([&moved["read"], &moved["written"]], [256 + 12, 10]);
    // SAFETY: a handle and numbers.
    assert_eq!(unsafe { (library.functions.tensor_memset)(tensor, 101, 7, 2) }, SUCCESS);
    assert_eq!(library.read(tensor, 100, 4).unwrap(), b"s\x07\x07e");
    // SAFETY: a handle.
    assert_eq!(unsafe { (library.functions.tensor_get_size)(tensor) }, 256);
    // SAFETY: a handle.
    assert_ne!(unsafe { (library.functions.tensor_get_va)(tensor) }, 0);
    library.has_no_violation();
}

#[test]
fn what_is_outside_is_refused() {
    let library = Library::open(&[]);
    let tensor = library.allocate(0, 256).unwrap();
    let other = library.allocate(0, 256).unwrap();
    assert_eq!(library.read(tensor, 250, 7), Err(2));
    assert_eq!(library.write(tensor, 256, &[1]), 2);
    assert_eq!(library.write(tensor, usize::MAX, &[1]), 2);
    assert_eq!(library.copy((tensor, 128), (other, 0), 129), 2);
    assert_eq!(library.copy((tensor, 0), (other, 200), 57), 2);
    // SAFETY: a handle and numbers.
    assert_eq!(unsafe { (library.functions.tensor_memset)(tensor, 250, 0, 7) }, 2);
}

#[test]
fn copies_are_between_tensors_of_one_core() {
    let library = Library::open(&[]);
    let tensors = [0, 0, 1].map(|core| library.allocate(core, 128).unwrap());
    library.write(tensors[0], 0, &[1, 2, 3, 4]);
    assert_eq!(library.copy((tensors[0], 1), (tensors[1], 64), 3), SUCCESS);
    assert_eq!(library.read(tensors[1], 64, 3).unwrap(), [2, 3, 4]);
    assert_eq!(library.copy((tensors[0], 0), (tensors[2], 0), 4), 2);
    library.has_no_violation();
    assert_eq!(library.copy((tensors[0], 0), (tensors[0], 2), 4), SUCCESS);
    library.has_violation("overlap");
}

#[test]
fn placements_that_newer_libraries_lack_are_refused() {
    let library = Library::open(&[]);
    assert!(library.place(HOST, 0, 4 << 20).is_ok());
    assert_eq!(library.place(HOST, 0, (4 << 20) + 1), Err(2));
    assert_eq!(library.place(VIRTUAL, 0, 64), Err(2));
    assert_eq!(library.allocate(2, 64), Err(2));
    assert_eq!(library.allocate(-1, 64), Err(2));
    assert_eq!(library.allocate(0, 0), Err(2));
}

#[test]
fn each_core_has_as_much_memory_as_it_has() {
    let library = Library::open(&[("FAKE_NRT_MEMORY", "1000")]);
    let tensor = library.allocate(0, 600).unwrap();
    assert_eq!(library.allocate(0, 401), Err(4));
    assert!(library.allocate(1, 1000).is_ok());
    let (mut stats, mut written) = ([0usize; 2], 0);
    // SAFETY: as much room as is said.
    let status = unsafe { (library.functions.get_vnc_memory_stats)(0, stats.as_mut_ptr(), 16, &mut written) };
    assert_eq!((status, stats, written), (SUCCESS, [600, 1000], 16));
    library.free(tensor);
    assert!(library.allocate(0, 1000).is_ok());
}

#[test]
fn a_slice_shares_memory_that_outlives_its_source() {
    let library = Library::open(&[("FAKE_NRT_MEMORY", "1000")]);
    let source = library.allocate(0, 512).unwrap();
    let slice = library.slice(source, 128, 64).unwrap();
    library.write(source, 128, b"shared");
    assert_eq!(library.slice(source, 1, 64), Err(2));
    assert_eq!(library.slice(source, 448, 65), Err(2));
    library.free(source);
    assert_eq!(library.read(slice, 0, 6).unwrap(), b"shared");
    assert_eq!(library.allocate(0, 512), Err(4), "the slice keeps all of it");
    library.free(slice);
    assert!(library.allocate(0, 512).is_ok());
    library.has_no_violation();
}

#[test]
fn a_handle_that_was_freed_is_known() {
    let library = Library::open(&[]);
    let tensor = library.allocate(0, 64).unwrap();
    library.free(tensor);
    let again = library.allocate(0, 64).unwrap();
    assert_ne!(tensor, again);
    assert_eq!(library.read(tensor, 0, 1), Err(3));
    library.has_violation("is no tensor, or one that was freed");
    library.free(tensor);
    assert_eq!(library.violations().len(), 2);
    assert_eq!(library.report()["live"]["tensors"], 1);
}

#[test]
fn a_set_has_the_last_tensor_of_a_name() {
    let library = Library::open(&[]);
    let [first, second] = [64, 128].map(|size| library.allocate(0, size).unwrap());
    let set = library.set(&[("x", first), ("x", second)]);
    let get = |name: &std::ffi::CStr| {
        // SAFETY: the name ends with a zero, and there is room for a handle.
        crate::library::made(|tensor| unsafe {
            (library.functions.get_tensor_from_tensor_set)(set, name.as_ptr(), tensor)
        })
    };
    assert_eq!(get(c"x"), Ok(second));
    assert_eq!(get(c"y"), Err(1));
    library.free(first);
    library.has_no_violation();
    library.free(second);
    library.has_violation("is still in a tensor set");
    library.destroy(set);
    library.destroy(set);
    assert_eq!(library.violations().len(), 2);
    assert_eq!(library.add(set, "x", first), 3);
}

//! What goes wrong when it is asked to.

use crate::{
    library::{Library, SUCCESS},
    program::{Cell, WIDTH, read_floats},
};
use serde_json::Value;
use std::{env, fs, process::Command, time::Instant};

#[test]
fn the_nth_call_fails_as_it_is_told_to() {
    let library = Library::open(&[("FAKE_NRT_FAULTS", "nrt_tensor_allocate@2=4;nrt_tensor_write@*=1")]);
    let tensor = library.allocate(0, 64).unwrap();
    assert_eq!(library.allocate(0, 64), Err(4));
    assert!(library.allocate(0, 64).is_ok());
    assert_eq!([library.write(tensor, 0, b"x"), library.write(tensor, 0, b"x")], [1, 1]);
    assert_eq!(library.read(tensor, 0, 1).unwrap(), [0xff], "nothing was written");
    library.inject("");
    assert_eq!(library.write(tensor, 0, b"x"), SUCCESS);
    library.inject("nrt_tensor_write@2=2");
    assert_eq!([library.write(tensor, 0, b"x"), library.write(tensor, 0, b"x")], [SUCCESS, 2]);
    assert_eq!(library.report()["faults_injected"], 4);
    library.has_no_violation();
}

#[test]
fn opening_fails_as_it_is_told_to() {
    let library = Library::closed(&[("FAKE_NRT_FAULTS", "nrt_init@1=2")]);
    assert_eq!([library.init(), library.init()], [2, SUCCESS]);
    let library = {
        drop(library);
        Library::closed(&[("FAKE_NRT_FAULTS", "nrt_init@first=2")])
    };
    assert_eq!(library.init(), 2, "a fault that cannot be read");
    assert_eq!(library.init(), 2);
}

#[test]
fn an_execution_fails_before_it_computes_or_after() {
    let library = Library::with_xla(&[]);
    let cell = Cell::load(&library, 0);
    library.inject("nrt_execute@1=1005;nrt_execute@2=1004;nrt_execute@4=101");
    assert_eq!(cell.step(&library, [0, 0], 0), 1005);
    assert!(read_floats(&library, cell.y, 1)[0].is_nan(), "nothing was computed");
    assert_eq!(cell.step(&library, [0, 0], 0), 1004);
    assert!(!read_floats(&library, cell.y, 1)[0].is_nan());
    assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
    assert_eq!(cell.step(&library, [0, 0], 0), 101);
    assert_eq!(cell.step(&library, [0, 0], 0), 101, "a core that is lost stays so");
    cell.free(&library);
    library.close();
    library.has_no_violation();
}

#[test]
fn nan_is_told_only_where_it_is_asked_for() {
    for (value, expected) in [("0", SUCCESS), ("1", 1003)] {
        let library = Library::with_xla(&[("NEURON_FAIL_ON_NAN", value)]);
        let cell = Cell::load(&library, 0);
        assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
        library.inject("nrt_execute@1=nan");
        assert_eq!(cell.step(&library, [0, 0], 0), expected);
        assert!(read_floats(&library, cell.y, 2 * WIDTH).iter().all(|number| number.is_nan()));
        assert!(!read_floats(&library, cell.cache, WIDTH).iter().any(|number| number.is_nan()));
    }
}

#[test]
fn what_is_written_in_place_is_nan_where_it_is_asked_for() {
    let library = Library::with_xla(&[]);
    let [sound, spoiled] = [(); 2].map(|()| Cell::load(&library, 0));
    assert_eq!(sound.step(&library, [1, 2], 1), SUCCESS);
    library.inject("nrt_execute@1=nan-in-place");
    assert_eq!(spoiled.step(&library, [1, 2], 1), SUCCESS);
    let [sound, y, spoiled] =
        [sound.cache, spoiled.y, spoiled.cache].map(|tensor| read_floats(&library, tensor, 2 * WIDTH));
    assert!(y.iter().all(|float| !float.is_nan()));
    assert!(sound.iter().any(|&float| float != 0.0), "something is written");
    let pairs = sound.iter().zip(&spoiled);
    assert!(
        pairs.clone().all(|(sound, spoiled)| spoiled.is_nan() == (*sound != 0.0)),
        "{sound:?} {spoiled:?}"
    );
}

#[test]
fn a_size_is_half_of_what_it_is() {
    let library = Library::open(&[]);
    // SAFETY: takes a handle.
    let size = |tensor| unsafe { (library.functions.tensor_get_size)(tensor) };
    library.inject(
        "nrt_tensor_allocate@1=half-size;nrt_tensor_read@1=half-size;nrt_tensor_get_size@3=half-size",
    );
    let [half, whole] = [library.allocate(0, 64).unwrap(), library.allocate(0, 64).unwrap()];
    assert_eq!([size(half), size(whole), size(whole)], [32, 64, 32]);
    assert_eq!([library.write(half, 0, &[0; 33]), library.write(half, 0, &[0; 32])], [2, SUCCESS]);
    assert_eq!(library.read(whole, 0, 33), Err(2));
    assert_eq!(library.read(whole, 0, 33).unwrap().len(), 33);
    assert_eq!(
        library.report()["tensor_bytes"],
        serde_json::json!({ "read": 33, "written": 32, "copied": 0, "set": 0 })
    );
    library.has_no_violation();
}

#[test]
fn a_call_is_late_as_it_is_told_to() {
    let library = Library::open(&[]);
    library.inject("nrt_tensor_allocate@1=delay:50ms");
    let began = Instant::now();
    assert!(library.allocate(0, 64).is_ok());
    assert!(began.elapsed().as_millis() >= 50);
}

#[test]
fn what_returns_nothing_cannot_fail() {
    let library = Library::open(&[("FAKE_NRT_FAULTS", "nrt_tensor_free@*=1;nrt_close@*=1")]);
    let tensor = library.allocate(0, 64).unwrap();
    library.free(tensor);
    library.close();
    library.has_no_violation();
    assert_eq!(library.report()["phase"], "closed");
}

#[test]
fn an_unload_that_fails_takes_its_handle_all_the_same() {
    let library = Library::with_xla(&[]);
    let cell = Cell::load(&library, 0);
    library.inject("nrt_unload@1=1");
    assert_eq!(library.unload(cell.model), 1);
    assert_eq!(library.report()["live"]["models"], 0);
}

/// In a process of its own, which ends without closing the library.
#[test]
fn the_report_is_written_when_the_process_ends() {
    const CHILD: &str = "FAKE_NRT_TEST_CHILD";
    if env::var_os(CHILD).is_some() {
        let library = Library::open(&[]);
        library.allocate(0, 64).unwrap();
        // The report is of what is there at the end.
        std::process::exit(0);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "faults::the_report_is_written_when_the_process_ends"]);
    let output = command.env(CHILD, "1").env("FAKE_NRT_REPORT", &path).output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!((&report["phase"], &report["live"]["tensors"]), (&"open".into(), &1.into()));
}

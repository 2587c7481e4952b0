//! Running a program: what it computes, where, and what it refuses to be given.

use crate::{
    library::{Library, SUCCESS, execute_on_thread},
    program::{CACHE_ROWS, Cell, WIDTH, read_floats, table_row},
};
use std::{thread, time::Instant};

fn open() -> Library {
    Library::with_xla(&[])
}

#[test]
fn a_program_computes_and_updates_its_cache_in_place() {
    let library = open();
    let cell = Cell::load(&library, 0);
    for (step, (ids, row)) in [([0, 3], 2), ([6, 1], 0)].into_iter().enumerate() {
        assert_eq!(cell.step(&library, ids, row), SUCCESS);
        let written = table_row(ids[0] as usize + 1);
        let gathered = ids.map(|id| table_row(id as usize + 1)).concat();
        let expected: Vec<f32> = gathered.iter().zip(written.iter().cycle()).map(|(x, y)| x + y).collect();
        assert_eq!(read_floats(&library, cell.y, 2 * WIDTH), expected);
        let cache = read_floats(&library, cell.cache, CACHE_ROWS * WIDTH);
        assert_eq!(cache[row as usize * WIDTH..][..WIDTH], written);
        assert_eq!(cache[WIDTH..2 * WIDTH], [0.0; WIDTH]);
        if step == 1 {
            assert_eq!(cache[2 * WIDTH..][..WIDTH], table_row(1), "from the step before");
        }
    }
    let executions = &library.report()["executions"];
    assert_eq!(executions["completed"], 2);
    assert_eq!(executions["outputs_in_place"], 2);
    assert_eq!([&executions["outputs_copied_back"], &executions["inputs_copied"]], [0, 0]);
    cell.free(&library);
    library.close();
    library.has_no_violation();
    let report = library.report();
    for kind in ["tensors", "tensor_sets", "models", "tensor_infos"] {
        assert_eq!(report["live"][kind], 0);
    }
    assert_eq!(report["cores"][0]["bytes_in_use"], 0);
}

#[test]
fn cores_run_side_by_side() {
    let library = open();
    let cells = [0, 1].map(|core| Cell::load(&library, core));
    thread::scope(|scope| {
        for (cell, ids) in cells.iter().zip([[0, 3], [5, 2]]) {
            let library = &library;
            scope.spawn(move || {
                let first = table_row(ids[0] as usize + 1);
                for row in 0..200 {
                    assert_eq!(cell.step(library, ids, row % 4), SUCCESS);
                    let doubled: Vec<f32> = first.iter().map(|number| 2.0 * number).collect();
                    assert_eq!(read_floats(library, cell.y, WIDTH), doubled);
                }
            });
        }
    });
    library.has_no_violation();
    assert_eq!(library.report()["executions"]["outputs_in_place"], 400);
}

#[test]
fn what_is_written_to_an_input_is_what_the_next_step_reads() {
    let library = open();
    let cell = Cell::load(&library, 1);
    assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
    assert_eq!(library.write(cell.table, WIDTH * 4, &1000f32.to_le_bytes()), SUCCESS);
    assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
    assert_eq!(read_floats(&library, cell.y, 1), [2000.0]);
}

#[test]
fn an_index_outside_fails_the_step_and_changes_nothing() {
    let library = open();
    let cell = Cell::load(&library, 0);
    for (ids, row) in [([7, 0], 0), ([0, -2], 0), ([0, 7], 0), ([0, 0], 4), ([0, 0], -1)] {
        assert_eq!(cell.step(&library, ids, row), 1006, "{ids:?} {row}");
    }
    assert_eq!(read_floats(&library, cell.cache, CACHE_ROWS * WIDTH), [0.0; CACHE_ROWS * WIDTH]);
    assert_eq!(cell.step(&library, [-1, 6], 3), SUCCESS);
    assert_eq!(library.report()["unchecked_indices"], serde_json::json!([]));
    library.has_no_violation();
}

#[test]
fn memory_that_was_never_written_is_no_index() {
    let library = open();
    let cell = Cell::load(&library, 0);
    assert_eq!(library.write(cell.ids, 0, &[0; 8]), SUCCESS);
    assert_eq!(library.execute(cell.model, cell.inputs, cell.outputs), 1006);
}

#[test]
fn every_input_and_output_must_be_bound_at_its_size() {
    let library = open();
    let cell = Cell::load(&library, 0);
    cell.step(&library, [0, 0], 0);
    let without = library.set(&[("y", cell.y)]);
    assert_eq!(library.execute(cell.model, cell.inputs, without), 1002);
    assert_eq!(library.execute(cell.model, without, cell.outputs), 1002);
    let large = library.allocate(0, 12).unwrap();
    library.add(cell.inputs, "ids", large);
    assert_eq!(library.execute(cell.model, cell.inputs, cell.outputs), 1002);
    let elsewhere = library.allocate(1, 8).unwrap();
    library.add(cell.inputs, "ids", elsewhere);
    assert_eq!(library.execute(cell.model, cell.inputs, cell.outputs), 2);
    library.has_no_violation();
    library.add(cell.inputs, "ids", cell.ids);
    assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
}

#[test]
fn an_output_takes_the_place_of_its_input_and_of_no_other() {
    let library = open();
    let cell = Cell::load(&library, 0);
    let other = library.allocate(0, CACHE_ROWS * WIDTH * 4).unwrap();
    library.add(cell.outputs, "cache", other);
    assert_eq!(cell.step(&library, [0, 0], 0), 1002);
    library.has_violation("cache is not bound to the tensor of the input whose place it takes");
    library.add(cell.outputs, "cache", cell.cache);
    let part = library.slice(cell.table, 0, 2 * WIDTH * 4).unwrap();
    library.add(cell.outputs, "y", part);
    assert_eq!(cell.step(&library, [0, 0], 0), 1002);
    assert!(library.violations()[1].contains("y shares memory with another input or output"));
}

#[test]
fn a_tensor_that_was_freed_is_not_run_on() {
    let library = open();
    let cell = Cell::load(&library, 0);
    cell.step(&library, [0, 0], 0);
    library.free(cell.y);
    assert_eq!(library.execute(cell.model, cell.inputs, cell.outputs), 3);
    assert_eq!(library.execute(cell.inputs, cell.model, cell.outputs), 3, "handles of other kinds");
    assert_eq!(library.violations().len(), 3);
}

#[test]
fn a_small_stack_is_noticed() {
    let library = open();
    let cell = Cell::load(&library, 0);
    assert_eq!(cell.step(&library, [0, 0], 0), SUCCESS);
    library.has_no_violation();
    let functions = library.functions;
    // SAFETY: handles.
    let run = move || unsafe { (functions.execute)(cell.model, cell.inputs, cell.outputs) };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    library.has_violation("is too small");
}

/// Until as many things were done wrong.
fn wait_for_violations(library: &Library, count: usize) {
    let began = Instant::now();
    while library.violations().len() < count {
        assert!(began.elapsed().as_secs() < 60, "{:?}", library.violations());
        thread::yield_now();
    }
}

fn wait_for_executions(library: &Library, count: u64) {
    let began = Instant::now();
    while library.report()["calls"]["nrt_execute"] != count {
        assert!(began.elapsed().as_secs() < 60);
        thread::yield_now();
    }
}

#[test]
fn a_core_runs_one_program_at_a_time_and_what_it_runs_on_is_left_alone() {
    let library = open();
    let (cell, other_core) = (Cell::load(&library, 0), Cell::load(&library, 1));
    library.inject("nrt_execute@1=hang");
    let hanging = execute_on_thread(cell.model, cell.inputs, cell.outputs);
    wait_for_executions(&library, 1);
    assert_eq!(other_core.step(&library, [0, 0], 0), SUCCESS, "another core goes on");
    library.has_no_violation();
    let second = execute_on_thread(cell.model, cell.inputs, cell.outputs);
    wait_for_violations(&library, 1);
    library.destroy(cell.inputs);
    library.destroy(cell.outputs);
    library.free(cell.y);
    library.unload(cell.model);
    let violations = library.violations();
    assert!(violations[0].contains("core 0 is executing already"), "{violations:?}");
    assert!(violations[1].contains("is used by a running program"), "{violations:?}");
    assert!(violations[2].contains("cell is being executed"), "{violations:?}");
    // SAFETY: takes nothing.
    unsafe { (library.functions.reset)() };
    assert_eq!(hanging.join().unwrap(), 5);
    second.join().unwrap();
}

//! Several ranks of one process, which run one program together.

use crate::{
    library::{Handle, Library, SUCCESS},
    program::{WIDTH, compile, floats, read_floats, sum_module},
};
use std::{sync::OnceLock, thread};

fn neff() -> &'static [u8] {
    static NEFF: OnceLock<Vec<u8>> = OnceLock::new();
    NEFF.get_or_init(|| compile(&sum_module(), "inf2"))
}

const ADDRESS: (&str, &str) = ("NEURON_RT_ROOT_COMM_ID", "localhost:61239");

/// One rank, on the core of its number.
struct Rank {
    model: Handle,
    inputs: Handle,
    outputs: Handle,
    sum: Handle,
}

impl Rank {
    fn new(library: &Library, model: Handle, core: i32, x: f32) -> Self {
        let [sum, input] = [0.0, x].map(|number| {
            let tensor = library.allocate(core, WIDTH * 4).unwrap();
            assert_eq!(library.write(tensor, 0, &floats(&[number; WIDTH])), SUCCESS);
            tensor
        });
        let inputs = library.set(&[("sum.must_alias_input", sum), ("x", input)]);
        Rank { model, inputs, outputs: library.set(&[("sum", sum)]), sum }
    }

    fn execute(&self, library: &Library) -> i32 {
        library.execute(self.model, self.inputs, self.outputs)
    }
}

fn load_both(library: &Library) -> [Rank; 2] {
    let models = thread::scope(|scope| {
        let load = |rank: u32| move || library.load_rank(neff(), rank as i32, rank, 2).unwrap();
        [0, 1].map(|rank| scope.spawn(load(rank))).map(|thread| thread.join().unwrap())
    });
    [0, 1].map(|rank| Rank::new(library, models[rank], rank as i32, [1.0, 10.0][rank]))
}

#[test]
fn ranks_add_up_what_they_have() {
    let library = Library::with_xla(&[ADDRESS]);
    let ranks = load_both(&library);
    for step in 1..=3 {
        thread::scope(|scope| {
            for rank in &ranks {
                let library = &library;
                scope.spawn(move || assert_eq!(rank.execute(library), SUCCESS));
            }
        });
        for rank in &ranks {
            assert_eq!(read_floats(&library, rank.sum, WIDTH), [11.0 * step as f32; WIDTH]);
        }
    }
    assert_eq!(library.report()["executions"]["outputs_in_place"], 6);
    library.has_no_violation();
}

#[test]
fn a_rank_does_not_wait_for_ever_for_one_that_does_not_come() {
    let library = Library::with_xla(&[ADDRESS, ("NEURON_RT_EXEC_TIMEOUT", "1")]);
    let ranks = load_both(&library);
    assert_eq!(ranks[0].execute(&library), 1200);
    thread::scope(|scope| {
        for rank in &ranks {
            let library = &library;
            scope.spawn(move || assert_eq!(rank.execute(library), SUCCESS));
        }
    });
    assert_eq!(read_floats(&library, ranks[0].sum, 1), [11.0]);
}

#[test]
fn loading_waits_for_the_other_ranks() {
    let library = Library::with_xla(&[ADDRESS]);
    let functions = library.functions;
    thread::scope(|scope| {
        let library = &library;
        let alone = scope.spawn(move || library.load_rank(neff(), 0, 0, 2));
        while library.report()["ranks_waiting_to_load"] != 1 {
            thread::yield_now();
        }
        // SAFETY: takes nothing.
        unsafe { (functions.reset)() };
        assert_eq!(alone.join().unwrap(), Err(5));
    });
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let library = Library::with_xla(&[]);
    assert_eq!(library.load(neff(), 0), Err(2), "collectives want their own call");
    assert_eq!(library.load_rank(neff(), 0, 0, 2), Err(2), "no address");
    drop(library);
    let library = Library::with_xla(&[ADDRESS]);
    assert_eq!(library.load_rank(neff(), 0, 2, 2), Err(2), "no such rank");
    assert_eq!(library.load_rank(neff(), 0, 0, 3), Err(2), "no such ring");
    assert_eq!(library.load_rank(neff(), 0, 0, 0), Err(2));
    library.has_no_violation();
}

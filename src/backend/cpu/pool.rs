//! Threads that share out the tasks of a stage, or of the engine between steps.
//!
//! A step has hundreds of stages of a few microseconds each, so between them the threads spin; one that
//! has had nothing to do for [`SPIN`] sleeps until it is woken, so that an idle server uses no CPU. Each
//! thread has neighbouring tasks for its own, whose weights it reads one after another, and when these are
//! done takes what is left of the others'; what a task computes does not depend on who takes it.

#![expect(unsafe_code, reason = "threads that outlive a call run a closure that it borrows")]

use super::view::ViewMut;
use std::{
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a thread waits for more before it sleeps: longer than it takes to get from one step to the next.
const SPIN: Duration = Duration::from_micros(300);
/// Rounds of waiting before a thread lets others run: they may be what it waits for.
const ROUNDS_BEFORE_YIELD: u32 = 2_000;

/// Whoever shares out the tasks of a stage.
pub(in crate::backend) trait Tasks {
    /// Runs `task` for all of `0..tasks`, for each once, and returns when all are done.
    fn run(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Tasks that are tiles of a matrix.
pub(super) trait Tiles: Tasks {
    /// Cuts a matrix into tiles of `rows_per_tile` rows and the columns between neighbouring `cuts`,
    /// and runs `task` with the first row and the column's index of each.
    fn tiles<T: Send + Sync>(
        &mut self,
        matrix: ViewMut<'_, T>,
        rows_per_tile: usize,
        cuts: &[usize],
        task: impl Fn(usize, usize, ViewMut<'_, T>) + Sync,
    ) {
        assert!(cuts.is_sorted(), "the cuts ascend");
        let n_columns = cuts.len() - 1;
        let tasks = matrix.rows().div_ceil(rows_per_tile) * n_columns;
        self.run(tasks, &|idx| {
            let (row, column) = (idx / n_columns * rows_per_tile, idx % n_columns);
            let rows = row..(row + rows_per_tile).min(matrix.rows());
            // SAFETY: each task has rows and columns of its own, since the cuts ascend.
            let tile = unsafe { matrix.tile_unchecked(rows, cuts[column]..cuts[column + 1]) };
            task(row, column, tile);
        });
    }
}

impl<T: Tasks> Tiles for T {}

/// A thread that does all tasks by itself.
pub(super) struct Alone;

impl Tasks for Alone {
    fn run(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What threads wait on is in cache lines of its own.
struct Shared {
    state: Line<AtomicU64>,
    /// Of each thread's share of the tasks, the next one to be taken.
    next: Box<[Line<AtomicUsize>]>,
    job: Line<UnsafeCell<Option<Job>>>,
    sleepers: Line<AtomicUsize>,
    panicked: AtomicBool,
    closing: AtomicBool,
}

#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

/// In [`Shared::state`], from the top: the number of the job, whether it is open, how many are at it.
const NUMBER: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const AT_IT: u64 = OPEN - 1;

#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the job is written while nobody is at it and read only by threads that are (see `Shared::join`
// and `Open::drop`), so it is never written and read at once; what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// As many threads as the process may use CPUs, the calling one among them.
    pub(super) fn new() -> std::io::Result<Self> {
        Self::with_threads(thread::available_parallelism().map_or(1, usize::from))
    }

    pub(super) fn with_threads(threads: usize) -> std::io::Result<Self> {
        let mut pool = Self { shared: Arc::new(Shared::new(threads)), workers: Vec::new() };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name("mondai-cpu".to_owned());
            pool.workers.push(builder.spawn(move || shared.work(thread))?);
        }
        Ok(pool)
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }
}

impl Tasks for Pool {
    fn run(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(task);
        }
        let open = Open::new(self, tasks, task);
        open.shared.take_tasks(0, tasks, task);
        drop(open);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a task of another thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its tasks throw.
            let _ = worker.join();
        }
    }
}

/// A job that threads may join; dropping it waits until they are done.
struct Open<'a> {
    shared: &'a Shared,
}

impl<'a> Open<'a> {
    fn new(pool: &'a mut Pool, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Self {
        let shared = &*pool.shared;
        // SAFETY: only the lifetime is dropped. The pointer is followed by threads that are at the job,
        // and `Open::drop`, which runs before the borrow of `task` ends, waits for all of them.
        let run =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        // SAFETY: the last job is closed and nobody is at it, so nobody reads this.
        unsafe { *shared.job.0.get() = Some(Job { run, tasks }) };
        for (thread, next) in shared.next.iter().enumerate() {
            next.0.store(shared.share(thread, tasks).start, Ordering::Relaxed);
        }
        let number = (shared.state.0.load(Ordering::Relaxed) / NUMBER) as u32;
        // With `SeqCst` either a thread that goes to sleep sees the job, or this sees that it sleeps.
        shared.state.0.store(u64::from(number.wrapping_add(1)) * NUMBER + OPEN, Ordering::SeqCst);
        if shared.sleepers.0.load(Ordering::SeqCst) > 0 {
            pool.workers.iter().for_each(|worker| worker.thread().unpark());
        }
        Self { shared }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut rounds = 0;
        while self.shared.state.0.load(Ordering::Acquire) & AT_IT > 0 {
            wait_a_little(&mut rounds);
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            state: Line::default(),
            next: (0..threads).map(|_| Line::default()).collect(),
            job: Line::default(),
            sleepers: Line::default(),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// The tasks that a thread begins with.
    fn share(&self, thread: usize, tasks: usize) -> Range<usize> {
        let threads = self.next.len();
        tasks * thread / threads..tasks * (thread + 1) / threads
    }

    fn work(&self, thread: usize) {
        let mut last = 0;
        while let Some(number) = self.join(last) {
            last = number;
            // SAFETY: this thread is at the job, so the job stands and is not written.
            let Some(Job { run, tasks }) = (unsafe { *self.job.0.get() }) else { unreachable!("it is open") };
            // SAFETY: as above; the closure outlives the job.
            let run = unsafe { &*run };
            if catch_unwind(AssertUnwindSafe(|| self.take_tasks(thread, tasks, run))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.0.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn take_tasks(&self, thread: usize, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        let threads = self.next.len();
        for share in (thread..threads).chain(0..thread) {
            let (next, end) = (&self.next[share].0, self.share(share, tasks).end);
            // It is looked at first: most shares are done by then, and writing would take the line from the others.
            while next.load(Ordering::Relaxed) < end {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task < end {
                    run(task);
                }
            }
        }
    }

    /// Waits for an open job other than `last` and joins it; `None` when the pool closes.
    fn join(&self, last: u64) -> Option<u64> {
        let (mut rounds, mut since) = (0, Instant::now());
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if state & OPEN > 0 && state / NUMBER != last {
                let joined =
                    self.state.0.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                match joined {
                    Ok(_) => return Some(state / NUMBER),
                    Err(_) => continue,
                }
            }
            if self.closing.load(Ordering::Relaxed) {
                return None;
            }
            wait_a_little(&mut rounds);
            if rounds % 64 == 0 && since.elapsed() > SPIN {
                self.sleep(last);
                (rounds, since) = (0, Instant::now());
            }
        }
    }

    fn sleep(&self, last: u64) {
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        let state = self.state.0.load(Ordering::SeqCst);
        let nothing_new = state & OPEN == 0 || state / NUMBER == last;
        if nothing_new && !self.closing.load(Ordering::SeqCst) {
            thread::park();
        }
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn wait_a_little(rounds: &mut u32) {
    *rounds += 1;
    if rounds.is_multiple_of(ROUNDS_BEFORE_YIELD) { thread::yield_now() } else { std::hint::spin_loop() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let mut pool = Pool::with_threads(threads).unwrap();
            for tasks in [0, 1, 2, 3, 7, 100] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..50 {
                    pool.run(tasks, &|task| {
                        runs[task].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 50), "{runs:?}");
            }
        }
    }

    #[test]
    fn tiles_cover_the_matrix() {
        let mut pool = Pool::with_threads(3).unwrap();
        let mut values = vec![0; 7 * 10];
        pool.tiles(ViewMut::new(&mut values, 7, 10), 2, &[0, 3, 3, 10], |row, column, mut tile| {
            for idx in 0..tile.rows() {
                tile.row(idx).iter_mut().for_each(|value| *value += 10 * (row + idx) + column + 1);
            }
        });
        for (idx, value) in values.into_iter().enumerate() {
            assert_eq!(value, 10 * (idx / 10) + if idx % 10 < 3 { 1 } else { 3 });
        }
    }

    #[test]
    fn idle_threads_sleep_and_wake() {
        let mut pool = Pool::with_threads(3).unwrap();
        for _ in 0..3 {
            while pool.shared.sleepers.0.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            // Each of three tasks waits for the others: all threads are needed.
            let arrived = AtomicUsize::new(0);
            pool.run(3, &|_| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 3 {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let mut pool = Pool::with_threads(2).unwrap();
        for bad_task in [0, 99] {
            let run = AssertUnwindSafe(|| pool.run(100, &|task| assert_ne!(task, bad_task)));
            assert!(catch_unwind(run).is_err());
            let sum = AtomicUsize::new(0);
            pool.run(100, &|task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }
}

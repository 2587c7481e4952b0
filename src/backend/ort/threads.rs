//! How many threads to compute with.

use std::{collections::BTreeSet, fs, thread};

/// The machine's cores, without those that are but a second thread of one, and no more than the process may
/// use. Two threads of one core share its multipliers: products gain nothing from the second.
pub(super) fn physical_cores() -> usize {
    let usable = thread::available_parallelism().map_or(1, usize::from);
    let Ok(cpus) = fs::read_dir("/sys/devices/system/cpu") else { return usable };
    let siblings = cpus
        .filter_map(|cpu| fs::read_to_string(cpu.ok()?.path().join("topology/thread_siblings_list")).ok());
    match siblings.collect::<BTreeSet<String>>().len() {
        0 => usable,
        cores => cores.min(usable),
    }
}

//! How many programs are compiled at the same time, if nobody says.

use std::fs;

const CPUS_EACH: usize = 2;
/// The compiler was seen to take from one gigabyte to far more; a model of a few hundred million parameters
/// should need no more than this.
const KIB_EACH: usize = 8 << 20;

pub(super) fn default() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    jobs(cpus, available_kib(&memory))
}

fn jobs(cpus: usize, available_kib: Option<usize>) -> usize {
    let by_memory = available_kib.map_or(1, |kib| kib / KIB_EACH);
    (cpus / CPUS_EACH).min(by_memory).max(1)
}

fn available_kib(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_both_cpus_and_memory_allow() {
        let meminfo = "MemTotal:  99 kB\nMemAvailable:   67108864 kB\n";
        assert_eq!(available_kib(meminfo), Some(64 << 20));
        assert_eq!(jobs(32, available_kib(meminfo)), 8);
        assert_eq!(jobs(8, available_kib(meminfo)), 4);
        assert_eq!(jobs(32, Some(1 << 20)), 1);
        assert_eq!(jobs(32, available_kib("")), 1);
        assert_eq!(jobs(1, Some(64 << 20)), 1);
    }
}

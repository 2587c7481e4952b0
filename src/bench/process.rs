//! What Linux says of a process: its memory, and the time it was on a CPU. `None` where there is no
//! `/proc`, or the process is gone.

use std::fs;
use std::future::Future;
use std::time::Duration;

/// Clock ticks a second in `/proc`; 100 on every Linux there is (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Resident memory now, in bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    in_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

fn in_status(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Seconds that all threads of this process were on a CPU.
pub(super) fn own_cpu_seconds() -> Option<f64> {
    in_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The 14th and 15th fields; the second, the name in brackets, may hold spaces.
fn in_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_A_SECOND)
}

/// Runs `work`, and looks at the process's memory again and again meanwhile: the most it was.
pub(super) async fn watch_memory<T>(pid: Option<u32>, work: impl Future<Output = T>) -> (T, Option<u64>) {
    let Some(pid) = pid else { return (work.await, None) };
    let mut most = resident_bytes(pid);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (done, most.max(resident_bytes(pid))),
            _ = looks.tick() => most = most.max(resident_bytes(pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tmondai\nVmHWM:\t  9000 kB\nVmRSS:\t    1234 kB\nThreads:\t3\n";
        assert_eq!(in_status(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(in_status(status, "VmSwap:"), None);
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1000 0 0";
        assert_eq!(in_stat(stat), Some(2.0));
        assert_eq!(in_stat("42 (a"), None);
    }

    #[tokio::test]
    async fn the_most_memory_is_kept() {
        let work = async {
            let block = vec![1_u8; 64 << 20];
            tokio::time::sleep(LOOK_EVERY * 2).await;
            block.iter().map(|&byte| u64::from(byte)).sum::<u64>()
        };
        let before = resident_bytes(std::process::id()).unwrap();
        let (sum, most) = watch_memory(Some(std::process::id()), work).await;
        assert_eq!(sum, 64 << 20);
        assert!(most.unwrap() > before + (32 << 20), "{most:?} {before}");
        assert_eq!(watch_memory(None, async { 1 }).await, (1, None));
    }
}

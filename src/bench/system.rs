//! The machine a run is made on, as far as it says.

use super::roofline::ModelShape;
use crate::model::Model;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// What may explain a figure. `None`: the machine does not say.
#[derive(Clone, Debug, Serialize)]
pub struct SystemCard {
    /// `2026-11-22T21:04:05Z`
    pub date: String,
    pub mondai: String,
    /// Of the checkout that the program lies in.
    pub commit: Option<String>,
    pub command: Vec<String>,
    pub cpu: Option<String>,
    /// Of those that matrix products are made with.
    pub cpu_flags: Vec<String>,
    /// That this process may use.
    pub cpus: Option<usize>,
    pub sockets: Option<usize>,
    pub virtual_machine: bool,
    pub governor: Option<String>,
    pub memory_bytes: Option<u64>,
    pub kernel: Option<String>,
    /// Processes that wanted a CPU in the minute before the run: more than a few tenths is company.
    pub load_average: Option<f64>,
}

/// As in `/proc/cpuinfo`.
const FLAGS: [&str; 16] = [
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
];

impl SystemCard {
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features")).unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        let line = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        let sockets: BTreeSet<&str> = cpuinfo.lines().filter_map(|line| value(line, "physical id")).collect();
        Self {
            date: timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
            mondai: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            command: without_secrets(std::env::args()),
            cpu: field(&cpuinfo, "model name"),
            cpu_flags: FLAGS.into_iter().filter(|flag| has(flag)).map(str::to_owned).collect(),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            sockets: (!sockets.is_empty()).then_some(sockets.len()),
            virtual_machine: has("hypervisor"),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: memory_bytes(),
            kernel: line("/proc/sys/kernel/osrelease"),
            load_average: line("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }

    /// The machine in one line.
    pub fn line(&self) -> String {
        let mut text = self.cpu.clone().unwrap_or_else(|| "a CPU that does not say its name".to_owned());
        if let Some(cpus) = self.cpus {
            let _ = write!(text, ", {cpus} {}CPUs", if self.virtual_machine { "virtual " } else { "" });
        }
        if let Some(bytes) = self.memory_bytes {
            let _ = write!(text, ", {:.0} GiB", bytes as f64 / f64::from(1 << 30));
        }
        if let Some(kernel) = &self.kernel {
            let _ = write!(text, ", Linux {kernel}");
        }
        if let Some(load) = self.load_average {
            let _ = write!(text, ", load {load} before the run");
        }
        text
    }
}

/// What a model's figures hang on: which file it is, and how its weights are kept there.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCard {
    pub file: Option<String>,
    /// Of a file; folders have none.
    pub sha256: Option<String>,
    pub weight_bytes_by_type: BTreeMap<&'static str, usize>,
    pub adapters: usize,
    pub shape: ModelShape,
}

impl ModelCard {
    /// # Errors
    /// The file cannot be read.
    pub fn of(model: &Model) -> io::Result<Self> {
        let mut weight_bytes_by_type: BTreeMap<&'static str, usize> = BTreeMap::new();
        for tensor in model.tensors() {
            *weight_bytes_by_type.entry(tensor.tensor_type().name()).or_default() += tensor.byte_len();
        }
        let config = &model.config;
        Ok(Self {
            file: model.path.file_name().map(|name| name.to_string_lossy().into_owned()),
            sha256: if model.path.is_file() { Some(sha256(&model.path)?) } else { None },
            weight_bytes_by_type,
            adapters: model.adapters().len(),
            shape: ModelShape {
                parameters: model.tensors().map(|tensor| tensor.elements()).sum(),
                layers: config.layers,
                cache_numbers_per_position: 2 * config.layers * config.kv_heads * config.head_dim,
            },
        })
    }
}

/// Reports are shown around; a key is not.
fn without_secrets(args: impl Iterator<Item = String>) -> Vec<String> {
    const SECRET: &str = "--api-key";
    let mut follows = false;
    args.map(|arg| {
        let hidden = std::mem::replace(&mut follows, arg == SECRET);
        match arg.split_once('=') {
            Some((SECRET, _)) => format!("{SECRET}=..."),
            _ if hidden => "...".to_owned(),
            _ => arg,
        }
    })
    .collect()
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| value(line, name)).map(str::to_owned)
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once(':')?;
    (key.trim() == name).then(|| value.trim())
}

fn memory_bytes() -> Option<u64> {
    let kib = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    Some(kib.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Git's own answer, with a `+` where files are not as committed.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(program.parent()?).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// Seconds since 1970 as a date, by Howard Hinnant's `civil_from_days`.
fn timestamp(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(timestamp(1_795_384_506), "2026-11-22T21:55:06Z");
    }

    #[test]
    fn a_key_is_not_shown() {
        let args = ["mondai", "--api-key", "abc", "--seed", "1", "--api-key=abc"].map(str::to_owned);
        let shown = without_secrets(args.into_iter()).join(" ");
        assert_eq!(shown, "mondai --api-key ... --seed 1 --api-key=...");
    }

    #[test]
    fn fields_are_found() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2\nmodel name\t: A CPU\n";
        assert_eq!(field(cpuinfo, "model name").as_deref(), Some("A CPU"));
        assert_eq!(field(cpuinfo, "Features"), None);
    }

    #[test]
    fn this_machine_says_something() {
        let card = SystemCard::read();
        assert!(card.cpus.is_some() && card.date.ends_with('Z'));
        assert!(card.line().contains("CPU"), "{}", card.line());
    }
}

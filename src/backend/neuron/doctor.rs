//! What stands between this machine and a NeuronCore, found without claiming one.
//!
//! Reads device nodes, the driver's files in `/sys`, and the runtime library's own answers. Each finding that is
//! not good says what to do. Where the files are is a parameter, so that a test can lay them out.

use super::nrt::Runtime;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// Where a machine's files are.
#[derive(Clone, Debug)]
pub struct Machine {
    pub dev: PathBuf,
    pub sys: PathBuf,
    pub proc: PathBuf,
    /// The Neuron runtime library; none: where its package puts it.
    pub library: Option<PathBuf>,
}

impl Machine {
    pub fn this(library: Option<PathBuf>) -> Self {
        Self { dev: "/dev".into(), sys: "/sys".into(), proc: "/proc".into(), library }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It may work all the same.
    Doubtful,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    pub found: String,
    pub advice: Option<&'static str>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), advice: None }
    }

    fn doubtful(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { what, verdict: Verdict::Doubtful, found: found.into(), advice: Some(advice) }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { what, verdict: Verdict::Bad, found: found.into(), advice: Some(advice) }
    }
}

/// Looks at everything, whatever is missing.
pub fn examine(machine: &Machine) -> Vec<Finding> {
    let devices = devices(&machine.dev);
    let driver = read(&machine.sys.join("module/neuron/version"));
    let mut findings = vec![driver_finding(driver.as_deref())];
    findings.push(devices_finding(&devices));
    if !devices.is_empty() {
        findings.push(permissions(&machine.dev, &devices));
        findings.push(cores(machine, &devices));
        findings.push(holders(&machine.proc));
    }
    findings.extend(library(machine, driver.as_deref()));
    findings
}

/// Numbers of the device nodes, in their order.
fn devices(dev: &Path) -> Vec<u32> {
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("neuron")?.parse().ok();
    let mut numbers: Vec<u32> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn driver_finding(version: Option<&str>) -> Finding {
    match version {
        Some(version) => Finding::good("driver", version),
        None => Finding::bad(
            "driver",
            "the kernel module `neuron` is not loaded",
            "on the host of an Inf2, Trn1, Trn2 or Trn3 instance, install aws-neuronx-dkms and run `modprobe neuron`",
        ),
    }
}

fn devices_finding(devices: &[u32]) -> Finding {
    match devices {
        [] => Finding::bad(
            "devices",
            "there is no /dev/neuron0",
            "in a container, pass each chip: docker run --device=/dev/neuron0; on the host, see the driver",
        ),
        devices => {
            let names: Vec<_> = devices.iter().map(|number| format!("/dev/neuron{number}")).collect();
            Finding::good("devices", names.join(" "))
        }
    }
}

fn permissions(dev: &Path, devices: &[u32]) -> Finding {
    let refused = devices.iter().map(|number| dev.join(format!("neuron{number}"))).find_map(|path| {
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.err().map(|error| format!("{}: {error}", path.display()))
    });
    match refused {
        None => Finding::good("permissions", "this user may open every device"),
        Some(error) => Finding::bad(
            "permissions",
            error,
            "the driver's udev rule makes the nodes readable and writable to all; in a container, pass them with --device",
        ),
    }
}

/// What the driver tells of each chip: its kind, its cores, and the memory that is in use.
fn cores(machine: &Machine, devices: &[u32]) -> Finding {
    let root = machine.sys.join("devices/virtual/neuron_device");
    let chips: Vec<String> = devices
        .iter()
        .filter_map(|number| {
            let chip = root.join(format!("neuron{number}"));
            let count: usize = read(&chip.join("core_count"))?.parse().ok()?;
            let kind = read(&chip.join("info/architecture/device_name")).unwrap_or_else(|| "chip".to_owned());
            let used: u64 = (0..count).map(|core| used_bytes(&chip, core)).sum();
            Some(format!("{kind} {number}: {count} cores, {} MiB in use", used >> 20))
        })
        .collect();
    match chips.is_empty() {
        false => Finding::good("cores", chips.join("; ")),
        true => Finding::doubtful(
            "cores",
            "the driver does not tell how many",
            "a driver since 2.28 lets everybody read core_count; the library's own count is below",
        ),
    }
}

/// The sum of all categories of a core's memory.
fn used_bytes(chip: &Path, core: usize) -> u64 {
    let categories = chip.join(format!("neuron_core{core}/stats/memory_usage/device_mem"));
    let categories = fs::read_dir(categories).into_iter().flatten().flatten();
    categories.filter_map(|category| read(&category.path().join("total"))?.parse::<u64>().ok()).sum()
}

/// Processes that have a device open: a core is one process's at a time.
fn holders(proc: &Path) -> Finding {
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    let holds = |process: &fs::DirEntry| {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| target.to_str().is_some_and(|target| target.starts_with("/dev/neuron")))
    };
    let numbered = processes.filter(|process| process.file_name().to_string_lossy().parse::<u32>().is_ok());
    let holders: Vec<_> = numbered
        .filter(holds)
        .map(|process| {
            let name = read(&process.path().join("comm")).unwrap_or_default();
            format!("{} ({name})", process.file_name().to_string_lossy())
        })
        .collect();
    match holders.is_empty() {
        true => Finding::good("in use by", "no process that this user may see"),
        false => Finding::doubtful(
            "in use by",
            holders.join(", "),
            "a core is one process's at a time: choose others with --cores, or end the process",
        ),
    }
}

fn library(machine: &Machine, driver: Option<&str>) -> Vec<Finding> {
    let (path, version, cores) = match Runtime::look(machine.library.as_deref()) {
        Ok(looked) => looked,
        Err(error) => {
            let advice = "a container has its own: see Dockerfile.neuron";
            return vec![Finding::bad("library", error.to_string(), advice)];
        }
    };
    let mut findings = vec![Finding::good("library", format!("{path}, version {version}"))];
    if let Some(finding) = driver.and_then(|driver| versions(driver, version.numbers)) {
        findings.push(finding);
    }
    findings.push(match cores {
        Some(0) | None => Finding::bad(
            "logical cores",
            "the library finds none",
            "see driver, devices and permissions above",
        ),
        Some(count) => Finding::good("logical cores", format!("{count}, numbered from 0")),
    });
    findings
}

/// Pairs of driver and library that are known not to work together.
///
/// Source: the Neuron SDK's runtime release notes.
fn versions(driver: &str, library_version: [u64; 4]) -> Option<Finding> {
    if library_version == [0; 4] {
        return None; // it does not tell
    }
    let [major, minor, ..] = library_version;
    let mut numbers = driver.split('.').map_while(|part| part.parse::<u64>().ok());
    let driver_version = (numbers.next()?, numbers.next()?);
    let library = (major, minor);
    let found = || format!("driver {driver}, library {major}.{minor}");
    if driver_version >= (2, 29) && library < (2, 33) {
        let advice = "a driver from 2.29 on needs a library from 2.33 on: upgrade aws-neuronx-runtime-lib";
        return Some(Finding::bad("versions", found(), advice));
    }
    if library >= (2, 32) && driver_version <= (2, 26) {
        let advice =
            "a library from 2.32 on needs a driver from 2.27 on: upgrade aws-neuronx-dkms on the host";
        return Some(Finding::bad("versions", found(), advice));
    }
    if library < (2, 30) {
        let advice =
            "allocations of 4 GiB and more are not safe before library 2.30: upgrade aws-neuronx-runtime-lib";
        return Some(Finding::doubtful("versions", found(), advice));
    }
    None
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(findings: &[Finding]) -> Vec<(&'static str, Verdict)> {
        findings.iter().map(|finding| (finding.what, finding.verdict)).collect()
    }

    #[test]
    fn a_machine_without_anything_is_told_what_it_lacks() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let nowhere = folder.path().to_owned();
        let library = Some(nowhere.join("libnrt.so.1"));
        let machine = Machine { dev: nowhere.clone(), sys: nowhere.clone(), proc: nowhere, library };
        let findings = examine(&machine);
        let bad = Verdict::Bad;
        assert_eq!(verdicts(&findings), [("driver", bad), ("devices", bad), ("library", bad)]);
        assert!(findings.iter().all(|finding| finding.advice.is_some()));
    }

    #[test]
    fn chips_and_who_holds_them_are_read_from_the_driver() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let at = |path: &str| folder.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().expect("it has a folder")).expect("it can be made");
            fs::write(at(path), text).expect("it can be written");
        };
        write("dev/neuron0", "");
        write("dev/neuron_other", "");
        write("sys/module/neuron/version", "2.30.2.0\n");
        let chip = "sys/devices/virtual/neuron_device/neuron0";
        write(&format!("{chip}/core_count"), "2\n");
        write(&format!("{chip}/info/architecture/device_name"), "Inferentia2\n");
        write(&format!("{chip}/neuron_core1/stats/memory_usage/device_mem/tensors/total"), "3145728\n");
        write("proc/77/comm", "mondai\n");
        fs::create_dir_all(at("proc/77/fd")).expect("it can be made");
        std::os::unix::fs::symlink("/dev/neuron0", at("proc/77/fd/5")).expect("it can be linked");
        let machine =
            Machine { dev: at("dev"), sys: at("sys"), proc: at("proc"), library: Some(at("libnrt.so.1")) };
        let findings = examine(&machine);
        let found = |what: &str| {
            findings.iter().find(|of| of.what == what).map(|of| (of.verdict, of.found.as_str())).expect(what)
        };
        assert_eq!(found("driver"), (Verdict::Good, "2.30.2.0"));
        assert_eq!(found("devices"), (Verdict::Good, "/dev/neuron0"));
        assert_eq!(found("permissions").0, Verdict::Good);
        assert_eq!(found("cores"), (Verdict::Good, "Inferentia2 0: 2 cores, 3 MiB in use"));
        assert_eq!(found("in use by"), (Verdict::Doubtful, "77 (mondai)"));
    }

    #[test]
    fn versions_that_do_not_go_together_are_found() {
        let verdict = |driver, library| versions(driver, library).map(|finding| finding.verdict);
        assert_eq!(verdict("2.30.2.0", [2, 34, 10, 0]), None);
        assert_eq!(verdict("2.29", [2, 32, 31, 0]), Some(Verdict::Bad));
        assert_eq!(verdict("2.26.10", [2, 32, 31, 0]), Some(Verdict::Bad));
        assert_eq!(verdict("2.24.7", [2, 29, 40, 0]), Some(Verdict::Doubtful));
    }
}

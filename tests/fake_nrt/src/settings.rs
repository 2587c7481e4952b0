//! What the environment asks for, read once, by `nrt_init`.

use crate::faults::Fault;
use std::{env, ops::Range, path::PathBuf, time::Duration};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Of the library, as `nrt_get_version` splits it.
    pub(crate) version: [u64; 4],
    pub(crate) instance: Instance,
    /// Logical cores of the machine.
    pub(crate) cores: usize,
    /// Those that this process may use.
    pub(crate) visible: Range<usize>,
    /// Bytes of each core.
    pub(crate) memory: usize,
    /// Physical cores in a logical one.
    pub(crate) lnc: u32,
    pub(crate) dtypes: Dtypes,
    /// XLA for CPUs, as a PJRT plugin.
    pub(crate) pjrt: Option<PathBuf>,
    pub(crate) faults: Vec<Fault>,
    /// Where to write what was done and what was done wrong.
    pub(crate) report: Option<PathBuf>,
    /// Whether a program for an older generation of chips may run.
    pub(crate) allow_legacy: bool,
    /// Whether an execution that yields NaN says so.
    pub(crate) reports_nan: bool,
    /// Whether ranks know where to find each other.
    pub(crate) has_root_comm_id: bool,
    /// How long an execution may take.
    pub(crate) exec_timeout: Duration,
}

/// Which of the two numberings of `nrt_dtype_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtypes {
    /// Headers up to January 2026.
    Old,
    /// Since SDK 2.28.
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) name: &'static str,
    /// `nrt_instance_family_t`
    pub(crate) family: u32,
    /// `nrt_instance_size_t`
    pub(crate) size: u32,
    /// Of its cores: programs run on their own generation.
    pub(crate) generation: u32,
}

const INSTANCES: [Instance; 5] = [
    Instance { name: "inf2", family: 4, size: 0, generation: 2 },
    Instance { name: "trn1", family: 2, size: 1, generation: 2 },
    Instance { name: "trn1n", family: 3, size: 6, generation: 2 },
    Instance { name: "trn2", family: 5, size: 7, generation: 3 },
    Instance { name: "trn3", family: 14, size: 7, generation: 4 },
];

impl Instance {
    /// That of a chip that the compiler names so.
    pub(crate) fn of(name: &str) -> Option<Self> {
        INSTANCES.into_iter().find(|instance| instance.name == name)
    }
}

/// Half of an Inferentia2 chip's.
const DEFAULT_MEMORY: usize = 16 << 30;
const MAX_CORES: usize = 128;
/// In seconds; what documents give differs, and this is what logs show.
const DEFAULT_EXEC_TIMEOUT: usize = 30;

impl Settings {
    /// # Errors
    /// The variable whose value cannot be had, and why.
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::resolve(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str, default: usize| match get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name}={text} is not a number")),
        };
        let is_set = |name: &str| get(name).is_some_and(|value| value != "0");
        let version = get("FAKE_NRT_VERSION").unwrap_or_else(|| "2.34.10.0".into());
        let instance = get("FAKE_NRT_INSTANCE").unwrap_or_else(|| "inf2".into());
        let instance =
            Instance::of(&instance).ok_or_else(|| format!("FAKE_NRT_INSTANCE={instance} is not known"))?;
        let dtypes = match get("FAKE_NRT_DTYPES").as_deref() {
            None | Some("new") => Dtypes::New,
            Some("old") => Dtypes::Old,
            Some(other) => return Err(format!("FAKE_NRT_DTYPES={other} is neither old nor new")),
        };
        let lnc = number("NEURON_LOGICAL_NC_CONFIG", if instance.generation == 2 { 1 } else { 2 })?;
        if lnc == 0 || lnc > 2 || lnc == 2 && instance.generation == 2 {
            return Err(format!("NEURON_LOGICAL_NC_CONFIG={lnc} is not to be had on {}", instance.name));
        }
        let cores = number("FAKE_NRT_CORES", 2)?;
        if !(1..=MAX_CORES).contains(&cores) {
            return Err(format!("FAKE_NRT_CORES={cores} is not from 1 to {MAX_CORES}"));
        }
        Ok(Settings {
            version: version_parts(&version)
                .ok_or_else(|| format!("FAKE_NRT_VERSION={version} is not like 2.34.10.0"))?,
            instance,
            cores,
            visible: visible(cores, get("NEURON_RT_VISIBLE_CORES"), number("NEURON_RT_NUM_CORES", 0)?)?,
            memory: number("FAKE_NRT_MEMORY", DEFAULT_MEMORY)?,
            lnc: lnc as u32,
            dtypes,
            pjrt: get("FAKE_NRT_PJRT").map(PathBuf::from),
            faults: Fault::parse_all(&get("FAKE_NRT_FAULTS").unwrap_or_default())?,
            report: get("FAKE_NRT_REPORT").map(PathBuf::from),
            has_root_comm_id: get("NEURON_RT_ROOT_COMM_ID")
                .is_some_and(|id| id.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())),
            exec_timeout: Duration::from_secs(number("NEURON_RT_EXEC_TIMEOUT", DEFAULT_EXEC_TIMEOUT)? as u64),
            allow_legacy: is_set("NEURON_RT_ALLOW_LEGACY_NEFF"),
            reports_nan: is_set("NEURON_FAIL_ON_NAN")
                || get("NEURON_RT_NUMERICAL_ERRORS_VERBOSITY").is_some_and(|value| value == "critical"),
        })
    }
}

fn version_parts(text: &str) -> Option<[u64; 4]> {
    let parts: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

/// `VISIBLE_CORES` (`3`, `3-6`, `3-5,6`: contiguous, increasing) wins over `NUM_CORES`, of which 0 is all.
fn visible(cores: usize, list: Option<String>, count: usize) -> Result<Range<usize>, String> {
    let Some(list) = list else {
        let count = if count == 0 { cores } else { count };
        return if count <= cores {
            Ok(0..count)
        } else {
            Err(format!("NEURON_RT_NUM_CORES={count}: there are {cores}"))
        };
    };
    let bad = || {
        format!(
            "NEURON_RT_VISIBLE_CORES={list}: not a list of contiguous cores, or not of the {cores} there are"
        )
    };
    let mut visible: Option<Range<usize>> = None;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(|core| core.trim().parse::<usize>().ok());
        let (Some(first), Some(last)) = (first, last) else { return Err(bad()) };
        let start = match &visible {
            Some(before) if before.end != first => return Err(bad()),
            Some(before) => before.start,
            None => first,
        };
        if last < first || last >= cores {
            return Err(bad());
        }
        visible = Some(start..last + 1);
    }
    visible.ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: Result<Range<usize>, &str>) {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::resolve(get).map(|settings| settings.visible);
        assert_eq!(
            settings.as_ref().map_err(|error| error.split(&['=', ':']).next().unwrap()),
            expected.as_ref().map_err(|e| *e)
        );
    }

    #[test]
    fn visible_cores_are_those_asked_for() {
        const VISIBLE: &str = "NEURON_RT_VISIBLE_CORES";
        check(&[], Ok(0..2));
        check(&[("FAKE_NRT_CORES", "8"), (VISIBLE, "3-5,6")], Ok(3..7));
        check(&[("FAKE_NRT_CORES", "8"), (VISIBLE, "3"), ("NEURON_RT_NUM_CORES", "2")], Ok(3..4));
        check(&[("NEURON_RT_NUM_CORES", "1")], Ok(0..1));
        check(&[("NEURON_RT_NUM_CORES", "3")], Err("NEURON_RT_NUM_CORES"));
        check(&[(VISIBLE, "2")], Err(VISIBLE));
        check(&[("FAKE_NRT_CORES", "8"), (VISIBLE, "1,3")], Err(VISIBLE));
        check(&[(VISIBLE, "1-0")], Err(VISIBLE));
        check(&[(VISIBLE, "one")], Err(VISIBLE));
        check(&[("FAKE_NRT_VERSION", "2.34")], Err("FAKE_NRT_VERSION"));
        check(&[("FAKE_NRT_DTYPES", "newer")], Err("FAKE_NRT_DTYPES"));
        check(&[("FAKE_NRT_FAULTS", "nrt_execute")], Err("FAKE_NRT_FAULTS"));
    }
}

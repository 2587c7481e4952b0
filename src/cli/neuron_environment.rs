//! What the Neuron runtime reads from the environment of its process, and only there.
//!
//! A process's own environment cannot be changed safely once it has threads, so the program starts itself anew
//! with the variables set: the same process, the same arguments.

use super::loaded::open_options;
use crate::backend::neuron::ranks;
use crate::config::{CoreList, ModelSettings, Origin, Setting};
use crate::model::Model;
use anyhow::{Context, Result, bail};
use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which cores a process claims. Without it, it claims every core of the machine.
const VISIBLE_CORES: &str = "NEURON_RT_VISIBLE_CORES";

/// How many physical cores are one core: one, as programs are compiled, and not two, as Trn2 and Trn3 have it by
/// themselves.
const LOGICAL_CORES: &str = "NEURON_LOGICAL_NC_CONFIG";
const ONE: &str = "1";

/// Seconds after which the runtime gives an execution up; the name by which `neuron-monitor` shows the process; and
/// what a core is. Each only where nobody has set it.
const DEFAULTS: [(&str, &str); 3] =
    [("NEURON_RT_EXEC_TIMEOUT", "30"), ("NEURON_PROCESS_TAG", "mondai"), (LOGICAL_CORES, ONE)];

/// Where the cores that share a model find each other: an address of this machine, and a port that no other process
/// of it uses for the same.
const ROOT_COMM_ID: &str = "NEURON_RT_ROOT_COMM_ID";

/// Returns in a process whose environment is as the runtime needs it for the model's programs.
///
/// # Errors
/// If the cores asked for are not those that the environment names, or the program cannot be started anew.
pub(super) fn enter(settings: &ModelSettings) -> Result<()> {
    let mut missing = missing(&settings.cores, |variable| env::var(variable).ok())?;
    let device = open_options(settings).device;
    let model = Model::name_of(&settings.model.value, &device.models_dir);
    if ranks(&device, &model) > 1 && env::var_os(ROOT_COMM_ID).is_none() {
        missing.push((ROOT_COMM_ID, free_address()?));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let program = env::current_exe().context("the program cannot be found to be started anew")?;
    let error = Command::new(program).args(env::args_os().skip(1)).envs(missing).exec();
    Err(error).context("the program cannot be started anew with the environment of the Neuron runtime")
}

/// One that is free now, and so most likely when the runtime takes it.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    let address = address.with_context(|| format!("no port is free for the cores; set {ROOT_COMM_ID}"))?;
    Ok(address.to_string())
}

fn missing(
    cores: &Setting<CoreList>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static str, String)>> {
    let mut missing = Vec::new();
    match variable(VISIBLE_CORES) {
        None => missing.push((VISIBLE_CORES, cores.value.to_string())),
        // Whoever names none takes of those that the process has been given.
        Some(_) if cores.origin == Origin::Default => {}
        Some(visible) if visible.parse().is_ok_and(|visible: CoreList| visible == cores.value) => {}
        Some(visible) => bail!(
            "the cores {} ({}) are not those that this process may use: {VISIBLE_CORES} is {visible}; make them the same, or set one alone",
            cores.value,
            cores.origin,
        ),
    }
    if let Some(cores) = variable(LOGICAL_CORES).filter(|cores| cores != ONE) {
        bail!(
            "{LOGICAL_CORES} is {cores}, and programs are compiled for cores that are physical ones (--lnc=1): unset it, or make it {ONE}"
        );
    }
    let unset = DEFAULTS.into_iter().filter(|(name, _)| variable(name).is_none());
    missing.extend(unset.map(|(name, value)| (name, value.to_owned())));
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cores: &str, origin: Origin, environment: &[(&str, &str)]) -> Result<String> {
        let cores = Setting { value: cores.parse().expect("they are cores"), origin };
        let variable = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        };
        let missing = missing(&cores, variable)?;
        Ok(missing.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_is_missing_is_set_and_what_is_set_stays() {
        assert_eq!(
            check("0,1", Origin::Flag, &[]).expect("nothing is in the way"),
            "NEURON_RT_VISIBLE_CORES=0-1 NEURON_RT_EXEC_TIMEOUT=30 NEURON_PROCESS_TAG=mondai NEURON_LOGICAL_NC_CONFIG=1"
        );
        let set = [
            (VISIBLE_CORES, "0,1"),
            ("NEURON_RT_EXEC_TIMEOUT", "600"),
            ("NEURON_PROCESS_TAG", "quiz"),
            ("NEURON_LOGICAL_NC_CONFIG", "1"),
        ];
        assert_eq!(check("0-1", Origin::Flag, &set).expect("they are the same"), "");
        assert_eq!(check("0", Origin::Default, &set).expect("nobody asked for others"), "");
    }

    #[test]
    fn cores_that_share_a_model_meet_on_this_machine() {
        let address = free_address().expect("a port is free");
        let (host, port) = address.split_once(':').expect("an address has a port");
        assert!(host == "127.0.0.1" && port.parse::<u16>().is_ok_and(|port| port > 0), "{address}");
    }

    #[test]
    fn cores_that_are_two_are_refused() {
        let error = check("0", Origin::Flag, &[(LOGICAL_CORES, "2")]).expect_err("programs are for one");
        assert!(error.to_string().contains("is 2, and programs are compiled for"), "{error}");
    }

    #[test]
    fn cores_that_the_process_may_not_use_are_refused() {
        let error = check("2", Origin::Flag, &[(VISIBLE_CORES, "0,1")]).expect_err("2 is not among them");
        assert!(error.to_string().starts_with("the cores 2 (flag) are not those"), "{error}");
    }
}

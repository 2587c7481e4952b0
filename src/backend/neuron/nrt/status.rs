//! What a call of the library can come back with, and what that means for a server.
//!
//! Names and numbers: `nrt_status.h`. What to do: AWS's runtime troubleshooting pages and, where they are
//! silent, the cautious choice.

use super::sys::NrtStatus;
use std::fmt;

/// What is to be done about a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The same call may succeed in a moment.
    Retry,
    /// This call was at fault, or its numbers are; the device is as it was.
    FailRequest,
    /// The device or its memory does not suffice for what was loaded or allocated.
    Shrink,
    /// The state of the core is unknown: only a new process may use it.
    LoseCore,
    /// What was called cannot have been right: no device, another version, a mistake of ours.
    GiveUp,
}

/// Every status of the header, with the gaps it has.
const STATUSES: [(i32, &str, Remedy); 27] = [
    (1, "NRT_FAILURE", Remedy::FailRequest),
    (2, "NRT_INVALID", Remedy::GiveUp),
    (3, "NRT_INVALID_HANDLE", Remedy::GiveUp),
    (4, "NRT_RESOURCE", Remedy::Shrink),
    (5, "NRT_TIMEOUT", Remedy::LoseCore),
    (6, "NRT_HW_ERROR", Remedy::LoseCore),
    (7, "NRT_QUEUE_FULL", Remedy::Retry),
    (9, "NRT_LOAD_NOT_ENOUGH_NC", Remedy::GiveUp),
    (10, "NRT_UNSUPPORTED_NEFF_VERSION", Remedy::GiveUp),
    (11, "NRT_FAIL_HOST_MEM_ALLOC", Remedy::Shrink),
    (13, "NRT_UNINITIALIZED", Remedy::GiveUp),
    (14, "NRT_CLOSED", Remedy::GiveUp),
    (15, "NRT_QUEUE_EMPTY", Remedy::Retry),
    (101, "NRT_EXEC_UNIT_UNRECOVERABLE", Remedy::LoseCore),
    (1002, "NRT_EXEC_BAD_INPUT", Remedy::FailRequest),
    (1003, "NRT_EXEC_COMPLETED_WITH_NUM_ERR", Remedy::FailRequest),
    (1004, "NRT_EXEC_COMPLETED_WITH_ERR", Remedy::LoseCore),
    (1005, "NRT_EXEC_NC_BUSY", Remedy::Retry),
    (1006, "NRT_EXEC_OOB", Remedy::FailRequest),
    (1100, "NRT_COLL_PENDING", Remedy::Retry),
    (1200, "NRT_EXEC_HW_ERR_COLLECTIVES", Remedy::LoseCore),
    (1201, "NRT_EXEC_HW_ERR_HBM_UE", Remedy::LoseCore),
    (1202, "NRT_EXEC_HW_ERR_NC_UE", Remedy::LoseCore),
    (1203, "NRT_EXEC_HW_ERR_DMA_ABORT", Remedy::LoseCore),
    (1204, "NRT_EXEC_SW_NQ_OVERFLOW", Remedy::LoseCore),
    (1205, "NRT_EXEC_HW_ERR_REPAIRABLE_HBM_UE", Remedy::LoseCore),
    (1206, "NRT_NETWORK_PROXY_FAILURE", Remedy::LoseCore),
];

impl NrtStatus {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const FAILURE: Self = Self(1);

    fn known(self) -> Option<&'static (i32, &'static str, Remedy)> {
        STATUSES.iter().find(|(code, ..)| *code == self.0)
    }

    /// A code that no header knows is taken for the worst.
    pub(crate) fn remedy(self) -> Remedy {
        self.known().map_or(Remedy::LoseCore, |&(_, _, remedy)| remedy)
    }

    /// What helps, where AWS's pages say more than the remedy does.
    fn advice(self) -> Option<&'static str> {
        Some(match self.0 {
            2 => {
                "at start: is there a Neuron device, has it the cores asked for, and are they free? See `mondai doctor neuron`"
            }
            4 => "the core's memory does not suffice: fewer slots or a shorter context, see `mondai compile`",
            6 => "when loading: the program may be compiled for another kind of chip",
            9 => "there are fewer free cores than were asked for",
            10 => {
                "the program was compiled by a newer SDK than this library's: upgrade aws-neuronx-runtime-lib"
            }
            1201..=1203 => "the memory or the chip is damaged: stop and start the instance",
            1204 => "set NEURON_RT_ENABLE_DGE_NOTIFICATIONS=0",
            1205 => "reload the driver or reboot: the memory is repaired at load",
            _ => return None,
        })
    }
}

impl fmt::Display for NrtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.known().map_or("a status that this version does not know", |&(_, name, _)| name);
        write!(f, "{} ({name})", self.0)?;
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_status_twice() {
        assert!(STATUSES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_status_is_shown_by_number_and_name() {
        assert_eq!(NrtStatus(1006).to_string(), "1006 (NRT_EXEC_OOB)");
        assert_eq!(NrtStatus(4711).to_string(), "4711 (a status that this version does not know)");
        assert_eq!(NrtStatus(4711).remedy(), Remedy::LoseCore);
        assert!(NrtStatus(1204).to_string().ends_with("set NEURON_RT_ENABLE_DGE_NOTIFICATIONS=0"));
    }
}

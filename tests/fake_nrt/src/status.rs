//! `NRT_STATUS`, as nrt_status.h has it.

use std::ffi::{CStr, c_int};

#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) c_int);

macro_rules! statuses {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl Status {
            $(#[allow(dead_code, reason = "the table is the header's, whole")]
            pub(crate) const $name: Status = Status($code);)*

            /// The name in the header; an empty one for a code that it does not have.
            pub(crate) fn name(self) -> &'static CStr {
                match self.0 {
                    $($code => $text,)*
                    _ => c"",
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0, c"NRT_SUCCESS";
    FAILURE = 1, c"NRT_FAILURE";
    INVALID = 2, c"NRT_INVALID";
    INVALID_HANDLE = 3, c"NRT_INVALID_HANDLE";
    RESOURCE = 4, c"NRT_RESOURCE";
    TIMEOUT = 5, c"NRT_TIMEOUT";
    HW_ERROR = 6, c"NRT_HW_ERROR";
    QUEUE_FULL = 7, c"NRT_QUEUE_FULL";
    LOAD_NOT_ENOUGH_NC = 9, c"NRT_LOAD_NOT_ENOUGH_NC";
    UNSUPPORTED_NEFF_VERSION = 10, c"NRT_UNSUPPORTED_NEFF_VERSION";
    FAIL_HOST_MEM_ALLOC = 11, c"NRT_FAIL_HOST_MEM_ALLOC";
    UNINITIALIZED = 13, c"NRT_UNINITIALIZED";
    CLOSED = 14, c"NRT_CLOSED";
    QUEUE_EMPTY = 15, c"NRT_QUEUE_EMPTY";
    EXEC_UNIT_UNRECOVERABLE = 101, c"NRT_EXEC_UNIT_UNRECOVERABLE";
    EXEC_BAD_INPUT = 1002, c"NRT_EXEC_BAD_INPUT";
    EXEC_COMPLETED_WITH_NUM_ERR = 1003, c"NRT_EXEC_COMPLETED_WITH_NUM_ERR";
    EXEC_COMPLETED_WITH_ERR = 1004, c"NRT_EXEC_COMPLETED_WITH_ERR";
    EXEC_NC_BUSY = 1005, c"NRT_EXEC_NC_BUSY";
    EXEC_OOB = 1006, c"NRT_EXEC_OOB";
    COLL_PENDING = 1100, c"NRT_COLL_PENDING";
    EXEC_HW_ERR_COLLECTIVES = 1200, c"NRT_EXEC_HW_ERR_COLLECTIVES";
    EXEC_HW_ERR_HBM_UE = 1201, c"NRT_EXEC_HW_ERR_HBM_UE";
    EXEC_HW_ERR_NC_UE = 1202, c"NRT_EXEC_HW_ERR_NC_UE";
    EXEC_HW_ERR_DMA_ABORT = 1203, c"NRT_EXEC_HW_ERR_DMA_ABORT";
    EXEC_SW_NQ_OVERFLOW = 1204, c"NRT_EXEC_SW_NQ_OVERFLOW";
    EXEC_HW_ERR_REPAIRABLE_HBM_UE = 1205, c"NRT_EXEC_HW_ERR_REPAIRABLE_HBM_UE";
    NETWORK_PROXY_FAILURE = 1206, c"NRT_NETWORK_PROXY_FAILURE";
}

//! What goes wrong on purpose: a list such as `nrt_execute@5=1006;nrt_tensor_write@3=hang`.
//!
//! A fault is of the n-th call of a function, counted from 1, of each from the n-th on (`5+`) or of each (`*`).

use crate::status::Status;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    function: String,
    first: u64,
    last: u64,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Returns this, and does nothing else; see [`Action::happens_after`].
    Return(Status),
    /// Never returns, until `fake_nrt_reset`.
    Hang,
    /// Does what it does, later.
    Delay(Duration),
    /// Of an execution: every float of its plain outputs is NaN.
    Nan,
    /// Of an execution: every float that it changes in an output that takes an input's place is NaN.
    NanInPlace,
    /// Goes by half the size that it is given, or tells half: as if the tensor had no more.
    HalfSize,
}

impl Action {
    /// Whether the call does its work before it returns this: an execution that completed with an error, and
    /// calls that take something back whatever comes of it, some of which return nothing.
    pub(crate) fn happens_after(self, function: &str) -> bool {
        const COMPLETED: [Status; 2] = [Status::EXEC_COMPLETED_WITH_NUM_ERR, Status::EXEC_COMPLETED_WITH_ERR];
        const TAKE_BACK: [&str; 5] = [
            "nrt_unload",
            "nrt_free_model_tensor_info",
            "nrt_tensor_free",
            "nrt_destroy_tensor_set",
            "nrt_close",
        ];
        let Action::Return(status) = self else { return false };
        TAKE_BACK.contains(&function) || function == "nrt_execute" && COMPLETED.contains(&status)
    }
}

impl Fault {
    /// # Errors
    /// The part that is not as the module's page says.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let parse = |part| {
            Fault::parse(part)
                .ok_or_else(|| format!("FAKE_NRT_FAULTS: {part} is not like nrt_execute@5=1006"))
        };
        parts.map(parse).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let (call, action) = text.split_once('=')?;
        let (function, count) = call.split_once('@')?;
        let (first, last) = match count {
            "*" => (1, u64::MAX),
            count => match count.strip_suffix('+') {
                Some(first) => (first.parse().ok()?, u64::MAX),
                None => (count.parse().ok()?, count.parse().ok()?),
            },
        };
        let action = match action {
            "hang" => Action::Hang,
            "nan" => Action::Nan,
            "nan-in-place" => Action::NanInPlace,
            "half-size" => Action::HalfSize,
            _ => match action.strip_prefix("delay:") {
                Some(delay) => Action::Delay(Duration::from_millis(delay.strip_suffix("ms")?.parse().ok()?)),
                None => Action::Return(Status(action.parse().ok()?)),
            },
        };
        let known = function.starts_with("nrt_") && first > 0;
        known.then(|| Fault { function: function.to_owned(), first, last, action })
    }

    pub(crate) fn function(&self) -> &str {
        &self.function
    }

    /// Counts from the call after so many.
    pub(crate) fn after(&mut self, calls: u64) {
        self.first += calls;
        self.last = self.last.saturating_add(calls);
    }

    /// What becomes of this call of the function, if it is of this fault.
    pub(crate) fn of_call(&self, function: &str, count: u64) -> Option<Action> {
        (self.function == function && (self.first..=self.last).contains(&count)).then_some(self.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_of_the_calls_they_name() {
        let faults = Fault::parse_all(
            "nrt_execute@5=1006; nrt_execute@7+=hang;nrt_load@*=delay:200ms;nrt_execute@1=nan;nrt_load@2=half-size",
        );
        let faults = faults.unwrap();
        let of = |function, count| faults.iter().find_map(|fault| fault.of_call(function, count));
        assert_eq!(of("nrt_execute", 5), Some(Action::Return(Status(1006))));
        assert_eq!(of("nrt_execute", 6), None);
        assert_eq!(of("nrt_execute", 9), Some(Action::Hang));
        assert_eq!(of("nrt_execute", 1), Some(Action::Nan));
        assert_eq!(of("nrt_load", 1), Some(Action::Delay(Duration::from_millis(200))));
        for bad in
            ["nrt_execute@0=1", "nrt_execute@1", "execute@1=1", "nrt_execute@x=1", "nrt_execute@1=delay:2s"]
        {
            assert!(Fault::parse_all(bad).is_err(), "{bad}");
        }
    }
}

//! Ranks that run one program together: they are loaded together, and wait for each other in each step.

use crate::{
    program::{Program, Ran, RankTensors},
    status::Status,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// The ranks of one program.
pub(crate) struct Group {
    program: Arc<Program>,
    round: Mutex<Round>,
    changed: Condvar,
}

/// One step of all ranks.
#[derive(Default)]
struct Round {
    number: u64,
    arrived: BTreeMap<usize, RankTensors>,
    /// Of the last round, by rank.
    results: Vec<Result<Ran, Status>>,
}

/// Ranks that load one program and are not complete.
pub(crate) struct Meeting {
    pub(crate) group: Arc<Group>,
    pub(crate) arrived: BTreeSet<usize>,
}

impl Group {
    pub(crate) fn new(program: Arc<Program>) -> Arc<Self> {
        Arc::new(Group { program, round: Mutex::default(), changed: Condvar::new() })
    }

    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Runs this rank's part of a step, once all the others have come to run theirs.
    ///
    /// # Errors
    /// [`Status::EXEC_HW_ERR_COLLECTIVES`] if they do not come in time.
    pub(crate) fn execute(
        &self,
        rank: usize,
        tensors: RankTensors,
        timeout: Duration,
    ) -> Result<Ran, Status> {
        let mut round = self.round.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = round.number;
        round.arrived.insert(rank, tensors);
        if round.arrived.len() == self.program.ranks {
            let ranks: Vec<RankTensors> = std::mem::take(&mut round.arrived).into_values().collect();
            round.results = match self.program.execute(&ranks) {
                Ok(ran) => ran.into_iter().map(Ok).collect(),
                Err(error) => {
                    eprintln!("fake_nrt: nrt_execute: {error}");
                    vec![Err(Status::FAILURE); ranks.len()]
                }
            };
            round.number += 1;
            self.changed.notify_all();
        }
        let until = Instant::now() + timeout;
        while round.number == number {
            let Some(rest) = until.checked_duration_since(Instant::now()) else {
                let missing = self.program.ranks - round.arrived.len();
                eprintln!("fake_nrt: nrt_execute: {missing} ranks have not come");
                round.arrived.remove(&rank);
                return Err(Status::EXEC_HW_ERR_COLLECTIVES);
            };
            round = self.changed.wait_timeout(round, rest).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        round.results.get(rank).copied().unwrap_or(Err(Status::FAILURE))
    }
}

//! Records, leases and a clock in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::ports::{Clock, Holder, Lease, Leases, Records};
use crate::run::{RowOutcome, RunId, RunKind, RunRecord};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    runs: Mutex<BTreeMap<RunId, Option<RunRecord>>>,
    outcomes: Mutex<Vec<(RunId, RowOutcome)>>,
    appends_left: Mutex<Option<usize>>,
    updates_left: Mutex<Option<usize>>,
}

impl MemoryRecords {
    /// After so many more, every [`Records::append`] fails as a full disk does; `None`: none fails.
    pub fn fail_after(&self, appends: Option<usize>) {
        *self.appends_left.lock().unwrap_or_else(PoisonError::into_inner) = appends;
    }

    /// After so many more, one [`Records::update`] fails as a full disk does, and those behind it do not.
    pub fn fail_one_update_after(&self, updates: usize) {
        *self.updates_left.lock().unwrap_or_else(PoisonError::into_inner) = Some(updates);
    }

    /// A run as it was last written.
    pub fn run(&self, run: RunId) -> Option<RunRecord> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned().flatten()
    }

    /// Whether there is such a run.
    pub fn has(&self, run: RunId) -> bool {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&run)
    }

    /// What became of the rows of a run.
    pub fn outcomes(&self, run: RunId) -> Vec<RowOutcome> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().filter(|(id, _)| *id == run).map(|(_, outcome)| outcome.clone()).collect()
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn begin(&self, _: &str, _: RunKind) -> Result<RunId, Failure> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let id = RunId(runs.len() as i64 + 1);
        runs.insert(id, None);
        Ok(id)
    }

    async fn update(&self, run: &RunRecord) -> Result<(), Failure> {
        {
            let mut left = self.updates_left.lock().unwrap_or_else(PoisonError::into_inner);
            match *left {
                Some(0) => {
                    *left = None;
                    return Err(full("record how a run goes"));
                }
                Some(updates) => *left = Some(updates - 1),
                None => {}
            }
        }
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(run.id, Some(run.clone()));
        Ok(())
    }

    async fn append(&self, run: RunId, outcomes: Vec<RowOutcome>) -> Result<(), Failure> {
        match self.appends_left.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(0) => return Err(full("record what became of rows")),
            Some(left) => *left -= 1,
            None => {}
        }
        let mut all = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(outcomes.into_iter().map(|outcome| (run, outcome)));
        Ok(())
    }
}

fn full(what: &str) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what).detail("the disk is full")
}

/// Leases within one process.
#[derive(Debug, Default, Clone)]
pub struct MemoryLeases(Arc<Mutex<BTreeSet<String>>>);

struct Held(MemoryLeases, String);

impl Lease for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn take(&self, name: &str) -> Result<Result<Box<dyn Lease>, Holder>, Failure> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            Ok(Ok(Box::new(Held(self.clone(), name.to_owned()))))
        } else {
            Ok(Err(Holder { who: "this process".into() }))
        }
    }
}

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub i64);

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        self.0
    }
}

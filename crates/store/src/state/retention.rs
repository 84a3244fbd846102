//! How long and how much is kept.

use std::time::Duration;

use warren_engine::size::ByteSize;

/// What is kept of the record. Whatever bound is met first counts; the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long the rows of runs are kept, with what was sent and answered.
    pub age: Duration,
    /// How large the file may be. The newest rows may exceed it for a moment.
    pub size: ByteSize,
    /// How long the runs themselves are kept, with their counts.
    pub runs_age: Duration,
    /// How many runs are kept.
    pub runs_max: u64,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Retention {
    /// Rows for 7 days or 1 GiB, runs for 90 days or 10,000 of them.
    fn default() -> Self {
        Retention { age: DAY * 7, size: ByteSize(1 << 30), runs_age: DAY * 90, runs_max: 10_000 }
    }
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Recorded rows.
    pub rows: u64,
    /// Runs.
    pub runs: u64,
}

//! What the record can be asked, and what it answers.

use warren_engine::change::{ChangeId, Op};
use warren_engine::codes::Code;
use warren_engine::message::Route;
use warren_engine::run::{RowOutcome, RowStatus, RunId, RunState};

/// Which runs are wanted. Empty: all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Of this sync.
    pub sync: Option<String>,
    /// In one of these states; empty for any.
    pub states: Vec<RunState>,
    /// Started at or after, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Which recorded rows are wanted. Empty: all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutcomeFilter {
    /// Of this run.
    pub run: Option<RunId>,
    /// Of runs of this sync.
    pub sync: Option<String>,
    /// Of this key, written as in [`RowOutcome::key`].
    pub key: Option<String>,
    /// Of this change.
    pub change: Option<ChangeId>,
    /// Sent, or meant, to this queue or exchange.
    pub destination: Option<String>,
    /// That ended so.
    pub status: Option<RowStatus>,
    /// That were not sent for this reason.
    pub code: Option<Code>,
    /// Whose last answer came at or after, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// Whose last answer came before.
    pub until: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Which come first.
    pub order: Order,
}

/// In which order recorded rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those recorded last come first, as a person reads.
    #[default]
    NewestFirst,
    /// As they were recorded, as a replay sends.
    OldestFirst,
}

/// A row on record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The run it was in.
    pub run: RunId,
    /// The sync of that run.
    pub sync: String,
    /// When the last answer came, or where there was none when it was recorded; in milliseconds since the epoch.
    pub at: i64,
    /// What became of it, with what was sent and answered.
    pub outcome: RowOutcome,
}

/// How many rows of a run ended in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What became of them.
    pub status: RowStatus,
    /// What had happened to the rows; `None` for rows that took no part in the diff (NULL or duplicate key).
    pub op: Option<Op>,
    /// Why they were not sent.
    pub code: Option<Code>,
    /// How many.
    pub rows: u64,
    /// The bytes of their bodies.
    pub body_bytes: u64,
    /// The key of the first of them, cut off where it is long.
    pub sample_key: String,
    /// The last answer to the first of them, cut off where it is long.
    pub sample_answer: Option<String>,
}

impl OutcomeFilter {
    /// Whether a route leads where the filter asks for.
    pub(super) fn wants_route(&self, route: Option<&Route>) -> bool {
        let Some(wanted) = &self.destination else { return true };
        match route {
            Some(Route::Queue(queue)) => queue == wanted,
            Some(Route::Exchange { exchange, .. }) => exchange == wanted,
            None => false,
        }
    }

    /// Whether a time is in the range asked for.
    pub(super) fn wants_time(&self, at: i64) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

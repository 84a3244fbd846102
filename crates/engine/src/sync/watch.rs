//! What a run tells while it goes, for progress bars and event lines. Nothing depends on anybody listening.

use crate::run::{RowOutcome, RunCounts, RunState};

/// Hears what a run does. Called from the run's own task: return quickly.
pub trait Watch: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// What a run tells.
#[derive(Debug)]
pub enum Event<'a> {
    /// It went over to another state.
    State(RunState),
    /// Rows and packed bytes read so far.
    Read {
        /// Rows.
        rows: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The diff is done: what will be sent.
    Planned(&'a RunCounts),
    /// Some messages were answered: the counts so far.
    Sent(&'a RunCounts),
    /// A row was rejected.
    Rejected(&'a RowOutcome),
    /// The destination is away or holds us back, in one sentence; `None`: it goes on.
    Waiting(Option<String>),
}

/// Hears nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Watch for Silent {
    fn event(&self, _: Event<'_>) {}
}

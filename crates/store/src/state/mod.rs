//! Runs, what became of each row, and leases.
//!
//! [`State`] is what the rest of Warren sees; [`SqliteState`] keeps it in one file for one machine. What it promises:
//! what was recorded outlives the death of the process (not, in its last moments, that of the machine: see
//! [`SqliteState::open`]), one run of a sync at a time, and a record that stays within its bounds of age and size.
//!
//! Not here: the baseline. Losing the state loses the history of what happened, never what the destination was told.

mod block;
mod clock;
mod find;
mod lease;
mod retention;
mod sqlite;

pub use clock::SystemClock;
pub use find::{Order, OutcomeFilter, Recorded, RunFilter, Tally};
pub use retention::{Pruned, Retention};
pub use sqlite::{SqliteOptions, SqliteState};

use async_trait::async_trait;
use warren_engine::failure::Failure;
use warren_engine::ports::{Holder, Leases, Records};
use warren_engine::run::{RunId, RunRecord};

/// All that is remembered of runs, as the application uses it: `Arc<dyn State>`, which is also an `Arc<dyn Records>`
/// and an `Arc<dyn Leases>`.
///
/// The lease that a run of a sync holds has the sync's name: that is how a run whose process is gone is told from one
/// that is under way.
#[async_trait]
pub trait State: Records + Leases {
    /// The runs a filter asks for, newest first. A run whose process is gone is shown as `interrupted`, with its
    /// counts as recorded, whether or not a later run has written that down.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>, Failure>;

    /// One run, shown as in [`State::runs`]; `None` where there is none of that number (any more).
    ///
    /// # Errors
    /// The state cannot be read.
    async fn run(&self, run: RunId) -> Result<Option<RunRecord>, Failure>;

    /// Who holds a name now. Takes nothing and disturbs nobody.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn holder(&self, name: &str) -> Result<Option<Holder>, Failure>;

    /// How many rows of a run ended in which way, with the first sample of each. Outlives the rows themselves. Also
    /// right while the run is under way.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn tallies(&self, run: RunId) -> Result<Vec<Tally>, Failure>;

    /// The recorded rows a filter asks for, piece by piece. What is recorded while it is read may or may not be seen.
    fn find(&self, filter: OutcomeFilter) -> Box<dyn Outcomes>;

    /// Drops what is older or more than is kept, now and to the end. Runs that end start the same by themselves.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn prune(&self) -> Result<Pruned, Failure>;
}

/// Recorded rows, in the order asked for.
#[async_trait]
pub trait Outcomes: Send {
    /// The next rows, at most a few thousand and a few MiB at once; empty at the end. Holds no lock between calls.
    ///
    /// # Errors
    /// The state cannot be read, or is damaged. After an error it is not asked again.
    async fn next(&mut self) -> Result<Vec<Recorded>, Failure>;
}

/// Reads bytes as a packed block of rows: part of the fuzz target `record`.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let (rows, rest) = bytes.split_at(bytes.len() / 3);
    let (ids, bodies) = rest.split_at(rest.len() / 2);
    let Ok(packed) = block::Packed::open(rows, ids) else { return };
    let bodies = packed.bodies(bodies).unwrap_or_default();
    for row in packed.rows().into_iter().flatten() {
        row.route().ok();
        row.has_body();
        row.to_outcome(&bodies).ok();
    }
}

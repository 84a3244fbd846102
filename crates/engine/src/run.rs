//! A run: what one execution of a sync did, on record.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::{ChangeId, Op};
use crate::codes::Code;
use crate::failure::Failure;
use crate::message::Outbound;

/// A run's number, counted up within one state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a run stands, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waits for another run of the same sync.
    Queued,
    /// Reads the source.
    Querying,
    /// Compares with the baseline.
    Planning,
    /// Publishes.
    Sending,
    /// Ended: every change was accepted.
    Success,
    /// Ended: some rows were rejected, all others accepted.
    Warning,
    /// Ended: failed before or while sending; what was accepted counts.
    Failed,
    /// Ended: the process died or the destination stayed away; the next run goes on from here.
    Interrupted,
    /// Ended: a person or a signal stopped it; the next run goes on from here.
    Cancelled,
    /// Ended: a guard stopped it before anything was sent.
    Guarded,
}

impl RunState {
    /// Whether the run is over.
    pub fn is_final(self) -> bool {
        match self {
            RunState::Queued | RunState::Querying | RunState::Planning | RunState::Sending => false,
            RunState::Success
            | RunState::Warning
            | RunState::Failed
            | RunState::Interrupted
            | RunState::Cancelled
            | RunState::Guarded => true,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Querying => "querying",
            RunState::Planning => "planning",
            RunState::Sending => "sending",
            RunState::Success => "success",
            RunState::Warning => "warning",
            RunState::Failed => "failed",
            RunState::Interrupted => "interrupted",
            RunState::Cancelled => "cancelled",
            RunState::Guarded => "guarded",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        use RunState::{
            Cancelled, Failed, Guarded, Interrupted, Planning, Querying, Queued, Sending, Success, Warning,
        };
        [Queued, Querying, Planning, Sending, Success, Warning, Failed, Interrupted, Cancelled, Guarded]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// What was asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// What differs is sent.
    Changes,
    /// Everything is sent again, as added; nothing is sent as removed.
    Full,
    /// The baseline is moved and nothing is sent.
    ResetBaseline,
    /// Exactly what a plan holds is sent.
    Plan,
    /// Recorded messages are sent again as they were.
    Replay,
}

/// A number for each op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PerOp {
    /// Rows added.
    pub added: u64,
    /// Rows changed.
    pub changed: u64,
    /// Rows removed.
    pub removed: u64,
}

impl PerOp {
    /// The number for an op.
    pub fn of(&mut self, op: Op) -> &mut u64 {
        match op {
            Op::Added => &mut self.added,
            Op::Changed => &mut self.changed,
            Op::Removed => &mut self.removed,
        }
    }

    /// All together.
    pub fn total(self) -> u64 {
        self.added + self.changed + self.removed
    }
}

/// What a run has done so far, or did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunCounts {
    /// Rows the query yielded.
    pub rows: u64,
    /// Rows of the baseline before the run.
    pub baseline_rows: u64,
    /// Changes found between rows and baseline.
    pub planned: PerOp,
    /// Changes whose message the broker accepted.
    pub sent: PerOp,
    /// Changes no message was wanted for: the trigger is off, its `when` is false, or the run only moves the baseline.
    pub skipped: PerOp,
    /// Changes whose message was rejected; they are tried again in the next run.
    pub rejected: PerOp,
    /// Changes held back behind a failed one (FIFO groups); they go in the next run.
    pub held: PerOp,
    /// Rows rejected because their key is NULL.
    pub null_keys: u64,
    /// Rows rejected because their key occurs more than once.
    pub duplicate_keys: u64,
    /// Publishes whose answer was lost and which were sent again.
    pub possible_duplicates: u64,
    /// Messages whose answer had not come when the run ended; they go again in the next one, with the same change ids.
    pub unanswered: u64,
    /// Publishes tried again.
    pub retries: u64,
    /// Bytes of the bodies that were accepted.
    pub bytes: u64,
}

impl RunCounts {
    /// All rows that were rejected, whatever the reason.
    pub fn rejected_rows(&self) -> u64 {
        self.rejected.total() + self.null_keys + self.duplicate_keys
    }
}

/// How long each part of a run took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunTimes {
    /// From the query to its last row.
    pub querying_ms: u64,
    /// Comparing with the baseline.
    pub planning_ms: u64,
    /// Rendering and publishing.
    pub sending_ms: u64,
    /// All together.
    pub total_ms: u64,
}

impl RunTimes {
    /// A duration as whole milliseconds.
    pub fn ms(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The first thing that went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The code's name.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// The way out.
    pub remedy: Option<String>,
}

impl From<&Failure> for RunError {
    fn from(failure: &Failure) -> Self {
        RunError {
            code: failure.code.as_str().to_owned(),
            message: failure.to_string(),
            remedy: failure.remedy.clone(),
        }
    }
}

/// A run on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its number.
    pub id: RunId,
    /// The sync it is a run of.
    pub sync: String,
    /// What was asked.
    pub kind: RunKind,
    /// Where it stands.
    pub state: RunState,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    /// Milliseconds since the epoch.
    pub ended_at: Option<i64>,
    /// What it did.
    pub counts: RunCounts,
    /// How long it took.
    pub times: RunTimes,
    /// The first error.
    pub error: Option<RunError>,
}

/// What became of one row's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowStatus {
    /// The broker accepted it.
    Sent,
    /// It was rejected; the row stays a difference.
    Rejected,
    /// Its answer never came before the run ended; it is sent again.
    Unknown,
    /// It was held back behind a failed one.
    Held,
}

impl RowStatus {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            RowStatus::Sent => "sent",
            RowStatus::Rejected => "rejected",
            RowStatus::Unknown => "unknown",
            RowStatus::Held => "held",
        }
    }
}

impl FromStr for RowStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [RowStatus::Sent, RowStatus::Rejected, RowStatus::Unknown, RowStatus::Held]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(())
    }
}

/// What became of one row, with all that was said: the debugger's record.
#[derive(Debug, Clone, PartialEq)]
pub struct RowOutcome {
    /// The change; `None` for a row that has none (NULL or duplicate key).
    pub change: Option<ChangeId>,
    /// What happened to the row; `None` as above.
    pub op: Option<Op>,
    /// The key as text: the value where the key is one column, a JSON array where it is several.
    pub key: String,
    /// What became of it.
    pub status: RowStatus,
    /// Why, where it was not sent.
    pub code: Option<Code>,
    /// What was sent, as it was sent; `None` where nothing could be rendered.
    pub outbound: Option<Outbound>,
    /// Each try and what was answered to it, oldest first.
    pub attempts: Vec<Attempt>,
}

/// One try at one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the answer came, in milliseconds since the epoch.
    pub at: i64,
    /// What was answered: the broker's words, or the failure's sentence.
    pub answer: String,
}

//! What is put on record of one attempt at one message.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Decision;
use crate::delivery::Job;
use crate::failure::{Failure, FailureName};
use crate::outcome::StepTrace;
use crate::run::RunError;

/// The number of an attempt on record, counted up within one state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageRunId(pub i64);

impl fmt::Display for MessageRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

impl FromStr for MessageRunId {
    type Err = ();

    /// Reads `m17`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.strip_prefix('m').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|number| number.parse().ok()).map(MessageRunId).ok_or(())
    }
}

/// What became of a message in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// It is done with.
    Ok,
    /// It failed and is tried again later.
    Retried,
    /// It was given up and went to the dead-letter queue.
    DeadLettered,
    /// It was given up and the broker was told so: it went where the queue sends what is rejected.
    Rejected,
    /// It was thrown away: by its handler, or given up where nobody keeps dead letters.
    Dropped,
    /// It failed after it had been acknowledged on receipt.
    Failed,
    /// It failed while the destination as a whole was down, or an operator must act; the attempt does not count.
    Held,
    /// It went back to the queue: the process was stopping, or nobody was there to handle it.
    HandedBack,
    /// Its result came after the connection was lost: the broker gives it out again.
    Late,
}

impl MessageStatus {
    /// All of them.
    pub const ALL: [MessageStatus; 9] = [
        MessageStatus::Ok,
        MessageStatus::Retried,
        MessageStatus::DeadLettered,
        MessageStatus::Rejected,
        MessageStatus::Dropped,
        MessageStatus::Failed,
        MessageStatus::Held,
        MessageStatus::HandedBack,
        MessageStatus::Late,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageStatus::Ok => "ok",
            MessageStatus::Retried => "retried",
            MessageStatus::DeadLettered => "dead_lettered",
            MessageStatus::Rejected => "rejected",
            MessageStatus::Dropped => "dropped",
            MessageStatus::Failed => "failed",
            MessageStatus::Held => "held",
            MessageStatus::HandedBack => "handed_back",
            MessageStatus::Late => "late",
        }
    }
}

impl FromStr for MessageStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        MessageStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

/// One attempt at one message, on record before it is settled.
#[derive(Debug, Clone)]
pub struct MessageRun {
    /// The trigger or subscription.
    pub consumer: Arc<str>,
    /// The message as it was first, and how it came.
    pub job: Arc<Job>,
    /// What it is told by, for want of an id; see [`print`](super::copies::print).
    pub print: u128,
    /// Whether its body is recorded.
    pub with_body: bool,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it was received, in milliseconds since the epoch.
    pub received_at: i64,
    /// When its handler began.
    pub started_at: i64,
    /// When its handler ended.
    pub ended_at: i64,
    /// What became of it.
    pub status: MessageStatus,
    /// Why it is given up, in a word, where it is.
    pub class: Option<&'static str>,
    /// When it is tried again, where it is.
    pub next_at: Option<i64>,
    /// What failed.
    pub error: Option<MessageError>,
    /// What its handler did.
    pub steps: Vec<StepRecord>,
}

/// What failed, on record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageError {
    /// The name of the kind of failure. `None` on records of versions before 4, and where nothing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureName>,
    /// The code's name; empty where there is none.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// The way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The status of an HTTP answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The exit code of a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How the answer begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl MessageError {
    /// A failure, with the text that is said of it.
    pub fn of(failure: &Failure) -> MessageError {
        let RunError { code, message, remedy } = RunError::from(failure);
        let said = failure.said.as_deref().cloned().unwrap_or_default();
        let crate::failure::Said { status, exit_code, answer } = said;
        MessageError { kind: Some(failure.name()), code, message, remedy, status, exit_code, answer }
    }

    /// What a decision says went wrong.
    pub fn of_decision(decision: &Decision) -> Option<MessageError> {
        match decision {
            Decision::Ack | Decision::Drop | Decision::HandBack => None,
            Decision::Retry { failure, .. } => Some(MessageError::of(failure)),
            Decision::DeadLetter(reason) => Some(match &reason.failure {
                Some(failure) => MessageError { message: reason.text.clone(), ..MessageError::of(failure) },
                None => MessageError { message: reason.text.clone(), ..MessageError::default() },
            }),
        }
    }
}

/// A step, on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where in the pipeline.
    pub path: String,
    /// Its `id`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What it had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<StepTrace> for StepRecord {
    fn from(step: StepTrace) -> StepRecord {
        StepRecord {
            path: step.path,
            id: step.id,
            took_us: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
            note: step.note,
            error: step.failure.map(|failure| format!("{failure} [{}]", failure.code)),
        }
    }
}

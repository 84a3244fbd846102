//! The error of a step: what happened, and what becomes of the message unless the pipeline handles it.

use serde_json::{Value, json};

use crate::failure::{Failure, FailureKind};
use crate::outcome::Outcome;

/// What becomes of the message when nobody handles the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It may work another time.
    Retry,
    /// It will not.
    Reject,
}

/// The error of a step.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What happened.
    pub failure: Failure,
    /// What becomes of the message.
    pub end: End,
    /// The `id` or the path of the step; filled in by whoever ran it.
    pub step: String,
}

impl Trouble {
    /// An error after which the message is rejected.
    pub fn reject(failure: Failure) -> Trouble {
        Trouble { end: End::Reject, ..Trouble::from(failure) }
    }

    /// What an `on_error` receives.
    pub fn document(&self, message_in: &Value) -> Value {
        json!({
            "error": kind(self.failure.kind),
            "step": self.step,
            "code": self.failure.code.as_str(),
            "message": self.failure.to_string(),
            "message_in": message_in,
        })
    }

    /// What the run ends in.
    pub fn outcome(self) -> Outcome {
        let failure = match &self.failure.place {
            Some(_) => self.failure,
            None => self.failure.at(format!("step {}", self.step)),
        };
        match self.end {
            End::Retry => Outcome::Retry(failure),
            End::Reject => Outcome::Reject(failure),
        }
    }
}

impl From<Failure> for Trouble {
    /// An error that is not caught is tried again.
    fn from(failure: Failure) -> Trouble {
        Trouble { failure, end: End::Retry, step: String::new() }
    }
}

/// The kind, as pipelines compare it.
fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Disconnected => "disconnected",
        FailureKind::Timeout => "timeout",
        FailureKind::Throttled => "throttled",
        FailureKind::Refused => "refused",
        FailureKind::NotFound => "not_found",
        FailureKind::Unroutable => "unroutable",
        FailureKind::Invalid => "invalid",
        FailureKind::Internal => "internal",
    }
}

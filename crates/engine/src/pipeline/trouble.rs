//! The error of a step: what happened, and what becomes of the message unless the pipeline handles it.

use serde_json::{Value, json};

use crate::failure::{Failure, Said};
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
    /// Whether the same message fails again in the same way: nothing that can change was part of it.
    pub repeats: bool,
    /// The `id` or the path of the step; filled in by whoever ran it.
    pub step: String,
}

impl Trouble {
    /// An error after which the message is rejected.
    pub fn reject(failure: Failure) -> Trouble {
        Trouble { end: End::Reject, ..Trouble::from(failure) }
    }

    /// An error of an input. It rejects the message if the input is the same in every attempt, otherwise it is retried.
    pub fn of_input(failure: Failure, repeats: bool) -> Trouble {
        let end = if repeats { End::Reject } else { End::Retry };
        Trouble { end, repeats, ..Trouble::from(failure) }
    }

    /// What an `on_error` receives.
    pub fn document(&self, message_in: &Value) -> Value {
        let mut document = json!({
            "error": self.failure.name().as_str(),
            "step": self.step,
            "code": self.failure.code.as_str(),
            "message": self.failure.to_string(),
            "message_in": message_in,
        });
        if let Some(said) = &self.failure.said {
            let Said { status, exit_code, answer } = &**said;
            for (name, value) in
                [("status", json!(status)), ("exit_code", json!(exit_code)), ("answer", json!(answer))]
            {
                if !value.is_null() {
                    document[name] = value;
                }
            }
        }
        document
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
        Trouble { failure, end: End::Retry, repeats: false, step: String::new() }
    }
}

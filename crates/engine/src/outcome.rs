//! What a handler ends in, and what it did on the way.
//!
//! Three parties speak about a delivery: the handler says what came of it ([`Outcome`]), the policy what is done about that,
//! the protocol what the broker is told ([`Settlement`](crate::delivery::Settlement)).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// The verdict of a handler over one message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is done with.
    Ok,
    /// It may work another time; [`Failure::retry_after`] is heeded where it is longer than the schedule's own pause.
    Retry(Failure),
    /// It will not work another time.
    Reject(Failure),
    /// It is thrown away, on purpose.
    Drop,
    /// Nobody is there to handle it: it goes back to its queue as it came. Whoever says so sees to it that consuming stops.
    HandBack,
}

/// One try at handling a message, as its handler sees it.
#[derive(Debug)]
pub struct Attempt {
    /// Which trigger or subscription handles it.
    pub consumer: Arc<str>,
    /// Which try this is, from 1. Attempts that do not count, as during an outage, are not numbered.
    pub number: u32,
    /// Whether the message was attempted before, whether that counted or not.
    pub again: bool,
    /// When the message was received: milliseconds since the epoch.
    pub received_at_ms: i64,
    /// When the handler is dropped if it has not ended. What it started must end with it.
    pub deadline: Instant,
    /// Where the handler notes each step it takes; also those of a handler that was dropped are on record.
    pub trace: Trace,
}

/// The steps of one attempt, in the order in which they ended.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Vec<StepTrace>>);

/// What one step did.
#[derive(Debug, Clone)]
pub struct StepTrace {
    /// Where in the pipeline, such as `2.http` or `3.for_each[1].1.publish`.
    pub path: String,
    /// The step's `id`, where it has one.
    pub id: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What it has to say in a few words, such as `POST https://stock.example/reserve: 201`. Never holds a secret.
    pub note: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Trace {
    /// Notes a step.
    pub fn note(&self, step: StepTrace) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// The steps noted so far, leaving none.
    pub fn take(&self) -> Vec<StepTrace> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

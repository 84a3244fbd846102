//! What can be seen of a consumer from outside: its state, its counts and its times.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::plan::ParkingMax;
use super::record::MessageStatus;
use crate::codes;
use crate::failure::{Failure, FailureKind, FailureName};
use crate::outcome::Outcome;
use crate::size::ByteSize;

/// How long an operator's action counts as needed after the last message that failed for want of it. Such messages are tried again
/// every half minute.
const BLOCKED_FOR: Duration = Duration::from_secs(90);

/// Where a consumer stands.
#[derive(Debug, Clone)]
pub enum State {
    /// It has not begun.
    Starting,
    /// It takes messages.
    Consuming,
    /// The broker or the queue is not there; it asks again.
    Waiting(Failure),
    /// The destination as a whole is down; one message at a time probes.
    Paused,
    /// Nothing works until an operator acts; one message at a time probes.
    Blocked(Failure),
    /// It takes no more, and what runs ends.
    Draining,
    /// It has ended.
    Stopped,
}

impl State {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Consuming => "consuming",
            State::Waiting(_) => "waiting",
            State::Paused => "paused",
            State::Blocked(_) => "blocked",
            State::Draining => "draining",
            State::Stopped => "stopped",
        }
    }
}

/// What can be seen of one consumer.
#[derive(Debug)]
pub struct Status {
    state: watch::Sender<State>,
    /// What holds it up although it is consuming: a copy that no broker confirms, a record that cannot be written.
    trouble: Mutex<Option<Failure>>,
    /// The bounds of the parking lot.
    parking: Mutex<ParkingMax>,
    /// What an operator was needed for last, and when.
    blocked: Mutex<Option<(Failure, Instant)>>,
    /// Which way messages are tried again, once that is known.
    mechanism: Mutex<Option<super::retry::Mechanism>>,
    /// Messages received.
    pub received: AtomicU64,
    /// Attempts that ended, by [`MessageStatus`].
    ended: [AtomicU64; MessageStatus::ALL.len()],
    /// Attempts that failed, by kind.
    failures: Arc<FailureCounts>,
    /// Tries in place.
    pub in_place: AtomicU64,
    /// Messages being handled.
    pub in_flight: AtomicI64,
    /// Messages received and not started.
    pub waiting: AtomicI64,
    /// Messages in the local parking lot.
    pub parked: AtomicI64,
    /// Keys of which as much is parked as may be, so that more is dead-lettered.
    pub full_lanes: AtomicI64,
    /// Connections lost or refused.
    pub reconnects: AtomicU64,
    /// How long handlers took.
    pub duration: Histogram,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            state: watch::Sender::new(State::Starting),
            trouble: Mutex::default(),
            parking: Mutex::default(),
            blocked: Mutex::default(),
            mechanism: Mutex::default(),
            received: AtomicU64::default(),
            ended: std::array::from_fn(|_| AtomicU64::default()),
            failures: Arc::default(),
            in_place: AtomicU64::default(),
            in_flight: AtomicI64::default(),
            waiting: AtomicI64::default(),
            parked: AtomicI64::default(),
            full_lanes: AtomicI64::default(),
            reconnects: AtomicU64::default(),
            duration: Histogram::default(),
        }
    }
}

impl Status {
    /// With a count of failures that outlives it.
    #[must_use]
    pub fn counting_failures_in(self, failures: Arc<FailureCounts>) -> Status {
        Status { failures, ..self }
    }

    /// Attempts that failed, by kind.
    pub fn failures(&self) -> &FailureCounts {
        &self.failures
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Tells of each change of state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// It cannot begin yet, and why.
    pub fn waits(&self, failure: Failure) {
        self.set(State::Waiting(failure));
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// What holds it up.
    pub fn trouble(&self) -> Option<Failure> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.or_else(|| {
            let keys = self.full_lanes.load(Ordering::Relaxed);
            (keys > 0).then(|| backlog(keys, *self.parking.lock().unwrap_or_else(PoisonError::into_inner)))
        })
    }

    /// What an operator must do something about before all of its messages can be handled.
    pub fn needs_operator(&self) -> Option<Failure> {
        let waits_for = match self.state() {
            State::Waiting(failure) | State::Blocked(failure) => Some(failure),
            State::Starting | State::Consuming | State::Paused | State::Draining | State::Stopped => None,
        };
        let trouble = || self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let needed = waits_for.filter(Failure::needs_operator);
        needed.or_else(|| trouble().filter(Failure::needs_operator)).or_else(|| {
            let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = blocked.as_ref().filter(|(_, at)| at.elapsed() < BLOCKED_FOR);
            recent.map(|(failure, _)| failure.clone())
        })
    }

    /// What an operator was needed for last.
    pub(super) fn blocked_by(&self) -> Option<Failure> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.as_ref().map(|(failure, _)| failure.clone())
    }

    /// A message failed because of something that an operator must do something about.
    pub(super) fn blocked(&self, failure: &Failure) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((failure.clone(), Instant::now()));
    }

    /// The bounds of the parking lot, for messages about them.
    pub(super) fn parks_at_most(&self, max: ParkingMax) {
        *self.parking.lock().unwrap_or_else(PoisonError::into_inner) = max;
    }

    pub(super) fn troubled(&self, trouble: Option<Failure>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Which way messages are tried again, once one was.
    pub fn mechanism(&self) -> Option<super::retry::Mechanism> {
        self.mechanism.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn retries_by(&self, mechanism: super::retry::Mechanism) {
        *self.mechanism.lock().unwrap_or_else(PoisonError::into_inner) = Some(mechanism);
    }

    /// How many attempts ended so.
    pub fn ended(&self, status: MessageStatus) -> u64 {
        self.ended[status as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, status: MessageStatus) {
        self.ended[status as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Attempts that failed, by kind.
#[derive(Debug, Default)]
pub struct FailureCounts([AtomicU64; FailureName::ALL.len()]);

impl FailureCounts {
    /// How many attempts failed with this kind.
    pub fn of(&self, name: FailureName) -> u64 {
        self.0[name as usize].load(Ordering::Relaxed)
    }

    /// Counts an attempt by its outcome; one that did not fail is not counted.
    pub(super) fn note(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Ok | Outcome::Drop | Outcome::HandBack => {}
            Outcome::Retry(failure) | Outcome::Reject(failure) => {
                self.0[failure.name() as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The failure that more of some keys has come than may be parked.
pub(super) fn backlog(keys: i64, max: ParkingMax) -> Failure {
    let keys = match keys {
        1 => "1 key has".to_owned(),
        keys => format!("{keys} keys have"),
    };
    let (messages, size) = (max.messages, ByteSize(max.bytes));
    Failure::new(FailureKind::Throttled, codes::KEY_BACKLOG, "park a message behind a failing one of its key")
        .detail(format!(
            "{keys} as much parked as `parking` allows ({messages} messages, {size}); what comes for them is dead-lettered"
        ))
        .remedy("fix what fails, or raise `parking`; the dead letters can be redriven")
}

/// Counts of durations, each up to a bound.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

/// The bounds of a [`Histogram`], in milliseconds.
pub const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 15_000, 60_000, 300_000];

impl Histogram {
    /// Counts a duration.
    pub fn add(&self, took: Duration) {
        let at = BOUNDS_MS.partition_point(|bound| took > Duration::from_millis(*bound));
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many were at most as long as each bound, then how many there were in all.
    pub fn cumulative(&self) -> Vec<u64> {
        let mut sum = 0;
        self.counts
            .iter()
            .map(|count| {
                sum += count.load(Ordering::Relaxed);
                sum
            })
            .collect()
    }

    /// All of them together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bounds() {
        let histogram = Histogram::default();
        for millis in [1, 2, 3, 400_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[2], counts[13], counts[14]), (1, 2, 3, 3, 4));
        assert!((histogram.sum_seconds() - 400.006).abs() < 1e-9);
    }
}

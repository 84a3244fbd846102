//! Which way a message is tried again: what the broker allows.

use std::time::Duration;

use crate::failure::Failure;

use super::copies::DELAY_QUEUE_PREFIX;

/// A queue that keeps a message for a time and then leads it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayQueue {
    /// Its name.
    pub name: String,
    /// The queue it leads back to.
    pub back_to: String,
    /// The longest a message stays in it. A message may say a shorter time of its own (`expiration`).
    pub longest: Duration,
}

/// How much longer than its step a message may stay in the step's queue: the jitter.
const SPREAD: f64 = 1.0 + super::policy::JITTER;
/// Steps beyond the schedule's own, for those who ask for a longer pause (`Retry-After`), in hours.
const LONG_STEPS_HOURS: [u64; 4] = [1, 4, 12, 24];
/// The longest name of a queue, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The delay queue for a pause: that of the shortest step which is not shorter.
///
/// A message that is to come earlier than others before it in the queue waits for them, since brokers look at the head of a
/// queue alone; steps bound that wait.
pub fn delay_queue(queue: &str, delays: &[Duration], after: Duration) -> DelayQueue {
    let long = LONG_STEPS_HOURS.map(|hours| Duration::from_secs(hours * 3600));
    let steps = delays.iter().copied().chain(long);
    let longest = steps
        .map(|step| step.mul_f64(SPREAD))
        .filter(|longest| *longest >= after)
        .min()
        .unwrap_or(after)
        .max(Duration::from_millis(1));
    let millis = longest.as_millis();
    let mut name = format!("{DELAY_QUEUE_PREFIX}{queue}.{millis}");
    if name.len() > NAME_BYTES_MAX {
        let digest = xxhash_rust::xxh3::xxh3_128(queue.as_bytes());
        name = format!("{DELAY_QUEUE_PREFIX}{digest:032x}.{millis}");
    }
    DelayQueue { name, back_to: queue.to_owned(), longest: Duration::from_millis(millis as u64) }
}

/// The way a consumer's messages are tried again, and why.
#[derive(Debug, Clone)]
pub enum Mechanism {
    /// The broker delays the delivery itself.
    Visibility,
    /// By queues with a time to live that lead back.
    DelayQueues,
    /// By the local parking lot.
    Parking {
        /// Why not by queues: what the broker said, if it was asked.
        instead: Option<Failure>,
    },
    /// Back to the queue at once.
    Requeue,
}

impl Mechanism {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Mechanism::Visibility => "visibility",
            Mechanism::DelayQueues => "delay_queues",
            Mechanism::Parking { .. } => "parking",
            Mechanism::Requeue => "requeue",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_the_queue_of_its_step() {
        let delays = [10u64, 30, 120].map(Duration::from_secs);
        let name = |seconds: u64| delay_queue("orders", &delays, Duration::from_secs(seconds)).name;
        assert_eq!(name(8), "warren.delay.orders.12000");
        assert_eq!(name(12), "warren.delay.orders.12000");
        assert_eq!(name(13), "warren.delay.orders.36000");
        assert_eq!(name(144), "warren.delay.orders.144000");
        assert_eq!(name(145), "warren.delay.orders.4320000");
        assert_eq!(name(24 * 3600), "warren.delay.orders.103680000");
    }

    #[test]
    fn a_long_name_is_shortened_and_stays_its_own() {
        let name = |queue: &str| delay_queue(queue, &[Duration::from_secs(10)], Duration::from_secs(9)).name;
        let (one, other) = (name(&"a".repeat(255)), name(&"b".repeat(255)));
        assert!(one.len() <= 255 && one != other);
    }
}

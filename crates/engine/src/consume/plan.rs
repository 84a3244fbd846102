//! What one consumer is told to do, checked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::delivery::Job;
use crate::failure::Failure;

/// What one consumer is told to do.
#[derive(Debug, Clone)]
pub struct ConsumePlan {
    /// The trigger's or subscription's name.
    pub name: Arc<str>,
    /// The queue it takes from.
    pub queue: String,
    /// Whether a message is acknowledged on receipt: at most once.
    pub auto_ack: bool,
    /// Whether a body may be any bytes; else one that is not UTF-8 is rejected.
    pub binary: bool,
    /// Messages worked on at once, and the prefetch. At least 1.
    pub concurrency: u16,
    /// The deadline of one attempt, in-place tries included.
    pub max_timeout: Duration,
    /// How long a received message may wait to be started. `None`: for ever.
    pub expiration: Option<Duration>,
    /// Whether a message may run again after an error, a crash or an unknown outcome.
    pub allow_redelivery: bool,
    /// The largest body, in bytes.
    pub message_bytes_max: u64,
    /// What may run beside what.
    pub ordering: Ordering,
    /// When and how it is tried again.
    pub retry: Retry,
    /// How many messages of one key are parked behind one of it that fails.
    pub parking: ParkingMax,
    /// Where what is given up goes.
    pub dead_letter: DeadLetter,
    /// Whether bodies are recorded.
    pub record_bodies: bool,
}

/// The bounds of what is parked of one key. What is beyond is dead-lettered, in order, and concerns no other key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkingMax {
    /// Messages.
    pub messages: u64,
    /// Bytes, by [`Job::parked_bytes`].
    pub bytes: u64,
}

impl Default for ParkingMax {
    fn default() -> Self {
        ParkingMax { messages: 100_000, bytes: 1 << 30 }
    }
}

/// What may run beside what.
#[derive(Clone)]
pub enum Ordering {
    /// Anything.
    None,
    /// Nothing: one after another, in the queue's order.
    Queue,
    /// Messages of one key one after another, keys beside each other.
    Key(Arc<dyn KeyOf>),
}

/// Finds the key of a message.
#[async_trait]
pub trait KeyOf: Send + Sync {
    /// The key.
    ///
    /// # Errors
    /// It has none: the message is rejected.
    async fn key(&self, job: &Job, received_at_ms: i64) -> Result<String, Failure>;
}

/// When and how a message is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The pauses before tries in place, for connection-level errors.
    pub in_place: Vec<Duration>,
    /// The pauses before tries out of place; after the last the message is given up.
    pub delays: Vec<Duration>,
    /// Whether the last pause is repeated instead, for ever. Without a pause a message is given up all the same.
    pub forever: bool,
    /// By which mechanism.
    pub mode: RetryMode,
}

impl Default for Retry {
    fn default() -> Self {
        let seconds = [10, 30, 120, 600, 1800, 3600, 7200, 14400];
        Retry {
            in_place: vec![Duration::from_millis(250), Duration::from_secs(1)],
            delays: seconds.map(Duration::from_secs).to_vec(),
            forever: false,
            mode: RetryMode::Auto,
        }
    }
}

/// By which mechanism a message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryMode {
    /// The best one the broker allows.
    Auto,
    /// Queues with a time to live that lead back.
    DelayQueues,
    /// The broker's own delay of a delivery.
    Visibility,
    /// The local parking lot.
    Parking,
    /// Back to the queue at once, with whatever the broker makes of that.
    Requeue,
}

impl RetryMode {
    /// All of them.
    pub const ALL: [RetryMode; 5] = [
        RetryMode::Auto,
        RetryMode::DelayQueues,
        RetryMode::Visibility,
        RetryMode::Parking,
        RetryMode::Requeue,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            RetryMode::Auto => "auto",
            RetryMode::DelayQueues => "delay_queues",
            RetryMode::Visibility => "visibility",
            RetryMode::Parking => "parking",
            RetryMode::Requeue => "requeue",
        }
    }
}

/// Where what is given up goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetter {
    /// To a queue, as a copy that says why.
    Queue(String),
    /// Wherever the queue sends what is rejected.
    Broker,
    /// Nowhere.
    Drop,
}

impl ConsumePlan {
    /// A plan with the defaults of a trigger.
    pub fn new(name: &str, queue: &str, dead_letter: DeadLetter) -> ConsumePlan {
        ConsumePlan {
            name: name.into(),
            queue: queue.to_owned(),
            auto_ack: false,
            binary: false,
            concurrency: 10,
            max_timeout: Duration::from_secs(300),
            expiration: Some(Duration::from_secs(600)),
            allow_redelivery: true,
            message_bytes_max: 1 << 20,
            ordering: Ordering::None,
            retry: Retry::default(),
            parking: ParkingMax::default(),
            dead_letter,
            record_bodies: true,
        }
    }
}

impl std::fmt::Debug for Ordering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ordering::None => "None",
            Ordering::Queue => "Queue",
            Ordering::Key(_) => "Key",
        })
    }
}

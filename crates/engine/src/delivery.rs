//! A message received. It has two halves: the [`Job`], which a handler reads, and the [`Unsettled`] half,
//! which tells the broker what became of it. A handler never holds the second.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::message::Message;

/// A message received and not settled yet.
#[derive(Debug)]
#[must_use]
pub struct Delivery {
    job: Job,
    unsettled: Unsettled,
}

/// What a handler sees of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The body and properties, as they came.
    pub message: Message,
    /// How they came.
    pub envelope: Envelope,
}

/// How a message came. Written where messages wait for their next try, as [`crate::message::Properties`] are: names once used stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// The queue it was taken from.
    pub queue: String,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Whether the broker says it was delivered before.
    pub redelivered: bool,
    /// The broker's own count of earlier deliveries, where it keeps one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_count: Option<u64>,
    /// The number of the delivery on its channel.
    pub delivery_tag: u64,
    /// The consumer's tag.
    pub consumer_tag: String,
    /// What else the broker says of it, under the broker's own names, such as SQS's `MessageGroupId`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub system: BTreeMap<String, String>,
}

/// The half of a delivery that tells the broker what became of it. Dropping it without settling leaves the message with the
/// broker, which delivers it again when the consumer is closed.
#[must_use]
pub struct Unsettled {
    settle: Box<dyn Settle>,
}

/// What the broker is told about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is done with.
    Ack,
    /// It goes where the queue sends what was rejected: its dead-letter exchange, or nowhere.
    Reject,
    /// It goes back to the queue.
    Requeue,
    /// It comes again after a time, where the broker can do that.
    Delay(Duration),
}

/// Tells the broker what became of one delivery, on the channel that delivered it.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Whether [`Settlement::Delay`] of that length can be done.
    fn can_delay(&self, by: Duration) -> bool {
        let _ = by;
        false
    }

    /// Whether the channel that delivered it is still there, as far as is known. Where it is not, the broker delivers
    /// the message again, and a copy of it made now would be one too many.
    fn alive(&self) -> bool {
        true
    }

    /// Tells the broker. Returns once the broker was told, which for AMQP means written to the connection.
    ///
    /// # Errors
    /// The channel that delivered is gone: the broker will deliver the message again.
    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure>;
}

impl Job {
    /// What a parked message takes besides its body, in bytes, about: headers, envelope and index.
    pub const PARKED_BYTES: u64 = 512;

    /// What it takes of the parking lot, in bytes.
    pub fn parked_bytes(&self) -> u64 {
        self.message.body.len() as u64 + Self::PARKED_BYTES
    }
}

impl Delivery {
    /// A delivery of a job and the means to settle it.
    pub fn new(job: Job, settle: Box<dyn Settle>) -> Delivery {
        Delivery { job, unsettled: Unsettled { settle } }
    }

    /// The job, to look at.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The two halves.
    pub fn split(self) -> (Job, Unsettled) {
        (self.job, self.unsettled)
    }
}

impl Unsettled {
    /// Whether the broker can deliver the message again after that time.
    pub fn can_delay(&self, by: Duration) -> bool {
        self.settle.can_delay(by)
    }

    /// Whether it can still be settled, as far as is known; see [`Settle::alive`].
    pub fn alive(&self) -> bool {
        self.settle.alive()
    }

    /// Tells the broker what became of it.
    ///
    /// # Errors
    /// See [`Settle::settle`].
    pub async fn settle(self, how: Settlement) -> Result<(), Failure> {
        self.settle.settle(how).await
    }
}

impl std::fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unsettled")
    }
}

//! A queue of the scriptable endpoint, and what it was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a queue is set up.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// `MaximumMessageSize`: of a message and of a batch.
    pub bytes_max: u64,
    /// `ContentBasedDeduplication`.
    pub content_based: bool,
}

impl Default for QueueSettings {
    /// 1 MiB, and ids of content are not made.
    fn default() -> Self {
        QueueSettings { bytes_max: 1 << 20, content_based: false }
    }
}

/// An entry as it arrived, whatever became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub id: String,
    pub body: String,
    pub group: Option<String>,
    pub deduplication: Option<String>,
    pub delay: Option<i64>,
    /// `MessageAttributes`, as JSON; null if there are none.
    pub attributes: Value,
}

impl Arrival {
    pub(super) fn of(entry: &Value) -> Arrival {
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        Arrival {
            id: text("Id").unwrap_or_default(),
            body: text("MessageBody").unwrap_or_default(),
            group: text("MessageGroupId"),
            deduplication: text("MessageDeduplicationId"),
            delay: entry["DelaySeconds"].as_i64(),
            attributes: entry["MessageAttributes"].clone(),
        }
    }

    /// What counts against the largest message.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let attributes = self.attributes.as_object().into_iter().flatten().map(|(name, attribute)| {
            let text = |key: &str| attribute[key].as_str().unwrap_or_default().len();
            // Four characters of base64 for each three bytes, and padding.
            let binary = attribute["BinaryValue"].as_str().unwrap_or_default();
            let binary = binary.len() / 4 * 3 - binary.bytes().filter(|byte| *byte == b'=').count();
            name.len() + text("DataType") + text("StringValue") + binary
        });
        (self.body.len() + attributes.sum::<usize>()) as u64
    }
}

/// A message that a queue took.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub message_id: String,
    pub arrival: Arrival,
}

/// A message that can be received.
#[derive(Debug)]
struct Live {
    message: Stored,
    visible_at: Instant,
    received: u64,
    /// Changes with each receipt.
    handle: String,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) settings: QueueSettings,
    pub(super) stored: Vec<Stored>,
    /// The message id of each deduplication id; the five minutes do not pass here.
    pub(super) seen: BTreeMap<String, String>,
    live: Vec<Live>,
    handles: u64,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings) -> Queue {
        Queue { settings, stored: Vec::new(), seen: BTreeMap::new(), live: Vec::new(), handles: 0 }
    }

    /// Takes a message in.
    pub(super) fn store(&mut self, message: Stored) {
        let now = Instant::now();
        let delay = u64::try_from(message.arrival.delay.unwrap_or(0)).unwrap_or(0);
        let visible_at = now + Duration::from_secs(delay);
        self.live.push(Live { message: message.clone(), visible_at, received: 0, handle: String::new() });
        self.stored.push(message);
    }

    /// The messages that can be seen, at most `max`, which then are hidden for a time. In a FIFO queue a group with a hidden message is
    /// hidden as a whole.
    pub(super) fn receive(&mut self, max: usize, hidden: Duration, is_fifo: bool) -> Vec<Value> {
        let now = Instant::now();
        let hidden_now = |live: &&Live| is_fifo && live.visible_at > now;
        let locked: Vec<Option<String>> =
            self.live.iter().filter(hidden_now).map(|live| live.message.arrival.group.clone()).collect();
        let mut messages = Vec::new();
        for live in &mut self.live {
            if messages.len() == max {
                break;
            }
            if live.visible_at > now || locked.contains(&live.message.arrival.group) {
                continue;
            }
            self.handles += 1;
            live.handle = format!("handle-{}", self.handles);
            live.received += 1;
            live.visible_at = now + hidden;
            let Stored { message_id, arrival } = &live.message;
            let mut attributes = json!({"ApproximateReceiveCount": live.received.to_string(), "SentTimestamp": "1700000000000"});
            for (name, value) in
                [("MessageGroupId", &arrival.group), ("MessageDeduplicationId", &arrival.deduplication)]
            {
                if let Some(value) = value {
                    attributes[name] = json!(value);
                }
            }
            messages.push(json!({
                "MessageId": message_id, "ReceiptHandle": live.handle, "Body": arrival.body,
                "MessageAttributes": arrival.attributes, "Attributes": attributes,
            }));
        }
        messages
    }

    /// Deletes a received message. With an older handle nothing is deleted; only a FIFO queue says so. False: the handle is of none.
    pub(super) fn delete(&mut self, handle: &str, is_fifo: bool) -> bool {
        let before = self.live.len();
        self.live.retain(|live| live.handle != handle);
        let number = handle.strip_prefix("handle-").and_then(|number| number.parse().ok());
        self.live.len() < before || (!is_fifo && number.is_some_and(|number: u64| number <= self.handles))
    }

    /// How often its messages were received.
    pub(super) fn receipts(&self) -> u64 {
        self.handles
    }

    /// The messages that are not deleted.
    pub(super) fn left(&self) -> usize {
        self.live.len()
    }

    /// The messages that cannot be received now.
    pub(super) fn hidden(&self) -> usize {
        let now = Instant::now();
        self.live.iter().filter(|live| live.visible_at > now).count()
    }

    /// The time is up of all messages that are hidden.
    pub(super) fn lapse(&mut self) {
        let now = Instant::now();
        for live in &mut self.live {
            live.visible_at = live.visible_at.min(now);
        }
    }

    /// Hides a received message for another time. False: the handle is of none, or it is not hidden.
    pub(super) fn hide(&mut self, handle: &str, hidden: Duration) -> bool {
        let now = Instant::now();
        let found = self.live.iter_mut().find(|live| live.handle == handle && live.visible_at > now);
        found.map(|live| live.visible_at = now + hidden).is_some()
    }
}

//! A queue of the scriptable endpoint, and what it was sent.

use std::collections::BTreeMap;

use serde_json::Value;

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

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) settings: QueueSettings,
    pub(super) stored: Vec<Stored>,
    /// The message id of each deduplication id; the five minutes do not pass here.
    pub(super) seen: BTreeMap<String, String>,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings) -> Queue {
        Queue { settings, stored: Vec::new(), seen: BTreeMap::new() }
    }
}

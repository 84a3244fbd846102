//! A trigger as written: a queue that is consumed, and what is done with its messages.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use warren_connectors::kit::setting::{Size, Span};

use super::expression::{Expression, PipelineRef};

/// A queue that is consumed by `warren serve`, and the pipeline that each message goes through.
/// A trigger declares nothing but delay queues and its dead-letter queue, and these only where it may.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ConsumeTrigger")]
pub struct RawConsume {
    /// The broker: a name under `brokers`.
    pub from: String,
    /// The queue. It must exist; while it does not, the trigger waits for it and says so.
    pub queue: String,
    /// Whether a message is acknowledged as soon as it is received. Default: false. **With true a message whose pipeline fails, or that
    /// is under way when the process dies, is gone from the broker**; its run is still on record, and can be replayed from there.
    #[serde(default)]
    pub auto_ack: bool,
    /// Whether the body is handed over as base64. Default: false, as text; then a body that is not UTF-8 is rejected as `not text`.
    #[serde(default)]
    pub binary: bool,
    /// How many messages are worked on at once; the prefetch is set to it. Default: 10. More cost memory and hit the destination harder;
    /// beyond some 300 nothing is gained.
    #[schemars(range(min = 1, max = 65535))]
    pub concurrency: Option<u16>,
    /// The longest one run of the pipeline may take, its quick retries included. Default: `300s`. The timeouts of its steps must fit
    /// into it, and it into the time the broker waits for an acknowledgement (RabbitMQ: 30 minutes).
    pub max_timeout: Option<Span>,
    /// The longest a received message may wait to be started; one that waited longer is dead-lettered as `expired`. Default: `600s`;
    /// `0s` for no limit. Messages wait only behind others of their key; time in which the destination is down does not count.
    pub expiration: Option<Span>,
    /// Whether a message may run again after an error, a crash or an unknown outcome. Default: true. With false it goes to
    /// `dead_letter` instead, and the reason says which of them it was.
    pub allow_redelivery: Option<bool>,
    /// The largest body. Default: `1MiB`. A larger one is rejected as `too large`, and never read into a pipeline.
    pub max_message_size: Option<Size>,
    /// What must be done in order: `none`, `queue` for one message after another, or `{key: <jq>}` for one after another
    /// of each key. A message that is to be tried again holds up what comes behind it in its order. Default: `none`; of a FIFO queue of
    /// SQS, by its groups.
    #[serde(default)]
    pub ordering: RawOrdering,
    /// When and how a message is tried again.
    #[serde(default)]
    pub retry: RawRetries,
    /// With `ordering: {key: …}`, or the groups of a FIFO queue: how much is kept on this machine's disk of one key, behind a message of
    /// it that is to be tried again.
    #[serde(default)]
    pub parking: RawParking,
    /// Where a message goes that is given up: `{queue: NAME}` for a copy that says why, `broker` to reject it to wherever the queue
    /// sends what is rejected, or `drop`. There is no default, since each choice loses something: `drop` the message, `broker` the reason.
    pub dead_letter: RawDeadLetter,
    /// What is done with each message: a name under `pipelines`, or a list of steps.
    pub pipeline: PipelineRef,
}

/// When and how a message is tried again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Retries")]
pub struct RawRetries {
    /// The pauses before quick tries in place, for errors of a connection only and within `max_timeout`. Default: `[250ms, 1s]`.
    pub in_place: Option<Vec<Span>>,
    /// The pauses before later tries, each give or take a fifth; after the last the message is given up. Default:
    /// `[10s, 30s, 2m, 10m, 30m, 1h, 2h, 4h]`. Where the other side asks for longer (`Retry-After`), that counts, up to a day.
    pub delays: Option<Vec<Span>>,
    /// By which mechanism. Default: `auto`, the best one the broker allows; `warren check` says which that is.
    pub mode: RawRetryMode,
}

/// How much of one key is parked. What comes beyond it is dead-lettered with the class `backlog`, in order, until there is room again. The
/// bounds are for each key, so that a key that fails takes nothing from another.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Parking")]
pub struct RawParking {
    /// Messages. Default: 100000. 0 parks only the message that is to be tried again.
    pub messages: Option<u64>,
    /// Bytes of their bodies, and 512 for each message. Default: `1GiB`.
    pub size: Option<Size>,
}

/// By which mechanism a message is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRetryMode {
    /// The broker's own delay where it has one, else delay queues where they may be made, else the local parking lot.
    #[default]
    Auto,
    /// Queues with a time to live that lead back, named `warren.delay.…`.
    DelayQueues,
    /// The broker's own delay (SQS).
    Visibility,
    /// The state folder: durable on this machine.
    Parking,
    /// Back to the queue at once. The schedule does not count: the broker's own limits do.
    Requeue,
}

/// What must be done in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RawOrdering {
    /// Nothing.
    #[default]
    None,
    /// Everything.
    Queue,
    /// What has one key.
    Key(Expression),
}

/// Where a message goes that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawDeadLetter {
    /// To a queue.
    Queue(String),
    /// Where the queue sends what is rejected.
    Broker,
    /// Nowhere.
    Drop,
}

struct OrderingVisitor;

impl<'de> Visitor<'de> for OrderingVisitor {
    type Value = RawOrdering;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`none`, `queue` or {key: a jq expression}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawOrdering, E> {
        match text {
            "none" => Ok(RawOrdering::None),
            "queue" => Ok(RawOrdering::Queue),
            _ => Err(E::custom("`ordering` takes `none`, `queue` or `{key: <jq>}`")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawOrdering, A::Error> {
        match map.next_entry::<String, Expression>()? {
            Some((name, expression)) if name == "key" => Ok(RawOrdering::Key(expression)),
            _ => Err(de::Error::custom("`ordering` takes `none`, `queue` or `{key: <jq>}`")),
        }
    }
}

impl<'de> Deserialize<'de> for RawOrdering {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OrderingVisitor)
    }
}

impl JsonSchema for RawOrdering {
    fn schema_name() -> Cow<'static, str> {
        "Ordering".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let key = generator.subschema_for::<Expression>();
        json_schema!({ "anyOf": [
            {"enum": ["none", "queue"]},
            {"type": "object", "properties": {"key": key}, "required": ["key"]},
        ] })
    }
}

struct DeadLetterVisitor;

impl<'de> Visitor<'de> for DeadLetterVisitor {
    type Value = RawDeadLetter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{queue: a name}, `broker` or `drop`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawDeadLetter, E> {
        match text {
            "broker" => Ok(RawDeadLetter::Broker),
            "drop" => Ok(RawDeadLetter::Drop),
            _ => Err(E::custom("`dead_letter` takes `{queue: NAME}`, `broker` or `drop`")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDeadLetter, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((name, queue)) if name == "queue" && !queue.is_empty() => Ok(RawDeadLetter::Queue(queue)),
            _ => Err(de::Error::custom("`dead_letter` takes `{queue: NAME}`, `broker` or `drop`")),
        }
    }
}

impl<'de> Deserialize<'de> for RawDeadLetter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeadLetterVisitor)
    }
}

impl JsonSchema for RawDeadLetter {
    fn schema_name() -> Cow<'static, str> {
        "DeadLetter".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"enum": ["broker", "drop"]},
            {"type": "object", "properties": {"queue": {"type": "string", "description": "The queue for a copy that says why."}}, "required": ["queue"]},
        ] })
    }
}

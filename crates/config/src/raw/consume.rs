//! A trigger as written: a consumed queue, and the pipeline that processes its messages.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use warren_connectors::kit::setting::{Size, Span};

use super::expression::{Expression, PipelineRef};

/// A queue that `warren serve` consumes, and the pipeline that processes each message. A trigger declares
/// only delay queues and its dead-letter queue, and these only if the broker's permissions allow it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ConsumeTrigger")]
pub struct RawConsume {
    /// The broker: a name under `brokers`.
    pub from: String,
    /// The queue. It must exist: if it does not, the trigger reports this and waits for it.
    pub queue: String,
    /// Whether a message is acknowledged as soon as it is received. Default: false. **With true, the broker
    /// no longer has a message whose pipeline fails, or that is being handled when the process dies.** Its
    /// run is still in the record and can be replayed from there.
    #[serde(default)]
    pub auto_ack: bool,
    /// Whether the pipeline receives the body as base64. Default: false: it receives text, and a body that is
    /// not UTF-8 is rejected as `not text`.
    #[serde(default)]
    pub binary: bool,
    /// How many messages are handled at once. The prefetch is set to the same number. Default: 10. More
    /// messages use more memory and put more load on the destination. Above about 300 there is no gain.
    #[schemars(range(min = 1, max = 65535))]
    pub concurrency: Option<u16>,
    /// The maximum duration of one run of the pipeline, including its retries in place. Default: `300s`. The
    /// timeouts of the steps must fit into it, and it must fit into the time that the broker waits for an
    /// acknowledgement (RabbitMQ: 30 minutes).
    pub max_timeout: Option<Span>,
    /// The maximum time that a received message waits before it is started. A message that waited longer is
    /// dead-lettered as `expired`. Default: `600s`; `0s`: no limit. A message waits only behind others of its
    /// key. Time during which the destination is down does not count.
    pub expiration: Option<Span>,
    /// Whether a message may run again after an error, a crash or an unknown outcome. Default: true. With
    /// false, the message goes to `dead_letter` instead, and the reason names which of these it was.
    pub allow_redelivery: Option<bool>,
    /// The maximum size of a body. Default: `1MiB`. A larger one is rejected as `too large` and does not
    /// reach the pipeline.
    pub max_message_size: Option<Size>,
    /// Which messages are handled in order: `none`; `queue`: one message after another; `{key: <jq>}`: one
    /// message after another for each key. A message that is to be retried blocks the messages behind it in
    /// its order. Default: `none`; for a FIFO queue of SQS, each message group.
    #[serde(default)]
    pub ordering: RawOrdering,
    /// When and how a message is retried.
    #[serde(default)]
    pub retry: RawRetries,
    /// How many messages of one key are stored on this machine's disk behind a message of that key that is to
    /// be retried. Used with `ordering: {key: …}`, or with the groups of a FIFO queue.
    #[serde(default)]
    pub parking: RawParking,
    /// Where dead letters go: `{queue: NAME}` publishes a copy with the reason; `broker` rejects the message,
    /// and the queue's own settings decide where it goes; `drop` discards the message. There is no default,
    /// because each choice loses something: `drop` the message, `broker` the reason.
    pub dead_letter: RawDeadLetter,
    /// The steps for each message: a name under `pipelines`, or a list of steps.
    pub pipeline: PipelineRef,
}

/// When and how a message is retried.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Retries")]
pub struct RawRetries {
    /// The pauses before retries in place, which are made for connection errors only and within
    /// `max_timeout`. Default: `[250ms, 1s]`.
    pub in_place: Option<Vec<Span>>,
    /// The pauses before later retries, each with a jitter of ±20 %. After the last retry the message is
    /// dead-lettered. Default: `[10s, 30s, 2m, 10m, 30m, 1h, 2h, 4h]`. If the other side asks for a longer
    /// pause (`Retry-After`), that one applies, up to a day.
    pub delays: Option<Vec<Span>>,
    /// How messages wait for a retry. Default: `auto`, the best mode that the broker allows; `warren check`
    /// shows which one that is.
    pub mode: RawRetryMode,
}

/// Bounds on the parked messages of one key. Messages beyond a bound are dead-lettered with the class
/// `backlog`, in order, until there is room again. Each key has its own bounds, so a failing key takes no
/// room from another.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Parking")]
pub struct RawParking {
    /// The maximum number of messages. Default: 100000. 0 parks only the message that is to be retried.
    pub messages: Option<u64>,
    /// The maximum size: the bytes of the bodies, plus 512 for each message. Default: `1GiB`.
    pub size: Option<Size>,
}

/// How messages wait for a retry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRetryMode {
    /// The broker's own delay if it has one; otherwise delay queues if they may be declared; otherwise
    /// parking.
    #[default]
    Auto,
    /// Queues named `warren.delay.…` with a time to live, after which a message returns to its queue.
    DelayQueues,
    /// The broker delays the message itself (SQS).
    Visibility,
    /// In the state folder, durable on this machine.
    Parking,
    /// The message returns to the queue at once. `delays` does not apply: the broker's own limits do.
    Requeue,
}

/// Which messages are handled in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RawOrdering {
    /// No messages.
    #[default]
    None,
    /// All messages of the queue.
    Queue,
    /// The messages of each key.
    Key(Expression),
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawDeadLetter {
    /// To a queue.
    Queue(String),
    /// Where the queue sends rejected messages.
    Broker,
    /// Nowhere: they are discarded.
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
            {"type": "object", "properties": {"queue": {"type": "string", "description": "The queue that receives a copy with the reason."}}, "required": ["queue"]},
        ] })
    }
}

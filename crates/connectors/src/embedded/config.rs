//! The settings of an embedded broker.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use warren_engine::message::HeaderValue;
use warren_engine::size::ByteSize;

use super::topology::{QueueSettings, check_name};
use crate::kit::address::path_fault;
use crate::kit::setting::{Misfit, Size, Span};

/// A broker in a local file: durable queues and exchanges with RabbitMQ's rules, for a first try, for
/// development and for one small machine. Several processes on the machine may use the file at once. The file
/// must be on a local disk, because network file systems do not lock reliably.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The broker's file. A relative path is relative to the state folder. Default: the broker's name with
    /// the extension `.broker`, in the state folder.
    pub path: Option<PathBuf>,
    /// The queues, by name. They are declared when the broker is opened. A queue that is removed here stays
    /// in the file with its messages. A queue that exists with other settings is an error.
    pub queues: BTreeMap<String, QueueConfig>,
    /// The exchanges, by name, with their bindings. They are declared when the broker is opened. The
    /// exchanges `amq.direct`, `amq.fanout`, `amq.topic`, `amq.headers` and `amq.match` always exist.
    pub exchanges: BTreeMap<String, ExchangeConfig>,
    /// The maximum size of a body. Default 16MiB, as in RabbitMQ 4. A larger body uses twice its size of
    /// memory in every process that receives it.
    pub max_message_size: Size,
    /// How long a publish waits for its answer before its outcome counts as unknown. Default 30s. An answer
    /// takes milliseconds unless another process has locked the file. If the time is too short, it causes
    /// duplicates.
    #[schemars(extend("x-least" = "1ms"))]
    pub publish_timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            path: None,
            queues: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            max_message_size: Size(ByteSize(16 << 20)),
            publish_timeout: Span(Duration::from_secs(30)),
        }
    }
}

impl Config {
    /// All settings that cannot be used.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        let queue = |(name, queue): (&String, &QueueConfig)| {
            let failure = QueueSettings::of(name, queue).err()?;
            Some(Misfit::new(format!("queues.{name}"), failure))
        };
        let exchange = |name: &String| {
            let failure = check_name("exchange", name).err()?;
            Some(Misfit::new(format!("exchanges.{name}"), failure))
        };
        let path = self.path.as_deref().and_then(|path| path_fault("path", path));
        let named = self.queues.iter().filter_map(queue).chain(self.exchanges.keys().filter_map(exchange));
        path.into_iter().chain(named).collect()
    }
}

/// A queue. It is always durable, and never exclusive or deleted automatically.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// How long a message may wait in the queue before it is dead-lettered, or **dropped** if the queue has
    /// no dead-letter exchange. Default: no limit. Like RabbitMQ's `x-message-ttl`.
    #[schemars(extend("x-most" = "49d"))]
    pub ttl: Option<Span>,
    /// The maximum number of messages in the queue. Default: limited only by the disk. Like RabbitMQ's
    /// `x-max-length`.
    pub max_length: Option<u64>,
    /// What happens to a message for a full queue. Default `reject-publish`: the publisher receives the
    /// refusal and retries. (RabbitMQ's own default is `drop-head`.)
    pub overflow: Option<Overflow>,
    /// The exchange for messages that were rejected, expired or dropped; empty for the default exchange.
    /// Default: none: such messages are lost. Like RabbitMQ's `x-dead-letter-exchange`.
    pub dead_letter_exchange: Option<String>,
    /// The routing key for dead-lettered messages. Default: the routing key that they were published with.
    /// Needs `dead_letter_exchange`.
    pub dead_letter_routing_key: Option<String>,
    /// The same settings in RabbitMQ's spelling (`x-message-ttl`, `x-max-length`, `x-overflow`,
    /// `x-dead-letter-exchange`, `x-dead-letter-routing-key`, `x-queue-type: classic`), and custom arguments.
    /// An `x-` argument that the embedded broker does not know is an error, because it would have no effect.
    pub arguments: BTreeMap<String, Argument>,
}

/// What happens to a message for a full queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The broker refuses the message, and the publisher is notified.
    #[default]
    RejectPublish,
    /// The same, and the message is also dead-lettered.
    RejectPublishDlx,
    /// The oldest message is dead-lettered, or **dropped** if the queue has no dead-letter exchange.
    DropHead,
}

/// An exchange. It is always durable.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// How the exchange selects queues.
    #[serde(rename = "type")]
    pub kind: ExchangeKind,
    /// The queues that the exchange may select. A binding that is removed here stays in the file.
    #[serde(default)]
    pub bindings: Vec<BindingConfig>,
}

/// How an exchange selects queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// The queues whose binding has the message's routing key.
    Direct,
    /// All bound queues.
    Fanout,
    /// The queues whose binding has a pattern that matches the routing key word by word: `*` is one word, `#`
    /// any number of words.
    Topic,
    /// The queues whose binding has arguments that match the message's headers.
    Headers,
}

/// A queue that is bound to an exchange.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingConfig {
    /// The queue. It must exist.
    pub queue: String,
    /// The routing key of a direct exchange, or the pattern of a topic exchange. Default: empty.
    #[serde(default)]
    pub routing_key: String,
    /// The headers that a headers exchange compares; `x-match` is `all` (default), `any`, `all-with-x` or
    /// `any-with-x`. A null requires only that the header is present.
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
}

/// The value of an argument: text, a number, a boolean or null.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument(pub HeaderValue);

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ArgumentVisitor)
    }
}

struct ArgumentVisitor;

impl Visitor<'_> for ArgumentVisitor {
    type Value = Argument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false or null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Argument, E> {
        Ok(Argument(HeaderValue::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Argument, E> {
        Ok(Argument(HeaderValue::I64(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Argument, E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} is too large")))?;
        self.visit_i64(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Argument, E> {
        Ok(Argument(HeaderValue::F64(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Argument, E> {
        Ok(Argument(HeaderValue::Text(value.to_owned())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Argument, E> {
        Ok(Argument(HeaderValue::Void))
    }
}

impl JsonSchema for Argument {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Argument".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean", "null"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read() {
        let config: Config = serde_json::from_str(
            r#"{"queues": {"work": {"ttl": "5s", "max_length": 3, "overflow": "drop-head",
                "dead_letter_exchange": "", "dead_letter_routing_key": "dead", "arguments": {"note": "ours"}}, "dead": {}},
                "exchanges": {"news": {"type": "headers", "bindings": [{"queue": "work",
                "arguments": {"x-match": "any", "n": 1, "there": null}}]}}, "max_message_size": "1MiB"}"#,
        )
        .unwrap();
        assert_eq!(config.max_message_size, Size(ByteSize(1 << 20)));
        assert_eq!(config.queues["work"].overflow, Some(Overflow::DropHead));
        let binding = &config.exchanges["news"].bindings[0];
        assert_eq!(binding.arguments["n"], Argument(HeaderValue::I64(1)));
        assert_eq!(binding.arguments["there"], Argument(HeaderValue::Void));
        assert!(serde_json::from_str::<Config>(r#"{"queue": {}}"#).is_err());
        assert!(serde_json::from_str::<Config>(r#"{"exchanges": {"x": {"type": "x-delayed"}}}"#).is_err());
    }
}

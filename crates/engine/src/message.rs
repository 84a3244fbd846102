//! A message, where it goes, and what the broker answered.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A body with its properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The bytes, exactly as they are sent.
    pub body: Bytes,
    /// What travels beside them.
    pub properties: Properties,
}

/// What travels beside a body. The names are AMQP 0-9-1's; a broker that lacks one refuses it at check time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// The media type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How the body is encoded, such as `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Whether the broker keeps the message through a restart (delivery mode 2).
    pub persistent: bool,
    /// 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The id of what this answers or belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The queue for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Milliseconds until the message expires in a queue, as decimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The message's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// The kind of message (AMQP's `type`).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The publisher; RabbitMQ refuses any but the login's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The publishing application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Typed headers, in order.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
}

impl Default for Properties {
    /// Persistent, and nothing else.
    fn default() -> Self {
        Properties {
            content_type: None,
            content_encoding: None,
            persistent: true,
            priority: None,
            correlation_id: None,
            reply_to: None,
            expiration: None,
            message_id: None,
            timestamp: None,
            kind: None,
            user_id: None,
            app_id: None,
            headers: Headers::default(),
        }
    }
}

/// Named values, in order. A name stands once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Headers(Vec<(String, HeaderValue)>);

impl Headers {
    /// Sets a header, in the place of one of the same name.
    pub fn set(&mut self, name: impl Into<String>, value: HeaderValue) {
        let name = name.into();
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    /// The headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, HeaderValue)>>(entries: I) -> Self {
        let mut headers = Headers::default();
        for (name, value) in entries {
            headers.set(name, value);
        }
        headers
    }
}

/// A header's value, with the types of RabbitMQ's field tables
/// (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderValue {
    /// No value (`V`).
    Void,
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: value × 10^-scale.
    Decimal {
        /// How many digits stand after the point.
        scale: u8,
        /// The digits with their sign. AMQP has a signed integer of 32 bits; what was stored before that was known is read as such.
        #[serde(deserialize_with = "signed")]
        value: i32,
    },
    /// `S`, where the bytes are UTF-8.
    Text(String),
    /// `S` or `x`, where they are not.
    Bytes(Vec<u8>),
    /// `T`: seconds since the epoch.
    Timestamp(u64),
    /// `A`
    Array(Vec<HeaderValue>),
    /// `F`
    Table(Headers),
}

/// The digits of a decimal: signed, or the same 32 bits as they were written when they were taken for unsigned.
fn signed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let value = i64::deserialize(from)?;
    let unsigned = || u32::try_from(value).map(u32::cast_signed);
    i32::try_from(value)
        .or_else(|_| unsigned())
        .map_err(|_| serde::de::Error::custom("a decimal has more than 32 bits"))
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Straight to a queue.
    Queue(String),
    /// To an exchange, which chooses the queues.
    Exchange {
        /// The exchange's name.
        exchange: String,
        /// What the exchange chooses by.
        routing_key: String,
    },
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Route::Queue(queue) => write!(f, "queue `{queue}`"),
            Route::Exchange { exchange, routing_key } => {
                write!(f, "exchange `{exchange}` with routing key `{routing_key}`")
            }
        }
    }
}

/// A message with its route.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    /// Where it goes.
    pub route: Route,
    /// What goes there.
    pub message: Message,
}

/// What became of one publish. There is no fourth answer.
#[derive(Debug, Clone)]
#[must_use]
pub enum Receipt {
    /// The broker has it, as safely as the message asked for.
    Accepted(Answer),
    /// The broker certainly does not have it.
    Refused(Failure),
    /// The answer was lost: the broker may have it.
    Unknown(Failure),
}

/// What the broker said when it accepted a message, as a person will read it in `warren explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub Cow<'static, str>);

//! Messages of Amazon SQS: its own parts, carried among the headers, and its rules for one message.
//!
//! SQS has message attributes where AMQP has headers, and three parts AMQP has no place for: group id, deduplication id and
//! delay. They travel as headers whose names begin with `AWS.`, which no attribute's name may, so that records, replays and
//! dead letters keep them without knowing of SQS. The rules are those of the API reference
//! (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>); a message that breaks
//! one is rejected by itself before it could take the other nine of its batch with it.

mod number;
pub mod rules;

use std::borrow::Cow;

use crate::message::{HeaderValue, Headers, Message, Outbound, Route};

pub use self::rules::check;

/// The header that holds the message group's id, as text.
pub const GROUP_ID: &str = "AWS.MessageGroupId";
/// The header that holds the deduplication id, as text.
pub const DEDUPLICATION_ID: &str = "AWS.MessageDeduplicationId";
/// The header that holds the delay in seconds, as a whole number.
pub const DELAY_SECONDS: &str = "AWS.DelaySeconds";
/// The header that holds the types of attributes which do not follow from their values: a table from name to type.
pub const ATTRIBUTE_TYPES: &str = "AWS.MessageAttributeTypes";

/// The largest message, and the largest batch of them, that any queue takes.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// The largest delay.
pub const DELAY_SECONDS_MAX: i64 = 900;
/// The most attributes of one message.
pub const ATTRIBUTES_MAX: usize = 10;

/// The parts of a message as SQS names them.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts<'m> {
    /// Needed on FIFO queues; on others it makes a fair queue.
    pub group_id: Option<&'m str>,
    /// FIFO queues only.
    pub deduplication_id: Option<&'m str>,
    /// How long the message is hidden at first. Other queues than FIFO only.
    pub delay_seconds: Option<i64>,
    /// The message attributes.
    pub attributes: Vec<Attribute<'m>>,
}

/// A message attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute<'m> {
    /// Its name.
    pub name: &'m str,
    /// `String`, `Number` or `Binary`, perhaps with a label of one's own: `Number.float`.
    pub kind: Cow<'m, str>,
    /// Its value.
    pub value: AttributeValue<'m>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue<'m> {
    /// Of `String` and `Number`.
    Text(Cow<'m, str>),
    /// Of `Binary`.
    Bytes(&'m [u8]),
}

impl AttributeValue<'_> {
    /// The bytes that count.
    pub fn bytes(&self) -> &[u8] {
        match self {
            AttributeValue::Text(text) => text.as_bytes(),
            AttributeValue::Bytes(bytes) => bytes,
        }
    }
}

impl<'m> Parts<'m> {
    /// The parts of a message.
    pub fn of(message: &'m Message) -> Parts<'m> {
        let headers = &message.properties.headers;
        let types = match headers.get(ATTRIBUTE_TYPES) {
            Some(HeaderValue::Table(types)) => Some(types),
            _ => None,
        };
        let mut parts = Parts {
            group_id: text(headers, GROUP_ID),
            deduplication_id: text(headers, DEDUPLICATION_ID),
            delay_seconds: headers.get(DELAY_SECONDS).and_then(whole),
            attributes: Vec::new(),
        };
        for (name, value) in headers.iter() {
            if matches!(name, GROUP_ID | DEDUPLICATION_ID | DELAY_SECONDS | ATTRIBUTE_TYPES) {
                continue;
            }
            if let Some((kind, value)) = attribute(value) {
                let kind = types.and_then(|types| text(types, name)).unwrap_or(kind);
                parts.attributes.push(Attribute { name, kind: Cow::Borrowed(kind), value });
            }
        }
        parts
    }

    /// What counts against the largest message: the body, and name, type and value of each attribute.
    pub fn bytes(&self, body: &[u8]) -> u64 {
        let attributes = self
            .attributes
            .iter()
            .map(|attribute| attribute.name.len() + attribute.kind.len() + attribute.value.bytes().len());
        (body.len() + attributes.sum::<usize>()) as u64
    }
}

/// Sets an attribute of a type. A text for `String` and `Number`, bytes for `Binary`.
pub fn set_attribute(headers: &mut Headers, name: &str, kind: &str, value: HeaderValue) {
    let implied = attribute(&value).is_some_and(|(implied, _)| implied == kind);
    headers.set(name, value);
    let mut types = match headers.remove(ATTRIBUTE_TYPES) {
        Some(HeaderValue::Table(types)) => types,
        _ => Headers::default(),
    };
    types.remove(name);
    if !implied {
        types.set(name, HeaderValue::Text(kind.to_owned()));
    }
    if !types.is_empty() {
        headers.set(ATTRIBUTE_TYPES, HeaderValue::Table(types));
    }
}

/// Escapes in JSON what SQS does not take: U+FFFE becomes `\ufffe`, U+FFFF `\uffff`. JSON has these characters in strings
/// only, where both forms mean the same. Control characters are escaped in any JSON.
pub fn escape_json(body: &mut Vec<u8>) {
    if !body.contains(&0xEF) {
        return;
    }
    let forbidden = |bytes: &[u8]| matches!(bytes, [0xEF, 0xBF, 0xBE | 0xBF]);
    let Some(first) = body.windows(3).position(forbidden) else { return };
    let rest = body.split_off(first);
    let mut at = 0;
    while at < rest.len() {
        if let Some(&[0xEF, 0xBF, last @ (0xBE | 0xBF)]) = rest.get(at..at + 3) {
            body.extend_from_slice(if last == 0xBE { b"\\ufffe" } else { b"\\uffff" });
            at += 3;
        } else {
            body.push(rest[at]);
            at += 1;
        }
    }
}

/// Whether a queue, by name, URL or ARN, is a FIFO queue. SQS tells by the name, so can everybody.
pub fn is_fifo(queue: &str) -> bool {
    queue.strip_suffix(".fifo").is_some()
}

/// What a message has to keep its order with: the queue and the group, where there is one that keeps an order.
pub fn ordered_group(outbound: &Outbound) -> Option<(&str, &str)> {
    match &outbound.route {
        Route::Queue(queue) if is_fifo(queue) => {
            Some((queue, text(&outbound.message.properties.headers, GROUP_ID)?))
        }
        Route::Queue(_) | Route::Exchange { .. } => None,
    }
}

fn text<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    match headers.get(name) {
        Some(HeaderValue::Text(text)) => Some(text),
        _ => None,
    }
}

fn whole(value: &HeaderValue) -> Option<i64> {
    match value {
        HeaderValue::I8(value) => Some((*value).into()),
        HeaderValue::U8(value) => Some((*value).into()),
        HeaderValue::I16(value) => Some((*value).into()),
        HeaderValue::U16(value) => Some((*value).into()),
        HeaderValue::I32(value) => Some((*value).into()),
        HeaderValue::U32(value) => Some((*value).into()),
        HeaderValue::I64(value) => Some(*value),
        HeaderValue::Text(text) => text.trim().parse().ok(),
        HeaderValue::Void
        | HeaderValue::Bool(_)
        | HeaderValue::F32(_)
        | HeaderValue::F64(_)
        | HeaderValue::Decimal { .. }
        | HeaderValue::Bytes(_)
        | HeaderValue::Timestamp(_)
        | HeaderValue::Array(_)
        | HeaderValue::Table(_) => None,
    }
}

/// A header as an attribute: its type and value. What SQS has no type for is JSON, and no value is no attribute.
fn attribute(value: &HeaderValue) -> Option<(&'static str, AttributeValue<'_>)> {
    let number = |text: String| ("Number", AttributeValue::Text(Cow::Owned(text)));
    Some(match value {
        HeaderValue::Void => return None,
        HeaderValue::Bool(value) => {
            ("String", AttributeValue::Text(Cow::Borrowed(if *value { "true" } else { "false" })))
        }
        HeaderValue::I8(value) => number(value.to_string()),
        HeaderValue::U8(value) => number(value.to_string()),
        HeaderValue::I16(value) => number(value.to_string()),
        HeaderValue::U16(value) => number(value.to_string()),
        HeaderValue::I32(value) => number(value.to_string()),
        HeaderValue::U32(value) => number(value.to_string()),
        HeaderValue::I64(value) => number(value.to_string()),
        HeaderValue::F32(value) => number(format!("{value:?}")),
        HeaderValue::F64(value) => number(format!("{value:?}")),
        HeaderValue::Timestamp(value) => number(value.to_string()),
        HeaderValue::Decimal { scale, value } => number(format!("{value}e-{scale}")),
        HeaderValue::Text(text) => ("String", AttributeValue::Text(Cow::Borrowed(text))),
        HeaderValue::Bytes(bytes) => ("Binary", AttributeValue::Bytes(bytes)),
        HeaderValue::Array(_) | HeaderValue::Table(_) => {
            ("String", AttributeValue::Text(Cow::Owned(json(value).to_string())))
        }
    })
}

fn json(value: &HeaderValue) -> serde_json::Value {
    use serde_json::Value;
    match value {
        HeaderValue::Void => Value::Null,
        HeaderValue::Bool(value) => Value::from(*value),
        HeaderValue::F32(value) => Value::from(*value),
        HeaderValue::F64(value) => Value::from(*value),
        HeaderValue::Timestamp(value) => Value::from(*value),
        HeaderValue::Decimal { scale, value } => Value::from(format!("{value}e-{scale}")),
        HeaderValue::Text(text) => Value::from(text.as_str()),
        HeaderValue::Bytes(bytes) => {
            use base64::Engine as _;
            Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        HeaderValue::Array(values) => values.iter().map(json).collect(),
        HeaderValue::Table(table) => {
            Value::Object(table.iter().map(|(name, value)| (name.to_owned(), json(value))).collect())
        }
        value @ (HeaderValue::I8(_)
        | HeaderValue::U8(_)
        | HeaderValue::I16(_)
        | HeaderValue::U16(_)
        | HeaderValue::I32(_)
        | HeaderValue::U32(_)
        | HeaderValue::I64(_)) => whole(value).map_or(Value::Null, Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Properties;

    #[test]
    fn json_is_escaped_where_sqs_does_not_take_it() {
        let table = [
            ("", ""),
            ("{}", "{}"),
            ("[\"a\u{fffe}\"]", "[\"a\\ufffe\"]"),
            ("{\"\u{ffff}\":\"\u{fffe}\u{ffff}x\"}", "{\"\\uffff\":\"\\ufffe\\uffffx\"}"),
            // Neighbours that SQS takes: U+FFFD, U+FEFF, beyond the first plane, C1 controls.
            (
                "\"\u{fffd}\u{feff}\u{1fffe}\u{10ffff}\u{85}\"",
                "\"\u{fffd}\u{feff}\u{1fffe}\u{10ffff}\u{85}\"",
            ),
        ];
        for (json, expected) in table {
            let mut body = json.as_bytes().to_vec();
            escape_json(&mut body);
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
    }

    fn message(headers: Headers) -> Message {
        Message {
            body: bytes::Bytes::from_static(b"body"),
            properties: Properties { headers, ..Properties::default() },
        }
    }

    #[test]
    fn parts_are_told_from_attributes() {
        let mut headers = Headers::default();
        headers.set(GROUP_ID, HeaderValue::Text("g".into()));
        headers.set(DEDUPLICATION_ID, HeaderValue::Text("d".into()));
        headers.set(DELAY_SECONDS, HeaderValue::I64(7));
        set_attribute(&mut headers, "weight", "Number.float", HeaderValue::Text("1.50".into()));
        set_attribute(&mut headers, "kind", "String", HeaderValue::Text("order".into()));
        set_attribute(&mut headers, "raw", "Binary", HeaderValue::Bytes(vec![0, 255]));
        let message = message(headers);
        let parts = Parts::of(&message);
        assert_eq!(
            (parts.group_id, parts.deduplication_id, parts.delay_seconds),
            (Some("g"), Some("d"), Some(7))
        );
        let shown: Vec<(&str, &str, &[u8])> = parts
            .attributes
            .iter()
            .map(|attribute| (attribute.name, &*attribute.kind, attribute.value.bytes()))
            .collect();
        assert_eq!(
            shown,
            [
                ("weight", "Number.float", &b"1.50"[..]),
                ("kind", "String", b"order"),
                ("raw", "Binary", &[0, 255]),
            ]
        );
        // 4 + weight/Number.float/1.50 + kind/String/order + raw/Binary/2 bytes
        assert_eq!(parts.bytes(&message.body), 4 + (6 + 12 + 4) + (4 + 6 + 5) + (3 + 6 + 2));
    }

    #[test]
    fn headers_of_any_type_have_a_form() {
        let headers: Headers = [
            ("void", HeaderValue::Void),
            ("bool", HeaderValue::Bool(true)),
            ("int", HeaderValue::I64(-3)),
            ("float", HeaderValue::F64(1.5)),
            ("list", HeaderValue::Array(vec![HeaderValue::I8(1), HeaderValue::Text("x".into())])),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let message = message(headers);
        let parts = Parts::of(&message);
        let shown: Vec<String> = parts
            .attributes
            .iter()
            .map(|attribute| {
                format!(
                    "{} {} {}",
                    attribute.name,
                    attribute.kind,
                    String::from_utf8_lossy(attribute.value.bytes())
                )
            })
            .collect();
        assert_eq!(shown, ["bool String true", "int Number -3", "float Number 1.5", "list String [1,\"x\"]"]);
    }
}

//! A message against the rules of its destination, before it is sent.

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Headers, Outbound, Route};
use crate::ports::MessageLimits;
use crate::size::ByteSize;

/// What to do about a body that is larger than the broker takes.
pub const TOO_LARGE_REMEDY: &str =
    "send less of the row, or raise the broker's limit and `max_message_size` of its connection";

/// Checks a message against what the broker allows.
///
/// # Errors
/// The first rule that is broken, with the part of the message, the rule and the value's length.
pub fn check(outbound: &Outbound, limits: &MessageLimits) -> Result<(), Failure> {
    let size = outbound.message.body.len() as u64;
    if size > limits.body_bytes_max {
        return Err(Failure::new(
            FailureKind::Invalid,
            codes::MESSAGE_TOO_LARGE,
            format!(
                "the message has {} and the broker takes at most {}",
                ByteSize(size),
                ByteSize(limits.body_bytes_max)
            ),
        )
        .remedy(TOO_LARGE_REMEDY));
    }
    if let Some(max) = limits.short_bytes_max {
        short_texts(outbound, max)?;
    }
    if let Some(max) = limits.header_bytes_max {
        let bytes = header_bytes(outbound);
        if bytes > max {
            return Err(Failure::new(
                FailureKind::Invalid,
                codes::HEADERS_TOO_LARGE,
                format!(
                    "properties and headers take {} and must fit one frame of {}",
                    ByteSize(bytes),
                    ByteSize(max)
                ),
            )
            .remedy("move what is large from the headers into the body"));
        }
    }
    Ok(())
}

fn short_texts(outbound: &Outbound, max: usize) -> Result<(), Failure> {
    let properties = &outbound.message.properties;
    let (first, second) = match &outbound.route {
        Route::Queue(queue) => (("queue", Some(queue)), ("routing_key", None)),
        Route::Exchange { exchange, routing_key } => {
            (("exchange", Some(exchange)), ("routing_key", Some(routing_key)))
        }
    };
    let texts = [
        first,
        second,
        ("content_type", properties.content_type.as_ref()),
        ("content_encoding", properties.content_encoding.as_ref()),
        ("correlation_id", properties.correlation_id.as_ref()),
        ("reply_to", properties.reply_to.as_ref()),
        ("expiration", properties.expiration.as_ref()),
        ("message_id", properties.message_id.as_ref()),
        ("type", properties.kind.as_ref()),
        ("user_id", properties.user_id.as_ref()),
        ("app_id", properties.app_id.as_ref()),
    ];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| text.map(|text| (name, text.as_str()))) {
        too_long(name, text, max)?;
    }
    header_names(&properties.headers, max)
}

fn header_names(headers: &Headers, max: usize) -> Result<(), Failure> {
    for (name, value) in headers.iter() {
        too_long("headers", name, max)?;
        if let HeaderValue::Table(inner) = value {
            header_names(inner, max)?;
        }
    }
    Ok(())
}

fn too_long(part: &str, text: &str, max: usize) -> Result<(), Failure> {
    if text.len() <= max {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Failure::new(
        FailureKind::Invalid,
        codes::VALUE_TOO_LONG,
        format!("`{part}` has {} bytes and AMQP allows {max}: `{shown}…`", text.len()),
    )
    .remedy("shorten it, or put it into the body"))
}

/// How many bytes properties and headers take in a content header, at most.
pub(crate) fn header_bytes(outbound: &Outbound) -> u64 {
    let properties = &outbound.message.properties;
    let texts = [
        &properties.content_type,
        &properties.content_encoding,
        &properties.correlation_id,
        &properties.reply_to,
        &properties.expiration,
        &properties.message_id,
        &properties.kind,
        &properties.user_id,
        &properties.app_id,
    ];
    let short: usize = texts.into_iter().flatten().map(|text| text.len() + 1).sum();
    // Class, weight, body size, flags, delivery mode, priority, timestamp, frame's own bytes.
    32 + short as u64 + table_bytes(&properties.headers)
}

fn table_bytes(table: &Headers) -> u64 {
    4 + table.iter().map(|(name, value)| name.len() as u64 + 2 + value_bytes(value)).sum::<u64>()
}

fn value_bytes(value: &HeaderValue) -> u64 {
    match value {
        HeaderValue::Void => 0,
        HeaderValue::Bool(_) | HeaderValue::I8(_) | HeaderValue::U8(_) => 1,
        HeaderValue::I16(_) | HeaderValue::U16(_) => 2,
        HeaderValue::I32(_) | HeaderValue::U32(_) | HeaderValue::F32(_) => 4,
        HeaderValue::Decimal { .. } => 5,
        HeaderValue::I64(_) | HeaderValue::F64(_) | HeaderValue::Timestamp(_) => 8,
        HeaderValue::Text(text) => 4 + text.len() as u64,
        HeaderValue::Bytes(bytes) => 4 + bytes.len() as u64,
        HeaderValue::Array(values) => 4 + values.iter().map(|value| 1 + value_bytes(value)).sum::<u64>(),
        HeaderValue::Table(table) => table_bytes(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Properties};

    const LIMITS: MessageLimits =
        MessageLimits { body_bytes_max: 10, header_bytes_max: Some(100), short_bytes_max: Some(255) };

    fn outbound(queue: &str, body: &'static [u8], properties: Properties) -> Outbound {
        Outbound {
            route: Route::Queue(queue.into()),
            message: Message { body: bytes::Bytes::from_static(body), properties },
        }
    }

    fn code(outbound: &Outbound) -> Option<&'static str> {
        check(outbound, &LIMITS).err().map(|failure| failure.code.as_str())
    }

    #[test]
    fn each_rule_has_its_code() {
        let plain = Properties::default;
        assert_eq!(code(&outbound("q", b"0123456789", plain())), None);
        assert_eq!(code(&outbound("q", b"0123456789a", plain())), Some("message-too-large"));
        assert_eq!(code(&outbound(&"q".repeat(255), b"", plain())), None);
        assert_eq!(code(&outbound(&"q".repeat(256), b"", plain())), Some("value-too-long"));
        // 128 characters, 256 bytes: bytes are what counts.
        let id = Properties { message_id: Some("é".repeat(128)), ..plain() };
        assert_eq!(code(&outbound("q", b"", id)), Some("value-too-long"));
        let mut wide = plain();
        wide.headers.set("h", HeaderValue::Text("x".repeat(100)));
        assert_eq!(code(&outbound("q", b"", wide)), Some("headers-too-large"));
        let mut deep = plain();
        let mut inner = Headers::default();
        inner.set("n".repeat(256), HeaderValue::Void);
        deep.headers.set("t", HeaderValue::Table(inner));
        assert_eq!(code(&outbound("q", b"", deep)), Some("value-too-long"));
    }
}

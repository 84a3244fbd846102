//! The document that a pipeline receives: a message with all that came with it, as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Headers, Properties};
use crate::outcome::Attempt;

/// How the body of a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// As text, which must be UTF-8.
    Text,
    /// As base64.
    Base64,
}

/// The document of a message.
///
/// # Errors
/// The body is to be text and is not UTF-8.
pub fn document(job: &Job, attempt: &Attempt, form: BodyForm) -> Result<Value, Failure> {
    let envelope = &job.envelope;
    let mut enveloped = object([
        ("deliveryTag", envelope.delivery_tag.into()),
        ("exchange", envelope.exchange.as_str().into()),
        ("routingKey", envelope.routing_key.as_str().into()),
        ("queue", envelope.queue.as_str().into()),
        ("redelivered", envelope.redelivered.into()),
        ("attempt", attempt.number.into()),
        ("consumerTag", envelope.consumer_tag.as_str().into()),
        ("receivedAt", time(attempt.received_at_ms).into()),
    ]);
    for (name, value) in &envelope.system {
        enveloped.entry(name.clone()).or_insert_with(|| value.clone().into());
    }
    Ok(Value::Object(object([
        ("body", body(&job.message.body, form)?.into()),
        ("properties", properties(&job.message.properties)),
        ("headers", headers(&job.message.properties.headers)),
        ("envelope", enveloped.into()),
    ])))
}

/// An object that is made in one piece.
fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    let mut object = Map::with_capacity(N);
    for (name, value) in entries {
        object.insert(name.to_owned(), value);
    }
    object
}

/// The body in its form.
///
/// # Errors
/// It is to be text and is not UTF-8.
pub fn body(body: &[u8], form: BodyForm) -> Result<String, Failure> {
    match form {
        BodyForm::Base64 => Ok(STANDARD.encode(body)),
        BodyForm::Text => text(body).map(str::to_owned),
    }
}

/// Whether the body can be shown in that form.
///
/// # Errors
/// It is to be text and is not UTF-8.
pub fn check(body: &[u8], form: BodyForm) -> Result<(), Failure> {
    match form {
        BodyForm::Base64 => Ok(()),
        BodyForm::Text => text(body).map(|_| ()),
    }
}

fn text(body: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|error| {
        Failure::new(FailureKind::Invalid, codes::NOT_TEXT, "not text")
            .detail(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
            .remedy("set `binary: true` in the trigger; the body is then base64")
    })
}

fn properties(properties: &Properties) -> Value {
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
    Value::Object(object([
        ("appId", text(&properties.app_id)),
        // AMQP 0-9-1 took these out; they are here because their names are.
        ("classId", Value::Null),
        ("clusterId", Value::Null),
        ("contentEncoding", text(&properties.content_encoding)),
        ("contentType", text(&properties.content_type)),
        ("correlationId", text(&properties.correlation_id)),
        ("deliveryMode", if properties.persistent { 2 } else { 1 }.into()),
        ("expiration", text(&properties.expiration)),
        ("messageId", text(&properties.message_id)),
        ("priority", properties.priority.map_or(Value::Null, Value::from)),
        ("replyTo", text(&properties.reply_to)),
        ("type", text(&properties.kind)),
        ("userId", text(&properties.user_id)),
        ("timestamp", properties.timestamp.map_or(Value::Null, Value::from)),
    ]))
}

fn headers(headers: &Headers) -> Value {
    Value::Object(headers.iter().map(|(name, value)| (name.to_owned(), header(value))).collect::<Map<_, _>>())
}

/// A header with the type nearest to its own. What JSON cannot hold (NaN, an infinity) is null.
pub fn header(value: &HeaderValue) -> Value {
    match value {
        HeaderValue::Void => Value::Null,
        HeaderValue::Bool(value) => (*value).into(),
        HeaderValue::I8(value) => (*value).into(),
        HeaderValue::U8(value) => (*value).into(),
        HeaderValue::I16(value) => (*value).into(),
        HeaderValue::U16(value) => (*value).into(),
        HeaderValue::I32(value) => (*value).into(),
        HeaderValue::U32(value) => (*value).into(),
        HeaderValue::I64(value) => (*value).into(),
        // By its shortest digits: 0.1 is 0.1 and not 0.10000000149.
        HeaderValue::F32(value) => value.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        HeaderValue::F64(value) => (*value).into(),
        HeaderValue::Decimal { scale, value } => decimal(*scale, *value),
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => STANDARD.encode(bytes).into(),
        },
        HeaderValue::Timestamp(seconds) => (*seconds).into(),
        HeaderValue::Array(values) => values.iter().map(header).collect(),
        HeaderValue::Table(table) => headers(table),
    }
}

fn decimal(scale: u8, value: i32) -> Value {
    let scale = usize::from(scale);
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
    serde_json::from_str(&text).map_or(Value::Null, Value::Number)
}

/// The other way: a JSON value as a header.
pub fn header_of(value: &Value) -> HeaderValue {
    match value {
        Value::Null => HeaderValue::Void,
        Value::Bool(value) => HeaderValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => HeaderValue::I64(whole),
            None => match number.as_f64() {
                // Digits that a float would change stay text.
                Some(float) if number.as_u64().is_none() => HeaderValue::F64(float),
                _ => HeaderValue::Text(number.to_string()),
            },
        },
        Value::String(text) => HeaderValue::Text(text.clone()),
        Value::Array(items) => HeaderValue::Array(items.iter().map(header_of).collect()),
        Value::Object(entries) => {
            HeaderValue::Table(entries.iter().map(|(name, value)| (name.clone(), header_of(value))).collect())
        }
    }
}

/// A moment, as RFC 3339 with milliseconds.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        // Out of the range of years that have a name.
        Err(_) => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_its_sign_and_its_digits() {
        for (scale, value, text) in [
            (0, 0, "0"),
            (0, -1, "-1"),
            (2, -5, "-0.05"),
            (2, 5, "0.05"),
            (1, 10, "1.0"),
            (0, i32::MIN, "-2147483648"),
            (9, i32::MAX, "2.147483647"),
        ] {
            assert_eq!(decimal(scale, value).to_string(), text);
        }
        let least = decimal(255, -1).to_string();
        assert!(least.starts_with("-0.000") && least.ends_with("01") && least.len() == 258, "{least}");
    }
}

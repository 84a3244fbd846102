//! A row's own properties: texts and headers that may vary by row.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use warren_liquid::{Globals, json};

use crate::codes::{self, Code};
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Headers, Properties};
use crate::row::{Row, Value};
use crate::span::parse_span;
use crate::sync::plan::{Dynamic, HeaderPlan, HeaderType, PropertyPlan};
use crate::sync::view::with_val;

/// What the texts of one change are made from.
pub struct Texts<'r> {
    /// The row; for a removed row the last known one.
    pub row: &'r Row,
    /// All that templates see.
    pub globals: &'r dyn Globals,
}

impl Texts<'_> {
    /// A text, or `None` where its column is NULL.
    ///
    /// # Errors
    /// The template failed, or the row lacks the column.
    pub fn text(&self, name: &str, dynamic: &Dynamic) -> Result<Option<String>, Failure> {
        match dynamic {
            Dynamic::Literal(text) => Ok(Some(text.clone())),
            Dynamic::Column(column) => self.column(name, column).map(value_text),
            Dynamic::Template(template) => {
                let mut out = Vec::new();
                template.render(self.globals, &mut out).map_err(|error| template_failed(name, &error))?;
                Ok(Some(String::from_utf8_lossy(&out).into_owned()))
            }
        }
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    /// As [`text`](Self::text); or it is NULL or empty.
    pub fn needed(&self, name: &str, dynamic: &Dynamic) -> Result<String, Failure> {
        match self.text(name, dynamic)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(bad(codes::NULL_VALUE, format!("`{name}` is empty"))),
            None => Err(bad(codes::NULL_VALUE, format!("the column of `{name}` is NULL"))),
        }
    }

    fn optional(&self, name: &str, dynamic: Option<&Dynamic>) -> Result<Option<String>, Failure> {
        dynamic.map_or(Ok(None), |dynamic| self.text(name, dynamic))
    }

    /// The value of a column.
    pub(super) fn column(&self, name: &str, column: &str) -> Result<Value<'_>, Failure> {
        self.row.get(column).ok_or_else(|| {
            bad(
                codes::UNKNOWN_COLUMN,
                format!("`{name}` reads column `{column}`, which this row does not have"),
            )
            .remedy("rows are kept with the columns they had when they were last sent: see `keep_rows`")
        })
    }

    /// All properties of a message. `id` and `now_ms` (when the run began) are the defaults for message id and timestamp.
    ///
    /// # Errors
    /// A property is not what it must be; the failure names it.
    pub fn properties(&self, plan: &PropertyPlan, id: &str, now_ms: i64) -> Result<Properties, Failure> {
        let default_type = || Some("application/json".to_owned());
        let mut properties = Properties {
            content_type: match &plan.content_type {
                Some(dynamic) => self.text("content_type", dynamic)?,
                None => default_type(),
            },
            content_encoding: self.optional("content_encoding", plan.content_encoding.as_ref())?,
            persistent: self.persistent(plan.persistent.as_ref())?,
            priority: self.priority(plan.priority.as_ref())?,
            correlation_id: self.optional("correlation_id", plan.correlation_id.as_ref())?,
            reply_to: self.optional("reply_to", plan.reply_to.as_ref())?,
            expiration: self.expiration(plan.expiration.as_ref())?,
            message_id: match &plan.message_id {
                Some(dynamic) => self.text("message_id", dynamic)?,
                None => Some(id.to_owned()),
            },
            timestamp: match &plan.timestamp {
                Some(dynamic) => self.timestamp(dynamic)?,
                None => u64::try_from(now_ms / 1000).ok(),
            },
            kind: self.optional("type", plan.kind.as_ref())?,
            user_id: self.optional("user_id", plan.user_id.as_ref())?,
            app_id: self.optional("app_id", plan.app_id.as_ref())?,
            headers: Headers::default(),
        };
        for (name, header) in &plan.headers {
            if let Some(value) = self.header(name, header)? {
                properties.headers.set(name.clone(), value);
            }
        }
        Ok(properties)
    }

    fn persistent(&self, dynamic: Option<&Dynamic>) -> Result<bool, Failure> {
        let Some(text) = self.optional("persistent", dynamic)? else { return Ok(true) };
        parse_bool(text.trim()).ok_or_else(|| invalid("persistent", &text, "true or false"))
    }

    fn priority(&self, dynamic: Option<&Dynamic>) -> Result<Option<u8>, Failure> {
        let Some(text) = self.optional("priority", dynamic)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| invalid("priority", &text, "a whole number from 0 to 255"))
    }

    fn expiration(&self, dynamic: Option<&Dynamic>) -> Result<Option<String>, Failure> {
        let Some(text) = self.optional("expiration", dynamic)? else { return Ok(None) };
        let span = parse_span(&text)
            .map_err(|_| invalid("expiration", &text, "a number with its unit, such as 30s"))?;
        // RabbitMQ closes the channel over a TTL of 2³² ms and more.
        match u32::try_from(span.as_millis()) {
            Ok(milliseconds) => Ok(Some(milliseconds.to_string())),
            Err(_) => Err(invalid("expiration", &text, "a span of at most 49 days")),
        }
    }

    fn timestamp(&self, dynamic: &Dynamic) -> Result<Option<u64>, Failure> {
        if let Dynamic::Column(column) = dynamic {
            return match self.column("timestamp", column)? {
                Value::Null => Ok(None),
                Value::Timestamp(micros, _) | Value::DateTime(micros) => {
                    seconds(micros.div_euclid(1_000_000))
                }
                value => value_text(value).map_or(Ok(None), |text| parse_seconds(&text)),
            };
        }
        self.text("timestamp", dynamic)?.map_or(Ok(None), |text| parse_seconds(&text))
    }

    fn header(&self, name: &str, plan: &HeaderPlan) -> Result<Option<HeaderValue>, Failure> {
        match plan {
            HeaderPlan::Literal(value) => Ok(Some(value.clone())),
            HeaderPlan::Column { column, kind } => {
                let value = self.column(name, column)?;
                match kind {
                    None => header_value(name, value),
                    Some(kind) => typed_column(name, value, *kind),
                }
            }
            HeaderPlan::Template { template, kind } => {
                let mut out = Vec::new();
                template.render(self.globals, &mut out).map_err(|error| template_failed(name, &error))?;
                let text = String::from_utf8_lossy(&out).into_owned();
                typed(name, text, kind.unwrap_or(HeaderType::Text)).map(Some)
            }
        }
    }
}

/// A value as text: as it stands in JSON, without quotes. `None` for NULL.
pub fn value_text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => Some(text.to_owned()),
        Value::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => STANDARD.encode(bytes),
        }),
        Value::Float(value) if !value.is_finite() => Some(value.to_string()),
        value => {
            let mut out = Vec::new();
            // What is left has a JSON form, an array of NaN apart, which is shown as far as it goes.
            with_val(value, true, |val| json::write_value(val, &mut out)).ok();
            let text = String::from_utf8_lossy(&out);
            Some(text.trim_matches('"').to_owned())
        }
    }
}

fn typed_column(name: &str, value: Value<'_>, kind: HeaderType) -> Result<Option<HeaderValue>, Failure> {
    match (kind, value) {
        (_, Value::Null) => Ok(None),
        (HeaderType::Timestamp, Value::Timestamp(micros, _) | Value::DateTime(micros)) => {
            Ok(seconds(micros.div_euclid(1_000_000))?.map(HeaderValue::Timestamp))
        }
        (HeaderType::Int, Value::Bool(value)) => Ok(Some(HeaderValue::I64(value.into()))),
        (HeaderType::Bool, Value::Int(value @ (0 | 1))) => Ok(Some(HeaderValue::Bool(value == 1))),
        (_, value) => match value_text(value) {
            Some(text) => typed(name, text, kind).map(Some),
            None => Ok(None),
        },
    }
}

fn typed(name: &str, text: String, kind: HeaderType) -> Result<HeaderValue, Failure> {
    let trimmed = text.trim();
    Ok(match kind {
        HeaderType::Text => HeaderValue::Text(text),
        HeaderType::Int => HeaderValue::I64(
            trimmed.parse().map_err(|_| invalid(name, trimmed, "a whole number of 64 bits"))?,
        ),
        HeaderType::Float => {
            HeaderValue::F64(trimmed.parse().map_err(|_| invalid(name, trimmed, "a number"))?)
        }
        HeaderType::Bool => {
            HeaderValue::Bool(parse_bool(trimmed).ok_or_else(|| invalid(name, trimmed, "true or false"))?)
        }
        HeaderType::Timestamp => match parse_seconds(trimmed)? {
            Some(seconds) => HeaderValue::Timestamp(seconds),
            None => return Err(invalid(name, trimmed, "a time")),
        },
    })
}

/// A column's value as a header of its own type. What AMQP has no type for is text.
fn header_value(name: &str, value: Value<'_>) -> Result<Option<HeaderValue>, Failure> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => HeaderValue::Bool(value),
        Value::Int(value) => HeaderValue::I64(value),
        Value::Float(value) => HeaderValue::F64(value),
        Value::Bytes(bytes) => HeaderValue::Bytes(bytes.to_vec()),
        Value::Array(array) => {
            let mut values = Vec::with_capacity(array.len());
            for value in array.values() {
                values.push(header_value(name, value)?.unwrap_or(HeaderValue::Void));
            }
            HeaderValue::Array(values)
        }
        Value::Json(text) => {
            let parsed = serde_json::from_str(text)
                .map_err(|error| invalid(name, text, "JSON").detail(error.to_string()))?;
            header_of_json(parsed)
        }
        value @ (Value::UInt(_)
        | Value::Decimal(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::DateTime(_)
        | Value::Timestamp(..)
        | Value::Uuid(_)) => match value_text(value) {
            Some(text) => HeaderValue::Text(text),
            None => return Ok(None),
        },
    }))
}

/// A JSON value as a header: objects are tables, numbers 64-bit integers where they are whole, else floats.
pub fn header_of_json(value: serde_json::Value) -> HeaderValue {
    match value {
        serde_json::Value::Null => HeaderValue::Void,
        serde_json::Value::Bool(value) => HeaderValue::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => HeaderValue::I64(whole),
            (None, Some(float)) => HeaderValue::F64(float),
            (None, None) => HeaderValue::Text(number.to_string()),
        },
        serde_json::Value::String(text) => HeaderValue::Text(text),
        serde_json::Value::Array(values) => {
            HeaderValue::Array(values.into_iter().map(header_of_json).collect())
        }
        serde_json::Value::Object(map) => {
            HeaderValue::Table(map.into_iter().map(|(name, value)| (name, header_of_json(value))).collect())
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "t" | "1" => Some(true),
        "false" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn parse_seconds(text: &str) -> Result<Option<u64>, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(whole) = text.parse::<i64>() {
        return seconds(whole);
    }
    match text.parse::<Timestamp>() {
        Ok(timestamp) => seconds(timestamp.as_second()),
        Err(_) => Err(invalid("timestamp", text, "seconds since 1970 or an RFC 3339 time with offset")),
    }
}

fn seconds(seconds: i64) -> Result<Option<u64>, Failure> {
    u64::try_from(seconds).map(Some).map_err(|_| {
        invalid("timestamp", &seconds.to_string(), "a time since 1970: AMQP has no earlier ones")
    })
}

fn bad(code: Code, what: String) -> Failure {
    Failure::new(FailureKind::Invalid, code, what)
}

fn invalid(name: &str, text: &str, wanted: &str) -> Failure {
    let shown: String = text.chars().take(60).collect();
    bad(codes::INVALID_PROPERTY, format!("`{name}` is `{shown}` and must be {wanted}"))
}

/// A template's error, as a failure of a row.
pub fn template_failed(name: &str, error: &warren_liquid::Error) -> Failure {
    let mut failure = bad(
        codes::TEMPLATE_FAILED,
        format!("the template of `{name}` fails at line {}, column {}", error.line, error.column),
    )
    .detail(error.message.clone());
    failure.remedy.clone_from(&error.hint);
    failure
}

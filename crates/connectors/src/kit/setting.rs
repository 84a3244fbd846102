//! Settings as people write them: durations, sizes, secrets.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use warren_engine::failure::Failure;
use warren_engine::size::ByteSize;
use warren_engine::span::parse_span;

/// A duration: `500ms`, `30s`, `5m`, `2h`, `7d`. A number without a unit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size in bytes: `16MiB`, `500kB`, or a bare number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub ByteSize);

/// A text that is never shown: it has no `Display`, and its `Debug` and serialised form are `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one who must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-secret": true })
    }
}

/// A setting that cannot be used, found before anything is connected.
#[derive(Debug, Clone)]
pub struct Misfit {
    /// The key within the section, with dots; empty for the whole section.
    pub key: String,
    /// What is wrong with it.
    pub failure: Failure,
}

impl Misfit {
    /// A fault of a key.
    pub fn new(key: impl Into<String>, failure: Failure) -> Misfit {
        Misfit { key: key.into(), failure }
    }
}

/// A failure names its key as its place.
impl From<Failure> for Misfit {
    fn from(mut failure: Failure) -> Misfit {
        Misfit { key: failure.place.take().unwrap_or_default(), failure }
    }
}

/// What a duration looks like, as a regular expression.
pub const SPAN_PATTERN: &str = "^\\s*[0-9]+(\\.[0-9]+)?\\s*(ms|s|m|min|h|d)\\s*$";

struct TextOrNumber<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse =
            |text: &str| parse_span(text).map_err(|fault| format!("this is {fault}: write 30s or 500ms"));
        deserializer.deserialize_any(TextOrNumber(parse, "a duration such as 30s")).map(Span)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| text.parse::<ByteSize>().map_err(|fault| fault.to_string());
        deserializer.deserialize_any(TextOrNumber(parse, "a size such as 16MiB")).map(Size)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "span",
            "pattern": SPAN_PATTERN,
            "description": "A duration: 500ms, 30s, 5m, 2h or 7d. A number without a unit is refused."
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "size",
            "description": "A size in bytes: 16MiB, 500kB; a bare number is bytes."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("swordfish");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }
}

//! Values that may vary by row: a literal, `{column: name}` or `{template: liquid}`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use warren_engine::message::HeaderValue;

/// A value that may vary by row; as a literal it is a `T`.
#[derive(Debug, Clone)]
pub struct Varying<T> {
    /// The source of the value.
    pub value: Value,
    literal: PhantomData<T>,
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The same for every row, as text.
    Literal(String),
    /// A column.
    Column(String),
    /// A template.
    Template(String),
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a literal, {column: name} or {template: liquid}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Literal(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Literal(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Literal(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Literal(value.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let text: String = map.next_value()?;
            let value = match key.as_str() {
                "column" => Value::Column(text),
                "template" => Value::Template(text),
                other => return Err(de::Error::unknown_field(other, &["column", "template"])),
            };
            if found.replace(value).is_some() {
                return Err(de::Error::custom(
                    "`column` and `template` are both given: a value has one origin",
                ));
            }
        }
        found.ok_or_else(|| de::Error::custom("`column` or `template` is wanted here"))
    }
}

impl<'de, T> Deserialize<'de> for Varying<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(|value| Varying { value, literal: PhantomData })
    }
}

impl<T: JsonSchema> JsonSchema for Varying<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Varying_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let literal = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [literal, {
                "type": "object",
                "properties": {
                    "column": {"type": "string", "description": "The column that contains the value."},
                    "template": {"type": "string", "description": "A Liquid template that yields the value, as text."},
                },
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            }]
        })
    }
}

/// A text or a number.
#[derive(Debug, Clone, Copy)]
pub struct TextOrNumber;

impl JsonSchema for TextOrNumber {
    fn schema_name() -> Cow<'static, str> {
        "TextOrNumber".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// A delay in seconds, within the bounds of SQS.
#[derive(Debug, Clone, Copy)]
pub struct Delay;

impl JsonSchema for Delay {
    fn schema_name() -> Cow<'static, str> {
        "Delay".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 900 })
    }
}

/// A header: plain YAML values keep their type.
#[derive(Debug, Clone)]
pub enum Header {
    /// The same for every row.
    Literal(HeaderValue),
    /// A column, with its own type or the requested one.
    Column(String, Option<HeaderKind>),
    /// A template, as text or the requested type.
    Template(String, Option<HeaderKind>),
}

/// The type a header is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderKind {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Int,
    /// A floating-point number of 64 bits.
    Float,
    /// True or false.
    Bool,
    /// A point in time, in seconds.
    Timestamp,
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false, {column: name} or {template: liquid}")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Header, E> {
        Ok(Header::Literal(HeaderValue::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Header, E> {
        Ok(Header::Literal(HeaderValue::I64(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Header, E> {
        let value = i64::try_from(value).map_err(|_| {
            E::custom("the number does not fit 64 bits with a sign, the largest a header has")
        })?;
        self.visit_i64(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Header, E> {
        Ok(Header::Literal(HeaderValue::F64(value)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Header, E> {
        Ok(Header::Literal(HeaderValue::Text(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut column, mut template, mut kind) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "column" => column = Some(map.next_value()?),
                "template" => template = Some(map.next_value()?),
                "type" => kind = Some(map.next_value()?),
                other => return Err(de::Error::unknown_field(other, &["column", "template", "type"])),
            }
        }
        match (column, template) {
            (Some(column), None) => Ok(Header::Column(column, kind)),
            (None, Some(template)) => Ok(Header::Template(template, kind)),
            (Some(_), Some(_)) => {
                Err(de::Error::custom("`column` and `template` are both given: a value has one origin"))
            }
            (None, None) => Err(de::Error::custom("`column` or `template` is wanted here")),
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeaderVisitor)
    }
}

impl JsonSchema for Header {
    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kind = generator.subschema_for::<HeaderKind>();
        json_schema!({
            "anyOf": [{"type": ["string", "number", "boolean"]}, {
                "type": "object",
                "properties": {
                    "column": {"type": "string", "description": "The column that contains the value; the header has its type."},
                    "template": {"type": "string", "description": "A Liquid template that yields the value, as text."},
                    "type": kind,
                },
                "additionalProperties": false,
                "minProperties": 1,
            }]
        })
    }
}

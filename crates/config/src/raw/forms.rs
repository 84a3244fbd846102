//! Values of a sync that have several forms, each with the schema of these forms.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use warren_engine::change::Op;

use super::sync::RawTrigger;
use super::varying::Header;

/// Which changes are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On(pub Vec<Op>);

impl Default for On {
    fn default() -> Self {
        On(vec![Op::Added, Op::Changed, Op::Removed])
    }
}

/// Which columns make a row count as changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compare {
    /// The columns that the message, queue, properties and conditions read.
    #[default]
    Used,
    /// Every column.
    All,
    /// The listed columns.
    These(Vec<String>),
}

/// What a NaN or an infinity becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nan {
    /// The row is rejected.
    #[default]
    Reject,
    /// The value becomes null.
    Null,
}

/// A number of rows, or a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// A number of rows.
    Rows(u64),
    /// A share, 0 to 1.
    Share(f64),
}

/// The columns of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// All columns, under their own names.
    All,
    /// Pairs of the name in the message and the column.
    Named(Vec<(String, String)>),
}

/// Headers in the order they were written.
#[derive(Debug, Clone, Default)]
pub struct Headers(pub Vec<(String, Header)>);

struct OnVisitor;

impl<'de> Visitor<'de> for OnVisitor {
    type Value = On;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or map of added, changed and removed")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<On, A::Error> {
        let mut ops = Vec::new();
        while let Some(op) = items.next_element()? {
            if ops.contains(&op) {
                return Err(de::Error::custom(format!("`{op}` stands here twice")));
            }
            ops.push(op);
        }
        Ok(On(ops))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<On, A::Error> {
        let mut ops = Vec::new();
        while let Some(op) = map.next_key()? {
            map.next_value::<IgnoredAny>()?;
            ops.push(op);
        }
        Ok(On(ops))
    }
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnVisitor)
    }
}

impl JsonSchema for On {
    fn schema_name() -> Cow<'static, str> {
        "On".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let trigger = generator.subschema_for::<RawTrigger>();
        // `added:` without a value uses the keys of the sync.
        let trigger = json_schema!({ "anyOf": [trigger, {"enum": [null]}] });
        json_schema!({ "anyOf": [
            {"type": "array", "items": {"enum": ["added", "changed", "removed"]}, "minItems": 1},
            {
                "type": "object",
                "properties": {"added": trigger.clone(), "changed": trigger.clone(), "removed": trigger},
                "additionalProperties": false,
                "minProperties": 1,
            },
        ] })
    }
}

struct CompareVisitor;

impl<'de> Visitor<'de> for CompareVisitor {
    type Value = Compare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`used`, `all` or a list of columns")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Compare, E> {
        match text {
            "used" => Ok(Compare::Used),
            "all" => Ok(Compare::All),
            _ => Err(E::custom(format!(
                "`{text}` is neither `used` nor `all`; a column stands in a list: [{text}]"
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Compare, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = items.next_element()? {
            names.push(name);
        }
        Ok(Compare::These(names))
    }
}

impl<'de> Deserialize<'de> for Compare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CompareVisitor)
    }
}

impl JsonSchema for Compare {
    fn schema_name() -> Cow<'static, str> {
        "Compare".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"enum": ["used", "all"]},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ] })
    }
}

struct NanVisitor;

impl Visitor<'_> for NanVisitor {
    type Value = Nan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`reject` or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Nan, E> {
        Ok(Nan::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Nan, E> {
        match text {
            "reject" => Ok(Nan::Reject),
            "null" => Ok(Nan::Null),
            _ => Err(E::custom("`nan` takes `reject` or null")),
        }
    }
}

impl<'de> Deserialize<'de> for Nan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NanVisitor)
    }
}

impl JsonSchema for Nan {
    fn schema_name() -> Cow<'static, str> {
        "Nan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["reject", "null", null] })
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of rows or a share such as 20%")
    }

    fn visit_u64<E: de::Error>(self, rows: u64) -> Result<Limit, E> {
        Ok(Limit::Rows(rows))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
        share_of(text).map(Limit::Share).ok_or_else(|| {
            E::custom(format!("`{text}` is neither a number of rows nor a share from 0% to 100%"))
        })
    }
}

/// The pattern of a share, as a regular expression.
pub const SHARE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?%$";

/// A share from `0%` to `100%`, as a number from 0 to 1.
pub fn share_of(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| is_number)?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": SHARE_PATTERN},
        ] })
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`all` or a map from names to columns")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Fields, E> {
        match text {
            "all" => Ok(Fields::All),
            _ => Err(E::custom("`fields` takes `all`, or a map from names to columns")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields::Named(fields))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

impl JsonSchema for Fields {
    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"enum": ["all"]},
            {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
        ] })
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from names to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        Ok(Headers(headers))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

impl JsonSchema for Headers {
    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let header = generator.subschema_for::<Header>();
        json_schema!({ "type": "object", "additionalProperties": header })
    }
}

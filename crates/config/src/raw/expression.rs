//! Values of steps that have several forms, each with the schema of these forms.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::pipeline::RawStep;

/// A jq expression. A plain number or boolean is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(pub String);

/// A text in Liquid, a number or a boolean.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A text.
    Text(String),
    /// A number or a boolean.
    Value(Value),
}

/// Texts by name, in order. Numbers and booleans become texts.
#[derive(Debug, Clone, Default)]
pub struct Scalars(pub Vec<(String, String)>);

/// Values by name, or one expression that yields all of them.
#[derive(Debug, Clone)]
pub enum Pairs {
    /// By name, in order.
    Named(Vec<(String, Given)>),
    /// By one expression.
    Computed(String),
}

impl Default for Pairs {
    fn default() -> Pairs {
        Pairs::Named(Vec::new())
    }
}

/// Parameters of a statement.
#[derive(Debug, Clone)]
pub enum Params {
    /// One by one.
    Listed(Vec<Expression>),
    /// All by one expression.
    Computed(String),
}

impl Default for Params {
    fn default() -> Params {
        Params::Listed(Vec::new())
    }
}

/// HTTP statuses, as written.
#[derive(Debug, Clone, Default)]
pub struct Statuses(pub Vec<String>);

/// A `log` step.
#[derive(Debug, Clone)]
pub struct Log {
    /// The text of the line.
    pub message: String,
    /// The level of the line.
    pub level: Level,
}

/// The level of the line. Default: `info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Shown with `-vv`.
    Debug,
    /// Shown with `-v`.
    #[default]
    Info,
    /// Always shown.
    Warn,
}

/// A `fail` step.
#[derive(Debug, Clone)]
pub struct Fail {
    /// The reason.
    pub reason: String,
    /// The outcome of the message.
    pub end: FailAs,
}

/// The outcome of the message. Default: `reject`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailAs {
    /// The message is retried later.
    Retry,
    /// The message is rejected.
    #[default]
    Reject,
}

/// JSON written as YAML, or the path of a JSON file.
#[derive(Debug, Clone)]
pub struct AnyJson;

/// Any value, for schemas.
#[derive(Debug)]
pub struct AnyValue;

/// Any map, for schemas.
#[derive(Debug)]
pub struct AnyMap;

impl JsonSchema for AnyValue {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean", "array", "object"], "items": true, "additionalProperties": true,
        })
    }
}

impl JsonSchema for AnyMap {
    fn schema_name() -> Cow<'static, str> {
        "Map".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": true })
    }
}

/// A pipeline: a name under `pipelines`, or the steps themselves.
#[derive(Debug, Clone)]
pub enum PipelineRef {
    /// The name under `pipelines`.
    Named(String),
    /// The steps; they are read from the tree.
    Inline,
}

/// The scalar forms of a value, as text.
struct ScalarVisitor(&'static str);

impl Visitor<'_> for ScalarVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
        Ok(Given::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Given, E> {
        Ok(Given::Value(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Given, E> {
        Ok(Given::Value(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Given, E> {
        Ok(Given::Value(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Given, E> {
        Ok(Given::Value(value.into()))
    }
}

impl Given {
    /// The value as text, as it is written.
    fn into_text(self) -> String {
        match self {
            Given::Text(text) => text,
            Given::Value(value) => value.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor("a text, a number, true or false"))
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ScalarVisitor("a jq expression"))
            .map(|given| Expression(given.into_text()))
    }
}

fn scalar() -> Schema {
    json_schema!({ "type": ["string", "number", "boolean"] })
}

impl JsonSchema for Given {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        scalar()
    }
}

impl JsonSchema for Expression {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = scalar();
        schema.insert("format".to_owned(), "jq".into());
        schema
    }
}

/// Reads the entries of a map, in order.
fn entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<(String, Given)>, A::Error> {
    let mut entries = Vec::new();
    while let Some(name) = map.next_key::<String>()? {
        entries.push((name, map.next_value()?));
    }
    Ok(entries)
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, or a jq expression that yields one")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pairs, E> {
        Ok(Pairs::Computed(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pairs, A::Error> {
        entries(map).map(Pairs::Named)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PairsVisitor)
    }
}

impl JsonSchema for Pairs {
    fn schema_name() -> Cow<'static, str> {
        "Pairs".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": scalar()}] })
    }
}

struct ScalarsVisitor;

impl<'de> Visitor<'de> for ScalarsVisitor {
    type Value = Scalars;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names to texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalars, A::Error> {
        let named = entries(map)?;
        Ok(Scalars(named.into_iter().map(|(name, given)| (name, given.into_text())).collect()))
    }
}

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarsVisitor)
    }
}

impl JsonSchema for Scalars {
    fn schema_name() -> Cow<'static, str> {
        "Scalars".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": scalar() })
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of jq expressions, or one that yields a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Params, E> {
        Ok(Params::Computed(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Params, A::Error> {
        let mut listed = Vec::new();
        while let Some(expression) = items.next_element()? {
            listed.push(expression);
        }
        Ok(Params::Listed(listed))
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParamsVisitor)
    }
}

impl JsonSchema for Params {
    fn schema_name() -> Cow<'static, str> {
        "Params".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Expression>();
        json_schema!({ "anyOf": [{"type": "array", "items": one}, {"type": "string"}] })
    }
}

struct StatusesVisitor;

impl<'de> Visitor<'de> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status, a range such as 2xx or 200-204, or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        Ok(Statuses(vec![text.to_owned()]))
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
        Ok(Statuses(vec![status.to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Statuses, A::Error> {
        let mut statuses = Vec::new();
        while let Some(given) = items.next_element::<Given>()? {
            statuses.push(given.into_text());
        }
        Ok(Statuses(statuses))
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({ "type": ["integer", "string"] });
        json_schema!({ "anyOf": [one, {"type": "array", "items": one}] })
    }
}

struct LogVisitor;

impl<'de> Visitor<'de> for LogVisitor {
    type Value = Log;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a map of `message` and `level`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Log, E> {
        Ok(Log { message: text.to_owned(), level: Level::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Log, A::Error> {
        let (mut message, mut level) = (None, Level::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "message" => message = Some(map.next_value()?),
                "level" => level = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Log { message: message.ok_or_else(|| de::Error::missing_field("message"))?, level })
    }
}

impl<'de> Deserialize<'de> for Log {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LogVisitor)
    }
}

impl JsonSchema for Log {
    fn schema_name() -> Cow<'static, str> {
        "Log".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let level = generator.subschema_for::<Level>();
        json_schema!({ "anyOf": [{"type": "string"}, {
            "type": "object",
            "properties": {"message": {"type": "string", "description": "The text of the line, in Liquid."}, "level": level},
            "required": ["message"],
            "additionalProperties": false,
        }] })
    }
}

struct FailVisitor;

impl<'de> Visitor<'de> for FailVisitor {
    type Value = Fail;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reason, or a map of `reason` and `as`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Fail, E> {
        Ok(Fail { reason: text.to_owned(), end: FailAs::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fail, A::Error> {
        let (mut reason, mut end) = (None, FailAs::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "reason" => reason = Some(map.next_value()?),
                "as" => end = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Fail { reason: reason.ok_or_else(|| de::Error::missing_field("reason"))?, end })
    }
}

impl<'de> Deserialize<'de> for Fail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FailVisitor)
    }
}

impl JsonSchema for Fail {
    fn schema_name() -> Cow<'static, str> {
        "Fail".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let end = generator.subschema_for::<FailAs>();
        json_schema!({ "anyOf": [{"type": "string"}, {
            "type": "object",
            "properties": {"reason": {"type": "string", "description": "The reason, in Liquid."}, "as": end},
            "required": ["reason"],
            "additionalProperties": false,
        }] })
    }
}

impl<'de> Deserialize<'de> for AnyJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| AnyJson)
    }
}

impl JsonSchema for AnyJson {
    fn schema_name() -> Cow<'static, str> {
        "JsonSchema".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{"type": "string", "format": "path"}, {"type": "object"}, {"type": "boolean"}] })
    }
}

struct PipelineRefVisitor;

impl<'de> Visitor<'de> for PipelineRefVisitor {
    type Value = PipelineRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a pipeline, or a list of steps")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<PipelineRef, E> {
        Ok(PipelineRef::Named(name.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PipelineRef, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(PipelineRef::Inline)
    }
}

impl<'de> Deserialize<'de> for PipelineRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PipelineRefVisitor)
    }
}

impl JsonSchema for PipelineRef {
    fn schema_name() -> Cow<'static, str> {
        "PipelineRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let step = generator.subschema_for::<RawStep>();
        json_schema!({ "anyOf": [{"type": "string"}, {"type": "array", "items": step}] })
    }
}

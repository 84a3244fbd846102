//! Attributes of messages to SQS: a literal, or a type with a literal, a column or a template.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// An attribute.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, with or without a custom label. `None`: the type of the value.
    pub kind: Option<String>,
    /// Its value.
    pub value: AttributeValue,
}

/// Where an attribute's value comes from.
#[derive(Debug, Clone)]
pub enum AttributeValue {
    /// The same for every row.
    Literal(String),
    /// A column.
    Column(String),
    /// A template.
    Template(String),
}

/// Attributes in the order they were written.
#[derive(Debug, Clone, Default)]
pub struct Attributes(pub Vec<(String, Attribute)>);

/// A text, a number, true or false, as text.
struct Scalar {
    text: String,
    is_number: bool,
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar { text: value.to_string(), is_number: false })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar { text: value.to_string(), is_number: true })
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar { text: value.to_string(), is_number: true })
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar { text: value.to_string(), is_number: true })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar { text: text.to_owned(), is_number: false })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl From<Scalar> for Attribute {
    fn from(scalar: Scalar) -> Attribute {
        let kind = if scalar.is_number { "Number" } else { "String" };
        Attribute { kind: Some(kind.to_owned()), value: AttributeValue::Literal(scalar.text) }
    }
}

struct AttributeVisitor;

impl<'de> Visitor<'de> for AttributeVisitor {
    type Value = Attribute;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or {type: …} with value, column or template")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Attribute, E> {
        ScalarVisitor.visit_bool(value).map(Attribute::from)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Attribute, E> {
        ScalarVisitor.visit_i64(value).map(Attribute::from)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Attribute, E> {
        ScalarVisitor.visit_u64(value).map(Attribute::from)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Attribute, E> {
        ScalarVisitor.visit_f64(value).map(Attribute::from)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Attribute, E> {
        ScalarVisitor.visit_str(text).map(Attribute::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attribute, A::Error> {
        let (mut kind, mut implied, mut value) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let origin = match key.as_str() {
                "type" => {
                    kind = Some(map.next_value::<String>()?);
                    continue;
                }
                "value" => {
                    let scalar = map.next_value::<Scalar>()?;
                    implied = Some(if scalar.is_number { "Number" } else { "String" });
                    AttributeValue::Literal(scalar.text)
                }
                "column" => AttributeValue::Column(map.next_value()?),
                "template" => AttributeValue::Template(map.next_value()?),
                other => {
                    return Err(de::Error::unknown_field(other, &["type", "value", "column", "template"]));
                }
            };
            if value.replace(origin).is_some() {
                return Err(de::Error::custom(
                    "two of `value`, `column` and `template` are given: a value has one origin",
                ));
            }
        }
        let value =
            value.ok_or_else(|| de::Error::custom("`value`, `column` or `template` is wanted here"))?;
        Ok(Attribute { kind: kind.or_else(|| implied.map(str::to_owned)), value })
    }
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AttributeVisitor)
    }
}

impl JsonSchema for Attribute {
    fn schema_name() -> Cow<'static, str> {
        "Attribute".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": ["string", "number", "boolean"]}, {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "`String`, `Number` or `Binary`, with or without a custom label: \
                        `Number.float`. Default: the type of the value or column."},
                    "value": {"type": ["string", "number", "boolean"], "description": "The value, the same for every row."},
                    "column": {"type": "string", "description": "The column that contains the value."},
                    "template": {"type": "string", "description": "A Liquid template that yields the value, as text."},
                },
                "additionalProperties": false,
                "minProperties": 1,
            }]
        })
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from names to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
        let mut attributes = Vec::new();
        while let Some(attribute) = map.next_entry()? {
            attributes.push(attribute);
        }
        Ok(Attributes(attributes))
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

impl JsonSchema for Attributes {
    fn schema_name() -> Cow<'static, str> {
        "Attributes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let attribute = generator.subschema_for::<Attribute>();
        json_schema!({ "type": "object", "additionalProperties": attribute })
    }
}

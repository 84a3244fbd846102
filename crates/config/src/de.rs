//! A tree as serde sees it.
//!
//! The tree has been checked against the schema of the type already, so this is strict and says little; what it
//! must do is keep the node at which a type's own rule failed. Keys that the type does not have are passed over: several
//! types may read the same map, each its own keys.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use warren_engine::codes;

use super::faults::Fault;
use super::text::Span;
use super::tree::{Entry, Meaning, Node, NodeKind};

/// Reads a type from a node.
///
/// # Errors
/// A rule of the type does not hold; the fault points at the node that breaks it.
pub fn read<T: DeserializeOwned>(node: &Node, path: &str) -> Result<T, Fault> {
    T::deserialize(At(node)).map_err(|error| fault_of(error, node, path))
}

/// The fault of an error that came while a node was read.
pub fn fault_of(error: Misread, node: &Node, path: &str) -> Fault {
    let message = if error.filled {
        // The message may quote the value, and the value may be a secret.
        format!("a variable gives `{path}` a value that it does not take")
    } else {
        error.message
    };
    let code = if error.missing { codes::MISSING_KEY } else { codes::INVALID_VALUE };
    Fault::new(code, error.span.unwrap_or(node.span), message)
        .remedy("the reference of the configuration says what each key takes (`warren schema --docs`)")
}

/// A node, to be read by serde.
#[derive(Clone, Copy)]
pub struct At<'n>(pub &'n Node);

/// What a type said of a node.
#[derive(Debug)]
pub struct Misread {
    message: String,
    span: Option<Span>,
    filled: bool,
    missing: bool,
}

impl Misread {
    /// The error with its node, unless a node further inside has claimed it.
    fn at(mut self, node: &Node) -> Misread {
        if self.span.is_none() {
            self.span = Some(node.span);
            self.filled = node.is_filled();
        }
        self
    }
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.filled { "a value is not what its key takes" } else { &self.message })
    }
}

impl std::error::Error for Misread {}

impl de::Error for Misread {
    fn custom<T: fmt::Display>(message: T) -> Misread {
        Misread { message: message.to_string(), span: None, filled: false, missing: false }
    }

    fn missing_field(field: &'static str) -> Misread {
        Misread { missing: true, ..de::Error::custom(format_args!("the key `{field}` is missing")) }
    }
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        let node = self.0;
        match &node.kind {
            NodeKind::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => visitor.visit_unit(),
                Meaning::Bool(value) => visitor.visit_bool(value),
                Meaning::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
                    (Ok(value), _) if value < 0 => visitor.visit_i64(value),
                    (_, Ok(value)) => visitor.visit_u64(value),
                    _ => Err(de::Error::custom("the number is too large")),
                },
                Meaning::Float(value) => visitor.visit_f64(value),
                Meaning::Text(text) => visitor.visit_str(text),
            },
            NodeKind::List(items) => visitor.visit_seq(Items(items.iter())),
            NodeKind::Map(entries) => {
                visitor.visit_map(Entries { rest: entries.iter(), only: None, value: None })
            }
        }
        .map_err(|error| error.at(node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        match &self.0.kind {
            NodeKind::Map(entries) => visitor
                .visit_map(Entries { rest: entries.iter(), only: Some(fields), value: None })
                .map_err(|error| error.at(self.0)),
            NodeKind::Scalar(_) | NodeKind::List(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(self.0))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        let node = self.0;
        match &node.kind {
            NodeKind::Scalar(scalar) => {
                let name: StrDeserializer<'_, Misread> = scalar.text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            NodeKind::Map(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Variant(entry)),
                _ => Err(de::Error::custom("one key is wanted here")),
            },
            NodeKind::List(_) => Err(de::Error::custom("a name is wanted here")),
        }
        .map_err(|error| error.at(node))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

struct Items<'n>(std::slice::Iter<'n, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misread> {
        self.0.next().map(|node| seed.deserialize(At(node)).map_err(|error| error.at(node))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    only: Option<&'static [&'static str]>,
    value: Option<&'n Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misread> {
        let only = self.only;
        let wanted = |entry: &&Entry| only.is_none_or(|only| only.contains(&entry.key.as_str()));
        let Some(entry) = self.rest.by_ref().find(wanted) else { return Ok(None) };
        self.value = Some(&entry.value);
        let key: StrDeserializer<'_, Misread> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mut error| {
            error.span = error.span.or(Some(entry.span));
            error
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misread> {
        let Some(node) = self.value.take() else { return Err(de::Error::custom("a value without its key")) };
        seed.deserialize(At(node)).map_err(|error| error.at(node))
    }
}

struct Variant<'n>(&'n Entry);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Misread;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de>), Misread> {
        let name: StrDeserializer<'_, Misread> = self.0.key.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, Content(&self.0.value)))
    }
}

struct Content<'n>(&'n Node);

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = Misread;

    fn unit_variant(self) -> Result<(), Misread> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misread> {
        seed.deserialize(At(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        At(self.0).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        At(self.0).deserialize_struct("", fields, visitor)
    }
}

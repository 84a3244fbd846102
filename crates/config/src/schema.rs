//! The JSON Schema of a whole configuration, made from the raw types.
//!
//! Editors use this schema (`warren schema`), a configuration is checked against it, and the reference page
//! is generated from it.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use warren_connectors::{BROKER_KINDS, BrokerConfig, SOURCE_KINDS, SourceConfig};

use super::raw::consume::RawConsume;
use super::raw::hub::RawHub;
use super::raw::pipeline::RawStep;
use super::raw::section::{RawListener, RawModel, RawState};
use super::raw::sync::{RawSync, RawTrigger};

/// The pattern of a name of a source, model, broker or sync.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// The schema, built once, because building it takes longer than reading most configurations.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(build);
    &SCHEMA
}

/// The schema.
fn build() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let sources = kinds(&SOURCE_KINDS, |kind| SourceConfig::schema(kind, &mut generator));
    let brokers = kinds(BROKER_KINDS, |kind| BrokerConfig::schema(kind, &mut generator));
    let model = RawModel::json_schema(&mut generator).to_value();
    let sync = merged(
        RawSync::json_schema(&mut generator).to_value(),
        RawTrigger::json_schema(&mut generator).to_value(),
    );
    let step = generator.subschema_for::<RawStep>().to_value();
    let trigger = RawConsume::json_schema(&mut generator).to_value();
    let hub = RawHub::json_schema(&mut generator).to_value();
    let listener = RawListener::json_schema(&mut generator).to_value();
    let state = RawState::json_schema(&mut generator).to_value();
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of Warren",
        "type": "object",
        "properties": {
            "sources": named("The databases that rows are read from, by name.", &sources),
            "models": named("Queries over sources, each with its key, by name.", &model),
            "brokers": named("The systems that store messages in queues, by name.", &brokers),
            "syncs": named("Models whose changed rows are sent to a broker, by name.", &sync),
            "triggers": named("Queues that are consumed, each with its pipeline, by name.", &trigger),
            "pipelines": named(
                "Lists of steps that process one message, by name. A trigger names a pipeline, or contains the list itself.",
                &json!({"type": "array", "items": step}),
            ),
            "hub": hub,
            "http": listener,
            "state": {
                "description": "What Warren stores, and where. A path alone means `{folder: PATH}`.",
                "anyOf": [{"type": "string", "format": "path"}, state],
            },
            "templates": {
                "type": "string",
                "format": "path",
                "description": "The folder of the templates that a template may `render` or `include`: \
                    `customer.liquid` is `customer`. Default: `templates` next to the configuration, if it exists.",
            },
        },
        "patternProperties": {"^x-": true},
        "additionalProperties": false,
    });
    root["$defs"] = Value::Object(definitions(&mut generator));
    tidy(&mut root);
    root
}

/// The schema of a single type. Like the whole schema, it accepts no unknown keys.
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut root = T::json_schema(&mut generator).to_value();
    root["$defs"] = Value::Object(definitions(&mut generator));
    tidy(&mut root);
    root
}

fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    generator.take_definitions(true)
}

/// A map by name.
fn named(description: &str, of: &Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": of,
        "propertyNames": {"pattern": NAME_PATTERN},
    })
}

/// The settings of several kinds, distinguished by `type`.
fn kinds(kinds: &[&str], mut schema: impl FnMut(&str) -> Option<schemars::Schema>) -> Value {
    let branches = kinds.iter().filter_map(|kind| {
        let mut branch = schema(kind)?.to_value();
        let mut properties = Map::new();
        properties.insert("type".to_owned(), json!({"const": kind, "description": "The kind."}));
        if let Some(Value::Object(own)) = branch.get("properties") {
            properties.extend(own.clone());
        }
        branch["properties"] = Value::Object(properties);
        let mut required = vec![json!("type")];
        required.extend(branch["required"].as_array().cloned().unwrap_or_default());
        branch["required"] = Value::Array(required);
        branch["title"] = json!(kind);
        Some(branch)
    });
    json!({ "oneOf": branches.collect::<Vec<_>>() })
}

/// One map with the keys of two types.
fn merged(mut first: Value, second: Value) -> Value {
    if let (Some(properties), Value::Object(mut more)) = (first["properties"].as_object_mut(), second)
        && let Some(Value::Object(more)) = more.remove("properties")
    {
        properties.extend(more);
    }
    first
}

/// Closes every map, and removes what only says that a key may be absent.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
                properties.values_mut().for_each(without_null);
                map.entry("additionalProperties").or_insert(json!(false));
            }
            for (keyword, value) in map.iter_mut() {
                match value {
                    // Schemas by name: a key may be called `properties` too.
                    Value::Object(named) if matches!(keyword.as_str(), "properties" | "$defs") => {
                        named.values_mut().for_each(tidy);
                    }
                    other => tidy(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes `null` from a property: it represents an absent key, and people do not write it.
fn without_null(property: &mut Value) {
    let Value::Object(map) = property else { return };
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Array(kinds)) = map.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [one] = kinds.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(names)) = map.get_mut("enum")
        && names.len() > 1
    {
        names.retain(|name| !name.is_null());
    }
    if let Some(Value::Array(mut branches)) = map.remove("anyOf") {
        branches.retain(|branch| branch["type"] != "null");
        match branches.as_mut_slice() {
            [Value::Object(one)] => map.extend(std::mem::take(one)),
            _ => {
                map.insert("anyOf".to_owned(), Value::Array(branches));
            }
        }
    }
}

//! What a schema takes: the questions that are asked of it, and the answer for people.

use std::time::Duration;

use serde_json::Value;
use warren_engine::span::parse_span;

use super::faults::listed;
use super::raw::forms::SHARE_PATTERN;

/// A duration, for people.
pub const SPAN: &str = "a duration such as `30s`";
/// A size, for people.
pub const SIZE: &str = "a size such as `16MiB`";

/// A schema behind its references; definitions are found in `root`.
pub fn resolved<'s>(root: &'s Value, mut schema: &'s Value) -> &'s Value {
    while let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        schema = &root["$defs"][name];
    }
    schema
}

/// Whether a resolved schema says that its value is never shown.
pub fn is_secret(schema: &Value) -> bool {
    schema["x-secret"] == true
}

/// What a schema takes, for people; definitions are found in `root`.
pub fn expects(root: &Value, schema: &Value) -> String {
    match resolved(root, schema)["format"].as_str() {
        Some("span") => {
            return match (schema["x-least"].as_str(), schema["x-most"].as_str()) {
                (Some(least), Some(most)) => format!("{SPAN}, from {least} to {most}"),
                (None, Some(most)) => format!("{SPAN}, at most {most}"),
                (Some(_) | None, None) => SPAN.to_owned(),
            };
        }
        Some("size") => return SIZE.to_owned(),
        Some("jq") => return "a jq expression".to_owned(),
        _ => {}
    }
    if schema["$ref"].is_string() {
        return if schema["format"] == "path" {
            "a path".to_owned()
        } else {
            expects(root, resolved(root, schema))
        };
    }
    if let Some(names) = choices(schema) {
        // `null` as text and as nothing read the same.
        let mut texts: Vec<&str> = names.iter().map(|name| name.as_str().unwrap_or("null")).collect();
        texts.dedup();
        return listed(texts, "or");
    }
    if let Some(branches) = branches(schema) {
        let mut all: Vec<String> = Vec::new();
        for branch in branches {
            let one = expects(root, branch);
            if !all.contains(&one) {
                all.push(one);
            }
        }
        return join_or(&all);
    }
    let one = |kind: &str| match kind {
        "string" if schema["pattern"] == SHARE_PATTERN => "a share such as `20%`".to_owned(),
        "string" if schema["format"] == "path" => "a path".to_owned(),
        "string" => "text".to_owned(),
        "integer" => match bounds(schema) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            (Some(least), None) => format!("a whole number from {least}"),
            (None, _) => "a whole number".to_owned(),
        },
        "number" => "a number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => "a list".to_owned(),
        "null" => "`null`".to_owned(),
        _ if is_value(schema) => "`{column: …}` or `{template: …}`".to_owned(),
        _ => "a map of keys".to_owned(),
    };
    match &schema["type"] {
        Value::String(kind) => one(kind),
        Value::Array(kinds) => join_or(&kinds.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>()),
        _ => "a value".to_owned(),
    }
}

/// The bounds of a duration, for people, if the schema has any: `x-least`, `x-most` and `x-step`.
pub fn span_bounds(schema: &Value) -> Option<String> {
    let bound = |key: &str| schema[key].as_str();
    let what = match bound("x-step") {
        Some("1s") => "whole seconds",
        _ => "a duration",
    };
    match (bound("x-least"), bound("x-most")) {
        (Some("1ms"), None) => Some(format!("{what} longer than zero")),
        (Some(least), Some(most)) => Some(format!("{what} from {least} to {most}")),
        (Some(least), None) => Some(format!("{what} of at least {least}")),
        (None, Some(most)) => Some(format!("{what} of at most {most}")),
        (None, None) => None,
    }
}

/// The bounds of a duration that this one is not within.
pub fn misses(schema: &Value, span: Duration) -> Option<String> {
    let bound = |key: &str| schema[key].as_str().and_then(|text| parse_span(text).ok());
    let fits = bound("x-least").is_none_or(|least| span >= least)
        && bound("x-most").is_none_or(|most| span <= most)
        && bound("x-step")
            .is_none_or(|step| step.is_zero() || span.as_nanos().is_multiple_of(step.as_nanos()));
    if fits { None } else { span_bounds(schema) }
}

/// Whether a schema is that of a value by column or template.
pub fn is_value(schema: &Value) -> bool {
    let has = |key: &str| schema["properties"][key].is_object();
    has("column") && has("template") && !has("fields")
}

fn join_or(parts: &[String]) -> String {
    match parts {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The least and the most a number may be.
pub fn bounds(schema: &Value) -> (Option<f64>, Option<f64>) {
    let least = schema["minimum"].as_f64();
    let most = schema["maximum"].as_f64().or(match schema["format"].as_str() {
        Some("uint8") => Some(f64::from(u8::MAX)),
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    });
    (least, most)
}

/// The branches of a schema that has several forms.
pub fn branches(schema: &Value) -> Option<&[Value]> {
    schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()).map(Vec::as_slice)
}

/// The names a schema lets choose from, if that is all it does.
pub fn choices(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(names) = schema["enum"].as_array() {
        return Some(names.iter().collect());
    }
    if !schema["const"].is_null() {
        return Some(vec![&schema["const"]]);
    }
    branches(schema)?
        .iter()
        .map(choices)
        .collect::<Option<Vec<_>>>()
        .map(|several| several.into_iter().flatten().collect())
}

/// The keys of a `properties`.
pub fn keys(properties: &Value) -> impl Iterator<Item = &str> {
    properties.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

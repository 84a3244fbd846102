//! What a schema takes: the questions that are asked of it, and the answer for people.

use serde_json::Value;

use super::faults::listed;
use super::raw::forms::SHARE_PATTERN;

/// What a schema takes, for people; definitions are found in `root`.
pub fn expects(root: &Value, schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return match name {
            "Span" => "a span of time such as `30s`".to_owned(),
            "Size" => "a size such as `16MiB`".to_owned(),
            "Expression" => "a jq expression".to_owned(),
            _ => expects(root, &root["$defs"][name]),
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

//! The reference page and the schema are those of the program.

use std::collections::BTreeSet;

use serde_json::Value;
use warren_config::{reference, schema};

use super::{compare, crate_folder};

#[test]
fn the_reference_page_is_fresh() {
    let page = reference::reference(schema());
    compare(&crate_folder().join("../../docs/configuration.md"), &page);
}

#[test]
fn every_key_says_what_it_does() {
    let mut silent = BTreeSet::new();
    keys("", schema(), &mut silent);
    assert!(silent.is_empty(), "keys without a comment: {silent:?}");
}

fn keys(path: &str, schema: &Value, silent: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{key}");
                if path.ends_with(&format!("properties/{key}")) && !path.ends_with("patternProperties/^x-")
                    // A key that is called `properties`.
                    && !path.contains("/properties/properties/")
                    && !value.is_boolean()
                {
                    let described = value["description"].is_string()
                        || value["$ref"].is_string()
                        || value["anyOf"].is_array();
                    if !described && !path.contains("/On/") {
                        silent.insert(path.clone());
                    }
                }
                keys(&path, value, silent);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(path, item, silent)),
        _ => {}
    }
}

#[test]
fn the_schema_refers_to_nothing_that_is_not_there() {
    let schema = schema();
    let text = schema.to_string();
    let references: BTreeSet<&str> =
        text.match_indices("\"#/$defs/").map(|(at, _)| text[at + 9..].split('"').next().unwrap()).collect();
    assert!(references.contains("Span"), "{references:?}");
    for reference in references {
        assert!(schema["$defs"][reference].is_object(), "{reference}");
    }
}

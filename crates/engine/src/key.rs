//! A key as a person writes it.

use serde_json::Value as Json;

use crate::row::Row;
use crate::sync::property::value_text;

/// The key of a row as text: the value where the key is one column, a JSON array of texts where it is several, NULL as `null`.
pub fn key_text(row: &Row, key: &[String]) -> String {
    let text = |name: &String| row.get(name).and_then(value_text);
    match key {
        [name] => text(name).unwrap_or_else(|| "null".to_owned()),
        names => Json::Array(names.iter().map(|name| text(name).map_or(Json::Null, Json::String)).collect())
            .to_string(),
    }
}

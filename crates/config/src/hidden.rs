//! Values that variables and files filled in, made known to [`warren_engine::redact`] so that no error shows them.
//!
//! A value is not hidden where its key says that it is no secret: a number, a duration, a choice, a path, or what the schema marks
//! with `x-public`, such as a host. Nor is one hidden that the configuration also spells out, such as the name of a sync.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use warren_engine::redact;

use super::text::Span;
use super::tree::{Node, NodeKind, Scalar};
use super::wants;

/// What was filled into one scalar.
#[derive(Debug)]
pub struct Filled {
    span: Span,
    /// The whole text.
    text: String,
    /// What came from outside, each also with the letters and digits it stands between.
    values: Vec<String>,
}

/// For scalars with filled values: whether every key they stand at takes what is no secret.
pub type Public = HashMap<Span, bool>;

/// All that was filled into a tree. It is asked before the walk, which turns texts into paths.
pub fn gather(node: &Node) -> Vec<Filled> {
    let mut found = Vec::new();
    visit(node, &mut |span, scalar| {
        if scalar.is_filled() {
            let secret = scalar.fills.iter().filter(|fill| fill.secret);
            let values = secret.flat_map(|fill| {
                let (from, to) = (fill.now.start, fill.now.end);
                [(from, to), widened(&scalar.text, from, to)]
            });
            let values =
                values.filter_map(|(from, to)| scalar.text.get(from..to)).map(str::to_owned).collect();
            found.push(Filled { span, text: scalar.text.clone(), values });
        }
    });
    found
}

/// Hides what was filled into a tree.
pub fn hide(filled: &[Filled], tree: &Node, public: &Public, schema: &Value) {
    let secret: Vec<&Filled> =
        filled.iter().filter(|filled| !public.get(&filled.span).copied().unwrap_or(false)).collect();
    if secret.is_empty() {
        return;
    }
    let known = known(tree, schema);
    let values = secret.iter().flat_map(|filled| &filled.values).map(String::as_str);
    redact::hide(values.filter(|value| !known.contains(&value.to_ascii_lowercase())));
    for filled in secret {
        redact::hide_text(&filled.text);
    }
}

/// Whether a key with this schema takes what is no secret.
pub fn is_public(schema: &Value) -> bool {
    let plain = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number" | "boolean" | "null"));
    let format = schema["format"].as_str();
    !wants::is_secret(schema)
        && (schema["x-public"] == true
            || matches!(format, Some("path" | "span" | "size"))
            || wants::choices(schema).is_some()
            || match &schema["type"] {
                Value::Array(kinds) => kinds.iter().all(plain),
                kind => plain(kind),
            })
}

/// What the configuration spells out, in lower case: names, whole values, and the choices it has.
fn known(tree: &Node, schema: &Value) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    visit(tree, &mut |_, scalar| {
        if !scalar.is_filled() {
            known.insert(scalar.text.to_ascii_lowercase());
        }
    });
    for section in tree.entries().unwrap_or_default() {
        let names = section.value.entries().unwrap_or_default();
        known.extend(names.iter().map(|entry| entry.key.to_ascii_lowercase()));
    }
    choices(schema, &mut known);
    known
}

fn choices(schema: &Value, known: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("const", Value::String(name)) => drop(known.insert(name.to_ascii_lowercase())),
                    ("enum", Value::Array(names)) => {
                        known.extend(names.iter().filter_map(Value::as_str).map(str::to_ascii_lowercase));
                    }
                    _ => choices(value, known),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| choices(item, known)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn visit(node: &Node, take: &mut impl FnMut(Span, &Scalar)) {
    match &node.kind {
        NodeKind::Scalar(scalar) => take(node.span, scalar),
        NodeKind::List(items) => items.iter().for_each(|item| visit(item, take)),
        NodeKind::Map(entries) => entries.iter().for_each(|entry| visit(&entry.value, take)),
    }
}

/// A stretch with the letters and digits around it: `pre` and `post` of `pre${KEY}post` become one word with the value.
fn widened(text: &str, from: usize, to: usize) -> (usize, usize) {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let before = text[..from].trim_end_matches(word).len();
    let after = text.len() - text[to..].trim_start_matches(word).len();
    (before, after)
}

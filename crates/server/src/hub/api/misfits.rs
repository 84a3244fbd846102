//! What is wrong with a JSON body: the member, what is allowed there, and what was given instead.
//!
//! A body is read into its type first. Only where that fails it is compared with its schema in the OpenAPI document, so that callers read
//! names of the API and none of ours, and all of what is wrong at once.

use serde_json::{Map, Number, Value};
use warren_engine::near::nearest;

/// The most that is told of one body.
const TOLD_MAX: usize = 20;
/// How much of a number, a name or a choice is shown, in characters.
const SHOWN_MAX: usize = 40;
/// The format of values that are not shown.
const SECRET: &str = "password";

/// A member of a body that is not what its schema allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Where: a JSON pointer (RFC 6901); empty for the body itself.
    pub(super) pointer: String,
    /// What is allowed and what was given.
    pub(super) detail: String,
}

/// What in a body does not fit its schema.
pub(super) fn misfits(schema: &Value, body: &Value) -> Vec<Misfit> {
    let mut found = Vec::new();
    look(schema, body, "", &mut found);
    found.truncate(TOLD_MAX);
    found
}

fn look(schema: &Value, value: &Value, at: &str, found: &mut Vec<Misfit>) {
    if let Some(branches) = schema["anyOf"].as_array() {
        // Where one branch is of the right kind, what is wrong is within it.
        let kind = |branch: &&Value| is_of_kind(branch, value);
        return match branches.iter().find(kind) {
            Some(branch) => look(branch, value, at, found),
            None => found.push(wrong(schema, value, at)),
        };
    }
    if !is_allowed(schema, value) {
        return found.push(wrong(schema, value, at));
    }
    match value {
        Value::Object(members) => look_at_members(schema, members, at, found),
        Value::Array(items) if schema["items"].is_object() => {
            for (index, item) in items.iter().enumerate() {
                look(&schema["items"], item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn look_at_members(schema: &Value, members: &Map<String, Value>, at: &str, found: &mut Vec<Misfit>) {
    let Some(known) = schema["properties"].as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            let (pointer, allowed) = (pointer(at, name), allowed(&known[name]));
            let detail = format!("`{}` is missing: give {allowed}", shortened(&pointer));
            found.push(Misfit { pointer, detail });
        }
    }
    for (name, value) in members {
        let pointer = pointer(at, name);
        match known.get(name) {
            Some(schema) => look(schema, value, &pointer, found),
            None if schema["additionalProperties"] == false => {
                let names = known.keys().map(String::as_str);
                let help = match nearest(name, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
                };
                let detail = format!("`{}` is unknown; {help}", shortened(&pointer));
                found.push(Misfit { pointer, detail });
            }
            None => {}
        }
    }
}

/// The pointer of a member.
fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn wrong(schema: &Value, value: &Value, at: &str) -> Misfit {
    let subject = if at.is_empty() { "the body".to_owned() } else { format!("`{}`", shortened(at)) };
    let detail = format!("{subject} must be {}, not {}", allowed(schema), given(schema, value));
    Misfit { pointer: at.to_owned(), detail }
}

/// The types that a schema names.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value is of the type that a schema names, whatever its bounds are.
fn is_of_kind(schema: &Value, value: &Value) -> bool {
    let types = types(schema);
    if let Some(branches) = schema["anyOf"].as_array() {
        return branches.iter().any(|branch| is_of_kind(branch, value));
    }
    if let Some(choices) = schema["enum"].as_array() {
        return value.is_string() && choices.iter().any(Value::is_string);
    }
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => matches!(value, Value::Number(number) if whole(number)),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    };
    types.is_empty() || types.into_iter().any(is)
}

/// Whether a number is written as a whole one.
fn whole(number: &Number) -> bool {
    !number.to_string().contains(['.', 'e', 'E'])
}

fn is_allowed(schema: &Value, value: &Value) -> bool {
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    is_of_kind(schema, value)
        && match value {
            Value::Number(number) => !types(schema).contains(&"integer") || is_within(schema, number),
            _ => true,
        }
}

fn is_within(schema: &Value, number: &Number) -> bool {
    let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_u64());
    // No number of the API is larger than 64 bits.
    match (number.as_i64(), number.as_u64()) {
        (None, None) => false,
        (signed, unsigned) => {
            least.is_none_or(|least| signed.is_none_or(|number| number >= least))
                && most.is_none_or(|most| unsigned.is_none_or(|number| number <= most))
        }
    }
}

/// What a schema allows, as the object of "must be".
fn allowed(schema: &Value) -> String {
    if let Some(branches) = schema["anyOf"].as_array() {
        return joined(&branches.iter().map(allowed).collect::<Vec<_>>());
    }
    if let Some(choices) = schema["enum"].as_array() {
        let names: Vec<_> =
            choices.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        return format!("one of {}", joined(&names));
    }
    let of = |name: &str| match name {
        "string" => "a string".to_owned(),
        "integer" => match (schema["minimum"].as_i64(), schema["maximum"].as_u64()) {
            (Some(least), Some(most)) => format!("an integer from {least} to {most}"),
            (Some(least), None) => format!("an integer of at least {least}"),
            (None, Some(most)) => format!("an integer of at most {most}"),
            (None, None) => "an integer".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        "object" => "an object".to_owned(),
        "array" => "a list".to_owned(),
        _ => "null".to_owned(),
    };
    match types(schema) {
        types if types.is_empty() => "any value".to_owned(),
        types => joined(&types.into_iter().map(of).collect::<Vec<_>>()),
    }
}

/// "a, b or c".
fn joined(parts: &[String]) -> String {
    match parts {
        [] => "absent".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What was given. The text of a string is shown only where it should have been a choice, and nothing of a secret.
fn given(schema: &Value, value: &Value) -> String {
    let branches = schema["anyOf"].as_array();
    let secret = |schema: &Value| schema["format"] == SECRET;
    let is_secret = secret(schema) || branches.is_some_and(|branches| branches.iter().any(secret));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) if is_secret => "another type".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => shortened(&number.to_string()),
        Value::String(text) if schema["enum"].is_array() => format!("`{}`", shortened(text)),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The beginning of a text that can have any length, without control characters.
fn shortened(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(plain).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is told of a body of a small schema.
    fn told(body: &Value) -> Vec<(String, String)> {
        let schema = json!({
            "type": "object", "required": ["name"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string"}, "small": {"type": "integer", "minimum": 0, "maximum": 255},
                "count": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
                "on": {"type": "boolean"}, "way": {"enum": ["one", "two"]},
                "login": {"anyOf": [{"type": "object", "required": ["password"], "additionalProperties": false,
                    "properties": {"password": {"type": "string", "format": "password"}}}, {"type": "null"}]},
                "many": {"type": "array", "items": {"type": ["integer", "string"]}},
            },
        });
        misfits(&schema, body).into_iter().map(|misfit| (misfit.pointer, misfit.detail)).collect()
    }

    #[test]
    fn each_misfit_names_its_member_what_is_allowed_and_what_was_given() {
        for (name, value, detail) in [
            ("small", json!(300), "`/small` must be an integer from 0 to 255, not 300"),
            ("small", json!(-1), "`/small` must be an integer from 0 to 255, not -1"),
            ("small", json!(1.5), "`/small` must be an integer from 0 to 255, not 1.5"),
            ("small", json!(null), "`/small` must be an integer from 0 to 255, not null"),
            ("small", json!("7"), "`/small` must be an integer from 0 to 255, not a string"),
            ("count", json!(-1), "`/count` must be an integer of at least 0, not -1"),
            ("count", json!({}), "`/count` must be an integer of at least 0 or null, not an object"),
            ("on", json!("yes"), "`/on` must be true or false, not a string"),
            ("way", json!("three"), "`/way` must be one of `one` or `two`, not `three`"),
            ("way", json!(true), "`/way` must be one of `one` or `two`, not true"),
            ("login", json!("u:p"), "`/login` must be an object or null, not a string"),
            ("nmae", json!(1), "`/nmae` is unknown; did you mean `name`?"),
        ] {
            let mut body = json!({"name": "n"});
            body[name] = value;
            assert_eq!(told(&body), [(format!("/{name}"), detail.to_owned())]);
        }
        let huge: Value =
            serde_json::from_str(&format!(r#"{{"name": "n", "count": {}}}"#, "9".repeat(100))).unwrap();
        let nines = "9".repeat(SHOWN_MAX);
        assert_eq!(told(&huge)[0].1, format!("`/count` must be an integer of at least 0, not {nines}…"));
        assert_eq!(told(&json!([])), [(String::new(), "the body must be an object, not a list".to_owned())]);
        assert_eq!(told(&json!({})), [("/name".to_owned(), "`/name` is missing: give a string".to_owned())]);
    }

    #[test]
    fn all_misfits_are_told_with_their_pointers_and_no_secret() {
        let body = json!({"name": 1, "login": {"password": 12345, "a/b~": 1}, "many": [1, "2", 3.5, []]});
        assert_eq!(
            told(&body),
            [
                ("/name", "`/name` must be a string, not 1"),
                ("/login/password", "`/login/password` must be a string, not another type"),
                ("/login/a~1b~0", "`/login/a~1b~0` is unknown; known here: password"),
                ("/many/2", "`/many/2` must be an integer or a string, not 3.5"),
                ("/many/3", "`/many/3` must be an integer or a string, not a list"),
            ]
            .map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned()))
        );
        let many: Map<String, Value> = (0..100).map(|number| (format!("x{number}"), Value::Null)).collect();
        assert_eq!(told(&Value::Object(many)).len(), TOLD_MAX);
    }
}

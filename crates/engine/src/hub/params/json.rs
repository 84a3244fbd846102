//! The JSON form of a request: an object whose first member is an object with the parameters, whatever that member is called.

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::hub::subscription::Contact;

/// JSON that is none, or not of the shape that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonFault;

/// Reads JSON in which a comma may stand behind the last member of an object or array, as RabbitHub's clients write it.
///
/// # Errors
/// It is no JSON even so.
pub fn lenient(bytes: &[u8]) -> Result<Value, JsonFault> {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(&without_trailing_commas(bytes)))
        .map_err(|_| JsonFault)
}

fn without_trailing_commas(bytes: &[u8]) -> Vec<u8> {
    let (mut kept, mut in_text, mut escaped) = (Vec::with_capacity(bytes.len()), false, false);
    // Where the comma stands behind which there was only white space so far.
    let mut comma = None;
    for &byte in bytes {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else {
            match byte {
                b',' => comma = Some(kept.len()),
                b']' | b'}' => {
                    if let Some(at) = comma.take() {
                        kept.remove(at);
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => comma = None,
            }
            in_text = byte == b'"';
        }
        kept.push(byte);
    }
    kept
}

/// The first member of an object.
pub(in crate::hub) fn first_member(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => map.into_iter().next().map(|(_, value)| value),
        _ => None,
    }
}

impl Fields {
    /// Of JSON.
    ///
    /// # Errors
    /// It is no JSON, or of another shape.
    pub fn of_json(bytes: &[u8]) -> Result<Fields, JsonFault> {
        match first_member(lenient(bytes)?) {
            Some(Value::Object(members)) => Ok(Fields::of_members(&members)),
            _ => Err(JsonFault),
        }
    }

    /// Of the members of an object, named as the parameters without `hub.`. One of a type that it does not take counts as not given.
    pub fn of_members(members: &Map<String, Value>) -> Fields {
        let text = |name: &str| members.get(name).and_then(scalar);
        let verify = match members.get("verify") {
            Some(Value::Array(ways)) => ways.iter().filter_map(scalar).collect(),
            Some(way) => scalar(way).into_iter().collect(),
            None => Vec::new(),
        };
        Fields {
            mode: text("mode"),
            callback: text("callback"),
            topic: text("topic"),
            verify,
            verify_token: text("verify_token"),
            lease_seconds: text("lease_seconds"),
            max_tps: text("max_tps"),
            max_in_flight: text("max_in_flight"),
            final_statuses: members.get("final_statuses").filter(|value| !value.is_null()).cloned(),
            ha_mode: text("ha_mode"),
            basic_auth: text("basic_auth"),
            secret: text("secret"),
            signing: text("signing"),
            arguments: members.get("arguments").filter(|value| !value.is_null()).cloned(),
            contact: members.get("contact").map(contact).unwrap_or_default(),
        }
    }
}

/// Contact data: an object, or RabbitHub's words for none.
pub(in crate::hub) fn contact(value: &Value) -> Contact {
    let filled =
        |name: &str| value.get(name).and_then(scalar).filter(|text| !text.is_empty() && text != "undefined");
    Contact {
        app_name: filled("app_name").unwrap_or_default(),
        contact_name: filled("contact_name"),
        phone: filled("phone"),
        email: filled("email"),
        description: filled("description"),
    }
}

/// A text, or the digits of a number.
pub(in crate::hub) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

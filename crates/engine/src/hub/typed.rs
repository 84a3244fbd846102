//! Headers and arguments in JSON, with all of AMQP's types: a plain value where JSON has the type, else `{"$type": …, "value": …}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};

use crate::message::{HeaderValue, Headers};
use crate::pipeline::document;

/// The member that names a type.
pub const TYPE: &str = "$type";

/// The longest name of a header, in bytes: a short string of AMQP 0-9-1.
const NAME_BYTES_MAX: usize = 255;
/// How many digits of a number stand in an error.
const SHOWN_DIGITS_MAX: usize = 40;

/// Headers of an object.
///
/// # Errors
/// It is no object, or a value does not fit its type: a sentence for the one who sent it.
pub fn headers(value: &Value) -> Result<Headers, String> {
    let Value::Object(members) = value else { return Err("it is no object".to_owned()) };
    let entries = members.iter().map(|(name, value)| {
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
        }
        Ok((name.clone(), header(name, value)?))
    });
    entries.collect()
}

fn header(name: &str, value: &Value) -> Result<HeaderValue, String> {
    match value {
        Value::Object(members) => match members.get(TYPE) {
            Some(Value::String(kind)) => {
                let inner = members.get("value").unwrap_or(&Value::Null);
                typed(name, kind, inner, members)
                    .unwrap_or_else(|| Err(format!("`{name}` is no value of type `{kind}`")))
            }
            Some(_) => Err(format!("the type of `{name}` is no text")),
            None => headers(value).map(HeaderValue::Table),
        },
        Value::Array(items) => {
            items.iter().map(|item| header(name, item)).collect::<Result<_, _>>().map(HeaderValue::Array)
        }
        Value::Number(number) => plain(number).ok_or_else(|| {
            let whole = !number.to_string().contains(['.', 'e', 'E']);
            let bound = if whole { "64-bit integer" } else { "64-bit float" };
            format!("`{name}` is out of the range of a {bound}: {}", shortened(&number.to_string()))
        }),
        Value::Null => Ok(HeaderValue::Void),
        Value::Bool(value) => Ok(HeaderValue::Bool(*value)),
        Value::String(text) => Ok(HeaderValue::Text(text.clone())),
    }
}

/// A number without a type: whole numbers are `int64`, others `double`. `None`: it fits neither.
fn plain(number: &Number) -> Option<HeaderValue> {
    if let Some(whole) = number.as_i64() {
        return Some(HeaderValue::I64(whole));
    }
    // A double would change the digits of a whole number that is too large.
    let whole = !number.to_string().contains(['.', 'e', 'E']);
    number.as_f64().filter(|float| !whole && float.is_finite()).map(HeaderValue::F64)
}

/// The beginning of a number, which may have any length.
fn shortened(digits: &str) -> &str {
    digits.get(..SHOWN_DIGITS_MAX).unwrap_or(digits)
}

/// `None`: the value does not fit the type.
fn typed(
    name: &str,
    kind: &str,
    value: &Value,
    members: &Map<String, Value>,
) -> Option<Result<HeaderValue, String>> {
    let whole = || value.as_i64();
    Some(Ok(match kind {
        "void" => HeaderValue::Void,
        "bool" => HeaderValue::Bool(value.as_bool()?),
        "int8" => HeaderValue::I8(whole()?.try_into().ok()?),
        "uint8" => HeaderValue::U8(whole()?.try_into().ok()?),
        "int16" => HeaderValue::I16(whole()?.try_into().ok()?),
        "uint16" => HeaderValue::U16(whole()?.try_into().ok()?),
        "int32" => HeaderValue::I32(whole()?.try_into().ok()?),
        "uint32" => HeaderValue::U32(whole()?.try_into().ok()?),
        "int64" => HeaderValue::I64(whole()?),
        // Brokers close the connection over an infinity.
        "float" => HeaderValue::F32(Some(value.as_f64()? as f32).filter(|float| float.is_finite())?),
        "double" => HeaderValue::F64(value.as_f64().filter(|float| float.is_finite())?),
        "decimal" => HeaderValue::Decimal {
            scale: members.get("scale")?.as_u64()?.try_into().ok()?,
            value: whole()?.try_into().ok()?,
        },
        "text" => HeaderValue::Text(value.as_str()?.to_owned()),
        "bytes" => HeaderValue::Bytes(STANDARD.decode(value.as_str()?).ok()?),
        "timestamp" => HeaderValue::Timestamp(value.as_u64()?),
        "array" if value.is_array() => return Some(header(name, value)),
        "table" => return Some(headers(value).map(HeaderValue::Table)),
        _ => return None,
    }))
}

/// The other way.
pub fn json(headers: &Headers) -> Value {
    Value::Object(headers.iter().map(|(name, value)| (name.to_owned(), json_of(value))).collect())
}

fn json_of(value: &HeaderValue) -> Value {
    let with = |kind: &str, value: Value| json!({ TYPE: kind, "value": value });
    match value {
        HeaderValue::Void => Value::Null,
        HeaderValue::Bool(value) => (*value).into(),
        HeaderValue::I64(value) => (*value).into(),
        HeaderValue::F64(value) if value.is_finite() && value.fract() != 0.0 => (*value).into(),
        HeaderValue::F64(_) => with("double", document::header(value)),
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Array(values) => values.iter().map(json_of).collect(),
        HeaderValue::Table(table) if table.get(TYPE).is_none() => json(table),
        HeaderValue::Table(table) => with("table", json(table)),
        HeaderValue::I8(value) => with("int8", (*value).into()),
        HeaderValue::U8(value) => with("uint8", (*value).into()),
        HeaderValue::I16(value) => with("int16", (*value).into()),
        HeaderValue::U16(value) => with("uint16", (*value).into()),
        HeaderValue::I32(value) => with("int32", (*value).into()),
        HeaderValue::U32(value) => with("uint32", (*value).into()),
        HeaderValue::F32(_) => with("float", document::header(value)),
        HeaderValue::Decimal { scale, value } => {
            json!({ TYPE: "decimal", "value": value, "scale": scale })
        }
        HeaderValue::Bytes(bytes) => with("bytes", STANDARD.encode(bytes).into()),
        HeaderValue::Timestamp(seconds) => with("timestamp", (*seconds).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        let leaf = prop_oneof![
            Just(HeaderValue::Void),
            any::<bool>().prop_map(HeaderValue::Bool),
            any::<i8>().prop_map(HeaderValue::I8),
            any::<u8>().prop_map(HeaderValue::U8),
            any::<i16>().prop_map(HeaderValue::I16),
            any::<u16>().prop_map(HeaderValue::U16),
            any::<i32>().prop_map(HeaderValue::I32),
            any::<u32>().prop_map(HeaderValue::U32),
            any::<i64>().prop_map(HeaderValue::I64),
            (-1e9f64..1e9).prop_map(HeaderValue::F64),
            (-1000i16..1000).prop_map(|value| HeaderValue::F32(f32::from(value) / 4.0)),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
            "\\PC{0,12}".prop_map(HeaderValue::Text),
            any::<Vec<u8>>().prop_map(HeaderValue::Bytes),
            any::<u64>().prop_map(HeaderValue::Timestamp),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(HeaderValue::Array),
                proptest::collection::btree_map("[a-z$]{1,5}|\\$type", inner, 0..4)
                    .prop_map(|map| HeaderValue::Table(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any_value()) {
            let sent: Headers = [("h".to_owned(), value)].into_iter().collect();
            let text = json(&sent).to_string();
            prop_assert_eq!(headers(&serde_json::from_str(&text).unwrap()), Ok(sent), "{}", text);
        }
    }

    #[test]
    fn numbers_that_amqp_cannot_hold_are_refused_at_any_depth() {
        let numbers = [
            r#"{"$type": "float", "value": 1e300}"#,
            r#"{"$type": "float", "value": -1e300}"#,
            r#"{"$type": "float", "value": 3.5e38}"#,
            r#"{"$type": "float", "value": 1e400}"#,
            r#"{"$type": "double", "value": 1e400}"#,
            r#"{"$type": "double", "value": -1e400}"#,
            r#"{"$type": "double", "value": "NaN"}"#,
            r#"{"$type": "float", "value": "Infinity"}"#,
            r#"{"$type": "float", "value": null}"#,
            "1e400",
            "-1e400",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "100000000000000000000000000000000000000000000000000000000000000",
        ];
        for number in numbers {
            for text in [
                format!(r#"{{"h": {number}}}"#),
                format!(r#"{{"h": [1, {number}]}}"#),
                format!(r#"{{"h": {{"t": {number}}}}}"#),
                format!(r#"{{"h": {{"$type": "table", "value": {{"t": [[{number}]]}}}}}}"#),
                format!(r#"{{"h": {{"$type": "array", "value": [{number}]}}}}"#),
            ] {
                assert!(headers(&serde_json::from_str(&text).unwrap()).is_err(), "{text}");
            }
        }
        for (text, expected) in [
            ("9223372036854775807", HeaderValue::I64(i64::MAX)),
            ("-9223372036854775808", HeaderValue::I64(i64::MIN)),
            ("1e3", HeaderValue::F64(1000.0)),
            ("1e-400", HeaderValue::F64(0.0)),
            ("1.7e308", HeaderValue::F64(1.7e308)),
            ("-0.5", HeaderValue::F64(-0.5)),
            (r#"{"$type": "float", "value": 3.4e38}"#, HeaderValue::F32(3.4e38)),
            (r#"{"$type": "float", "value": 1}"#, HeaderValue::F32(1.0)),
        ] {
            let given = serde_json::from_str(&format!(r#"{{"h": {text}}}"#)).unwrap();
            assert_eq!(headers(&given).unwrap().get("h"), Some(&expected), "{text}");
        }
        let long = "n".repeat(256);
        assert!(
            headers(&json!({ "h": { long.clone(): 1 } })).is_err() && headers(&json!({ long: 1 })).is_err()
        );
    }

    #[test]
    fn what_does_not_fit_is_said() {
        for bad in [
            json!(1),
            json!({"h": {"$type": "int8", "value": 200}}),
            json!({"h": {"$type": "bytes", "value": "%"}}),
            json!({"h": {"$type": "nonsense"}}),
            json!({"h": {"$type": 7}}),
            json!({"h": [{"$type": "decimal", "value": 1}]}),
        ] {
            assert!(headers(&bad).is_err(), "{bad}");
        }
    }
}

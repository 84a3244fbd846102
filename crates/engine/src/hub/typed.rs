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
/// It is not an object, or a value does not fit its type: the JSON pointer of the value, what is allowed and what was given.
pub fn headers(value: &Value) -> Result<Headers, String> {
    table("", value)
}

fn table(at: &str, value: &Value) -> Result<Headers, String> {
    let Value::Object(members) = value else { return Err(misfit(at, "an object", value)) };
    let entries = members.iter().map(|(name, value)| {
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
        }
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        Ok((name.clone(), header(&at, value)?))
    });
    entries.collect()
}

fn array(at: &str, items: &[Value]) -> Result<HeaderValue, String> {
    let values = items.iter().enumerate().map(|(index, item)| header(&format!("{at}/{index}"), item));
    values.collect::<Result<_, _>>().map(HeaderValue::Array)
}

fn header(at: &str, value: &Value) -> Result<HeaderValue, String> {
    match value {
        Value::Object(members) => match members.get(TYPE) {
            Some(Value::String(kind)) => {
                let inner = members.get("value").unwrap_or(&Value::Null);
                let at = format!("{at}/value");
                typed(&at, kind, inner, members).unwrap_or_else(|| Err(mistyped(&at, kind, inner)))
            }
            Some(other) => Err(misfit(&format!("{at}/{TYPE}"), "a string", other)),
            None => table(at, value).map(HeaderValue::Table),
        },
        Value::Array(items) => array(at, items),
        Value::Number(number) => plain(number).ok_or_else(|| {
            let whole = !number.to_string().contains(['.', 'e', 'E']);
            misfit(at, if whole { "a 64-bit integer" } else { "a 64-bit float" }, value)
        }),
        Value::Null => Ok(HeaderValue::Void),
        Value::Bool(value) => Ok(HeaderValue::Bool(*value)),
        Value::String(text) => Ok(HeaderValue::Text(text.clone())),
    }
}

/// The types with what their values are in JSON.
const TYPES: [(&str, &str); 17] = [
    ("void", "null"),
    ("bool", "true or false"),
    ("int8", "an integer from -128 to 127"),
    ("uint8", "an integer from 0 to 255"),
    ("int16", "an integer from -32768 to 32767"),
    ("uint16", "an integer from 0 to 65535"),
    ("int32", "an integer from -2147483648 to 2147483647"),
    ("uint32", "an integer from 0 to 4294967295"),
    ("int64", "a 64-bit integer"),
    ("float", "a number that a 32-bit float holds"),
    ("double", "a number that a 64-bit float holds"),
    ("decimal", "an integer from -2147483648 to 2147483647 beside a `scale` from 0 to 255"),
    ("text", "a string"),
    ("bytes", "a string in base64"),
    ("timestamp", "an integer of at least 0"),
    ("array", "a list"),
    ("table", "an object"),
];

fn mistyped(at: &str, kind: &str, value: &Value) -> String {
    if let Some((_, allowed)) = TYPES.iter().find(|(name, _)| *name == kind) {
        return misfit(at, &format!("{allowed} (`{kind}`)"), value);
    }
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    let at = at.strip_suffix("/value").unwrap_or(at);
    let kind: String = kind.chars().filter(|c| !c.is_control()).take(SHOWN_DIGITS_MAX).collect();
    format!("`{at}/{TYPE}` must be one of {}, not `{kind}`", names.join(", "))
}

/// A value that is not what is allowed at a place.
fn misfit(at: &str, allowed: &str, value: &Value) -> String {
    let subject = if at.is_empty() { "it".to_owned() } else { format!("`{at}`") };
    let given = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => shortened(&number.to_string()).to_owned(),
        Value::String(_) => "another string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("{subject} must be {allowed}, not {given}")
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
    at: &str,
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
        "array" => return Some(array(at, value.as_array()?)),
        "table" if value.is_object() => return Some(table(at, value).map(HeaderValue::Table)),
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
    fn what_does_not_fit_is_told_with_its_place_what_is_allowed_and_what_was_given() {
        for (bad, told) in [
            (json!(1), "it must be an object, not 1"),
            (
                json!({"h": {"$type": "int8", "value": 200}}),
                "`/h/value` must be an integer from -128 to 127 (`int8`), not 200",
            ),
            (
                json!({"h": {"$type": "uint8", "value": "1"}}),
                "`/h/value` must be an integer from 0 to 255 (`uint8`), not another string",
            ),
            (json!({"h": {"$type": "bool"}}), "`/h/value` must be true or false (`bool`), not null"),
            (
                json!({"h": {"$type": "bytes", "value": "%"}}),
                "`/h/value` must be a string in base64 (`bytes`), not another string",
            ),
            (json!({"h": {"$type": 7}}), "`/h/$type` must be a string, not 7"),
            (
                json!({"a/b": [{"t": {"$type": "decimal", "value": 1}}]}),
                "`/a~1b/0/t/value` must be an integer from -2147483648 to 2147483647 beside a `scale` from 0 to 255 (`decimal`), not 1",
            ),
            (
                json!({"h": {"$type": "table", "value": {"t": {"$type": "array", "value": {}}}}}),
                "`/h/value/t/value` must be a list (`array`), not an object",
            ),
        ] {
            assert_eq!(headers(&bad).unwrap_err(), told);
        }
        let unknown = headers(&json!({"h": {"$type": "nonsense"}})).unwrap_err();
        assert!(unknown.starts_with("`/h/$type` must be one of void, bool,"), "{unknown}");
        assert!(unknown.ends_with("array, table, not `nonsense`"), "{unknown}");
    }
}

//! Writing values as JSON, into a buffer that is reused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{DEPTH_MAX, Fault, plain_end, validate};
use crate::calendar;
use crate::value::Val;

/// Why a value has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueError {
    /// NaN or an infinity.
    NotFinite,
    /// Text that was given as a decimal and is none.
    NotANumber,
    /// A JSON value whose text is not JSON.
    NotJson(Fault),
    /// Arrays and objects nested deeper than a reader could be expected to follow.
    TooDeep,
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFinite => f.write_str("JSON has no form for NaN and the infinities"),
            Self::NotANumber => f.write_str("the decimal is not a number"),
            Self::NotJson(fault) => write!(f, "the JSON value is not JSON: {fault}"),
            Self::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

impl std::error::Error for ValueError {}

/// Writes `text` as a JSON string, with its quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape_into(text, out);
    out.push(b'"');
}

/// Writes `text` as the inside of a JSON string.
pub(crate) fn escape_into(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let end = plain_end(bytes, from);
        out.extend_from_slice(&bytes[from..end]);
        let Some(byte) = bytes.get(end) else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
        from = end + 1;
    }
}

/// Writes `val` as JSON: decimals with all digits, dates as quoted RFC 3339, bytes as quoted base64.
///
/// On an error `out` holds whatever was written so far.
pub fn write_value(val: Val<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    write_nested(val, 0, out)
}

fn write_nested(val: Val<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), ValueError> {
    if depth > DEPTH_MAX {
        return Err(ValueError::TooDeep);
    }
    match val {
        Val::Nil => out.extend_from_slice(b"null"),
        Val::Bool(true) => out.extend_from_slice(b"true"),
        Val::Bool(false) => out.extend_from_slice(b"false"),
        Val::Int(int) => write_int(int, out),
        Val::UInt(int) => write_int(int, out),
        Val::Float(float) => write_float(float, out)?,
        Val::Decimal(digits) => write_decimal(digits, out)?,
        Val::Str(text) => write_string(text, out),
        Val::Bytes(bytes) => quoted(out, |out| write_base64(bytes, out)),
        Val::Date { days } => quoted(out, |out| calendar::write_date(i64::from(days), out)),
        Val::Time { micros } => quoted(out, |out| calendar::write_time(micros, out)),
        Val::DateTime { micros } => quoted(out, |out| calendar::write_date_time(micros, out)),
        Val::Timestamp { micros, offset_minutes } => {
            quoted(out, |out| {
                calendar::write_timestamp(micros, offset_minutes, out);
            });
        }
        Val::Uuid(uuid) => quoted(out, |out| write_uuid(uuid, out)),
        Val::Json(text) => {
            validate(text.as_bytes()).map_err(ValueError::NotJson)?;
            out.extend_from_slice(text.as_bytes());
        }
        Val::Array(array) => {
            out.push(b'[');
            for i in 0..array.len() {
                if i > 0 {
                    out.push(b',');
                }
                let before = out.len();
                let mut result = Ok(());
                array.get(i, &mut |val| result = write_nested(val, depth + 1, out));
                result?;
                if out.len() == before {
                    // The array broke its promise to answer below its length.
                    out.extend_from_slice(b"null");
                }
            }
            out.push(b']');
        }
        Val::Object(object) => {
            out.push(b'{');
            let mut first = true;
            for i in 0..object.len() {
                let Some((name, val)) = object.entry(i) else {
                    continue;
                };
                if !first {
                    out.push(b',');
                }
                first = false;
                write_string(name, out);
                out.push(b':');
                write_nested(val, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

pub(crate) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    // Four bytes for each three begun; more than a Vec can hold is not reachable from a slice.
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

pub(crate) fn write_uuid(uuid: [u8; 16], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

pub(crate) fn write_int(int: impl Into<i128>, out: &mut Vec<u8>) {
    let int: i128 = int.into();
    let Ok(magnitude) = u64::try_from(int.unsigned_abs()) else {
        out.extend_from_slice(int.to_string().as_bytes());
        return;
    };
    if int < 0 {
        out.push(b'-');
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = magnitude;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(crate) fn write_float(float: f64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    if !float.is_finite() {
        return Err(ValueError::NotFinite);
    }
    serde_json::to_writer(out, &float).map_err(|_| ValueError::NotFinite)
}

/// Writes the digits as they stand; only what JSON forbids is put right (`.5`, `5.`, `+5`, `007`).
pub(crate) fn write_decimal(digits: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let text = digits.trim();
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric(whole) || !numeric(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(ValueError::NotANumber);
    }
    out.extend_from_slice(sign.as_bytes());
    let whole = whole.trim_start_matches('0');
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
    if let Some(exponent) = exponent {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.is_empty() || !numeric(unsigned) {
            return Err(ValueError::NotANumber);
        }
        out.push(b'e');
        out.extend_from_slice(exponent.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(val: Val<'_>) -> Result<String, ValueError> {
        let mut out = Vec::new();
        write_value(val, &mut out)?;
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn every_kind_of_value_has_its_form() {
        let items = vec![Val::Int(1), Val::Nil, Val::Str("a\"b")];
        let object = vec![("k", Val::Array(&items)), ("d", Val::Decimal("12.50"))];
        let cases = [
            (Val::Nil, "null"),
            (Val::UInt(u64::MAX), "18446744073709551615"),
            (Val::Int(i64::MIN), "-9223372036854775808"),
            (Val::Float(0.1), "0.1"),
            (Val::Decimal("-.5"), "-0.5"),
            (Val::Decimal("007.10"), "7.10"),
            (Val::Decimal("1E+5"), "1e+5"),
            (Val::Bytes(b"hello"), "\"aGVsbG8=\""),
            (Val::Date { days: 19_782 }, "\"2024-02-29\""),
            (Val::Time { micros: 3_723_000_000 }, "\"01:02:03\""),
            (Val::DateTime { micros: 1_500_000 }, "\"1970-01-01T00:00:01.500\""),
            (Val::Uuid([0xab; 16]), "\"abababab-abab-abab-abab-abababababab\""),
            (Val::Json("{\"a\": [1]}"), "{\"a\": [1]}"),
            (Val::Object(&object), "{\"k\":[1,null,\"a\\\"b\"],\"d\":12.50}"),
        ];
        for (val, expected) in cases {
            assert_eq!(json(val).expect("a form"), expected);
        }
    }

    #[test]
    fn what_has_no_form_is_an_error() {
        assert_eq!(json(Val::Float(f64::NAN)), Err(ValueError::NotFinite));
        assert_eq!(json(Val::Float(f64::INFINITY)), Err(ValueError::NotFinite));
        assert_eq!(json(Val::Decimal("NaN")), Err(ValueError::NotANumber));
        assert_eq!(json(Val::Decimal("1e")), Err(ValueError::NotANumber));
        assert!(matches!(json(Val::Json("{")), Err(ValueError::NotJson(_))));
    }

    #[test]
    fn strings_are_escaped_at_every_offset() {
        for length in 0..20 {
            for special in ['"', '\\', '\n', '\u{1}', '\u{1f}', '\u{7f}', 'é', '\u{2028}'] {
                let text = format!("{}{special}{}", "x".repeat(length), "y".repeat(9));
                let mut out = Vec::new();
                write_string(&text, &mut out);
                assert_eq!(serde_json::from_slice::<String>(&out).expect("a string"), text);
            }
        }
    }
}

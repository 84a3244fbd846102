//! A key as text: how a person names a row, and how a row is found again in the records.
//!
//! A key of one column is its value as text; of several, a JSON array of their values in the key's order. The
//! text is for people and searches: two keys may have one text (`1` and `"1"`), so identity is the key's print.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::row::{Row, RowRef, Value};

/// The text of a row's key, given the places of the key's columns in the row.
pub fn key_text_at(row: RowRef<'_>, places: &[usize]) -> String {
    let mut text = String::new();
    if let [place] = places {
        plain(&mut text, row.get(*place));
        return text;
    }
    text.push('[');
    for (at, &place) in places.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        json(&mut text, row.get(place));
    }
    text.push(']');
    text
}

/// The text of a row's key, given the names of the key's columns. A column the row does not have reads as NULL.
pub fn key_text(row: &Row, columns: &[String]) -> String {
    let places: Vec<usize> =
        columns.iter().map(|name| row.schema.index_of(name).unwrap_or(usize::MAX)).collect();
    // A place past the end walks the whole row once; keys are short, and so are the rows that lack a column.
    key_text_at(row.as_ref(), &places)
}

/// The value alone: text without quotes.
fn plain(out: &mut String, value: Value<'_>) {
    match value {
        Value::Text(text) => out.push_str(text),
        Value::Float(number) => fmt(out, format_args!("{number}")),
        Value::Bytes(bytes) => BASE64.encode_string(bytes, out),
        Value::Uuid(bytes) => uuid(out, bytes),
        Value::Date(days) => date(out, i64::from(days)),
        Value::Time(micros) => time(out, micros),
        Value::DateTime(micros) => date_time(out, micros),
        Value::Timestamp(micros, offset) => timestamp(out, micros, offset),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Decimal(_)
        | Value::Json(_)
        | Value::Array(_) => json(out, value),
    }
}

/// The value as JSON: what JSON has no form for is a string.
fn json(out: &mut String, value: Value<'_>) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Int(number) => fmt(out, format_args!("{number}")),
        Value::UInt(number) => fmt(out, format_args!("{number}")),
        Value::Float(number) if number.is_finite() => fmt(out, format_args!("{number}")),
        Value::Decimal(digits) => out.push_str(digits),
        Value::Json(text) => out.push_str(text),
        Value::Array(array) => {
            out.push('[');
            for (at, value) in array.values().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(out, value);
            }
            out.push(']');
        }
        Value::Text(text) => quoted(out, text),
        Value::Float(_)
        | Value::Bytes(_)
        | Value::Uuid(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::DateTime(_)
        | Value::Timestamp(..) => {
            // None of these has a character that JSON escapes.
            out.push('"');
            plain(out, value);
            out.push('"');
        }
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => fmt(out, format_args!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn uuid(out: &mut String, bytes: [u8; 16]) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        fmt(out, format_args!("{byte:02x}"));
    }
}

const DAY_MICROS: i64 = 86_400_000_000;

fn timestamp(out: &mut String, micros: i64, offset_minutes: i16) {
    date_time(out, micros.saturating_add(i64::from(offset_minutes) * 60_000_000));
    if offset_minutes == 0 {
        out.push('Z');
        return;
    }
    let sign = if offset_minutes < 0 { '-' } else { '+' };
    let minutes = offset_minutes.unsigned_abs();
    fmt(out, format_args!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
}

fn date_time(out: &mut String, micros: i64) {
    date(out, micros.div_euclid(DAY_MICROS));
    out.push('T');
    time(out, micros.rem_euclid(DAY_MICROS));
}

fn time(out: &mut String, micros: i64) {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (minutes, second) = (seconds.div_euclid(60), seconds.rem_euclid(60));
    let (hour, minute) = (minutes.div_euclid(60), minutes.rem_euclid(60));
    fmt(out, format_args!("{hour:02}:{minute:02}:{second:02}"));
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        fmt(out, format_args!(".{}", digits.trim_end_matches('0')));
    }
}

/// A day of the proleptic Gregorian calendar, for any number of days since 1970-01-01. A source may hold years
/// that calendar libraries refuse, and a key must have a text whatever it holds.
fn date(out: &mut String, days: i64) {
    // Days are counted from 0000-03-01, so that the leap day is the last of a year; 146,097 days are 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year < 0 {
        out.push('-');
    }
    fmt(out, format_args!("{:04}-{month:02}-{day:02}", year.abs()));
}

fn fmt(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(arguments).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Batch, Cells};

    fn one(fill: impl FnOnce(&mut Cells<'_>)) -> String {
        let mut batch = Batch::default();
        fill(&mut batch.cells());
        batch.end_row();
        key_text_at(batch.row(0), &[0])
    }

    #[test]
    fn one_column_is_its_value() {
        assert_eq!(one(|cells| cells.int(-7)), "-7");
        assert_eq!(one(|cells| cells.text("a \"b\"")), "a \"b\"");
        assert_eq!(one(|cells| cells.decimal("1.50")), "1.50");
        assert_eq!(one(|cells| cells.value(Value::Null)), "null");
        assert_eq!(one(|cells| cells.bytes(b"hi")), "aGk=");
        assert_eq!(one(|cells| cells.float(f64::NAN)), "NaN");
        assert_eq!(one(|cells| cells.uuid([0xab; 16])), "abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_513, "2026-03-01"),
            (-719_528, "0000-01-01"),
            (-719_529, "-0001-12-31"),
        ];
        for (days, text) in cases {
            assert_eq!(one(|cells| cells.date(days)), text);
        }
        for days in [i32::MIN, i32::MAX] {
            assert!(one(|cells| cells.date(days)).len() > 10);
        }
    }

    #[test]
    fn times_have_their_fraction_and_offset() {
        assert_eq!(one(|cells| cells.time(3_661_000_000)), "01:01:01");
        assert_eq!(one(|cells| cells.time(1_500_000)), "00:00:01.5");
        assert_eq!(one(|cells| cells.date_time(-1)), "1969-12-31T23:59:59.999999");
        assert_eq!(one(|cells| cells.timestamp(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(one(|cells| cells.timestamp(0, -90)), "1969-12-31T22:30:00-01:30");
        assert!(one(|cells| cells.timestamp(i64::MAX, 90)).ends_with("+01:30"));
    }

    #[test]
    fn several_columns_are_a_json_array() {
        let mut batch = Batch::default();
        let mut cells = batch.cells();
        cells.text("a\"\n");
        cells.int(2);
        cells.date(0);
        cells.array(2, |cells| {
            cells.null();
            cells.text("x")
        });
        batch.end_row();
        assert_eq!(key_text_at(batch.row(0), &[1, 0, 2, 3]), r#"[2,"a\"\n","1970-01-01",[null,"x"]]"#);
    }
}

//! The row of `warren render --row`: JSON, with a typed form for every kind of value that a database has and JSON lacks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;
use serde_json::{Map, Value};
use warren_liquid::{Array, Object, Val};

const EPOCH: Date = Date::constant(1970, 1, 1);

/// The forms, for errors.
pub const FORMS: &str =
    "$decimal, $float, $bytes, $base64, $date, $time, $datetime, $timestamp, $uuid and $json";

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    Date(i32),
    Time(i64),
    DateTime(i64),
    Timestamp(i64, i16),
    Uuid([u8; 16]),
    Json(String),
    List(Cells),
    Row(Columns),
}

/// The items of an array.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells(Vec<Cell>);

/// Columns by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns(Vec<(String, Cell)>);

impl Columns {
    /// The columns of a row.
    ///
    /// # Errors
    /// A typed form that cannot be read, in one sentence with the column's name.
    pub fn read(row: &Map<String, Value>) -> Result<Columns, String> {
        let columns = row.iter().map(|(name, value)| match Cell::read(value) {
            Ok(cell) => Ok((name.clone(), cell)),
            Err(why) => Err(format!("`{name}`: {why}")),
        });
        columns.collect::<Result<_, _>>().map(Columns)
    }
}

impl Cell {
    /// A cell: plain JSON, or a typed form. An array is one of the database's, an object is JSON.
    ///
    /// # Errors
    /// A typed form that cannot be read, in one sentence.
    pub fn read(value: &Value) -> Result<Cell, String> {
        Ok(match value {
            Value::Null => Cell::Nil,
            Value::Bool(value) => Cell::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(int), ..) => Cell::Int(int),
                (None, Some(int), _) => Cell::UInt(int),
                (None, None, Some(float)) if float.is_finite() => Cell::Float(float),
                _ => Cell::Decimal(number.to_string()),
            },
            Value::String(text) => Cell::Text(text.clone()),
            Value::Array(items) => Cell::List(Cells(items.iter().map(Cell::read).collect::<Result<_, _>>()?)),
            Value::Object(map) => match map.iter().next() {
                Some((form, value)) if map.len() == 1 && form.starts_with('$') => typed(form, value)?,
                _ => Cell::Json(value.to_string()),
            },
        })
    }

    /// As templates see it.
    pub fn val(&self) -> Val<'_> {
        match self {
            Cell::Nil => Val::Nil,
            Cell::Bool(value) => Val::Bool(*value),
            Cell::Int(int) => Val::Int(*int),
            Cell::UInt(int) => Val::UInt(*int),
            Cell::Float(float) => Val::Float(*float),
            Cell::Decimal(digits) => Val::Decimal(digits),
            Cell::Text(text) => Val::Str(text),
            Cell::Bytes(bytes) => Val::Bytes(bytes),
            Cell::Date(days) => Val::Date { days: *days },
            Cell::Time(micros) => Val::Time { micros: *micros },
            Cell::DateTime(micros) => Val::DateTime { micros: *micros },
            Cell::Timestamp(micros, offset) => Val::Timestamp { micros: *micros, offset_minutes: *offset },
            Cell::Uuid(bytes) => Val::Uuid(*bytes),
            Cell::Json(text) => Val::Json(text),
            Cell::List(items) => Val::Array(items),
            Cell::Row(columns) => Val::Object(columns),
        }
    }
}

/// A typed form.
fn typed(form: &str, value: &Value) -> Result<Cell, String> {
    let wants = |what: &str| format!("`{form}` takes {what}, and this is {value}");
    let text = |what: &str| value.as_str().ok_or_else(|| wants(what));
    Ok(match form {
        "$decimal" => {
            let digits = match value {
                Value::Number(number) => number.to_string(),
                value => value.as_str().unwrap_or_default().to_owned(),
            };
            if !is_decimal(&digits) {
                return Err(wants("digits such as \"-12.50\""));
            }
            Cell::Decimal(digits)
        }
        "$float" => match value {
            Value::Number(number) => Cell::Float(number.as_f64().ok_or_else(|| wants("a number"))?),
            value => {
                let what = "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";
                Cell::Float(value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| wants(what))?)
            }
        },
        "$bytes" => Cell::Bytes(text("a text, whose UTF-8 is meant")?.as_bytes().to_vec()),
        "$base64" => {
            let decoded = STANDARD.decode(text("base64")?.trim());
            Cell::Bytes(decoded.map_err(|_| wants("base64"))?)
        }
        "$date" => Cell::Date(match value.as_i64().map(i32::try_from) {
            Some(Ok(days)) => days,
            _ => date(text("\"2024-02-29\" or days since 1970-01-01")?).ok_or_else(|| wants("a date"))?,
        }),
        "$time" => Cell::Time(match value.as_i64() {
            Some(micros) => micros,
            None => time(text("\"13:05:09\" or microseconds")?).ok_or_else(|| wants("a time of day"))?,
        }),
        "$datetime" => Cell::DateTime(match value.as_i64() {
            Some(micros) => micros,
            None => datetime(text("\"2024-02-29T13:05:09\" or microseconds")?)
                .ok_or_else(|| wants("a date and a time without an offset"))?,
        }),
        "$timestamp" => {
            let what = "\"2024-02-29T13:05:09+01:00\", or microseconds and minutes of offset";
            let (micros, offset) = match value.as_array().map(Vec::as_slice) {
                Some([micros, offset]) => {
                    let offset = offset.as_i64().and_then(|offset| i16::try_from(offset).ok());
                    micros.as_i64().zip(offset).ok_or_else(|| wants(what))?
                }
                _ => timestamp(text(what)?).ok_or_else(|| wants(what))?,
            };
            Cell::Timestamp(micros, offset)
        }
        "$uuid" => Cell::Uuid(uuid(text("a UUID")?).ok_or_else(|| wants("a UUID"))?),
        "$json" => match value {
            Value::String(text) if serde_json::from_str::<Value>(text).is_ok() => Cell::Json(text.clone()),
            Value::String(_) => return Err(wants("JSON, as a text or as it is")),
            value => Cell::Json(value.to_string()),
        },
        _ => return Err(format!("`{form}` is not a typed form; they are {FORMS}")),
    })
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(fraction)
}

fn date(text: &str) -> Option<i32> {
    let date: Date = text.parse().ok()?;
    Some(date.since(EPOCH).ok()?.get_days())
}

fn time(text: &str) -> Option<i64> {
    let time: Time = text.parse().ok()?;
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1000)
}

fn datetime(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    if pieces.offset().is_some() || pieces.time_zone_annotation().is_some() {
        return None;
    }
    let datetime: DateTime = text.parse().ok()?;
    Some(Offset::UTC.to_timestamp(datetime).ok()?.as_microsecond())
}

fn timestamp(text: &str) -> Option<(i64, i16)> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    let datetime = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    let micros = offset.to_timestamp(datetime).ok()?.as_microsecond();
    Some((micros, i16::try_from(offset.seconds() / 60).ok()?))
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|char| *char != '-').collect();
    let dashes = text.len() - digits.len();
    if digits.len() != 32 || !digits.is_ascii() || !matches!(dashes, 0 | 4) {
        return None;
    }
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Array for Cells {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, at: usize, f: &mut dyn FnMut(Val<'_>)) {
        if let Some(cell) = self.0.get(at) {
            f(cell.val());
        }
    }
}

impl Object for Columns {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, cell)| cell.val())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn entry(&self, at: usize) -> Option<(&str, Val<'_>)> {
        self.0.get(at).map(|(name, cell)| (name.as_str(), cell.val()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_value_has_a_form() {
        for (value, cell) in [
            (json!(null), Cell::Nil),
            (json!(true), Cell::Bool(true)),
            (json!(-7), Cell::Int(-7)),
            (json!(u64::MAX), Cell::UInt(u64::MAX)),
            (json!(1.5), Cell::Float(1.5)),
            (json!("a"), Cell::Text("a".into())),
            (json!({"$decimal": "-12.50"}), Cell::Decimal("-12.50".into())),
            (json!({"$decimal": 12}), Cell::Decimal("12".into())),
            (json!({"$float": "-Infinity"}), Cell::Float(f64::NEG_INFINITY)),
            (json!({"$bytes": "hello"}), Cell::Bytes(b"hello".to_vec())),
            (json!({"$base64": "AP8="}), Cell::Bytes(vec![0, 255])),
            (json!({"$date": 7305}), Cell::Date(7305)),
            (json!({"$date": "1990-01-01"}), Cell::Date(7305)),
            (json!({"$date": "1969-12-31"}), Cell::Date(-1)),
            (json!({"$time": "01:02:03.5"}), Cell::Time(3_723_500_000)),
            (json!({"$datetime": "1970-01-02T00:00:01"}), Cell::DateTime(86_401_000_000)),
            (
                json!({"$timestamp": [1_700_000_000_000_000_i64, 60]}),
                Cell::Timestamp(1_700_000_000_000_000, 60),
            ),
            (json!({"$timestamp": "1970-01-01T02:00:00+02:00"}), Cell::Timestamp(0, 120)),
            (json!({"$timestamp": "1969-12-31T23:30:00-00:30"}), Cell::Timestamp(0, -30)),
            (json!({"$timestamp": "1970-01-01T00:00:00Z"}), Cell::Timestamp(0, 0)),
            (
                json!({"$uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f"}),
                Cell::Uuid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            ),
            (json!({"$json": "{\"a\": [1]}"}), Cell::Json("{\"a\": [1]}".into())),
            (json!({"$json": [1, "a"]}), Cell::Json("[1,\"a\"]".into())),
            (json!({"a": {"$decimal": "1"}}), Cell::Json("{\"a\":{\"$decimal\":\"1\"}}".into())),
            (
                json!(["a", {"$decimal": "1.0"}, null, [1]]),
                Cell::List(Cells(vec![
                    Cell::Text("a".into()),
                    Cell::Decimal("1.0".into()),
                    Cell::Nil,
                    Cell::List(Cells(vec![Cell::Int(1)])),
                ])),
            ),
        ] {
            assert_eq!(Cell::read(&value), Ok(cell), "{value}");
        }
        assert!(matches!(Cell::read(&json!({"$float": "NaN"})), Ok(Cell::Float(float)) if float.is_nan()));
    }

    #[test]
    fn a_form_that_cannot_be_read_is_told() {
        for value in [
            json!({"$decimal": "1e5"}),
            json!({"$decimal": null}),
            json!({"$float": "x"}),
            json!({"$bytes": 7}),
            json!({"$base64": "*"}),
            json!({"$date": "29.02.2024"}),
            json!({"$date": 99_999_999_999_i64}),
            json!({"$time": "25:00"}),
            json!({"$datetime": "2024-02-29T00:00:00Z"}),
            json!({"$timestamp": "2024-02-29T00:00:00"}),
            json!({"$timestamp": [1]}),
            json!({"$uuid": "0001"}),
            json!({"$json": "{"}),
            json!({"$nope": 1}),
            json!([[{"$nope": 1}]]),
        ] {
            assert!(Cell::read(&value).is_err(), "{value}");
        }
        let row = json!({"price": {"$decimal": true}});
        let why = Columns::read(row.as_object().unwrap()).unwrap_err();
        assert!(why.starts_with("`price`: `$decimal` takes digits"), "{why}");
    }
}

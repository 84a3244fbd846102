//! How each column of a statement is read, and its values into packed cells.

use std::fmt::Write as _;
use std::sync::Arc;

use mysql_async::consts::ColumnType as Wire;
use mysql_async::{Column as WireColumn, Value};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::{Column, ColumnType, Schema};
use warren_engine::row::Cells;

use crate::kit::float::widen;

/// How a column's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Int,
    Float,
    Decimal,
    Text,
    Bytes,
    Bit,
    Json,
    Date,
    Time,
    DateTime,
    /// The session's time zone is UTC.
    Timestamp,
}

/// The character set that says "no characters at all".
const BINARY: u16 = 63;

impl Cell {
    pub(super) fn of(column: &WireColumn) -> Cell {
        let text_or_bytes = if column.character_set() == BINARY { Cell::Bytes } else { Cell::Text };
        match column.column_type() {
            Wire::MYSQL_TYPE_TINY
            | Wire::MYSQL_TYPE_SHORT
            | Wire::MYSQL_TYPE_INT24
            | Wire::MYSQL_TYPE_LONG
            | Wire::MYSQL_TYPE_LONGLONG
            | Wire::MYSQL_TYPE_YEAR => Cell::Int,
            Wire::MYSQL_TYPE_FLOAT | Wire::MYSQL_TYPE_DOUBLE => Cell::Float,
            Wire::MYSQL_TYPE_DECIMAL | Wire::MYSQL_TYPE_NEWDECIMAL => Cell::Decimal,
            Wire::MYSQL_TYPE_BIT => Cell::Bit,
            Wire::MYSQL_TYPE_JSON => Cell::Json,
            Wire::MYSQL_TYPE_DATE | Wire::MYSQL_TYPE_NEWDATE => Cell::Date,
            Wire::MYSQL_TYPE_TIME | Wire::MYSQL_TYPE_TIME2 => Cell::Time,
            Wire::MYSQL_TYPE_DATETIME | Wire::MYSQL_TYPE_DATETIME2 => Cell::DateTime,
            Wire::MYSQL_TYPE_TIMESTAMP | Wire::MYSQL_TYPE_TIMESTAMP2 => Cell::Timestamp,
            Wire::MYSQL_TYPE_VARCHAR
            | Wire::MYSQL_TYPE_VAR_STRING
            | Wire::MYSQL_TYPE_STRING
            | Wire::MYSQL_TYPE_TINY_BLOB
            | Wire::MYSQL_TYPE_MEDIUM_BLOB
            | Wire::MYSQL_TYPE_LONG_BLOB
            | Wire::MYSQL_TYPE_BLOB => text_or_bytes,
            Wire::MYSQL_TYPE_ENUM | Wire::MYSQL_TYPE_SET | Wire::MYSQL_TYPE_NULL => Cell::Text,
            Wire::MYSQL_TYPE_GEOMETRY
            | Wire::MYSQL_TYPE_VECTOR
            | Wire::MYSQL_TYPE_TYPED_ARRAY
            | Wire::MYSQL_TYPE_UNKNOWN => Cell::Bytes,
        }
    }

    fn kind(self) -> ColumnType {
        match self {
            Cell::Int | Cell::Bit => ColumnType::Int,
            Cell::Float => ColumnType::Float,
            Cell::Decimal => ColumnType::Decimal,
            Cell::Text => ColumnType::Text,
            Cell::Bytes => ColumnType::Bytes,
            Cell::Json => ColumnType::Json,
            Cell::Date => ColumnType::Date,
            Cell::Time => ColumnType::Time,
            Cell::DateTime => ColumnType::DateTime,
            Cell::Timestamp => ColumnType::Timestamp,
        }
    }

    /// Packs a value. `scratch` is written over.
    pub(super) fn put(self, value: &Value, cells: &mut Cells<'_>, scratch: &mut String) {
        match value {
            Value::NULL => cells.null(),
            Value::Int(number) => cells.int(*number),
            Value::UInt(number) => cells.uint(*number),
            Value::Float(number) => cells.float(widen(*number, scratch)),
            Value::Double(number) => cells.float(*number),
            Value::Date(year, month, day, hour, minute, second, micros) => {
                let clock =
                    Clock { hours: u64::from(*hour), minute: *minute, second: *second, micros: *micros };
                self.put_date(Civil { year: *year, month: *month, day: *day }, clock, cells, scratch);
            }
            Value::Time(negative, days, hours, minute, second, micros) => {
                let hours = u64::from(*days) * 24 + u64::from(*hours);
                put_time(
                    *negative,
                    Clock { hours, minute: *minute, second: *second, micros: *micros },
                    cells,
                    scratch,
                );
            }
            Value::Bytes(bytes) => self.put_bytes(bytes, cells),
        }
    }

    fn put_bytes(self, bytes: &[u8], cells: &mut Cells<'_>) {
        let text = match self {
            Cell::Bytes => return cells.bytes(bytes),
            Cell::Bit => return put_bit(bytes, cells),
            _ => std::str::from_utf8(bytes),
        };
        match (text, self) {
            (Ok(digits), Cell::Decimal) => cells.decimal(without_leading_zeros(digits, &mut String::new())),
            (Ok(text), Cell::Json) => cells.json(text),
            (Ok(text), _) => cells.text(text),
            (Err(_), _) => cells.bytes(bytes),
        }
    }

    fn put_date(self, day: Civil, clock: Clock, cells: &mut Cells<'_>, scratch: &mut String) {
        // 0000-00-00 and 2020-00-00 are values here, and days nowhere.
        if day.month == 0 || day.day == 0 {
            scratch.clear();
            write!(scratch, "{:04}-{:02}-{:02}", day.year, day.month, day.day).expect(WRITES);
            if self != Cell::Date {
                scratch.push(' ');
                clock.write(scratch);
            }
            return cells.text(scratch);
        }
        let days = day.since_1970();
        let micros = i64::from(days) * DAY_MICROS + clock.micros();
        match self {
            Cell::Date => cells.date(days),
            Cell::Timestamp => cells.timestamp(micros, 0),
            _ => cells.date_time(micros),
        }
    }
}

const DAY_MICROS: i64 = 86_400_000_000;
const WRITES: &str = "writing to a String never fails";

#[derive(Debug, Clone, Copy)]
struct Civil {
    year: u16,
    month: u8,
    day: u8,
}

impl Civil {
    /// After Howard Hinnant's `days_from_civil`.
    fn since_1970(self) -> i32 {
        let (month, day) = (i32::from(self.month), i32::from(self.day));
        let year = i32::from(self.year) - i32::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    hours: u64,
    minute: u8,
    second: u8,
    micros: u32,
}

impl Clock {
    fn micros(self) -> i64 {
        let seconds = self.hours * 3600 + u64::from(self.minute) * 60 + u64::from(self.second);
        seconds as i64 * 1_000_000 + i64::from(self.micros)
    }

    fn write(self, text: &mut String) {
        write!(text, "{:02}:{:02}:{:02}", self.hours, self.minute, self.second).expect(WRITES);
        if self.micros != 0 {
            write!(text, ".{:06}", self.micros).expect(WRITES);
        }
    }
}

/// A `TIME` may be a span: negative, or longer than a day. It is then text as the server shows it.
fn put_time(negative: bool, clock: Clock, cells: &mut Cells<'_>, scratch: &mut String) {
    if !negative && clock.hours < 24 {
        return cells.time(clock.micros());
    }
    scratch.clear();
    if negative {
        scratch.push('-');
    }
    clock.write(scratch);
    cells.text(scratch);
}

/// Up to 64 bits, the highest first.
fn put_bit(bytes: &[u8], cells: &mut Cells<'_>) {
    if bytes.len() > 8 {
        return cells.bytes(bytes);
    }
    let mut number = [0; 8];
    number[8 - bytes.len()..].copy_from_slice(bytes);
    cells.uint(u64::from_be_bytes(number));
}

/// `ZEROFILL` shows zeros that are no digits of the number, and JSON knows no such number.
fn without_leading_zeros<'a>(digits: &'a str, scratch: &'a mut String) -> &'a str {
    let (sign, unsigned) = match digits.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", digits),
    };
    let zeros = unsigned.bytes().take_while(|byte| *byte == b'0').count();
    let whole = unsigned.find('.').unwrap_or(unsigned.len());
    let spare = zeros.min(whole.saturating_sub(1));
    if spare == 0 {
        return digits;
    }
    scratch.push_str(sign);
    scratch.push_str(&unsigned[spare..]);
    scratch
}

/// The schema of a statement's columns, and how each is read.
pub(super) fn columns(columns: &[WireColumn], what: &str) -> Result<(Arc<Schema>, Vec<Cell>), Failure> {
    let cells: Vec<Cell> = columns.iter().map(Cell::of).collect();
    let mut named = Vec::new();
    for (column, cell) in columns.iter().zip(&cells) {
        named.push(Column { name: column.name_str().into_owned(), kind: cell.kind() });
    }
    let schema = Schema::new(named).map_err(|duplicate| {
        Failure::new(FailureKind::Invalid, codes::DUPLICATE_COLUMN, what)
            .detail(duplicate.to_string())
            .remedy(format!("Give one of them another name: … AS another_{}.", duplicate.0))
    })?;
    Ok((schema, cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        let table = [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((1000, 1, 1), -354_285),
            ((9999, 12, 31), 2_932_896),
        ];
        for ((year, month, day), days) in table {
            assert_eq!(Civil { year, month, day }.since_1970(), days);
        }
    }

    #[test]
    fn decimals_lose_only_zeros_that_say_nothing() {
        for (digits, expected) in [
            ("0.00", "0.00"),
            ("00012.50", "12.50"),
            ("-0.5", "-0.5"),
            ("-007", "-7"),
            ("000", "0"),
            ("100", "100"),
        ] {
            assert_eq!(without_leading_zeros(digits, &mut String::new()), expected);
        }
    }
}

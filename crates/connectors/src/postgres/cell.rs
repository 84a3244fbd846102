//! One field of a binary `COPY`, by its type, into a packed cell.
//!
//! Fields are as the server's `…send` functions write them: big-endian, dates counted from 2000-01-01. What a packed
//! type cannot hold becomes the text the server would show: `infinity`, and dates beyond what 64 bits of
//! microseconds reach from 1970.

use std::fmt::Write as _;
use std::net::IpAddr;

use warren_engine::row::Cells;

use crate::kit::float::widen;

/// How a field is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Numeric,
    Float4,
    Float8,
    Text,
    Char,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Inet,
    Uuid,
    Json,
    Jsonb,
    Array(Box<Cell>),
}

/// A field that is not what its type calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// 2000-01-01 in days since 1970-01-01, and in microseconds.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;
const DAY_MICROS: i64 = 86_400_000_000;

/// PostgreSQL's own limit.
const DIMENSIONS_MAX: usize = 6;

impl Cell {
    /// Packs a field that is not NULL. `scratch` is written over; it saves an allocation a field.
    pub(super) fn put(
        &self,
        field: &[u8],
        cells: &mut Cells<'_>,
        scratch: &mut String,
    ) -> Result<(), Malformed> {
        match self {
            Cell::Bool => cells.bool(fixed::<1>(field)? != [0]),
            Cell::Int2 => cells.int(i64::from(i16::from_be_bytes(fixed(field)?))),
            Cell::Int4 => cells.int(i64::from(i32::from_be_bytes(fixed(field)?))),
            Cell::Int8 => cells.int(i64::from_be_bytes(fixed(field)?)),
            Cell::Oid => cells.int(i64::from(u32::from_be_bytes(fixed(field)?))),
            Cell::Numeric => numeric(field, cells, scratch)?,
            Cell::Float4 => cells.float(widen(f32::from_be_bytes(fixed(field)?), scratch)),
            Cell::Float8 => cells.float(f64::from_be_bytes(fixed(field)?)),
            // What a database in SQL_ASCII, or a look-alike, sends unchecked may be bytes.
            Cell::Text => cells.text_or_bytes(field),
            Cell::Char => char(fixed::<1>(field)?[0], cells, scratch),
            Cell::Bytea => cells.bytes(field),
            Cell::Date => date(i32::from_be_bytes(fixed(field)?), cells),
            Cell::Time => cells.time(i64::from_be_bytes(fixed(field)?)),
            Cell::Timestamp => timestamp(i64::from_be_bytes(fixed(field)?), cells, scratch, Clock::Plain),
            Cell::TimestampTz => timestamp(i64::from_be_bytes(fixed(field)?), cells, scratch, Clock::Utc),
            Cell::Interval => interval(field, cells, scratch)?,
            Cell::Inet => inet(field, cells, scratch)?,
            Cell::Uuid => cells.uuid(fixed(field)?),
            Cell::Json => json(field, cells),
            Cell::Jsonb => match field.split_first() {
                Some((1, document)) => json(document, cells),
                _ => return Err(Malformed),
            },
            Cell::Array(element) => array(field, element, cells, scratch)?,
        }
        Ok(())
    }
}

fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], Malformed> {
    field.try_into().map_err(|_| Malformed)
}

fn json(field: &[u8], cells: &mut Cells<'_>) {
    match std::str::from_utf8(field) {
        Ok(text) => cells.json(text),
        Err(_) => cells.bytes(field),
    }
}

/// The one-byte type `"char"`, shown as the server shows it.
fn char(byte: u8, cells: &mut Cells<'_>, scratch: &mut String) {
    scratch.clear();
    match byte {
        0 => {}
        1..=0x7f => scratch.push(char::from(byte)),
        0x80.. => write!(scratch, "\\{byte:03o}").expect("writing to a String never fails"),
    }
    cells.text(scratch);
}

fn numeric(field: &[u8], cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
    let (head, groups) = field.split_first_chunk::<8>().ok_or(Malformed)?;
    let count = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let weight = i32::from(i16::from_be_bytes([head[2], head[3]]));
    let sign = u16::from_be_bytes([head[4], head[5]]);
    let scale = usize::from(u16::from_be_bytes([head[6], head[7]]) & 0x3fff);
    // What decimals have no digits for is a float, which a row with a JSON number is then rejected for.
    let special = match sign {
        0x0000 | 0x4000 => None,
        0xc000 => Some(f64::NAN),
        0xd000 => Some(f64::INFINITY),
        0xf000 => Some(f64::NEG_INFINITY),
        _ => return Err(Malformed),
    };
    if let Some(special) = special {
        cells.float(special);
        return Ok(());
    }
    if groups.len() != count * 2 {
        return Err(Malformed);
    }
    if groups.chunks_exact(2).any(|group| u16::from_be_bytes([group[0], group[1]]) > 9_999) {
        return Err(Malformed);
    }
    let group = |index: i32| {
        let at = usize::try_from(index).ok().filter(|at| *at < count);
        four_digits(at.map_or(0, |at| u16::from_be_bytes([groups[at * 2], groups[at * 2 + 1]])))
    };
    let mut text = std::mem::take(scratch).into_bytes();
    text.clear();
    if sign == 0x4000 {
        text.push(b'-');
    }
    if weight < 0 {
        text.push(b'0');
    } else {
        let first = group(0);
        let zeros = first[..3].iter().take_while(|digit| **digit == b'0').count();
        text.extend_from_slice(&first[zeros..]);
        for index in 1..=weight {
            text.extend_from_slice(&group(index));
        }
    }
    if scale > 0 {
        text.push(b'.');
        let end = text.len() + scale;
        let mut index = weight + 1;
        while text.len() < end {
            text.extend_from_slice(&group(index));
            index += 1;
        }
        text.truncate(end);
    }
    *scratch = String::from_utf8(text).expect("a sign, digits and a point are ASCII");
    cells.decimal(scratch);
    Ok(())
}

/// The digits of a group of four.
fn four_digits(group: u16) -> [u8; 4] {
    let digit = |unit| b'0' + (group / unit % 10) as u8;
    [digit(1000), digit(100), digit(10), digit(1)]
}

fn date(days: i32, cells: &mut Cells<'_>) {
    match days {
        i32::MAX => cells.text("infinity"),
        i32::MIN => cells.text("-infinity"),
        // The last day the server knows is far from where this saturates.
        days => cells.date(days.saturating_add(EPOCH_DAYS)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Plain,
    Utc,
}

fn timestamp(micros: i64, cells: &mut Cells<'_>, scratch: &mut String, clock: Clock) {
    match micros {
        i64::MAX => cells.text("infinity"),
        i64::MIN => cells.text("-infinity"),
        _ => match (micros.checked_add(EPOCH_MICROS), clock) {
            (Some(micros), Clock::Plain) => cells.date_time(micros),
            (Some(micros), Clock::Utc) => cells.timestamp(micros, 0),
            (None, _) => {
                last_days(micros, scratch);
                if clock == Clock::Utc {
                    scratch.push_str("+00:00");
                }
                cells.text(scratch);
            }
        },
    }
}

/// The last eleven months the server knows, in the year 294276, which lie more than 2^63 microseconds from 1970.
fn last_days(micros: i64, scratch: &mut String) {
    // Days of the civil calendar from 0000-03-01, after Howard Hinnant's `civil_from_days`.
    let days = micros.div_euclid(DAY_MICROS) + 730_425;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next;
    let time = micros.rem_euclid(DAY_MICROS);
    let (hour, minute, second) = (time / 3_600_000_000, time / 60_000_000 % 60, time / 1_000_000 % 60);
    scratch.clear();
    write!(scratch, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        .expect("writing to a String never fails");
    if time % 1_000_000 != 0 {
        write!(scratch, ".{:06}", time % 1_000_000).expect("writing to a String never fails");
    }
}

/// An interval as ISO 8601 has it, as the server writes it with `IntervalStyle = iso_8601`.
fn interval(field: &[u8], cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
    let field: [u8; 16] = fixed(field)?;
    let (micros, rest) = field.split_first_chunk::<8>().ok_or(Malformed)?;
    let (days, months) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let micros = i64::from_be_bytes(*micros);
    let days = i32::from_be_bytes(*days);
    let months = i32::from_be_bytes(fixed(months)?);
    let special = match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => Some("infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => Some("-infinity"),
        (0, 0, 0) => Some("PT0S"),
        _ => None,
    };
    if let Some(special) = special {
        cells.text(special);
        return Ok(());
    }
    scratch.clear();
    scratch.push('P');
    let part = |count: i64, unit: char, scratch: &mut String| {
        if count != 0 {
            write!(scratch, "{count}{unit}").expect("writing to a String never fails");
        }
    };
    part(i64::from(months / 12), 'Y', scratch);
    part(i64::from(months % 12), 'M', scratch);
    part(i64::from(days), 'D', scratch);
    if micros != 0 {
        scratch.push('T');
        part(micros / 3_600_000_000, 'H', scratch);
        part(micros / 60_000_000 % 60, 'M', scratch);
        let rest = micros % 60_000_000;
        if rest != 0 {
            let sign = if rest < 0 { "-" } else { "" };
            let (second, fraction) = (rest.unsigned_abs() / 1_000_000, rest.unsigned_abs() % 1_000_000);
            write!(scratch, "{sign}{second}").expect("writing to a String never fails");
            if fraction != 0 {
                write!(scratch, ".{fraction:06}").expect("writing to a String never fails");
                scratch.truncate(scratch.trim_end_matches('0').len());
            }
            scratch.push('S');
        }
    }
    cells.text(scratch);
    Ok(())
}

/// An address, with the bits of its network where they are not all: as the server shows it. (Its cast to text adds `/32`.)
fn inet(field: &[u8], cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
    let (&[family, bits, is_cidr, _], address) = field.split_first_chunk::<4>().ok_or(Malformed)?;
    // The server's own numbers, the same on every platform.
    let (address, bits_max) = match family {
        2 => (IpAddr::from(fixed::<4>(address)?), 32),
        3 => (IpAddr::from(fixed::<16>(address)?), 128),
        _ => return Err(Malformed),
    };
    scratch.clear();
    write!(scratch, "{address}").expect("writing to a String never fails");
    if is_cidr != 0 || bits != bits_max {
        write!(scratch, "/{bits}").expect("writing to a String never fails");
    }
    cells.text(scratch);
    Ok(())
}

/// The elements of an array, the last dimension running fastest.
struct Elements<'a> {
    rest: &'a [u8],
    element: &'a Cell,
}

fn array(field: &[u8], element: &Cell, cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
    let (head, mut rest) = field.split_first_chunk::<12>().ok_or(Malformed)?;
    let count = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if count == 0 {
        cells.array(0, |_| {});
        return Ok(());
    }
    if count > DIMENSIONS_MAX {
        return Err(Malformed);
    }
    let mut lengths = [0; DIMENSIONS_MAX];
    let mut elements_max = rest.len() / 4;
    for length in &mut lengths[..count] {
        // Behind it stands the lower bound, which JSON has no word for.
        let (dimension, behind) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
        *length = u32::from_be_bytes([dimension[0], dimension[1], dimension[2], dimension[3]]);
        rest = behind;
        // No dimension is empty, and each element has at least its length: a count that does not fit is not looped over.
        elements_max =
            elements_max.checked_div(*length as usize).filter(|left| *left > 0).ok_or(Malformed)?;
    }
    let mut elements = Elements { rest, element };
    elements.put(&lengths[..count], cells, scratch)?;
    if elements.rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

impl Elements<'_> {
    fn put(&mut self, lengths: &[u32], cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
        let Some((&length, inner)) = lengths.split_first() else { return self.put_one(cells, scratch) };
        let mut result = Ok(());
        cells.array(length, |cells| {
            for _ in 0..length {
                result = self.put(inner, cells, scratch);
                if result.is_err() {
                    // The whole row is given up; nobody reads the array that is short now.
                    return;
                }
            }
        });
        result
    }

    fn put_one(&mut self, cells: &mut Cells<'_>, scratch: &mut String) -> Result<(), Malformed> {
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            self.rest = rest;
            cells.null();
            return Ok(());
        }
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (field, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        self.element.put(field, cells, scratch)
    }
}

#[cfg(test)]
mod tests {
    use warren_engine::row::{Batch, Value, check};

    use super::*;

    fn put(cell: &Cell, field: &[u8]) -> Result<Batch, Malformed> {
        let mut batch = Batch::default();
        cell.put(field, &mut batch.cells(), &mut String::new())?;
        batch.end_row();
        check(batch.row(0).as_bytes(), 1).unwrap();
        Ok(batch)
    }

    fn text(cell: &Cell, field: &[u8]) -> String {
        match put(cell, field).unwrap().row(0).get(0) {
            Value::Text(text) | Value::Decimal(text) => text.to_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    fn numeric_field(groups: &[u16], weight: i16, sign: u16, scale: u16) -> Vec<u8> {
        let mut field = Vec::new();
        for word in [groups.len() as u16, weight.cast_unsigned(), sign, scale].iter().chain(groups) {
            field.extend_from_slice(&word.to_be_bytes());
        }
        field
    }

    #[test]
    fn decimals_keep_every_digit() {
        let table = [
            (numeric_field(&[], 0, 0, 0), "0"),
            (numeric_field(&[], 0, 0, 3), "0.000"),
            (numeric_field(&[12, 5000], 0, 0x4000, 2), "-12.50"),
            (numeric_field(&[1], 2, 0, 0), "100000000"),
            (numeric_field(&[1], -3, 0, 12), "0.000000000001"),
            (numeric_field(&[1234, 5678, 9], 1, 0, 4), "12345678.0009"),
        ];
        for (field, expected) in table {
            assert_eq!(text(&Cell::Numeric, &field), expected);
        }
        assert!(put(&Cell::Numeric, &numeric_field(&[1, 2], 0, 0, 0)[..10]).is_err());
        assert!(put(&Cell::Numeric, &numeric_field(&[10_000], 0, 0, 0)).is_err(), "a group has four digits");
    }

    #[test]
    fn intervals_are_iso_8601() {
        let field = |months: i32, days: i32, micros: i64| {
            let mut field = micros.to_be_bytes().to_vec();
            field.extend_from_slice(&days.to_be_bytes());
            field.extend_from_slice(&months.to_be_bytes());
            field
        };
        let table = [
            (field(0, 0, 0), "PT0S"),
            (field(14, 3, 14_706_789_000), "P1Y2M3DT4H5M6.789S"),
            (field(-14, -3, -14_706_789_000), "P-1Y-2M-3DT-4H-5M-6.789S"),
            (field(0, 0, -500_000), "PT-0.5S"),
            (field(12, 0, 0), "P1Y"),
            (field(i32::MAX, i32::MAX, i64::MAX), "infinity"),
        ];
        for (field, expected) in table {
            assert_eq!(text(&Cell::Interval, &field), expected);
        }
    }

    #[test]
    fn times_beyond_the_packed_range_are_text() {
        // The last microsecond the server knows.
        let last = 9_223_371_331_199_999_999_i64.to_be_bytes();
        assert_eq!(text(&Cell::Timestamp, &last), "294276-12-31T23:59:59.999999");
        assert_eq!(text(&Cell::TimestampTz, &last), "294276-12-31T23:59:59.999999+00:00");
        assert_eq!(text(&Cell::Date, &i32::MAX.to_be_bytes()), "infinity");
        assert_eq!(put(&Cell::Date, &0i32.to_be_bytes()).unwrap().row(0).get(0), Value::Date(10_957));
    }

    #[test]
    fn no_field_makes_it_panic() {
        let cells = [
            Cell::Bool,
            Cell::Numeric,
            Cell::Text,
            Cell::Char,
            Cell::Date,
            Cell::Timestamp,
            Cell::Interval,
            Cell::Jsonb,
            Cell::Array(Box::new(Cell::Int4)),
            Cell::Array(Box::new(Cell::Array(Box::new(Cell::Numeric)))),
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let length = random.usize(..48);
            // Small numbers make lengths and counts that nearly fit.
            let field: Vec<u8> =
                (0..length).map(|_| if random.bool() { 0 } else { random.u8(..9) }).collect();
            let cell = &cells[random.usize(..cells.len())];
            let mut batch = Batch::default();
            if cell.put(&field, &mut batch.cells(), &mut String::new()).is_ok() {
                batch.end_row();
                check(batch.row(0).as_bytes(), 1).unwrap();
            }
        }
    }
}

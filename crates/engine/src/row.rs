//! Rows as packed bytes: written once by a source, then hashed, stored, sorted and rendered as they are.
//!
//! A row is its cells one after another; a cell is a tag and what the tag calls for (see [`Tag`]).
//! The encoding is canonical (one value has one encoding), so equal bytes are equal rows and a hash of the
//! bytes is a hash of the typed row: `"1"` and `1`, NULL and `""` differ by their tags, and lengths stand before
//! contents. No cell costs an allocation. The encoding is a persisted format (the baseline's row store):
//! tags are never given a second meaning.
//!
//! Bytes that come from a file are verified by [`check`] once; after that reading cannot fail.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::Schema;

/// The first byte of a cell. Integers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Nothing follows.
    Null = 0,
    /// Nothing follows.
    False = 1,
    /// Nothing follows.
    True = 2,
    /// 8 bytes, i64.
    Int = 3,
    /// 8 bytes, u64; only for what an i64 cannot hold.
    UInt = 4,
    /// 8 bytes, f64; every NaN is the same NaN.
    Float = 5,
    /// u32 length, then the digits as text.
    Decimal = 6,
    /// u32 length, then UTF-8.
    Text = 7,
    /// u32 length, then bytes.
    Bytes = 8,
    /// 4 bytes, i32 days since 1970-01-01.
    Date = 9,
    /// 8 bytes, i64 microseconds since midnight.
    Time = 10,
    /// 8 bytes, i64 microseconds since 1970-01-01T00:00:00, no offset.
    DateTime = 11,
    /// 8 bytes, i64 microseconds since the epoch in UTC, then i16 minutes of offset.
    Timestamp = 12,
    /// 16 bytes.
    Uuid = 13,
    /// u32 length, then JSON text.
    Json = 14,
    /// u32 length of all that follows, u32 count, then the cells.
    Array = 15,
}

/// A value of a row, borrowed from its packed bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number too large for an i64.
    UInt(u64),
    /// Binary floating point; may be NaN or infinite, which JSON cannot hold.
    Float(f64),
    /// Decimal digits exactly as the source has them, such as `-12.50`.
    Decimal(&'a str),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00 on a clock without offset.
    DateTime(i64),
    /// Microseconds since the epoch in UTC, and the offset in minutes to show it with.
    Timestamp(i64, i16),
    /// A UUID's 16 bytes.
    Uuid([u8; 16]),
    /// JSON text as the source has it.
    Json(&'a str),
    /// An array of values.
    Array(ArrayRef<'a>),
}

/// The cells of an array value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrayRef<'a> {
    count: u32,
    cells: &'a [u8],
}

/// A row borrowed from packed bytes. It does not know its schema: names belong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRef<'a>(&'a [u8]);

/// A row of its own, with its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The columns of this row. A previous row may have other columns than a current one.
    pub schema: Arc<Schema>,
    /// The packed cells, one for each column.
    pub bytes: Bytes,
}

/// Rows in packed form, all of one schema.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Packed bytes that break the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packed row is damaged at byte {at}")]
pub struct Damaged {
    /// Where, from the row's beginning.
    pub at: usize,
}

impl Batch {
    /// An empty batch with room for about `bytes`.
    pub fn with_capacity(bytes: usize) -> Batch {
        Batch { bytes: Vec::with_capacity(bytes), ends: Vec::new() }
    }

    /// How many whole rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes the rows take.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let row = RowRef(&self.bytes[start..end]);
            start = end;
            row
        })
    }

    /// Row `index`.
    ///
    /// # Panics
    /// There is no such row.
    pub fn row(&self, index: usize) -> RowRef<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        RowRef(&self.bytes[start..self.ends[index]])
    }

    /// Adds a row that is packed already.
    pub fn push_row(&mut self, row: RowRef<'_>) {
        self.bytes.extend_from_slice(row.0);
        self.ends.push(self.bytes.len());
    }

    /// The row is complete: what was put since the last call is one row.
    pub fn end_row(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Takes back the cells put since the last complete row.
    pub fn abandon_row(&mut self) {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// The packed rows, and where each ends.
    pub fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        (self.bytes, self.ends)
    }

    /// The writer of the next cells.
    pub fn cells(&mut self) -> Cells<'_> {
        Cells(&mut self.bytes)
    }
}

/// Writes cells in packed form.
#[derive(Debug)]
pub struct Cells<'a>(&'a mut Vec<u8>);

impl<'a> Cells<'a> {
    /// Writes cells to the end of any buffer.
    pub fn new(buffer: &'a mut Vec<u8>) -> Cells<'a> {
        Cells(buffer)
    }

    /// NULL.
    pub fn null(&mut self) {
        self.0.push(Tag::Null as u8);
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) {
        self.0.push(if value { Tag::True } else { Tag::False } as u8);
    }

    /// A whole number.
    pub fn int(&mut self, value: i64) {
        self.fixed::<8, 9>(Tag::Int, value.to_le_bytes());
    }

    /// A whole number that may be larger than an i64.
    pub fn uint(&mut self, value: u64) {
        if let Ok(value) = i64::try_from(value) {
            return self.int(value);
        }
        self.fixed::<8, 9>(Tag::UInt, value.to_le_bytes());
    }

    /// A floating-point number.
    pub fn float(&mut self, value: f64) {
        let value = if value.is_nan() { f64::NAN } else { value };
        self.fixed::<8, 9>(Tag::Float, value.to_le_bytes());
    }

    /// Decimal digits such as `-12.50`: an optional minus, digits, optionally a point and digits.
    pub fn decimal(&mut self, digits: &str) {
        self.long(Tag::Decimal, digits.as_bytes());
    }

    /// Text.
    pub fn text(&mut self, value: &str) {
        self.long(Tag::Text, value.as_bytes());
    }

    /// Text, or bytes if it is not UTF-8.
    pub fn text_or_bytes(&mut self, value: &[u8]) {
        // Most text is short and ASCII, which is told at once.
        let text = value.is_ascii() || std::str::from_utf8(value).is_ok();
        self.long(if text { Tag::Text } else { Tag::Bytes }, value);
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.long(Tag::Bytes, value);
    }

    /// Days since 1970-01-01.
    pub fn date(&mut self, days: i32) {
        self.fixed::<4, 5>(Tag::Date, days.to_le_bytes());
    }

    /// Microseconds since midnight.
    pub fn time(&mut self, micros: i64) {
        self.fixed::<8, 9>(Tag::Time, micros.to_le_bytes());
    }

    /// Microseconds since 1970-01-01T00:00:00, no offset.
    pub fn date_time(&mut self, micros: i64) {
        self.fixed::<8, 9>(Tag::DateTime, micros.to_le_bytes());
    }

    /// Microseconds since the epoch in UTC, with the offset in minutes to show it with.
    pub fn timestamp(&mut self, micros: i64, offset_minutes: i16) {
        let mut content = [0; 10];
        content[..8].copy_from_slice(&micros.to_le_bytes());
        content[8..].copy_from_slice(&offset_minutes.to_le_bytes());
        self.fixed::<10, 11>(Tag::Timestamp, content);
    }

    /// A UUID.
    pub fn uuid(&mut self, value: [u8; 16]) {
        self.fixed::<16, 17>(Tag::Uuid, value);
    }

    /// JSON text. It is not checked here: what a source calls JSON is JSON.
    pub fn json(&mut self, text: &str) {
        self.long(Tag::Json, text.as_bytes());
    }

    /// An array: `fill` writes exactly `count` cells.
    pub fn array(&mut self, count: u32, fill: impl FnOnce(&mut Cells<'_>)) {
        self.0.push(Tag::Array as u8);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&count.to_le_bytes());
        fill(&mut Cells(self.0));
        let length = (self.0.len() - start - 4) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Any value, copied.
    pub fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(value),
            Value::Int(value) => self.int(value),
            Value::UInt(value) => self.uint(value),
            Value::Float(value) => self.float(value),
            Value::Decimal(value) => self.decimal(value),
            Value::Text(value) => self.text(value),
            Value::Bytes(value) => self.bytes(value),
            Value::Date(value) => self.date(value),
            Value::Time(value) => self.time(value),
            Value::DateTime(value) => self.date_time(value),
            Value::Timestamp(value, offset) => self.timestamp(value, offset),
            Value::Uuid(value) => self.uuid(value),
            Value::Json(value) => self.json(value),
            Value::Array(array) => self.array(array.count, |cells| cells.0.extend_from_slice(array.cells)),
        }
    }

    fn long(&mut self, tag: Tag, content: &[u8]) {
        let mut head = [tag as u8; 5];
        head[1..].copy_from_slice(&(content.len() as u32).to_le_bytes());
        self.0.reserve(5 + content.len());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(content);
    }

    /// A cell of known length, in one write: these are the most of what a source does. `CELL` is `CONTENT` and the tag.
    fn fixed<const CONTENT: usize, const CELL: usize>(&mut self, tag: Tag, content: [u8; CONTENT]) {
        let mut cell = [tag as u8; CELL];
        cell[1..].copy_from_slice(&content);
        self.0.extend_from_slice(&cell);
    }
}

impl<'a> RowRef<'a> {
    /// Takes bytes that a [`Cells`] wrote or [`check`] passed.
    pub fn new(bytes: &'a [u8]) -> RowRef<'a> {
        RowRef(bytes)
    }

    /// The packed bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The values, in order.
    pub fn values(self) -> Values<'a> {
        Values(self.0)
    }

    /// Value `index`; `Null` where the row has fewer.
    pub fn get(self, index: usize) -> Value<'a> {
        let mut rest = self.0;
        for _ in 0..index {
            if rest.is_empty() {
                return Value::Null;
            }
            rest = &rest[cell_length(rest)..];
        }
        if rest.is_empty() { Value::Null } else { decode(rest).0 }
    }

    /// The packed bytes of cell `index`; empty where the row has fewer.
    pub fn cell(self, index: usize) -> &'a [u8] {
        let mut rest = self.0;
        for _ in 0..index {
            if rest.is_empty() {
                return rest;
            }
            rest = &rest[cell_length(rest)..];
        }
        if rest.is_empty() { rest } else { &rest[..cell_length(rest)] }
    }

    /// Where each cell begins, and after them where the last ends, written over what `offsets` held.
    pub fn offsets(self, offsets: &mut Vec<u32>) {
        offsets.clear();
        let mut at = 0;
        while at < self.0.len() {
            offsets.push(at as u32);
            at += cell_length(&self.0[at..]);
        }
        offsets.push(at as u32);
    }

    /// The value that begins at an offset of [`offsets`](Self::offsets).
    pub fn value_at(self, offset: u32) -> Value<'a> {
        decode(&self.0[offset as usize..]).0
    }
}

impl Row {
    /// The row, borrowed.
    pub fn as_ref(&self) -> RowRef<'_> {
        RowRef(&self.bytes)
    }

    /// The value of a column, if there is such a column.
    pub fn get(&self, name: &str) -> Option<Value<'_>> {
        self.schema.index_of(name).map(|index| self.as_ref().get(index))
    }
}

/// The values of a row or of an array.
#[derive(Debug, Clone)]
pub struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (value, length) = decode(self.0);
        self.0 = &self.0[length..];
        Some(value)
    }
}

impl<'a> ArrayRef<'a> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values, in order.
    pub fn values(&self) -> Values<'a> {
        Values(self.cells)
    }
}

/// Verifies that bytes are `columns` whole, valid cells and nothing else.
///
/// # Errors
/// They are not.
pub fn check(bytes: &[u8], columns: usize) -> Result<(), Damaged> {
    check_cells(bytes, columns, 0)
}

/// Arrays nest at most this deep; PostgreSQL's own arrays have at most 6 dimensions.
const DEPTH_MAX: usize = 32;

fn check_cells(bytes: &[u8], count: usize, depth: usize) -> Result<(), Damaged> {
    let mut at = 0;
    for _ in 0..count {
        let damaged = Damaged { at };
        let (&tag, rest) = bytes[at..].split_first().ok_or(damaged)?;
        let fixed = match tag {
            0..=2 => 0,
            3..=5 | 10 | 11 => 8,
            9 => 4,
            12 => 10,
            13 => 16,
            6..=8 | 14 | 15 => {
                let length = rest.first_chunk::<4>().ok_or(damaged)?;
                let length = u32::from_le_bytes(*length) as usize;
                let content = rest.get(4..4 + length).ok_or(damaged)?;
                match tag {
                    6 | 7 | 14 => {
                        std::str::from_utf8(content).map_err(|_| damaged)?;
                    }
                    15 => {
                        let count = content.first_chunk::<4>().ok_or(damaged)?;
                        if depth >= DEPTH_MAX {
                            return Err(damaged);
                        }
                        check_cells(&content[4..], u32::from_le_bytes(*count) as usize, depth + 1)
                            .map_err(|inner| Damaged { at: at + 9 + inner.at })?;
                    }
                    _ => {}
                }
                4 + length
            }
            _ => return Err(damaged),
        };
        if rest.len() < fixed {
            return Err(damaged);
        }
        at += 1 + fixed;
    }
    if at == bytes.len() { Ok(()) } else { Err(Damaged { at }) }
}

/// The length of a cell of each tag; 0 where it says its length itself.
const LENGTHS: [u8; 16] = [1, 1, 1, 9, 9, 9, 0, 0, 0, 5, 9, 9, 11, 17, 0, 0];

// Invariant: bytes come from `Cells` or passed `check`, so the tag is one of those there are.
#[inline]
fn cell_length(cell: &[u8]) -> usize {
    match LENGTHS[usize::from(cell[0])] {
        0 => 5 + length(cell),
        known => usize::from(known),
    }
}

#[inline]
fn length(cell: &[u8]) -> usize {
    u32::from_le_bytes([cell[1], cell[2], cell[3], cell[4]]) as usize
}

fn decode(cell: &[u8]) -> (Value<'_>, usize) {
    let length = cell_length(cell);
    let value = match cell[0] {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(i64::from_le_bytes(eight(cell))),
        4 => Value::UInt(u64::from_le_bytes(eight(cell))),
        5 => Value::Float(f64::from_le_bytes(eight(cell))),
        6 => Value::Decimal(text(&cell[5..length])),
        7 => Value::Text(text(&cell[5..length])),
        8 => Value::Bytes(&cell[5..length]),
        9 => Value::Date(i32::from_le_bytes([cell[1], cell[2], cell[3], cell[4]])),
        10 => Value::Time(i64::from_le_bytes(eight(cell))),
        11 => Value::DateTime(i64::from_le_bytes(eight(cell))),
        12 => Value::Timestamp(i64::from_le_bytes(eight(cell)), i16::from_le_bytes([cell[9], cell[10]])),
        13 => {
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&cell[1..17]);
            Value::Uuid(uuid)
        }
        14 => Value::Json(text(&cell[5..length])),
        15 => Value::Array(ArrayRef {
            count: u32::from_le_bytes([cell[5], cell[6], cell[7], cell[8]]),
            cells: &cell[9..length],
        }),
        tag => unreachable!("a packed row has a cell with tag {tag}"),
    };
    (value, length)
}

fn eight(cell: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&cell[1..9]);
    bytes
}

/// The text of a cell. A `Cells` took it as `&str` and `check` tested it; the test is made again because a
/// wrong byte must not become undefined behaviour, and costs little beside what is done with the text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Batch {
        let mut batch = Batch::default();
        let mut cells = batch.cells();
        cells.null();
        cells.bool(true);
        cells.int(-7);
        cells.uint(u64::MAX);
        cells.uint(7);
        cells.float(f64::NAN);
        cells.decimal("-12.50");
        cells.text("a \"quote\"");
        cells.bytes(&[0, 255]);
        cells.date(-1);
        cells.time(1);
        cells.date_time(2);
        cells.timestamp(3, -90);
        cells.uuid([9; 16]);
        cells.json("{\"a\":1}");
        cells.array(2, |cells| {
            cells.int(1);
            cells.array(1, |cells| cells.int(2));
        });
        batch.end_row();
        batch
    }

    #[test]
    fn what_is_put_comes_out() {
        let batch = sample();
        let row = batch.row(0);
        check(row.as_bytes(), 16).unwrap();
        let values: Vec<Value<'_>> = row.values().collect();
        assert_eq!(values.len(), 16);
        assert_eq!(values[3], Value::UInt(u64::MAX));
        assert_eq!(values[4], Value::Int(7));
        assert!(matches!(values[5], Value::Float(value) if value.is_nan()));
        assert_eq!(row.get(6), Value::Decimal("-12.50"));
        assert_eq!(row.get(12), Value::Timestamp(3, -90));
        let Value::Array(array) = row.get(15) else { panic!("an array was put") };
        assert_eq!(array.len(), 2);
        assert_eq!(array.values().next(), Some(Value::Int(1)));
        assert_eq!(row.get(16), Value::Null);
        let mut offsets = Vec::new();
        row.offsets(&mut offsets);
        assert_eq!(offsets.len(), 17);
        assert_eq!(row.value_at(offsets[7]), Value::Text("a \"quote\""));
    }

    #[test]
    fn copying_a_value_keeps_its_bytes() {
        let batch = sample();
        let mut copy = Batch::default();
        for value in batch.row(0).values() {
            copy.cells().value(value);
        }
        copy.end_row();
        assert_eq!(copy.row(0), batch.row(0));
    }

    #[test]
    fn text_that_is_none_is_bytes() {
        let mut batch = Batch::default();
        for value in [&b"plain"[..], "größer".as_bytes(), b"", b"\xff\xfe"] {
            batch.cells().text_or_bytes(value);
        }
        batch.end_row();
        let values: Vec<_> = batch.row(0).values().collect();
        assert_eq!(
            values,
            [Value::Text("plain"), Value::Text("größer"), Value::Text(""), Value::Bytes(b"\xff\xfe")]
        );
    }

    #[test]
    fn damage_is_found() {
        let batch = sample();
        let bytes = batch.row(0).as_bytes();
        assert!(check(bytes, 15).is_err());
        assert!(check(bytes, 17).is_err());
        for cut in 0..bytes.len() {
            assert!(check(&bytes[..cut], 16).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0xff;
            if check(&broken, 16).is_ok() {
                RowRef::new(&broken).values().for_each(drop);
            }
        }
    }
}

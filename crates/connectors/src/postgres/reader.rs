//! The binary `COPY` format, taken apart: a header, rows of fields with lengths, a trailer.
//!
//! The server sends one row a message, but the protocol does not promise it, and poolers and look-alikes cut as they
//! please: what is left of a message waits for the next. Only the trailer makes a result complete.

use warren_engine::row::Batch;

use super::cell::Cell;

/// What a copy begins with.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Reads a copy, message by message.
#[derive(Debug)]
pub(super) struct Reader {
    cells: Vec<Cell>,
    state: State,
    /// What was left of earlier messages.
    carry: Vec<u8>,
    scratch: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Done,
}

/// What a copy breaks the format with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the copy does not begin as a binary copy does")]
    Header,
    #[error("a row has {found} fields where the query has {expected} columns")]
    FieldCount { found: i16, expected: usize },
    #[error("column {column} does not have the binary form of its type")]
    Field { column: usize },
    #[error("the copy goes on behind its end")]
    BehindEnd,
    #[error("the copy ended without its trailer")]
    CutShort,
}

/// Why a row could not be read.
enum Stop {
    /// The rest of it has not come yet.
    Incomplete,
    Broken(Broken),
}

impl Reader {
    pub(super) fn new(cells: Vec<Cell>) -> Reader {
        Reader { cells, state: State::Header, carry: Vec::new(), scratch: String::new() }
    }

    /// Takes one message and adds the rows that are whole now to `batch`.
    pub(super) fn take(&mut self, message: &[u8], batch: &mut Batch) -> Result<(), Broken> {
        if self.carry.is_empty() {
            let used = self.read(message, batch)?;
            if used < message.len() {
                self.carry.extend_from_slice(&message[used..]);
            }
            return Ok(());
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(message);
        let used = self.read(&carry, batch)?;
        carry.drain(..used);
        self.carry = carry;
        Ok(())
    }

    /// The copy is over: says whether it was complete.
    pub(super) fn finish(&self) -> Result<(), Broken> {
        if self.state == State::Done { Ok(()) } else { Err(Broken::CutShort) }
    }

    /// Reads what is whole; returns how many bytes that was.
    fn read(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<usize, Broken> {
        let mut at = 0;
        if self.state == State::Header {
            match header(bytes)? {
                Some(length) => at = length,
                None => return Ok(0),
            }
            self.state = State::Rows;
        }
        while self.state == State::Rows {
            match self.row(&bytes[at..], batch) {
                Ok(length) => at += length,
                Err(Stop::Incomplete) => {
                    batch.abandon_row();
                    return Ok(at);
                }
                Err(Stop::Broken(broken)) => {
                    batch.abandon_row();
                    return Err(broken);
                }
            }
        }
        if at < bytes.len() { Err(Broken::BehindEnd) } else { Ok(at) }
    }

    /// Reads one row, or the trailer; returns its length.
    fn row(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<usize, Stop> {
        let (count, mut rest) = bytes.split_first_chunk::<2>().ok_or(Stop::Incomplete)?;
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.state = State::Done;
            return Ok(2);
        }
        if usize::try_from(count) != Ok(self.cells.len()) {
            return Err(Stop::Broken(Broken::FieldCount { found: count, expected: self.cells.len() }));
        }
        let mut cells = batch.cells();
        for (index, cell) in self.cells.iter().enumerate() {
            let broken = Stop::Broken(Broken::Field { column: index + 1 });
            let (length, behind) = rest.split_first_chunk::<4>().ok_or(Stop::Incomplete)?;
            let length = i32::from_be_bytes(*length);
            if length == -1 {
                cells.null();
                rest = behind;
                continue;
            }
            let Ok(length) = usize::try_from(length) else { return Err(broken) };
            let (field, behind) = behind.split_at_checked(length).ok_or(Stop::Incomplete)?;
            cell.put(field, &mut cells, &mut self.scratch).map_err(|_| broken)?;
            rest = behind;
        }
        batch.end_row();
        Ok(bytes.len() - rest.len())
    }
}

/// The length of the header, if it has come.
fn header(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Broken::Header);
    }
    // The signature, flags, and the length of an extension that no version has used.
    let Some(numbers) = bytes.get(11..19) else { return Ok(None) };
    let extension = u32::from_be_bytes([numbers[4], numbers[5], numbers[6], numbers[7]]) as usize;
    Ok((bytes.len() >= 19 + extension).then_some(19 + extension))
}

#[cfg(test)]
mod tests {
    use warren_engine::row::Value;

    use super::*;

    fn copy() -> Vec<u8> {
        let mut copy = SIGNATURE.to_vec();
        copy.extend_from_slice(&[0; 8]);
        for number in 0..3i32 {
            copy.extend_from_slice(&2i16.to_be_bytes());
            copy.extend_from_slice(&4i32.to_be_bytes());
            copy.extend_from_slice(&number.to_be_bytes());
            copy.extend_from_slice(&(-1i32).to_be_bytes());
        }
        copy.extend_from_slice(&(-1i16).to_be_bytes());
        copy
    }

    fn reader() -> Reader {
        Reader::new(vec![Cell::Int4, Cell::Text])
    }

    #[test]
    fn a_copy_may_be_cut_anywhere_between_messages() {
        let copy = copy();
        for size in 1..=copy.len() {
            let mut reader = reader();
            let mut batch = Batch::default();
            for message in copy.chunks(size) {
                reader.take(message, &mut batch).unwrap();
            }
            reader.finish().unwrap();
            let numbers: Vec<_> = batch.rows().map(|row| (row.get(0), row.get(1))).collect();
            assert_eq!(
                numbers,
                [0, 1, 2].map(|number| (Value::Int(number), Value::Null)),
                "cut every {size} bytes"
            );
        }
    }

    #[test]
    fn a_copy_that_is_cut_short_is_not_complete() {
        let copy = copy();
        for end in 0..copy.len() {
            let mut reader = reader();
            reader.take(&copy[..end], &mut Batch::default()).unwrap();
            assert_eq!(reader.finish(), Err(Broken::CutShort), "cut at {end}");
        }
    }

    #[test]
    fn a_copy_of_another_shape_is_refused() {
        let copy = copy();
        let mut wrong = Reader::new(vec![Cell::Int4]);
        assert_eq!(
            wrong.take(&copy, &mut Batch::default()),
            Err(Broken::FieldCount { found: 2, expected: 1 })
        );
        let mut wrong = Reader::new(vec![Cell::Int8, Cell::Text]);
        assert_eq!(wrong.take(&copy, &mut Batch::default()), Err(Broken::Field { column: 1 }));
        assert_eq!(reader().take(b"1\tx\n", &mut Batch::default()), Err(Broken::Header));
        let mut behind = copy;
        behind.push(0);
        assert_eq!(reader().take(&behind, &mut Batch::default()), Err(Broken::BehindEnd));
    }
}

//! Packed rows divided by key into partitions, to be read back partition by partition.
//!
//! As with prints, rows collect in a buffer a partition, and a full one goes to a temporary file. Before each row
//! stand its length and its number. Memory: one allocation of 32 MiB with the usual size (16 MiB where rows are dealt later), made with the first row, of
//! which only what is touched is real; and 24 bytes a chunk.

use std::path::Path;

use warren_engine::failure::Failure;

use super::partition::{PARTITIONS, le32, le64};
use super::scratch::{Chunk, Scratch, too_large};

/// Length, then number.
const HEADER: usize = 12;

/// Rows by partition.
pub(crate) struct Dealt {
    /// Bytes of a partition's buffer.
    bytes: usize,
    buffers: Vec<u8>,
    partitions: Vec<Partition>,
    scratch: Scratch,
}

#[derive(Default)]
struct Partition {
    /// Bytes in the buffer.
    length: usize,
    chunks: Vec<Chunk>,
}

/// Goes through the rows of one partition, in the order of their numbers.
#[derive(Default)]
pub(crate) struct RowWalk {
    partition: usize,
    /// The chunk that is decoded next; past the last is the buffer.
    next_chunk: usize,
    /// The rows of the chunk that is decoded.
    rows: Vec<u8>,
    /// Where in `rows` the next row begins.
    at: usize,
    scratch: Vec<u8>,
}

impl Dealt {
    /// No row yet.
    pub(crate) fn new(folder: &Path, bytes: usize, compress_from: u64) -> Dealt {
        let mut partitions = Vec::new();
        partitions.resize_with(PARTITIONS, Partition::default);
        let scratch = Scratch::new(folder, compress_from);
        Dealt { bytes, buffers: Vec::new(), partitions, scratch }
    }

    /// Takes a row; the numbers of a partition ascend.
    pub(crate) fn push(&mut self, at: usize, number: u64, row: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(row.len()).ok().filter(|&length| length < u32::MAX - HEADER as u32);
        let length = length.ok_or_else(too_large)?.to_le_bytes();
        let whole = HEADER + row.len();
        if self.partitions[at].length + whole > self.bytes {
            self.spill(at)?;
        }
        if whole > self.bytes {
            // No buffer holds it: a chunk of its own.
            let chunk = self.scratch.write(&[&length, &number.to_le_bytes()[..], row].concat())?;
            self.partitions[at].chunks.push(chunk);
            return Ok(());
        }
        if self.buffers.is_empty() {
            self.buffers = vec![0; PARTITIONS * self.bytes];
        }
        let begin = at * self.bytes + self.partitions[at].length;
        let place = &mut self.buffers[begin..begin + whole];
        place[..4].copy_from_slice(&length);
        place[4..HEADER].copy_from_slice(&number.to_le_bytes());
        place[HEADER..].copy_from_slice(row);
        self.partitions[at].length += whole;
        Ok(())
    }

    /// Bytes in the temporary file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.scratch.length()
    }

    fn spill(&mut self, at: usize) -> Result<(), Failure> {
        let length = std::mem::take(&mut self.partitions[at].length);
        if length > 0 {
            let begin = at * self.bytes;
            let chunk = self.scratch.write(&self.buffers[begin..begin + length])?;
            self.partitions[at].chunks.push(chunk);
        }
        Ok(())
    }
}

impl RowWalk {
    /// Begins before the first row of a partition.
    pub(crate) fn of(partition: usize) -> RowWalk {
        RowWalk { partition, ..RowWalk::default() }
    }

    /// Begins again before the first row of another partition.
    pub(crate) fn begin(&mut self, partition: usize) {
        let (rows, scratch) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.scratch));
        *self = RowWalk { partition, rows, scratch, ..RowWalk::default() };
        self.rows.clear();
    }

    /// The packed row of a number; numbers asked for ascend.
    pub(crate) fn row(&mut self, dealt: &Dealt, number: u64) -> Result<&[u8], Failure> {
        loop {
            if self.at == self.rows.len() {
                self.next_rows(dealt)?;
                continue;
            }
            let begin = self.at + HEADER;
            let end = begin + le32(&self.rows, self.at) as usize;
            let found = le64(&self.rows, self.at + 4);
            if found == number {
                // Where it is, so that it can be asked for again.
                return Ok(&self.rows[begin..end]);
            }
            if found > number {
                return Err(never_read());
            }
            self.at = end;
        }
    }

    fn next_rows(&mut self, dealt: &Dealt) -> Result<(), Failure> {
        let partition = &dealt.partitions[self.partition];
        self.at = 0;
        if let Some(&chunk) = partition.chunks.get(self.next_chunk) {
            dealt.scratch.read(chunk, &mut self.rows, &mut self.scratch)?;
        } else if self.next_chunk == partition.chunks.len() && partition.length > 0 {
            let begin = self.partition * dealt.bytes;
            self.rows.clear();
            self.rows.extend_from_slice(&dealt.buffers[begin..begin + partition.length]);
        } else {
            return Err(never_read());
        }
        self.next_chunk += 1;
        Ok(())
    }
}

fn never_read() -> Failure {
    Failure::internal("a row was asked for that was never read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_their_order_spilled_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut dealt = Dealt::new(folder.path(), 64, 500);
        let row = |at: u64| at.to_string().repeat(at as usize % 40);
        for at in 0..200 {
            dealt.push(0, 10 * at, row(at).as_bytes()).unwrap();
        }
        assert!(dealt.file_bytes() > 500);
        let mut walk = RowWalk::of(0);
        for at in (0..200).filter(|at| at % 3 == 0) {
            assert_eq!(walk.row(&dealt, 10 * at).unwrap(), row(at).as_bytes());
        }
        for missing in [5, 2_000] {
            assert!(RowWalk::of(0).row(&dealt, missing).is_err());
        }
        assert!(RowWalk::of(1).row(&dealt, 0).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

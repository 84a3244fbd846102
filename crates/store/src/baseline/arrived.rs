//! Packed rows in the order they arrived, until it is known which of them anybody will look at.
//!
//! In most runs that is few, so rows are written as they come, whole batches at a time, and only those wanted are
//! divided by key afterwards. The first batches stay in memory, the others go to a temporary file, each with where its rows end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use warren_engine::failure::Failure;
use warren_engine::row::{Batch, RowRef};

use super::partition::le32;
use super::scratch::{Chunk, Scratch, too_large};

/// Rows in the order of their numbers.
pub(crate) struct Arrived {
    /// Bytes of small batches that are put together.
    chunk_bytes: usize,
    /// Bytes that still go to memory.
    memory_left: usize,
    parts: Vec<Part>,
    /// Small batches that are being put together, and the number of their first row.
    small: Batch,
    small_first: u64,
    /// The number of the next row.
    next: u64,
    scratch: Scratch,
}

/// Rows that came together.
struct Part {
    /// The number of the first.
    first: u64,
    rows: u64,
    place: Place,
}

enum Place {
    Memory(Batch),
    /// The rows, and then where each ends, as u32.
    File(Chunk),
}

/// Which rows are wanted, by number. Filled by several threads.
pub(crate) struct Wanted {
    words: Vec<AtomicU64>,
}

impl Arrived {
    /// No row yet.
    pub(crate) fn new(folder: &Path, chunk_bytes: usize, memory_bytes: usize, compress_from: u64) -> Arrived {
        Arrived {
            chunk_bytes,
            memory_left: memory_bytes,
            parts: Vec::new(),
            small: Batch::default(),
            small_first: 0,
            next: 0,
            scratch: Scratch::new(folder, compress_from),
        }
    }

    /// Takes the rows that come next.
    pub(crate) fn push(&mut self, batch: Batch) -> Result<(), Failure> {
        let first = self.next;
        self.next += batch.len() as u64;
        if batch.size() >= self.chunk_bytes {
            self.put_small()?;
            return self.put(first, batch);
        }
        if self.small.is_empty() {
            self.small_first = first;
        }
        batch.rows().for_each(|row| self.small.push_row(row));
        if self.small.size() >= self.chunk_bytes { self.put_small() } else { Ok(()) }
    }

    /// Hands out the rows that are wanted, with their numbers.
    pub(crate) fn each(
        &self,
        wanted: &Wanted,
        mut take: impl FnMut(u64, RowRef<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut raw, mut room) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let numbers = part.first..part.first + part.rows;
            if !wanted.any(&numbers) {
                continue;
            }
            match part.place {
                Place::Memory(ref batch) => each_of(batch, part.first, wanted, &mut take)?,
                Place::File(chunk) => {
                    self.scratch.read(chunk, &mut raw, &mut room)?;
                    let ends = raw.len().saturating_sub(4 * part.rows as usize);
                    let mut start = 0;
                    for (number, place) in numbers.zip((ends..).step_by(4)) {
                        let end = le32(&raw, place) as usize;
                        if wanted.has(number) {
                            take(number, RowRef::new(&raw[start..end]))?;
                        }
                        start = end;
                    }
                }
            }
        }
        each_of(&self.small, self.small_first, wanted, &mut take)
    }

    /// Bytes in the temporary file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.scratch.length()
    }

    fn put_small(&mut self) -> Result<(), Failure> {
        if self.small.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.small);
        self.put(self.small_first, batch)
    }

    fn put(&mut self, first: u64, batch: Batch) -> Result<(), Failure> {
        let rows = batch.len() as u64;
        let place = if batch.size() <= self.memory_left {
            self.memory_left -= batch.size();
            Place::Memory(batch)
        } else {
            let (mut raw, ends) = batch.into_parts();
            u32::try_from(raw.len()).map_err(|_| too_large())?;
            raw.reserve_exact(4 * ends.len());
            for end in ends {
                raw.extend_from_slice(&(end as u32).to_le_bytes());
            }
            Place::File(self.scratch.write(&raw)?)
        };
        self.parts.push(Part { first, rows, place });
        Ok(())
    }
}

fn each_of(
    batch: &Batch,
    first: u64,
    wanted: &Wanted,
    take: &mut impl FnMut(u64, RowRef<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (number, row) in (first..).zip(batch.rows()) {
        if wanted.has(number) {
            take(number, row)?;
        }
    }
    Ok(())
}

impl Wanted {
    /// None of so many rows.
    pub(crate) fn none(rows: u64) -> Wanted {
        Wanted { words: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Wants a row. One beyond those there are is let pass: where rows were dealt at once, nobody asks.
    pub(crate) fn add(&self, number: u64) {
        if let Some(word) = self.words.get((number / 64) as usize) {
            word.fetch_or(1 << (number % 64), Ordering::Relaxed);
        }
    }

    fn has(&self, number: u64) -> bool {
        let word = self.words.get((number / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }

    /// Whether one of these may be wanted; it looks at their neighbours too.
    fn any(&self, numbers: &std::ops::Range<u64>) -> bool {
        let end = self.words.len().min(numbers.end.div_ceil(64) as usize);
        let words = self.words.get((numbers.start / 64) as usize..end).unwrap_or_default();
        words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_engine::row::Value;

    fn batch(from: i64, rows: i64) -> Batch {
        let mut batch = Batch::default();
        for at in from..from + rows {
            batch.cells().int(at);
            batch.cells().text(&"x".repeat(at as usize % 50));
            batch.end_row();
        }
        batch
    }

    #[test]
    fn rows_that_are_wanted_come_back_from_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for (chunk, memory, compress) in
            [(1, 0, u64::MAX), (200, 500, 1000), (1 << 20, 0, 0), (100, usize::MAX, 0)]
        {
            let mut arrived = Arrived::new(folder.path(), chunk, memory, compress);
            let mut rows = 0;
            for size in [1, 3, 100, 1, 1, 0, 40, 2] {
                arrived.push(batch(rows, size)).unwrap();
                rows += size;
            }
            for every in [1, 7, 64, 1000] {
                let wanted = Wanted::none(rows as u64);
                let mut expected: Vec<_> = (0..rows as u64).filter(|at| at % every == every / 2).collect();
                for &number in &expected {
                    wanted.add(number);
                }
                expected.reverse();
                arrived
                    .each(&wanted, |number, row| {
                        assert_eq!(Some(number), expected.pop());
                        assert_eq!(row.get(0), Value::Int(number as i64));
                        assert_eq!(row.as_bytes(), batch(number as i64, 1).row(0).as_bytes());
                        Ok(())
                    })
                    .unwrap();
                assert!(expected.is_empty());
            }
        }
    }
}

//! Compaction: row files are merged, so that a row is found in few of them and what is overtaken goes.
//!
//! Two rules, both of bounded cost over time:
//! - where rows that are overtaken outnumber those that are not, all files are rewritten as one: the work is
//!   paid for by as many changes;
//! - where four or more of the newest files are of like size, they are merged: a row is moved once for each
//!   fourfold growth of the file it is in.

use bytes::Bytes;
use warren_engine::change::Op;
use warren_engine::failure::Failure;
use warren_engine::row::RowRef;

use super::folder::Folder;
use super::generation::Generation;
use super::journal::{Line, RowsWriter, key_schema};
use super::manifest::SegmentInfo;
use super::partition::{Entry, PARTITION_BITS, PARTITIONS};
use super::previous::{Located, RowStore};
use super::segment::{Header, StoredSchema};

/// Files of like size that are merged together.
const MERGE_FILES_MIN: usize = 4;
/// How much larger the next older file may be to be of like size.
const LIKE_SIZE: u64 = 4;
/// Rows collected before they are written.
const APPEND_BYTES: usize = 1 << 20;

/// What compaction must know of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep<'a> {
    /// Whether rows are kept whole.
    pub(crate) rows: bool,
    /// The key's columns, for rows that are not.
    pub(crate) key: &'a [String],
    /// Overtaken rows that are no reason to compact.
    pub(crate) garbage_rows_min: u64,
}

/// Compacts if it is worth it.
pub(crate) fn compact(folder: &Folder, generation: &mut Generation, keep: Keep<'_>) -> Result<(), Failure> {
    let from = first_to_merge(&generation.manifest.segments, generation.manifest.rows, keep.garbage_rows_min);
    let Some(from) = from else { return Ok(()) };
    let mut next = generation.manifest.clone();
    let number = next.next_segment;
    let info = merge(folder, generation, from, number, keep)?;
    next.segments.truncate(from);
    next.segments.push(info);
    next.next_segment = number + 1;
    next.store(folder)?;
    generation.manifest = next;
    generation.manifest.remove_others(folder)
}

/// The first of the newest files that are to be merged.
fn first_to_merge(segments: &[SegmentInfo], live: u64, garbage_rows_min: u64) -> Option<usize> {
    let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    if rows > 2 * live + garbage_rows_min {
        return Some(0);
    }
    let mut bytes = 0;
    let mut from = segments.len();
    while from > 0 && (bytes == 0 || segments[from - 1].bytes <= LIKE_SIZE * bytes) {
        from -= 1;
        bytes += segments[from].bytes;
    }
    (segments.len() - from >= MERGE_FILES_MIN).then_some(from)
}

fn merge(
    folder: &Folder,
    generation: &Generation,
    from: usize,
    number: u64,
    keep: Keep<'_>,
) -> Result<SegmentInfo, Failure> {
    let mut manifest = generation.manifest.clone();
    manifest.segments.drain(..from);
    let rows = RowStore::open(folder, &manifest)?;
    let header = Header {
        number,
        base_generation: manifest.generation,
        epoch: manifest.epoch,
        partition_bits: PARTITION_BITS,
        compacted: true,
        key: manifest.key.clone(),
        compare: Vec::new(),
    };
    let mut merging =
        Merging { writer: RowsWriter::unnamed(folder, &header)?, keep, pending: Vec::new(), bytes: 0 };
    let (mut entries, mut scratch) = (Vec::<Entry>::new(), Vec::new());
    for partition in 0..PARTITIONS {
        let Some(keys) = &generation.keys else { break };
        keys.partition(partition, &mut entries, &mut scratch)?;
        merging.take_all(&rows, partition, &entries)?;
        for entries in generation.doubts.rows_of(partition) {
            merging.take_all(&rows, partition, &entries)?;
        }
        merging.flush()?;
    }
    let mut writer = merging.writer;
    let bytes = writer.end()?;
    writer.publish()?;
    Ok(SegmentInfo { number, bytes, rows: writer.rows })
}

struct Merging<'a> {
    writer: RowsWriter,
    keep: Keep<'a>,
    pending: Vec<Line>,
    bytes: usize,
}

impl Merging<'_> {
    /// Takes the rows of entries of a partition. A row that is in none of the files is in an older one, which stays.
    fn take_all(&mut self, rows: &RowStore, partition: usize, entries: &[Entry]) -> Result<(), Failure> {
        let located = rows.locate(partition, entries)?;
        let mut located: Vec<(usize, Located)> =
            located.into_iter().enumerate().filter_map(|(at, located)| Some((at, located?))).collect();
        rows.read(&mut located, |at, stored, bytes| self.take(entries[at], stored, bytes))
    }

    fn take(&mut self, entry: Entry, stored: &StoredSchema, bytes: &[u8]) -> Result<(), Failure> {
        let names_key = self.keep.key.iter().all(|name| stored.schema.index_of(name).is_some());
        let row = if stored.whole && !self.keep.rows && names_key {
            let schema = self.writer.schema(&key_schema(&stored.schema, self.keep.key)?)?;
            let cells = self.keep.key.iter().filter_map(|name| stored.schema.index_of(name));
            (schema, Bytes::from(project(RowRef::new(bytes), cells)))
        } else {
            (self.writer.schema(stored)?, Bytes::copy_from_slice(bytes))
        };
        self.bytes += row.1.len();
        self.pending.push(Line { entry, op: Op::Added, before: None, row: Some(row) });
        if self.bytes >= APPEND_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.writer.told(&mut self.pending)?;
        self.pending.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Some cells of a row, as a row.
pub(crate) fn project(row: RowRef<'_>, cells: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in cells {
        bytes.extend_from_slice(row.cell(cell));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: &[(u64, u64)]) -> Vec<SegmentInfo> {
        sizes.iter().map(|&(bytes, rows)| SegmentInfo { number: 1, bytes, rows }).collect()
    }

    #[test]
    fn few_files_of_like_size_stay() {
        assert_eq!(first_to_merge(&[], 0, 10), None);
        assert_eq!(first_to_merge(&files(&[(9, 1), (9, 1), (9, 1)]), 3, 10), None);
    }

    #[test]
    fn four_of_like_size_are_merged_and_a_larger_one_stays() {
        assert_eq!(first_to_merge(&files(&[(1000, 100), (9, 1), (9, 1), (9, 1), (9, 1)]), 104, 10), Some(1));
        assert_eq!(first_to_merge(&files(&[(100, 9), (9, 1), (9, 1), (9, 1), (9, 1)]), 13, 10), Some(0));
    }

    #[test]
    fn overtaken_rows_are_dropped_when_they_are_the_most() {
        assert_eq!(first_to_merge(&files(&[(1000, 100), (1, 111)]), 100, 10), Some(0));
        assert_eq!(first_to_merge(&files(&[(1000, 100), (1, 110)]), 100, 10), None);
    }
}

//! The rows of the run under way, by partition: in memory while they are few, else in one temporary file.
//!
//! Of each row two things are kept apart: its prints, which every run reads back, and its packed bytes, which
//! are only read back where something differs. Both collect in small buffers, one of each a partition; a full one
//! is written to the file as a chunk. The file has no name once it is open, so it cannot outlive the process.
//!
//! Memory: all buffers are one allocation, 44 MiB with the usual sizes, of which only what is touched is real and
//! which goes back to the system as a whole; and 24 bytes a chunk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use xxhash_rust::xxh3::xxh3_64;

use super::folder::{damaged, unwritable};
use super::partition::{PARTITION_BITS, PARTITIONS, le32, partition_of, sixteen};

/// How large buffers may be. Smaller ones than the usual serve tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpillSizes {
    /// Bytes of packed rows that make a chunk.
    pub(crate) rows_bytes: usize,
    /// Bytes of prints that make a chunk.
    pub(crate) prints_bytes: usize,
    /// Bytes in the file from which on rows are compressed: before that, writing to the page cache costs less.
    pub(crate) compress_from: u64,
}

/// The rows of one run.
pub(crate) struct Spill {
    sizes: SpillSizes,
    /// The buffers of all partitions: each has its rows and behind them its prints.
    buffers: Vec<u8>,
    partitions: Vec<Partition>,
    /// Prints a row: the one in use and those the baseline may still have.
    prints: usize,
    folder: PathBuf,
    file: Option<File>,
    length: u64,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Partition {
    /// Bytes in the buffer of rows.
    rows: usize,
    /// Bytes in the buffer of prints.
    prints: usize,
    /// Rows in the buffer of rows.
    buffered: u32,
    print_chunks: Vec<Chunk>,
    row_chunks: Vec<Chunk>,
}

/// A piece of the file.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    offset: u64,
    stored: u32,
    /// The length before compression; the same as `stored` where there was none.
    raw: u32,
    /// Rows in it.
    count: u32,
    /// Half of the xxh3-64 of what is stored.
    sum: u32,
}

/// The keys and prints of one partition. A row's ordinal is its turn within the partition.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// Sorted by key: the key and the row's ordinal.
    pub(crate) keys: Vec<(u128, u32)>,
    /// `width` prints for each ordinal.
    prints: Vec<u128>,
    width: usize,
    /// Room for sorting.
    places: Vec<u32>,
    dealt: Vec<(u128, u32)>,
}

impl Fresh {
    /// The prints of a row: the one in use first.
    pub(crate) fn prints(&self, ordinal: u32) -> &[u128] {
        let at = ordinal as usize * self.width;
        &self.prints[at..at + self.width]
    }

    /// Sorts by key, rows of one key by ordinal.
    ///
    /// Prints are evenly spread, so a key's place is nearly known from its bits: keys are dealt out to as many
    /// places as there are keys, and what is left is to swap neighbours. That takes a third of the time of a sort that
    /// compares. Keys that are not spread (somebody chose them) are sorted the plain way.
    fn sort(&mut self) {
        let bits = usize::BITS - self.keys.len().leading_zeros();
        if !(6..=24).contains(&bits) {
            return self.keys.sort_unstable();
        }
        let place = |key: u128| (key << PARTITION_BITS >> (128 - bits)) as usize;
        self.places.clear();
        self.places.resize((1 << bits) + 1, 0);
        for &(key, _) in &self.keys {
            self.places[place(key) + 1] += 1;
        }
        let mut sum = 0;
        for count in &mut self.places {
            sum += *count;
            *count = sum;
        }
        self.dealt.clear();
        self.dealt.resize(self.keys.len(), (0, 0));
        for &one in &self.keys {
            let next = &mut self.places[place(one.0)];
            self.dealt[*next as usize] = one;
            *next += 1;
        }
        std::mem::swap(&mut self.keys, &mut self.dealt);
        let mut swaps_left = 4 * self.keys.len();
        for at in 1..self.keys.len() {
            let mut to = at;
            while to > 0 && self.keys[to - 1] > self.keys[to] {
                self.keys.swap(to - 1, to);
                to -= 1;
                swaps_left = swaps_left.saturating_sub(1);
            }
            if swaps_left == 0 {
                return self.keys.sort_unstable();
            }
        }
    }
}

/// Goes through the packed rows of one partition, in the order of their ordinals.
#[derive(Default)]
pub(crate) struct RowWalk {
    partition: usize,
    /// The chunk that is decoded next; past the last is the buffer.
    next_chunk: usize,
    /// The rows of the chunk that is decoded.
    rows: Vec<u8>,
    /// Where in `rows` the row of ordinal `ordinal` begins.
    at: usize,
    ordinal: u32,
    /// The first ordinal that is not in `rows`.
    end: u32,
    scratch: Vec<u8>,
}

impl Spill {
    /// Nothing yet; `folder` is where a temporary file may be made, and is there.
    pub(crate) fn new(folder: PathBuf, prints: usize, mut sizes: SpillSizes) -> Spill {
        sizes.prints_bytes = sizes.prints_bytes.max(width(prints));
        let mut partitions = Vec::new();
        partitions.resize_with(PARTITIONS, Partition::default);
        let buffers = vec![0; PARTITIONS * (sizes.rows_bytes + sizes.prints_bytes)];
        Spill { sizes, buffers, partitions, prints, folder, file: None, length: 0, scratch: Vec::new() }
    }

    /// Takes a row: its key, its prints and its packed bytes.
    pub(crate) fn push(&mut self, key: u128, prints: &[u128], row: &[u8]) -> Result<(), Failure> {
        let at = partition_of(key);
        let wide = 4 + row.len() > self.sizes.rows_bytes;
        if wide || self.partitions[at].rows + 4 + row.len() > self.sizes.rows_bytes {
            self.spill_rows(at)?;
        }
        if self.partitions[at].prints + width(prints.len()) > self.sizes.prints_bytes {
            self.spill_prints(at)?;
        }
        let length = u32::try_from(row.len()).ok().filter(|&length| length < u32::MAX - 8);
        let length = length.ok_or_else(too_large)?.to_le_bytes();
        let begin = self.begin(at);
        let partition = &mut self.partitions[at];
        let mut place = begin + self.sizes.rows_bytes + partition.prints;
        for word in std::iter::once(&key).chain(prints) {
            self.buffers[place..place + 16].copy_from_slice(&word.to_le_bytes());
            place += 16;
        }
        partition.prints += width(prints.len());
        if wide {
            return self.spill_wide(at, length, row);
        }
        let place = begin + partition.rows;
        self.buffers[place..place + 4].copy_from_slice(&length);
        self.buffers[place + 4..place + 4 + row.len()].copy_from_slice(row);
        partition.rows += 4 + row.len();
        partition.buffered += 1;
        Ok(())
    }

    /// Reads the keys and prints of a partition back, sorted by key, over what `fresh` held.
    pub(crate) fn fresh(
        &self,
        partition: usize,
        fresh: &mut Fresh,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        fresh.keys.clear();
        fresh.prints.clear();
        fresh.width = self.prints;
        // Prints are not compressed, so one buffer is enough.
        for &chunk in &self.partitions[partition].print_chunks {
            self.read(chunk, scratch, &mut Vec::new())?;
            self.take_prints(scratch, fresh);
        }
        let begin = self.begin(partition) + self.sizes.rows_bytes;
        self.take_prints(&self.buffers[begin..begin + self.partitions[partition].prints], fresh);
        fresh.sort();
        Ok(())
    }

    /// Bytes in the temporary file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.length
    }

    fn take_prints(&self, raw: &[u8], fresh: &mut Fresh) {
        for record in raw.chunks_exact(width(self.prints)) {
            let ordinal = fresh.keys.len() as u32;
            fresh.keys.push((u128::from_le_bytes(sixteen(record, 0)), ordinal));
            for at in 0..self.prints {
                fresh.prints.push(u128::from_le_bytes(sixteen(record, 16 + 16 * at)));
            }
        }
    }

    /// Where the buffers of a partition begin.
    fn begin(&self, partition: usize) -> usize {
        partition * (self.sizes.rows_bytes + self.sizes.prints_bytes)
    }

    fn spill_rows(&mut self, at: usize) -> Result<(), Failure> {
        let (begin, length) = (self.begin(at), std::mem::take(&mut self.partitions[at].rows));
        let count = std::mem::take(&mut self.partitions[at].buffered);
        if count == 0 {
            return Ok(());
        }
        let compress = self.length >= self.sizes.compress_from;
        let buffers = std::mem::take(&mut self.buffers);
        let chunk = self.write(&buffers[begin..begin + length], count, compress);
        self.buffers = buffers;
        self.partitions[at].row_chunks.push(chunk?);
        Ok(())
    }

    /// Writes a row that no buffer holds as a chunk of its own.
    fn spill_wide(&mut self, at: usize, length: [u8; 4], row: &[u8]) -> Result<(), Failure> {
        let compress = self.length >= self.sizes.compress_from;
        let chunk = self.write(&[&length, row].concat(), 1, compress)?;
        self.partitions[at].row_chunks.push(chunk);
        Ok(())
    }

    fn spill_prints(&mut self, at: usize) -> Result<(), Failure> {
        let begin = self.begin(at) + self.sizes.rows_bytes;
        let length = std::mem::take(&mut self.partitions[at].prints);
        let buffers = std::mem::take(&mut self.buffers);
        // Hashes do not compress.
        let chunk = self.write(&buffers[begin..begin + length], 0, false);
        self.buffers = buffers;
        self.partitions[at].print_chunks.push(chunk?);
        Ok(())
    }

    fn write(&mut self, raw: &[u8], count: u32, compress: bool) -> Result<Chunk, Failure> {
        let mut stored = raw;
        if compress {
            self.scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            let length = lz4_flex::block::compress_into(raw, &mut self.scratch)
                .map_err(|error| Failure::internal("compress rows").because(error))?;
            if length < raw.len() {
                stored = &self.scratch[..length];
            }
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(open_unnamed(&self.folder)?),
        };
        file.write_all_at(stored, self.length).map_err(|error| unwritable(&self.folder, error))?;
        let raw = u32::try_from(raw.len()).map_err(|_| too_large())?;
        let chunk = Chunk {
            offset: self.length,
            stored: stored.len() as u32,
            raw,
            count,
            sum: xxh3_64(stored) as u32,
        };
        self.length += stored.len() as u64;
        Ok(chunk)
    }

    /// Reads a chunk back over what `raw` held.
    fn read(&self, chunk: Chunk, raw: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Result<(), Failure> {
        let compressed = chunk.stored != chunk.raw;
        let into = if compressed { &mut *scratch } else { &mut *raw };
        into.resize(chunk.stored as usize, 0);
        let file = self.file.as_ref().ok_or_else(|| Failure::internal("read rows that were not spilled"))?;
        let fault = |what: &str| damaged(&self.folder.join("spill"), chunk.offset, what);
        file.read_exact_at(into, chunk.offset)
            .map_err(|error| fault("the temporary file cannot be read").because(error))?;
        if xxh3_64(into) as u32 != chunk.sum {
            return Err(fault("the temporary file does not hold what was written"));
        }
        if compressed {
            raw.resize(chunk.raw as usize, 0);
            lz4_flex::block::decompress_into(scratch, raw)
                .map_err(|error| fault("the temporary file does not decompress").because(error))?;
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
    }

    /// The packed row of an ordinal; ordinals asked for ascend.
    pub(crate) fn row(&mut self, spill: &Spill, ordinal: u32) -> Result<&[u8], Failure> {
        while ordinal >= self.end {
            self.next_rows(spill)?;
        }
        while self.ordinal < ordinal {
            self.at += 4 + le32(&self.rows, self.at) as usize;
            self.ordinal += 1;
        }
        let length = le32(&self.rows, self.at) as usize;
        Ok(&self.rows[self.at + 4..self.at + 4 + length])
    }

    fn next_rows(&mut self, spill: &Spill) -> Result<(), Failure> {
        let partition = &spill.partitions[self.partition];
        self.ordinal = self.end;
        self.at = 0;
        if let Some(&chunk) = partition.row_chunks.get(self.next_chunk) {
            spill.read(chunk, &mut self.rows, &mut self.scratch)?;
            self.end += chunk.count;
        } else if self.next_chunk == partition.row_chunks.len() && partition.buffered > 0 {
            let begin = spill.begin(self.partition);
            self.rows.clear();
            self.rows.extend_from_slice(&spill.buffers[begin..begin + partition.rows]);
            self.end += partition.buffered;
        } else {
            return Err(Failure::internal("a row was asked for that was never read"));
        }
        self.next_chunk += 1;
        Ok(())
    }
}

/// Bytes of a key and its prints.
fn width(prints: usize) -> usize {
    16 + 16 * prints
}

/// A file without a name: it is gone when it is closed, however the process ends.
fn open_unnamed(folder: &std::path::Path) -> Result<File, Failure> {
    let path = folder.join(format!("spill-{}-{}.tmp", std::process::id(), spill_number()));
    let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = opened.map_err(|error| unwritable(&path, error))?;
    fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
    Ok(file)
}

/// A number that no other spill of this process has now.
fn spill_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, codes::VALUE_TOO_LONG, "read a row")
        .detail("the row has 4 GiB or more")
        .remedy("leave the large column out of the query")
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn sorted(keys: impl Iterator<Item = u128>) {
        let keys: Vec<_> = keys.zip(0..).collect();
        let mut fresh = Fresh { keys: keys.clone(), ..Fresh::default() };
        fresh.sort();
        let mut expected = keys;
        expected.sort_unstable();
        assert_eq!(fresh.keys, expected);
    }

    #[test]
    fn keys_are_sorted_however_they_are_spread() {
        let spread = |at: u128| xxh3_128(&at.to_le_bytes()) >> PARTITION_BITS;
        for count in [0, 1, 2, 31, 32, 33, 1000, 5000] {
            sorted((0..count).map(spread));
            sorted((0..count).map(|at| spread(at / 3)));
            sorted((0..count).rev());
            sorted((0..count).map(|_| 7));
        }
    }

    #[test]
    fn rows_come_back_in_their_order_spilled_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = SpillSizes { rows_bytes: 64, prints_bytes: 64, compress_from: 500 };
        let mut spill = Spill::new(folder.path().to_owned(), 1, sizes);
        let row = |at: u32| at.to_string().repeat(at as usize % 40);
        for at in 0..200 {
            spill.push(u128::from(199 - at), &[u128::from(at)], row(at).as_bytes()).unwrap();
        }
        assert!(spill.file_bytes() > 500);
        let mut fresh = Fresh::default();
        spill.fresh(0, &mut fresh, &mut Vec::new()).unwrap();
        assert_eq!(fresh.keys[0], (0, 199));
        assert_eq!(fresh.prints(199), [199]);
        let mut walk = RowWalk::of(0);
        for at in (0..200).filter(|at| at % 3 == 0) {
            assert_eq!(walk.row(&spill, at).unwrap(), row(at).as_bytes());
        }
        assert!(RowWalk::of(0).row(&spill, 200).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

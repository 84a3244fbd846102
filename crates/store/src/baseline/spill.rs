//! The rows of the run under way, by partition: in memory while they are few, else in one temporary file.
//!
//! Of each row two things are kept apart: its prints, which every run reads back, and its packed bytes, which
//! are only read back where something differs. Both collect in small buffers, one of each a partition; a full one
//! is written to the file as a chunk. The file has no name once it is open, so it cannot outlive the process.
//!
//! Memory: at most `PARTITIONS` × (both buffers), 44 MiB with the usual sizes, and 24 bytes a chunk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use xxhash_rust::xxh3::xxh3_64;

use super::folder::{damaged, unwritable};
use super::partition::{PARTITIONS, le32, partition_of, sixteen};

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
    prints: Vec<u8>,
    rows: Vec<u8>,
    /// Rows in the buffer `rows`.
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
}

impl Fresh {
    /// The prints of a row: the one in use first.
    pub(crate) fn prints(&self, ordinal: u32) -> &[u128] {
        let at = ordinal as usize * self.width;
        &self.prints[at..at + self.width]
    }
}

/// Goes through the packed rows of one partition, in the order of their ordinals.
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
    pub(crate) fn new(folder: PathBuf, prints: usize, sizes: SpillSizes) -> Spill {
        let mut partitions = Vec::new();
        partitions.resize_with(PARTITIONS, Partition::default);
        Spill { sizes, partitions, prints, folder, file: None, length: 0, scratch: Vec::new() }
    }

    /// Takes a row: its key, its prints and its packed bytes.
    pub(crate) fn push(&mut self, key: u128, prints: &[u128], row: &[u8]) -> Result<(), Failure> {
        let at = partition_of(key);
        let width = 16 + 16 * prints.len();
        let partition = &self.partitions[at];
        // Full buffers go before the row comes, so that a buffer never grows past its size for a small row.
        if partition.rows.len() + 4 + row.len() > self.sizes.rows_bytes && !partition.rows.is_empty() {
            self.spill_rows(at)?;
        }
        if self.partitions[at].prints.len() + width > self.sizes.prints_bytes {
            self.spill_prints(at)?;
        }
        let length = u32::try_from(row.len()).ok().filter(|&length| length < u32::MAX - 8);
        let length = length.ok_or_else(too_large)?;
        let partition = &mut self.partitions[at];
        partition.prints.extend_from_slice(&key.to_le_bytes());
        for print in prints {
            partition.prints.extend_from_slice(&print.to_le_bytes());
        }
        partition.rows.extend_from_slice(&length.to_le_bytes());
        partition.rows.extend_from_slice(row);
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
        let mut raw = Vec::new();
        for &chunk in &self.partitions[partition].print_chunks {
            self.read(chunk, &mut raw, scratch)?;
            self.take_prints(&raw, fresh);
        }
        self.take_prints(&self.partitions[partition].prints, fresh);
        fresh.keys.sort_unstable();
        Ok(())
    }

    /// Begins a walk through the rows of a partition.
    pub(crate) fn walk(&self, partition: usize) -> RowWalk {
        let (rows, scratch) = (Vec::new(), Vec::new());
        RowWalk { partition, next_chunk: 0, rows, at: 0, ordinal: 0, end: 0, scratch }
    }

    /// Bytes in the temporary file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.length
    }

    fn take_prints(&self, raw: &[u8], fresh: &mut Fresh) {
        for record in raw.chunks_exact(16 + 16 * self.prints) {
            let ordinal = fresh.keys.len() as u32;
            fresh.keys.push((u128::from_le_bytes(sixteen(record, 0)), ordinal));
            for at in 0..self.prints {
                fresh.prints.push(u128::from_le_bytes(sixteen(record, 16 + 16 * at)));
            }
        }
    }

    fn spill_rows(&mut self, at: usize) -> Result<(), Failure> {
        let mut rows = std::mem::take(&mut self.partitions[at].rows);
        let count = std::mem::take(&mut self.partitions[at].buffered);
        let compress = self.length >= self.sizes.compress_from;
        let chunk = self.write(&rows, count, compress)?;
        rows.clear();
        // One very wide row must not leave its room behind in every partition.
        rows.shrink_to(self.sizes.rows_bytes);
        let partition = &mut self.partitions[at];
        partition.row_chunks.push(chunk);
        partition.rows = rows;
        Ok(())
    }

    fn spill_prints(&mut self, at: usize) -> Result<(), Failure> {
        let mut prints = std::mem::take(&mut self.partitions[at].prints);
        // Hashes do not compress.
        let chunk = self.write(&prints, 0, false)?;
        prints.clear();
        let partition = &mut self.partitions[at];
        partition.print_chunks.push(chunk);
        partition.prints = prints;
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
            self.rows.clone_from(&partition.rows);
            self.end += partition.buffered;
        } else {
            return Err(Failure::internal("a row was asked for that was never read"));
        }
        self.next_chunk += 1;
        Ok(())
    }
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

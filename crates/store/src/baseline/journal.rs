//! Writes row files: the journal of a run, block by block, and compacted files.
//!
//! What a call has returned from survives the death of the process, since it was handed to the operating system.
//! Against a loss of power the file is synced about every second and at the end of the run: what was accepted in
//! between may be sent once more after one, and what was announced in between is not in doubt then.

use std::time::{Duration, Instant};

use bytes::Bytes;
use warren_engine::change::Op;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::fingerprint::RowPrint;
use warren_engine::{codes, model::Schema};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::folder::{Folder, Writing};
use super::manifest::rows_name;
use super::partition::{Entry, partition_of};
use super::segment::{
    BLOCK_HEADER, BlockHeader, Fate, Header, KIND_ANNOUNCED, KIND_SCHEMA, KIND_SETTLED, KIND_TOLD, Record,
    SchemaBody, StoredSchema, header_bytes, write_fate,
};

/// Rows of one block, uncompressed; large enough for zstd, small enough to read for one row.
const BLOCK_ROWS_BYTES: usize = 32 << 10;
/// Below this a block is not worth compressing.
const COMPRESS_BYTES_MIN: usize = 128;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What is to be written of one change.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// As in [`Record`].
    pub(crate) entry: Entry,
    pub(crate) op: Op,
    pub(crate) before: Option<RowPrint>,
    /// The row and which schema it has (see [`RowsWriter::schema`]); `None` for a removed key.
    pub(crate) row: Option<(u16, Bytes)>,
}

/// Where an announced change was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Announced {
    /// The turn of its block among the announced ones of the file.
    pub(crate) block: u32,
    /// Its turn in it.
    pub(crate) turn: u32,
    /// Records in the block.
    pub(crate) of: u32,
}

/// A row file being written.
pub(crate) struct RowsWriter {
    file: Writing,
    pub(crate) number: u64,
    schemas: Vec<StoredSchema>,
    /// Where the last block that was written whole ends. What a failed write left behind it is written over.
    end: u64,
    /// Rows in it that were told.
    pub(crate) rows: u64,
    /// Announced blocks in it.
    announced: u32,
    pending: Vec<u8>,
    synced: Instant,
    compressor: zstd::bulk::Compressor<'static>,
}

impl RowsWriter {
    /// Creates a journal: it has its name at once, so that the next run finds it whenever this one dies.
    pub(crate) fn journal(folder: &Folder, header: &Header) -> Result<RowsWriter, Failure> {
        let mut writer = RowsWriter::unnamed(folder, header)?;
        writer.publish()?;
        Ok(writer)
    }

    /// Creates a file that gets its name from [`publish`](Self::publish).
    pub(crate) fn unnamed(folder: &Folder, header: &Header) -> Result<RowsWriter, Failure> {
        let file = folder.create(&format!("{}.tmp", rows_name(header.number)))?;
        let bytes = header_bytes(header)?;
        file.write_at(&bytes, 0)?;
        let compressor =
            zstd::bulk::Compressor::new(1).map_err(|error| Failure::internal("start zstd").because(error))?;
        Ok(RowsWriter {
            file,
            number: header.number,
            schemas: Vec::new(),
            end: bytes.len() as u64,
            rows: 0,
            announced: 0,
            pending: Vec::new(),
            synced: Instant::now(),
            compressor,
        })
    }

    /// Syncs the file and gives it its name.
    pub(crate) fn publish(&mut self) -> Result<(), Failure> {
        self.file.publish_as(&rows_name(self.number))
    }

    /// The number of a schema in this file, which is written if it is new.
    pub(crate) fn schema(&mut self, schema: &StoredSchema) -> Result<u16, Failure> {
        if let Some(known) = self.schemas.iter().position(|known| known == schema) {
            return Ok(known as u16);
        }
        let number = u16::try_from(self.schemas.len())
            .map_err(|_| Failure::internal("a row file has more schemas than it can number"))?;
        let body = SchemaBody { columns: schema.schema.columns().to_vec(), whole: schema.whole };
        let body =
            serde_json::to_vec(&body).map_err(|error| Failure::internal("write a schema").because(error))?;
        self.pending.clear();
        self.block(BlockHeader { kind: KIND_SCHEMA, ..BlockHeader::default() }, &[], &body)?;
        self.write()?;
        self.schemas.push(schema.clone());
        Ok(number)
    }

    /// Writes what was told, in blocks by partition and schema.
    pub(crate) fn told(&mut self, lines: &mut [Line]) -> Result<(), Failure> {
        self.lines(lines, KIND_TOLD, |_, _, _| ())?;
        self.rows += lines.iter().filter(|line| line.row.is_some()).count() as u64;
        Ok(())
    }

    /// Writes what is about to be told, in the same way; says where each is.
    pub(crate) fn announce(&mut self, lines: &mut [Line]) -> Result<Vec<(u128, Announced)>, Failure> {
        let mut places = Vec::with_capacity(lines.len());
        let mut block = self.announced;
        self.lines(lines, KIND_ANNOUNCED, |lines, from, to| {
            places.extend((from..to).map(|at| {
                let (turn, of) = ((at - from) as u32, (to - from) as u32);
                (lines[at].entry.key(), Announced { block, turn, of })
            }));
            block += 1;
        })?;
        self.announced = block;
        Ok(places)
    }

    /// Writes what became of announced changes.
    pub(crate) fn settle(&mut self, settled: &mut [Announced], fate: Fate) -> Result<(), Failure> {
        settled.sort_unstable();
        let (mut body, mut turns) = (Vec::new(), Vec::new());
        for block in settled.chunk_by(|one, other| one.block == other.block) {
            turns.clear();
            turns.extend(block.iter().map(|one| one.turn));
            let whole = block.len() == block[0].of as usize;
            write_fate(&mut body, block[0].block, fate, (!whole).then_some(&turns[..]));
        }
        self.pending.clear();
        self.block(BlockHeader { kind: KIND_SETTLED, ..BlockHeader::default() }, &[], &body)?;
        self.write()
    }

    /// Writes lines in blocks by partition and schema; each block is told with its lines' places.
    fn lines(
        &mut self,
        lines: &mut [Line],
        kind: u8,
        mut tell: impl FnMut(&[Line], usize, usize),
    ) -> Result<(), Failure> {
        lines.sort_by_key(group_of);
        self.pending.clear();
        let (mut records, mut rows) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < lines.len() {
            let group = group_of(&lines[from]);
            records.clear();
            rows.clear();
            let mut to = from;
            while to < lines.len() && group_of(&lines[to]) == group && rows.len() < BLOCK_ROWS_BYTES {
                let Line { entry, op, before, row } = &lines[to];
                let length = row.as_ref().map_or(0, |(_, bytes)| bytes.len());
                let length = u32::try_from(length).map_err(|_| too_large())?;
                let record = Record { entry: *entry, op: *op, length, before: *before };
                if kind == KIND_ANNOUNCED {
                    record.write_announced(&mut records);
                } else {
                    record.write_told(&mut records);
                }
                if let Some((_, bytes)) = row {
                    rows.extend_from_slice(bytes);
                }
                to += 1;
            }
            tell(lines, from, to);
            let header = BlockHeader {
                kind,
                partition: group.0,
                schema: u32::from(group.1),
                count: (to - from) as u32,
                ..BlockHeader::default()
            };
            self.block(header, &records, &rows)?;
            from = to;
        }
        self.write()
    }

    /// Syncs what was written, if the last sync is a while ago.
    pub(crate) fn sync_if_due(&mut self) -> Result<(), Failure> {
        if self.synced.elapsed() < SYNC_EVERY {
            return Ok(());
        }
        self.sync()
    }

    /// Syncs what was written.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        self.file.sync()?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Cuts off what a failed write left behind, and syncs; returns the file's length.
    pub(crate) fn end(&mut self) -> Result<u64, Failure> {
        self.file.set_length(self.end)?;
        self.sync()?;
        Ok(self.end)
    }

    /// Adds a block to what is to be written.
    fn block(&mut self, mut header: BlockHeader, records: &[u8], body: &[u8]) -> Result<(), Failure> {
        let offset = self.end + self.pending.len() as u64;
        header.raw = u32::try_from(body.len()).map_err(|_| too_large())?;
        let compressed = if body.len() >= COMPRESS_BYTES_MIN {
            self.compressor.compress(body).ok().filter(|compressed| compressed.len() < body.len())
        } else {
            None
        };
        header.codec = u8::from(compressed.is_some());
        let stored = compressed.as_deref().unwrap_or(body);
        header.stored = stored.len() as u32;
        header.entries_sum = xxh3_64_with_seed(records, offset);
        header.body_sum = xxh3_64_with_seed(stored, offset);
        self.pending.reserve(BLOCK_HEADER + records.len() + stored.len());
        header.write_to(offset, &mut self.pending);
        self.pending.extend_from_slice(records);
        self.pending.extend_from_slice(stored);
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        let written = self.file.write_at(&self.pending, self.end);
        if written.is_ok() {
            self.end += self.pending.len() as u64;
        }
        self.pending.clear();
        written
    }
}

/// The key's columns alone, for rows that are not kept whole.
pub(crate) fn key_schema(schema: &Schema, key: &[String]) -> Result<StoredSchema, Failure> {
    let columns = key.iter().filter_map(|name| schema.index_of(name)).map(|at| schema.columns()[at].clone());
    let schema = Schema::new(columns.collect())
        .map_err(|error| Failure::internal("a key names a column twice").because(error))?;
    Ok(StoredSchema { schema, whole: false })
}

fn group_of(line: &Line) -> (u16, u16) {
    let schema = line.row.as_ref().map_or(0, |(schema, _)| *schema);
    (partition_of(line.entry.key()) as u16, schema)
}

fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, codes::VALUE_TOO_LONG, "keep a row in the baseline")
        .detail("the row has 4 GiB or more")
        .remedy("leave the large column out of the query, or set `keep_rows: false`")
}

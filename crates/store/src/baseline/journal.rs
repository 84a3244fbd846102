//! Writes row files: the journal of a run, block by block, and compacted files.
//!
//! What `append` has returned from survives the death of the process, since it was handed to the operating system.
//! Against a loss of power the file is synced about every second and at the end of the run: what was accepted in
//! between may be sent once more after one, and is never lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::{codes, model::Schema};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::folder::{Folder, Writing};
use super::manifest::rows_name;
use super::partition::{Entry, partition_of};
use super::segment::{
    BLOCK_HEADER, BlockHeader, Header, KIND_ROWS, KIND_SCHEMA, Record, SchemaBody, StoredSchema, header_bytes,
};

/// Rows of one block, uncompressed; large enough for zstd, small enough to read for one row.
const BLOCK_ROWS_BYTES: usize = 32 << 10;
/// Below this a block is not worth compressing.
const COMPRESS_BYTES_MIN: usize = 128;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What is to be written of one accepted change.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) entry: Entry,
    /// The row and which schema it has (see [`RowsWriter::schema`]); `None` for a removed key.
    pub(crate) row: Option<(u16, Bytes)>,
}

/// A row file being written.
pub(crate) struct RowsWriter {
    file: Writing,
    pub(crate) number: u64,
    schemas: Vec<StoredSchema>,
    /// Where the last block that was written whole ends. What a failed write left behind it is written over.
    end: u64,
    /// Rows in it.
    pub(crate) rows: u64,
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

    /// Writes what was accepted, in blocks by partition and schema.
    pub(crate) fn append(&mut self, accepted: &mut [Accepted]) -> Result<(), Failure> {
        accepted.sort_by_key(group_of);
        self.pending.clear();
        let (mut records, mut rows) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < accepted.len() {
            let group = group_of(&accepted[from]);
            records.clear();
            rows.clear();
            let mut to = from;
            while to < accepted.len() && group_of(&accepted[to]) == group && rows.len() < BLOCK_ROWS_BYTES {
                let Accepted { entry, row } = &accepted[to];
                let length = row.as_ref().map_or(0, |(_, bytes)| bytes.len());
                let length = u32::try_from(length).map_err(|_| too_large())?;
                Record { entry: *entry, removed: row.is_none(), length }.write_to(&mut records);
                if let Some((_, bytes)) = row {
                    rows.extend_from_slice(bytes);
                }
                to += 1;
            }
            let header = BlockHeader {
                kind: KIND_ROWS,
                partition: group.0,
                schema: u32::from(group.1),
                count: (to - from) as u32,
                ..BlockHeader::default()
            };
            self.block(header, &records, &rows)?;
            from = to;
        }
        self.write()?;
        self.rows += accepted.iter().filter(|accepted| accepted.row.is_some()).count() as u64;
        Ok(())
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

fn group_of(accepted: &Accepted) -> (u16, u16) {
    let schema = accepted.row.as_ref().map_or(0, |(schema, _)| *schema);
    (partition_of(accepted.entry.key()) as u16, schema)
}

fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, codes::VALUE_TOO_LONG, "keep a row in the baseline")
        .detail("the row has 4 GiB or more")
        .remedy("leave the large column out of the query, or set `keep_rows: false`")
}

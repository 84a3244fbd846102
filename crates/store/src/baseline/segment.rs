//! A row file: what the destination was told, in the order it was told, with the rows.
//!
//! The file of the run under way is the run's journal: what is about to be told is written to its end, then what became
//! of it, and what was written survives the death of the process. Later it is one of the files that previous rows are read from.
//!
//! ```text
//! header   magic 8 | version u32 | length u32 | JSON (see `Header`) | xxh3-64 of all before
//! block    header 48 | body
//! ```
//! A block's header: magic u32, kind u8 (1 schema, 2 told, 3 announced, 4 settled), codec u8 (0 none, 1 zstd), partition
//! u16, schema u32, count u32, raw length u32, stored length u32, checksum of the records u64, of the stored body u64, of this
//! header u64.
//! - A schema block's body is JSON, known by its turn.
//! - A told block is `count` records of 37 bytes (key 16, print and version 16, op u8: 1 put, 2 removed; length of the row u32)
//!   and then the rows, packed, compressed together.
//! - An announced block is the same, and says what is about to be told: its records have 53 bytes (op: 1 added,
//!   2 removed, 3 changed; at the end the print before, 16, all ones for none).
//! - A settled block's body says what became of announced records: the turn of their block among the announced ones u32,
//!   u8 1 told or 2 withdrawn, and either all ones u32 for the whole block, or a count u32 and the turn of each within it u32.
//!
//! Announced records that no settled block names are in doubt.
//! Checksums are xxh3-64, seeded with the block's place, so that a block is only right where it was written.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use warren_engine::change::Op;
use warren_engine::doubt::Doubt;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::RowPrint;
use warren_engine::model::{Column, Schema};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::folder::{Folder, Reading, too_new};
use super::manifest::rows_name;
use super::partition::{Entry, PARTITION_BITS, PARTITIONS, le32, le64, sixteen};

pub(super) const MAGIC: &[u8; 8] = b"WarrenR\n";
/// Version 1 knew neither announced nor settled blocks.
pub(super) const VERSION: u32 = 2;
const BLOCK_MAGIC: u32 = 0x4b4c_4257;
pub(super) const BLOCK_HEADER: usize = 48;
pub(super) const RECORD: usize = Entry::SIZE + 5;
/// A record that also has the print before.
pub(super) const ANNOUNCED: usize = RECORD + 16;
/// A header's JSON is far smaller: two lists of columns.
const HEADER_BYTES_MAX: u32 = 16 << 20;

/// What a row file says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// The generation of keys that a journal goes on from; for a compacted file the one it was made in.
    pub(crate) base_generation: u64,
    pub(crate) epoch: u64,
    pub(crate) partition_bits: u32,
    pub(crate) compacted: bool,
    /// The key's columns and the columns that made the prints, where it is a journal.
    pub(crate) key: Vec<Column>,
    pub(crate) compare: Vec<Column>,
}

/// The columns of the rows of some blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSchema {
    pub(crate) schema: Arc<Schema>,
    /// Whether rows are kept whole, or only their key.
    pub(crate) whole: bool,
}

/// What a schema block holds.
#[derive(Serialize, Deserialize)]
pub(super) struct SchemaBody {
    pub(super) columns: Vec<Column>,
    pub(super) whole: bool,
}

/// What was told of one key, or announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// The entry of the key once it was told; of a removed key the one that goes.
    pub(crate) entry: Entry,
    /// In a told block a changed row is an added one too: it is put.
    pub(crate) op: Op,
    /// The length of the packed row; 0 where it was removed.
    pub(crate) length: u32,
    /// The print before, where the record is an announced one.
    pub(crate) before: Option<RowPrint>,
}

/// What became of records that were announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Told,
    Withdrawn,
    /// Nobody knows.
    Open,
}

/// What became of the records of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fates(u32);

impl Fates {
    const TOLD: Fates = Fates(0);
    const OPEN: Fates = Fates(1);
    const WITHDRAWN: Fates = Fates(2);
    /// From here on: the place in [`Segment::mixed`].
    const MIXED: u32 = 3;

    fn all(fate: Fate) -> Fates {
        match fate {
            Fate::Told => Fates::TOLD,
            Fate::Open => Fates::OPEN,
            Fate::Withdrawn => Fates::WITHDRAWN,
        }
    }

    /// The fate of every record, where they have one.
    fn same(self) -> Option<Fate> {
        match self {
            Fates::TOLD => Some(Fate::Told),
            Fates::OPEN => Some(Fate::Open),
            Fates::WITHDRAWN => Some(Fate::Withdrawn),
            Fates(_) => None,
        }
    }
}

/// Where a rows block is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockRef {
    pub(crate) offset: u64,
    pub(crate) partition: u16,
    /// Which of the file's schemas, by turn.
    pub(crate) schema: u16,
    /// What became of its records.
    fates: Fates,
}

/// A row file for reading.
#[derive(Debug)]
pub(crate) struct Segment {
    file: Reading,
    pub(crate) header: Header,
    pub(crate) schemas: Vec<StoredSchema>,
    /// Sorted by partition, and within one in the order written.
    pub(crate) blocks: Vec<BlockRef>,
    /// The fates of each record of the blocks whose records have different ones.
    mixed: Vec<Vec<Fate>>,
    /// Where the last whole block ends.
    pub(crate) end: u64,
}

/// What reading rows needs again and again.
pub(crate) struct Unpacking {
    stored: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Unpacking {
    pub(crate) fn new() -> Result<Unpacking, Failure> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| Failure::internal("start zstd").because(error))?;
        Ok(Unpacking { stored: Vec::new(), decompressor })
    }
}

/// An announced block, while its file is opened.
struct Announced {
    /// Its turn among all blocks.
    block: usize,
    count: usize,
    fates: Fates,
}

/// How far a file is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The manifest names it with this length: whatever does not fit is damage.
    Named(u64),
    /// The journal of a run that died: it ends where its first fault is.
    Journal,
}

/// A block's header.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BlockHeader {
    pub(super) kind: u8,
    pub(super) codec: u8,
    pub(super) partition: u16,
    pub(super) schema: u32,
    pub(super) count: u32,
    pub(super) raw: u32,
    pub(super) stored: u32,
    pub(super) entries_sum: u64,
    pub(super) body_sum: u64,
}

pub(super) const KIND_SCHEMA: u8 = 1;
pub(super) const KIND_TOLD: u8 = 2;
pub(super) const KIND_ANNOUNCED: u8 = 3;
pub(super) const KIND_SETTLED: u8 = 4;
/// Stands for all records of a block.
const WHOLE: u32 = u32::MAX;

impl BlockHeader {
    pub(super) fn write_to(self, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&BLOCK_MAGIC.to_le_bytes());
        out.extend_from_slice(&[self.kind, self.codec]);
        out.extend_from_slice(&self.partition.to_le_bytes());
        for number in [self.schema, self.count, self.raw, self.stored] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.entries_sum.to_le_bytes());
        out.extend_from_slice(&self.body_sum.to_le_bytes());
        let sum = xxh3_64_with_seed(&out[start..], offset);
        out.extend_from_slice(&sum.to_le_bytes());
    }

    fn read(bytes: &[u8; BLOCK_HEADER], offset: u64) -> Option<BlockHeader> {
        let right =
            le32(bytes, 0) == BLOCK_MAGIC && le64(bytes, 40) == xxh3_64_with_seed(&bytes[..40], offset);
        right.then(|| BlockHeader {
            kind: bytes[4],
            codec: bytes[5],
            partition: u16::from_le_bytes([bytes[6], bytes[7]]),
            schema: le32(bytes, 8),
            count: le32(bytes, 12),
            raw: le32(bytes, 16),
            stored: le32(bytes, 20),
            entries_sum: le64(bytes, 24),
            body_sum: le64(bytes, 32),
        })
    }

    fn records_length(self) -> u64 {
        u64::from(self.count) * self.record() as u64
    }

    fn record(self) -> usize {
        if self.kind == KIND_ANNOUNCED { ANNOUNCED } else { RECORD }
    }

    fn length(self) -> u64 {
        BLOCK_HEADER as u64 + self.records_length() + u64::from(self.stored)
    }
}

impl Record {
    /// Whether the key is gone once this was told.
    pub(crate) fn removed(&self) -> bool {
        self.op == Op::Removed
    }

    /// Writes it as one of a told block.
    pub(super) fn write_told(self, out: &mut Vec<u8>) {
        self.entry.write_to(out);
        out.push(if self.removed() { 2 } else { 1 });
        out.extend_from_slice(&self.length.to_le_bytes());
    }

    /// Writes it as one of an announced block.
    pub(super) fn write_announced(self, out: &mut Vec<u8>) {
        self.entry.write_to(out);
        out.push(match self.op {
            Op::Added => 1,
            Op::Removed => 2,
            Op::Changed => 3,
        });
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.before.map_or(u128::MAX, RowPrint::bits).to_le_bytes());
    }

    /// Reads a record from its bytes, which may be those of either kind of block.
    pub(super) fn read(bytes: &[u8]) -> Record {
        let op = match bytes[32] {
            1 => Op::Added,
            3 => Op::Changed,
            _ => Op::Removed,
        };
        // A print has 112 bits, so all ones is none.
        let before = (bytes.len() >= ANNOUNCED).then(|| u128::from_le_bytes(sixteen(bytes, RECORD)));
        let before = before.filter(|&bits| bits != u128::MAX).map(RowPrint::new);
        Record { entry: Entry::read(bytes), op, length: le32(bytes, 33), before }
    }

    /// What is in doubt while nobody knows what became of it.
    pub(crate) fn doubt(&self) -> Doubt {
        let version = match self.op {
            Op::Changed => self.entry.version().wrapping_sub(1),
            Op::Added | Op::Removed => self.entry.version(),
        };
        let after = (!self.removed()).then(|| self.entry.print());
        Doubt { op: self.op, before: self.before, after, version }
    }
}

impl Segment {
    /// Looks at the header and the length of a row file that the manifest names, and reads no block.
    ///
    /// # Errors
    /// It is missing, newer, too short or another file.
    pub(crate) fn look(folder: &Folder, number: u64, length: u64) -> Result<(), Failure> {
        let file = folder.open(&rows_name(number))?;
        begin(&file, number, Trust::Named(length)).map(|_| ())
    }

    /// Opens a row file and finds its blocks.
    ///
    /// # Errors
    /// It is missing, newer or damaged.
    pub(crate) fn open(folder: &Folder, number: u64, trust: Trust) -> Result<Segment, Failure> {
        let file = folder.open(&rows_name(number))?;
        let Begun { header, start, limit } = begin(&file, number, trust)?;
        let (schemas, blocks, mixed) = Default::default();
        let mut segment = Segment { file, header, schemas, blocks, mixed, end: start };
        let (mut announced, mut unpacking) = (Vec::new(), Unpacking::new()?);
        while segment.end < limit {
            match segment.read_on(limit, trust, &mut announced, &mut unpacking) {
                Ok(next) => segment.end = next,
                Err(fault) if trust == Trust::Journal => {
                    tracing::warn!(
                        file = %segment.file.path().display(),
                        offset = segment.end,
                        %fault,
                        "the journal of a run that died ends in a torn block, which is cut off"
                    );
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        for one in announced {
            segment.blocks[one.block].fates = one.fates;
        }
        // Stable, so blocks of one partition stay in the order written.
        segment.blocks.sort_by_key(|block| block.partition);
        segment.blocks.shrink_to_fit();
        Ok(segment)
    }

    /// The blocks of a partition, in the order written.
    pub(crate) fn blocks_of(&self, partition: usize) -> &[BlockRef] {
        let partition = partition as u16;
        let from = self.blocks.partition_point(|block| block.partition < partition);
        let to = self.blocks.partition_point(|block| block.partition <= partition);
        &self.blocks[from..to]
    }

    /// Reads a block's records, in the order written, using the room of `scratch`.
    pub(crate) fn records<'b>(
        &self,
        block: BlockRef,
        scratch: &'b mut Vec<u8>,
    ) -> Result<impl Iterator<Item = Record> + use<'b>, Failure> {
        let header = self.block_header(block.offset)?;
        scratch.resize(header.records_length() as usize, 0);
        self.file.read_at(scratch, block.offset + BLOCK_HEADER as u64)?;
        self.verify_records(scratch, header, block.offset)?;
        Ok(scratch.chunks_exact(header.record()).map(Record::read))
    }

    /// What became of a record of a block, by its turn there.
    pub(crate) fn fate(&self, block: BlockRef, turn: usize) -> Fate {
        let mixed = || self.mixed[(block.fates.0 - Fates::MIXED) as usize][turn];
        block.fates.same().unwrap_or_else(mixed)
    }

    /// Reads a block's rows, one after another, over what `rows` held. They are not yet checked one by one.
    pub(crate) fn rows(
        &self,
        block: BlockRef,
        rows: &mut Vec<u8>,
        unpacking: &mut Unpacking,
    ) -> Result<(), Failure> {
        let header = self.block_header(block.offset)?;
        self.read_body(header, block.offset, rows, unpacking)
    }

    /// What is wrong with this file, and where.
    pub(crate) fn damaged(&self, offset: u64, what: &str) -> Failure {
        self.file.damaged(offset, what)
    }

    /// Takes the block at `end` in; returns where the next begins.
    fn read_on(
        &mut self,
        limit: u64,
        trust: Trust,
        announced: &mut Vec<Announced>,
        unpacking: &mut Unpacking,
    ) -> Result<u64, Failure> {
        let offset = self.end;
        if limit - offset < BLOCK_HEADER as u64 {
            return Err(self.file.damaged(offset, "the file ends within a block's header"));
        }
        let header = self.block_header(offset)?;
        if header.length() > limit - offset {
            return Err(self.file.damaged(offset, "the file ends within a block"));
        }
        if header.kind == KIND_SCHEMA {
            let mut body = Vec::new();
            self.read_body(header, offset, &mut body, unpacking)?;
            let body: SchemaBody = serde_json::from_slice(&body)
                .map_err(|error| self.file.damaged(offset, "a schema cannot be read").because(error))?;
            let schema = Schema::new(body.columns)
                .map_err(|error| self.file.damaged(offset, "a schema names a column twice").because(error))?;
            self.schemas.push(StoredSchema { schema, whole: body.whole });
            return Ok(offset + header.length());
        }
        if header.kind == KIND_SETTLED {
            let mut body = Vec::new();
            self.read_body(header, offset, &mut body, unpacking)?;
            self.settle(&body, announced)
                .ok_or_else(|| self.file.damaged(offset, "a block settles what was not announced"))?;
            return Ok(offset + header.length());
        }
        let known = matches!(header.kind, KIND_TOLD | KIND_ANNOUNCED)
            && usize::from(header.partition) < PARTITIONS
            && (header.schema as usize) < self.schemas.len();
        if !known {
            return Err(self.file.damaged(offset, "a block is of an unknown kind or schema"));
        }
        if trust == Trust::Journal {
            // Nothing vouches for the length of a journal, so each block must prove itself whole.
            let mut records = vec![0; header.records_length() as usize];
            self.file.read_at(&mut records, offset + BLOCK_HEADER as u64)?;
            self.verify_records(&records, header, offset)?;
            let mut stored = vec![0; header.stored as usize];
            self.file.read_at(&mut stored, offset + BLOCK_HEADER as u64 + header.records_length())?;
            self.verify_body(&stored, header, offset)?;
        }
        let fates = if header.kind == KIND_ANNOUNCED { Fates::OPEN } else { Fates::TOLD };
        if header.kind == KIND_ANNOUNCED {
            announced.push(Announced { block: self.blocks.len(), count: header.count as usize, fates });
        }
        let (partition, schema) = (header.partition, header.schema as u16);
        self.blocks.push(BlockRef { offset, partition, schema, fates });
        Ok(offset + header.length())
    }

    /// Takes in what became of announced records; `None` if that is not how it can be written.
    fn settle(&mut self, mut body: &[u8], announced: &mut [Announced]) -> Option<()> {
        let number = |bytes: &mut &[u8]| {
            let (first, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*first))
        };
        while !body.is_empty() {
            let block = announced.get_mut(number(&mut body)? as usize)?;
            let (&fate, rest) = body.split_first()?;
            body = rest;
            let fate = match fate {
                1 => Fate::Told,
                2 => Fate::Withdrawn,
                _ => return None,
            };
            let count = number(&mut body)?;
            if count == WHOLE {
                block.fates = Fates::all(fate);
                continue;
            }
            if let Some(all) = block.fates.same() {
                block.fates = Fates(Fates::MIXED + u32::try_from(self.mixed.len()).ok()?);
                self.mixed.push(vec![all; block.count]);
            }
            let fates = self.mixed.get_mut((block.fates.0 - Fates::MIXED) as usize)?;
            for _ in 0..count {
                *fates.get_mut(number(&mut body)? as usize)? = fate;
            }
        }
        Some(())
    }

    fn block_header(&self, offset: u64) -> Result<BlockHeader, Failure> {
        let mut bytes = [0; BLOCK_HEADER];
        self.file.read_at(&mut bytes, offset)?;
        BlockHeader::read(&bytes, offset)
            .ok_or_else(|| self.file.damaged(offset, "the checksum of a block's header does not match"))
    }

    fn read_body(
        &self,
        header: BlockHeader,
        offset: u64,
        body: &mut Vec<u8>,
        unpacking: &mut Unpacking,
    ) -> Result<(), Failure> {
        let Unpacking { stored: scratch, decompressor } = unpacking;
        scratch.resize(header.stored as usize, 0);
        self.file.read_at(scratch, offset + BLOCK_HEADER as u64 + header.records_length())?;
        self.verify_body(scratch, header, offset)?;
        if header.codec == 0 {
            std::mem::swap(body, scratch);
        } else {
            body.clear();
            body.reserve(header.raw as usize);
            decompressor
                .decompress_to_buffer(scratch, body)
                .map_err(|error| self.file.damaged(offset, "a block does not decompress").because(error))?;
        }
        if body.len() != header.raw as usize {
            return Err(self.file.damaged(offset, "a block is of another length than it says"));
        }
        Ok(())
    }

    fn verify_records(&self, records: &[u8], header: BlockHeader, offset: u64) -> Result<(), Failure> {
        if cfg!(fuzzing) || xxh3_64_with_seed(records, offset) == header.entries_sum {
            return Ok(());
        }
        Err(self.file.damaged(offset, "the checksum of a block's entries does not match"))
    }

    fn verify_body(&self, stored: &[u8], header: BlockHeader, offset: u64) -> Result<(), Failure> {
        if cfg!(fuzzing) || xxh3_64_with_seed(stored, offset) == header.body_sum {
            return Ok(());
        }
        Err(self.file.damaged(offset, "the checksum of a block's rows does not match"))
    }
}

/// Writes into a settled block's body what became of records of one announced block.
pub(super) fn write_fate(body: &mut Vec<u8>, block: u32, fate: Fate, turns: Option<&[u32]>) {
    body.extend_from_slice(&block.to_le_bytes());
    body.push(if fate == Fate::Told { 1 } else { 2 });
    body.extend_from_slice(&turns.map_or(WHOLE, |turns| turns.len() as u32).to_le_bytes());
    for turn in turns.unwrap_or_default() {
        body.extend_from_slice(&turn.to_le_bytes());
    }
}

/// The file's beginning, as it is written.
pub(super) fn header_bytes(header: &Header) -> Result<Vec<u8>, Failure> {
    let json = serde_json::to_vec(header)
        .map_err(|error| Failure::internal("write a row file's header").because(error))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&json);
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// A row file whose header was read.
struct Begun {
    header: Header,
    /// Where its first block begins.
    start: u64,
    /// Where its last block ends at most.
    limit: u64,
}

fn begin(file: &Reading, number: u64, trust: Trust) -> Result<Begun, Failure> {
    let limit = match trust {
        Trust::Named(length) if file.length() < length => {
            return Err(file.damaged(file.length(), "the file is shorter than the manifest says"));
        }
        Trust::Named(length) => length,
        Trust::Journal => file.length(),
    };
    let (header, start) = read_header(file)?;
    if header.number != number || header.partition_bits != PARTITION_BITS {
        return Err(file.damaged(16, "the header is not that of this file"));
    }
    Ok(Begun { header, start, limit })
}

fn read_header(file: &Reading) -> Result<(Header, u64), Failure> {
    let mut start = [0; 16];
    file.read_at(&mut start, 0)?;
    if &start[..8] != MAGIC {
        return Err(file.damaged(0, "this is not a row file"));
    }
    let version = le32(&start, 8);
    if version > VERSION {
        return Err(too_new(file.path(), u64::from(version), u64::from(VERSION)));
    }
    let length = le32(&start, 12);
    if length > HEADER_BYTES_MAX {
        return Err(file.damaged(12, "the header is longer than any"));
    }
    let mut bytes = vec![0; 16 + length as usize + 8];
    file.read_at(&mut bytes, 0)?;
    let (content, sum) = bytes.split_at(16 + length as usize);
    if xxh3_64(content) != le64(sum, 0) {
        return Err(file.damaged(0, "the checksum of the header does not match"));
    }
    let header = serde_json::from_slice(&content[16..])
        .map_err(|error| file.damaged(16, "the header cannot be read").because(error))?;
    Ok((header, bytes.len() as u64))
}

//! The rows of the run under way, in memory while they are few, else in temporary files.
//!
//! Of each row two things are kept apart: its prints ([`prints`](super::prints)), which every run reads back, and its packed
//! bytes, which are only read back where something differs. Where most rows will be (nothing was told yet, or all is to be told
//! again) they are divided by key as they come ([`dealt`](super::dealt)); else they lie in the order they came
//! ([`arrived`](super::arrived)), and those that differ are dealt once they are known.

use std::path::Path;

use warren_engine::failure::Failure;
use warren_engine::fingerprint::{Picker, Printer};
use warren_engine::row::Batch;

use super::arrived::{Arrived, Wanted};
use super::dealt::Dealt;
use super::partition::partition_of;
use super::prints::Prints;

pub(crate) use super::dealt::RowWalk;
pub(crate) use super::prints::Fresh;

/// How large buffers may be. Smaller ones than the usual serve tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpillSizes {
    /// Bytes of packed rows that make a chunk.
    pub(crate) rows_bytes: usize,
    /// Bytes of packed rows that stay in memory.
    pub(crate) memory_bytes: usize,
    /// Bytes of prints that make a chunk.
    pub(crate) prints_bytes: usize,
    /// Bytes in a file from which on rows are compressed.
    pub(crate) compress_from: u64,
}

/// When rows are divided by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dealing {
    /// As they come.
    AtOnce,
    /// When it is known which of them differ.
    Later,
}

/// The rows of one run.
pub(crate) struct Spill {
    prints: Prints,
    dealt: Dealt,
    /// Rows that are not dealt yet.
    arrived: Option<Arrived>,
    rows: u64,
}

impl Spill {
    /// Nothing yet; `folder` is where temporary files may be made, and is there. Each row has `prints`: the one in use and
    /// those the baseline may still have.
    pub(crate) fn new(folder: &Path, prints: usize, sizes: SpillSizes, dealing: Dealing) -> Spill {
        let SpillSizes { rows_bytes, memory_bytes, prints_bytes, compress_from } = sizes;
        let later = dealing == Dealing::Later;
        // The rows that differ are dealt while others are still in memory, and are mostly few.
        let dealt_bytes = if later { rows_bytes / 2 } else { rows_bytes };
        Spill {
            prints: Prints::new(folder, prints, prints_bytes),
            dealt: Dealt::new(folder, dealt_bytes, compress_from),
            arrived: later.then(|| Arrived::new(folder, rows_bytes, memory_bytes, compress_from)),
            rows: 0,
        }
    }

    /// The number of rows, and so of the first row of the next batch.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the key and the prints of a row of the next batch, and its packed bytes. Numbers ascend.
    pub(crate) fn push(
        &mut self,
        number: u64,
        key: u128,
        prints: &[u128],
        row: &[u8],
    ) -> Result<(), Failure> {
        self.prints.push(number, key, prints)?;
        if self.arrived.is_none() {
            self.dealt.push(partition_of(key), number, row)?;
        }
        Ok(())
    }

    /// Takes the batch whose rows were pushed. Those that were not have a number too.
    pub(crate) fn end_batch(&mut self, batch: Batch) -> Result<(), Failure> {
        self.rows += batch.len() as u64;
        match &mut self.arrived {
            Some(arrived) => arrived.push(batch),
            None => Ok(()),
        }
    }

    /// All rows were taken.
    pub(crate) fn seal(&mut self) -> Result<(), Failure> {
        self.prints.seal()
    }

    /// Reads the keys and prints of a partition back, sorted by key, over what `fresh` held.
    pub(crate) fn fresh(
        &self,
        partition: usize,
        fresh: &mut Fresh,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.prints.fresh(partition, fresh, scratch)
    }

    /// Room to say which rows are wanted.
    pub(crate) fn want(&self) -> Wanted {
        Wanted::none(if self.arrived.is_some() { self.rows } else { 0 })
    }

    /// Deals the rows that are wanted, and forgets the others.
    pub(crate) fn deal(&mut self, wanted: &Wanted, key: &Picker) -> Result<(), Failure> {
        let Some(arrived) = self.arrived.take() else { return Ok(()) };
        let mut printer = Printer::default();
        arrived.each(wanted, |number, row| {
            let print = printer.key(row, key);
            let print = print.ok_or_else(|| Failure::internal("look for a row without a key"))?;
            self.dealt.push(partition_of(print.0), number, row.as_bytes())
        })
    }

    /// The rows that were dealt.
    pub(crate) fn dealt(&self) -> &Dealt {
        &self.dealt
    }

    /// Bytes in temporary files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.prints.file_bytes()
            + self.dealt.file_bytes()
            + self.arrived.as_ref().map_or(0, Arrived::file_bytes)
    }
}

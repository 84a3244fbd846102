//! From one generation of the baseline to the next: opening, recovery after a death, and replacing the key file.
//!
//! The steps of a replacement, each of which may be the last before the process dies:
//! 1. the journal is synced;
//! 2. `keys-(N+1).tmp` is written, synced and renamed: nobody names it yet;
//! 3. the manifest is replaced: from here on the new generation is the baseline;
//! 4. files that no manifest names are removed.
//!
//! Before 3 the next run finds the old manifest and the journal, and does the same again; after it, only 4 is left.

use warren_engine::failure::Failure;
use warren_engine::fingerprint::{Picker, Printer};
use warren_engine::row::RowRef;

use super::columns::{Columns, names};
use super::folder::Folder;
use super::keys::{KeysFile, KeysWriter};
use super::manifest::{Manifest, SegmentInfo, rows_name};
use super::partition::{Entry, PARTITIONS};
use super::previous::{RowStore, missing_row};
use super::segment::{Record, Segment, Trust, records};

/// A baseline as it lies in its folder.
pub(crate) struct Generation {
    pub(crate) manifest: Manifest,
    pub(crate) keys: Option<KeysFile>,
    /// Whether the manifest is on disk.
    pub(crate) stored: bool,
}

/// What an entry becomes when a key file is replaced, beside what the journal says: new entries for keys of the
/// partition, sorted.
pub(crate) type Reprints<'a> = dyn FnMut(usize, &[Entry], &mut Vec<Entry>) -> Result<(), Failure> + 'a;

impl Generation {
    /// Opens the baseline, taking up what a run that died had written.
    pub(crate) fn open(folder: &Folder) -> Result<Generation, Failure> {
        let loaded = Manifest::load(folder)?;
        let stored = loaded.is_some();
        let manifest = loaded.unwrap_or_else(Manifest::empty);
        let mut generation = Generation { keys: open_keys(folder, &manifest)?, manifest, stored };
        generation.recover(folder)?;
        generation.manifest.remove_others(folder)?;
        Ok(generation)
    }

    /// Reads without recovering or removing anything.
    pub(crate) fn manifest_only(folder: &Folder) -> Result<Option<Manifest>, Failure> {
        Manifest::load(folder)
    }

    fn recover(&mut self, folder: &Folder) -> Result<(), Failure> {
        let number = self.manifest.next_segment;
        if folder.open_if_there(&rows_name(number))?.is_none() {
            return Ok(());
        }
        let journal = Segment::open(folder, number, Trust::Journal)?;
        // A compacted file that no manifest names was never in use.
        if journal.header.compacted || journal.blocks.is_empty() {
            return Ok(());
        }
        if journal.header.base_generation != self.manifest.generation {
            return Err(journal.damaged(0, "the journal goes on from another generation than there is"));
        }
        tracing::info!(folder = %folder.path().display(), "taking up what an interrupted run had recorded");
        folder.cut(&rows_name(number), journal.end)?;
        let mut next = self.manifest.clone();
        next.epoch += past_epoch(&journal, self.manifest.epoch16())?;
        // The run that died may have printed other columns, and not all entries.
        if !next.compare.contains(&journal.header.compare) {
            next.compare.push(journal.header.compare.clone());
        }
        if next.key.is_empty() {
            next.key.clone_from(&journal.header.key);
        }
        self.replace(folder, next, Some((&journal, journal.end)), &mut |_, _, _| Ok(()))
    }

    /// Writes the next key file out of this one, a journal and reprints, and makes `next`, with what follows from
    /// them, the manifest.
    pub(crate) fn replace(
        &mut self,
        folder: &Folder,
        mut next: Manifest,
        journal: Option<(&Segment, u64)>,
        reprints: &mut Reprints<'_>,
    ) -> Result<(), Failure> {
        next.generation += 1;
        let (rows, put) =
            self.write_keys(folder, next.generation, journal.map(|(segment, _)| segment), reprints)?;
        next.rows = rows;
        if let Some((segment, bytes)) = journal {
            next.segments.push(SegmentInfo { number: segment.header.number, bytes, rows: put });
            next.next_segment = segment.header.number + 1;
        }
        next.store(folder)?;
        self.keys = open_keys(folder, &next)?;
        self.manifest = next;
        self.stored = true;
        self.manifest.remove_others(folder)
    }

    /// Returns how many keys there are, and how many rows the journal has.
    fn write_keys(
        &self,
        folder: &Folder,
        generation: u64,
        journal: Option<&Segment>,
        reprints: &mut Reprints<'_>,
    ) -> Result<(u64, u64), Failure> {
        let mut writer = KeysWriter::create(folder, generation)?;
        let (mut base, mut told, mut reprinted) = (Vec::new(), Vec::new(), Vec::new());
        let mut scratch = Vec::new();
        let mut put = 0;
        for partition in 0..PARTITIONS {
            base.clear();
            if let Some(keys) = &self.keys {
                keys.partition(partition, &mut base, &mut scratch)?;
            }
            read_told(journal, partition, &mut told, &mut scratch)?;
            put += told.iter().filter(|record| !record.removed).count() as u64;
            reprinted.clear();
            reprints(partition, &base, &mut reprinted)?;
            write_partition(&mut writer, &base, &told, &reprinted)?;
        }
        Ok((writer.finish()?, put))
    }

    /// Prints every entry anew over the columns in use, from the kept rows. Returns whether that could be done.
    pub(crate) fn reprint(&mut self, folder: &Folder, columns: &mut Columns) -> Result<bool, Failure> {
        let rows = RowStore::open(folder, &self.manifest)?;
        let mut used: Vec<_> = Vec::new();
        for segment in &rows.segments {
            for block in &segment.blocks {
                let stored = &segment.schemas[usize::from(block.schema)];
                if !used.contains(&stored) {
                    used.push(stored);
                }
            }
        }
        if !used.iter().all(|stored| stored.whole && columns.can_reprint(&stored.schema)) {
            return Ok(false);
        }
        let mut next = self.manifest.clone();
        next.compare = vec![columns.compare.clone()];
        let mut printer = Printer::default();
        let mut print_all = |partition: usize, base: &[Entry], reprinted: &mut Vec<Entry>| {
            let located = rows.locate(partition, base)?;
            let located: Option<Vec<_>> = located.into_iter().collect();
            let mut located: Vec<_> =
                located.ok_or_else(|| missing_row(folder))?.into_iter().enumerate().collect();
            reprinted.extend_from_slice(base);
            rows.read(&mut located, |at, stored, bytes| {
                let picker = Picker::by_name(&stored.schema, names(&columns.compare))
                    .map_err(|name| Failure::internal(format!("kept rows lack column `{name}`")))?;
                reprinted[at] = base[at].with_print(printer.row(RowRef::new(bytes), &picker));
                Ok(())
            })
        };
        self.replace(folder, next, None, &mut print_all)?;
        columns.reprinted();
        Ok(true)
    }
}

/// Opens the key file that a manifest names.
pub(crate) fn open_keys(folder: &Folder, manifest: &Manifest) -> Result<Option<KeysFile>, Failure> {
    if manifest.generation == 0 {
        return Ok(None);
    }
    KeysFile::open(folder, manifest.generation, manifest.rows).map(Some)
}

/// What the journal says of a partition's keys, the last of each, sorted.
fn read_told(
    journal: Option<&Segment>,
    partition: usize,
    told: &mut Vec<Record>,
    scratch: &mut Vec<u8>,
) -> Result<(), Failure> {
    told.clear();
    let Some(journal) = journal else { return Ok(()) };
    for &block in journal.blocks_of(partition) {
        journal.record_bytes(block, scratch)?;
        told.extend(records(scratch));
    }
    // Stable, so the last of a key is the last that was written; reversed, it is the one that is kept.
    told.reverse();
    told.sort_by_key(|record| record.entry.key());
    told.dedup_by_key(|record| record.entry.key());
    Ok(())
}

fn write_partition(
    writer: &mut KeysWriter,
    base: &[Entry],
    told: &[Record],
    reprinted: &[Entry],
) -> Result<(), Failure> {
    let (mut told, mut reprinted) = (told.iter().peekable(), reprinted.iter().peekable());
    for &entry in base {
        while let Some(record) = told.next_if(|record| record.entry.key() < entry.key()) {
            put(writer, record)?;
        }
        let reprint = reprinted.next_if(|reprint| reprint.key() == entry.key());
        match told.next_if(|record| record.entry.key() == entry.key()) {
            Some(record) => put(writer, record)?,
            None => writer.push(reprint.copied().unwrap_or(entry))?,
        }
    }
    told.try_for_each(|record| put(writer, record))
}

fn put(writer: &mut KeysWriter, record: &Record) -> Result<(), Failure> {
    if record.removed { Ok(()) } else { writer.push(record.entry) }
}

/// How far the epoch must go on so that a key that was removed never begins again with a version it had.
///
/// A run that ends in good order sees to that by counting the epoch up. After a death it stays, so that changes
/// sent again keep their id; a key added and removed within one epoch needs two deaths, and then the epoch moves.
pub(crate) fn past_epoch(journal: &Segment, epoch: u16) -> Result<u64, Failure> {
    let mut scratch = Vec::new();
    let mut past = 0;
    for &block in &journal.blocks {
        journal.record_bytes(block, &mut scratch)?;
        for record in records(&scratch).filter(|record| record.removed) {
            // Versions wrap, so "not before the epoch" is a distance.
            let distance = record.entry.version().wrapping_sub(epoch) as i16;
            past = past.max(u64::try_from(distance).map_or(0, |distance| distance + 1));
        }
    }
    Ok(past)
}

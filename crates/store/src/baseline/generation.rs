//! From one generation of the baseline to the next: opening, recovery after a death, and replacing the key file.
//!
//! The steps of a replacement, each of which may be the last before the process dies:
//! 1. the journal is synced;
//! 2. `keys-(N+1).tmp`, and `doubts-(N+1).tmp` if there are any, are written, synced and renamed: nobody names them yet;
//! 3. the manifest is replaced: from here on the new generation is the baseline;
//! 4. files that no manifest names are removed.
//!
//! Before 3 the next run finds the old manifest and the journal, and does the same again; after it, only 4 is left.

use warren_engine::change::Op;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::{Picker, Printer};
use warren_engine::row::RowRef;

use super::columns::{Columns, names};
use super::doubts::Doubts;
use super::folder::Folder;
use super::keys::{KeysFile, KeysWriter};
use super::manifest::{Manifest, SegmentInfo, rows_name};
use super::partition::{Entry, PARTITIONS};
use super::previous::{RowStore, missing_row};
use super::segment::{Fate, Record, Segment, Trust};

/// Keys that are read to look at a baseline, in bytes: a fraction of a second.
const LOOK_BYTES_MAX: u64 = 64 << 20;

/// A baseline as it lies in its folder.
pub(crate) struct Generation {
    pub(crate) manifest: Manifest,
    pub(crate) keys: Option<KeysFile>,
    /// The keys whose last answer nobody knows.
    pub(crate) doubts: Doubts,
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
        let (keys, doubts) = (open_keys(folder, &manifest)?, Doubts::open(folder, &manifest)?);
        let mut generation = Generation { manifest, keys, doubts, stored };
        generation.recover(folder)?;
        generation.manifest.remove_others(folder)?;
        Ok(generation)
    }

    /// Looks at the files that the manifest names: that they are there, whole at their ends and of a known version; and at as many
    /// keys as [`LOOK_BYTES_MAX`] allows. Changes nothing, and may be called while a run goes on.
    pub(crate) fn look(folder: &Folder) -> Result<(), Failure> {
        loop {
            let Some(manifest) = Manifest::load(folder)? else { return Ok(()) };
            let looked = manifest.look(folder);
            // A run that ended in the meantime has replaced the files.
            if looked.is_ok() || Manifest::load(folder)?.as_ref() == Some(&manifest) {
                return looked;
            }
        }
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
        // The run that died may have printed other columns, and not all entries.
        if !next.compare.contains(&journal.header.compare) {
            next.compare.push(journal.header.compare.clone());
        }
        if next.key.is_empty() {
            next.key.clone_from(&journal.header.key);
        }
        self.replace(folder, next, Some((&journal, journal.end)), &mut |_, _, _| Ok(()))
    }

    /// Writes the next key file and doubts out of these, a journal and reprints, and makes `next`, with what follows
    /// from them, the manifest.
    pub(crate) fn replace(
        &mut self,
        folder: &Folder,
        mut next: Manifest,
        journal: Option<(&Segment, u64)>,
        reprints: &mut Reprints<'_>,
    ) -> Result<(), Failure> {
        next.generation += 1;
        let written =
            self.write_keys(folder, next.generation, journal.map(|(segment, _)| segment), reprints)?;
        written.doubts.store(folder, next.generation)?;
        next.rows = written.rows;
        next.doubts = written.doubts.len() as u64;
        if let Some((segment, bytes)) = journal {
            next.segments.push(SegmentInfo { number: segment.header.number, bytes, rows: written.put });
            next.next_segment = segment.header.number + 1;
            next.epoch += written.epochs;
        }
        next.store(folder)?;
        self.keys = open_keys(folder, &next)?;
        self.doubts = written.doubts;
        self.manifest = next;
        self.stored = true;
        self.manifest.remove_others(folder)
    }

    fn write_keys(
        &self,
        folder: &Folder,
        generation: u64,
        journal: Option<&Segment>,
        reprints: &mut Reprints<'_>,
    ) -> Result<Written, Failure> {
        let mut writer = KeysWriter::create(folder, generation)?;
        let (mut base, mut told, mut reprinted) = (Vec::new(), Said::default(), Vec::new());
        let mut scratch = Vec::new();
        let mut written = Written { epochs: 1, ..Written::default() };
        for partition in 0..PARTITIONS {
            base.clear();
            if let Some(keys) = &self.keys {
                keys.partition(partition, &mut base, &mut scratch)?;
            }
            told.read(journal, partition, &mut scratch)?;
            written.put += told.told.iter().filter(|record| !record.removed()).count() as u64;
            let gone = told.told.iter().filter(|record| record.removed());
            // Versions wrap, so "not before the epoch" is a distance.
            let distances =
                gone.map(|gone| gone.entry.version().wrapping_sub(self.manifest.epoch16()) as i16);
            written.epochs = distances.fold(written.epochs, |most, distance| {
                u64::try_from(distance).map_or(most, |distance| most.max(distance + 1))
            });
            written.doubts.extend(told.doubts(self.doubts.of(partition), &base));
            reprinted.clear();
            reprints(partition, &base, &mut reprinted)?;
            write_partition(&mut writer, &base, &told.told, &reprinted)?;
        }
        written.rows = writer.finish()?;
        Ok(written)
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
        next.written_rows = false;
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

impl Manifest {
    fn look(&self, folder: &Folder) -> Result<(), Failure> {
        if let Some(keys) = open_keys(folder, self)? {
            keys.verify(LOOK_BYTES_MAX)?;
        }
        Doubts::open(folder, self)?;
        self.segments.iter().try_for_each(|segment| Segment::look(folder, segment.number, segment.bytes))
    }
}

/// Opens the key file that a manifest names.
pub(crate) fn open_keys(folder: &Folder, manifest: &Manifest) -> Result<Option<KeysFile>, Failure> {
    if manifest.generation == 0 {
        return Ok(None);
    }
    KeysFile::open(folder, manifest.generation, manifest.rows).map(Some)
}

/// What came of writing a key file.
#[derive(Default)]
struct Written {
    /// Keys there are.
    rows: u64,
    /// Rows of the journal that are the last of their key.
    put: u64,
    doubts: Doubts,
    /// How far the epoch goes on, so that a key that was removed never begins again with a version it had: past the versions
    /// of all that were, and at least by one.
    epochs: u64,
}

/// What a journal says of a partition's keys, sorted by key.
#[derive(Default)]
struct Said {
    /// What was told, the last of each key.
    told: Vec<Record>,
    /// What was announced and neither told nor withdrawn. A journal announces a key once.
    open: Vec<Record>,
}

impl Said {
    fn read(
        &mut self,
        journal: Option<&Segment>,
        partition: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.told.clear();
        self.open.clear();
        let Some(journal) = journal else { return Ok(()) };
        for &block in journal.blocks_of(partition) {
            for (turn, record) in journal.records(block, scratch)?.enumerate() {
                match journal.fate(block, turn) {
                    Fate::Told => self.told.push(record),
                    Fate::Open => self.open.push(record),
                    Fate::Withdrawn => {}
                }
            }
        }
        // Stable, so the last of a key is the last that was written; reversed, it is the one that is kept.
        self.told.reverse();
        self.told.sort_by_key(|record| record.entry.key());
        self.told.dedup_by_key(|record| record.entry.key());
        self.open.sort_unstable_by_key(|record| record.entry.key());
        Ok(())
    }

    /// The doubts of the partition from now on, out of those there were.
    fn doubts(&self, before: &[Record], base: &[Entry]) -> Vec<Record> {
        let among = |records: &[Record], one: &Record| {
            records.binary_search_by_key(&one.entry.key(), |other| other.entry.key()).is_ok()
        };
        let stays = |one: &&Record| !among(&self.told, one) && !among(&self.open, one);
        let stay = before.iter().filter(stays);
        // A row that was sent again in full is what was told before, whether it arrived or not.
        let same = |one: &Record| {
            let entry = base.binary_search_by_key(&one.entry.key(), |entry| entry.key()).map(|at| base[at]);
            one.op == Op::Added && entry.is_ok_and(|entry| entry.print() == one.entry.print())
        };
        let opens = |one: &&Record| !among(&self.told, one) && (among(before, one) || !same(one));
        stay.chain(self.open.iter().filter(opens)).copied().collect()
    }
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
    if record.removed() { Ok(()) } else { writer.push(record.entry) }
}

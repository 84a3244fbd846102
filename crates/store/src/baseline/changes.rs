//! The changes of one run: walks the partitions that have some, and writes down what was accepted.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::{JoinError, JoinHandle};
use warren_engine::change::{Change, Op};
use warren_engine::doubt::version_after;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::RowPrint;
use warren_engine::model::{Column, Schema};
use warren_engine::ports::{ChangeSet, DiffSummary};
use warren_engine::row::{Row, RowRef};

use super::Sizes;
use super::columns::names;
use super::compact::{Keep, compact, project};
use super::count::Different;
use super::doubts::Doubts;
use super::folder::Folder;
use super::generation::{Generation, open_keys};
use super::journal::{Announced, Line, RowsWriter, key_schema};
use super::keys::KeysFile;
use super::manifest::{Manifest, rows_name};
use super::merge::{Rules, Verdict, judge};
use super::partition::{Entry, PARTITION_BITS};
use super::segment::{Fate, Header, Segment, StoredSchema, Trust};
use super::spill::{Fresh, Spill};
use super::walk::Walk;

/// Sets of columns that counted before and are kept, newest first: each is another print of every row.
const OLD_SETS_MAX: usize = 4;

/// What a run has read and found; does not change any more.
pub(crate) struct Found {
    pub(crate) folder: Folder,
    pub(crate) manifest: Manifest,
    /// Whether the manifest is on disk.
    pub(crate) stored: bool,
    pub(crate) keys: Option<KeysFile>,
    pub(crate) doubts: Doubts,
    pub(crate) spill: Spill,
    pub(crate) rules: Rules,
    pub(crate) schema: Arc<Schema>,
    /// The key's columns and those that count, as they are now.
    pub(crate) key: Vec<Column>,
    pub(crate) compare: Vec<Column>,
    pub(crate) key_names: Vec<String>,
    pub(crate) keep_rows: bool,
    /// Whether changed rows come with their previous ones.
    pub(crate) previous: bool,
    /// Entries that get another print at the end.
    pub(crate) reprints: u64,
    /// Partitions with changes, in order.
    pub(crate) partitions: Vec<Different>,
    /// Whether some keys are only known as they are written.
    pub(crate) written_keys: bool,
    pub(crate) sizes: Sizes,
}

/// The changes of one run.
pub(crate) struct Changes {
    found: Arc<Found>,
    summary: DiffSummary,
    /// Invariant of both: only touched by blocking tasks of this set, one at a time.
    walk: Arc<Mutex<Walk>>,
    told: Arc<Mutex<Told>>,
    /// The changes that are fetched while those before them are sent.
    ahead: Option<JoinHandle<Result<Vec<Change>, Failure>>>,
    /// Changes that were fetched when more were asked for, in order.
    left: VecDeque<Change>,
    /// Whether the end was handed out.
    walked: bool,
}

/// What was told so far.
#[derive(Default)]
struct Told {
    journal: Option<RowsWriter>,
    changes: u64,
    /// Announced, and neither told nor withdrawn; by key.
    under_way: HashMap<u128, Announced, BuildHasherDefault<AsItIs>>,
}

/// Keys are known by their prints, which are hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }
}

impl Changes {
    pub(crate) fn new(found: Found, summary: DiffSummary) -> Changes {
        let walk = Arc::new(Mutex::new(Walk::default()));
        Changes {
            found: Arc::new(found),
            summary,
            walk,
            told: Arc::default(),
            ahead: None,
            left: VecDeque::new(),
            walked: false,
        }
    }

    /// Writes something of changes into the journal.
    async fn write(
        &self,
        changes: &[&Change],
        write: impl FnOnce(&mut Told, &Found, &[Telling]) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        // A change's rows are shared bytes, so this copies no row.
        let tellings = changes.iter().map(|change| Telling::of(change)).collect::<Result<Vec<_>, _>>()?;
        let (found, told) = (Arc::clone(&self.found), Arc::clone(&self.told));
        blocking(move || write(&mut lock(&told), &found, &tellings)).await
    }

    fn fetch(&self, max: usize) -> JoinHandle<Result<Vec<Change>, Failure>> {
        let (found, walk) = (Arc::clone(&self.found), Arc::clone(&self.walk));
        tokio::task::spawn_blocking(move || lock(&walk).next(&found, max))
    }
}

#[async_trait]
impl ChangeSet for Changes {
    fn summary(&self) -> &DiffSummary {
        &self.summary
    }

    async fn next(&mut self, max: usize) -> Result<Vec<Change>, Failure> {
        let max = max.max(1);
        if self.left.is_empty() && !self.walked {
            // The task stays here until it has ended, so dropping this future half-way loses no change.
            let fetched = match &mut self.ahead {
                Some(ahead) => ahead.await,
                None => self.ahead.insert(self.fetch(max)).await,
            };
            self.ahead = None;
            self.left = fetched.map_err(stopped)??.into();
            self.walked = self.left.is_empty();
            if !self.walked {
                self.ahead = Some(self.fetch(max));
            }
        }
        let count = max.min(self.left.len());
        Ok(self.left.drain(..count).collect())
    }

    async fn announce(&mut self, changes: &[&Change]) -> Result<(), Failure> {
        self.write(changes, Told::announce).await
    }

    async fn withdraw(&mut self, changes: &[&Change]) -> Result<(), Failure> {
        self.write(changes, Told::withdraw).await
    }

    async fn advance(&mut self, accepted: &[&Change]) -> Result<(), Failure> {
        self.write(accepted, Told::advance).await
    }

    async fn finish(self: Box<Self>) -> Result<(), Failure> {
        let Changes { found, summary, told, ahead, walked, .. } = *self;
        if let Some(ahead) = ahead {
            // What it fetched, or failed to, nobody asked for.
            ahead.await.ok();
        }
        blocking(move || {
            let walked = walked || summary.counts.planned.total() == 0;
            // A sentence about columns stands until a person let a run through, or there was nothing to send.
            let told = std::mem::take(&mut *lock(&told));
            let nothing_planned = summary.counts.planned.total() == 0;
            let settled = summary.columns_changed.is_none() || told.changes > 0 || nothing_planned;
            // Of these keys the prints may still be of columns that counted before.
            let some_left = told.changes < summary.counts.planned.total()
                || summary.counts.duplicate_keys > 0
                || found.rules.full;
            told.finish(&found, walked, settled, some_left)
        })
        .await
    }
}

/// One change, with the entry and the row as they are to be kept once it was told.
struct Telling {
    entry: Entry,
    op: Op,
    before: Option<RowPrint>,
    row: Option<Row>,
}

impl Telling {
    fn of(change: &Change) -> Result<Telling, Failure> {
        let version = version_after(change.op, change.version);
        let print = match change.op {
            Op::Added | Op::Changed => change.after,
            // The entry goes; only its version is looked at.
            Op::Removed => Some(change.before.unwrap_or(RowPrint::new(0))),
        };
        let print = print.ok_or_else(|| Failure::internal("advance by a change that has no row"))?;
        let row = (change.op != Op::Removed).then(|| change.row.clone());
        let entry = Entry::new(change.key, print, version);
        Ok(Telling { entry, op: change.op, before: change.before, row })
    }
}

impl Told {
    fn announce(&mut self, found: &Found, changes: &[Telling]) -> Result<(), Failure> {
        let journal = self.journal(found)?;
        let mut lines = lines(journal, found, changes)?;
        let places = journal.announce(&mut lines)?;
        self.under_way.extend(places);
        Ok(())
    }

    fn withdraw(&mut self, found: &Found, changes: &[Telling]) -> Result<(), Failure> {
        let mut settled: Vec<_> =
            changes.iter().filter_map(|change| self.under_way.get(&change.entry.key()).copied()).collect();
        if settled.is_empty() {
            return Ok(());
        }
        self.journal(found)?.settle(&mut settled, Fate::Withdrawn)?;
        for change in changes {
            self.under_way.remove(&change.entry.key());
        }
        Ok(())
    }

    fn advance(&mut self, found: &Found, accepted: &[Telling]) -> Result<(), Failure> {
        let (mut settled, mut keys) = (Vec::new(), Vec::new());
        // What was announced is there with its row, and only its fate is to be written.
        let mut others = Vec::new();
        for change in accepted {
            match self.under_way.get(&change.entry.key()) {
                Some(announced) => {
                    settled.push(*announced);
                    keys.push(change.entry.key());
                }
                None => others.push(change),
            }
        }
        let journal = self.journal(found)?;
        if !settled.is_empty() {
            journal.settle(&mut settled, Fate::Told)?;
        }
        if !others.is_empty() {
            let mut lines = lines(journal, found, others)?;
            journal.told(&mut lines)?;
        }
        journal.sync_if_due()?;
        self.changes += accepted.len() as u64;
        for key in &keys {
            self.under_way.remove(key);
        }
        Ok(())
    }

    /// The run's journal, which is made when something is first written.
    fn journal(&mut self, found: &Found) -> Result<&mut RowsWriter, Failure> {
        match &mut self.journal {
            Some(journal) => Ok(journal),
            none => Ok(none.insert(begin_journal(found)?)),
        }
    }

    fn finish(self, found: &Found, walked: bool, settled: bool, some_left: bool) -> Result<(), Failure> {
        let mut next = found.manifest.clone();
        next.complete |= walked;
        if settled {
            next.key.clone_from(&found.key);
            next.compare = vec![found.compare.clone()];
            // Every entry is of a key that was read now, with the print that was taken now.
            let all_read = walked && !some_left && found.doubts.len() == 0;
            next.written_rows &= !all_read;
            next.written_keys &= !all_read || found.written_keys;
            if some_left {
                let yielded =
                    |old: &&Vec<Column>| names(old).all(|name| found.schema.index_of(name).is_some());
                let others =
                    found.manifest.compare.iter().filter(|old| !names(old).eq(names(&found.compare)));
                next.compare.extend(others.filter(yielded).take(OLD_SETS_MAX).cloned());
            }
        }
        let mut generation = Generation {
            manifest: found.manifest.clone(),
            keys: open_keys(&found.folder, &found.manifest)?,
            doubts: found.doubts.clone(),
            stored: found.stored,
        };
        let journal = match self.journal {
            Some(mut journal) if self.changes > 0 || !self.under_way.is_empty() => {
                let bytes = journal.end()?;
                Some((Segment::open(&found.folder, journal.number, Trust::Named(bytes))?, bytes))
            }
            Some(journal) => {
                // All that was announced was withdrawn.
                found.folder.remove(&rows_name(journal.number))?;
                None
            }
            None => None,
        };
        if journal.is_none() && !(settled && found.reprints > 0) {
            if next != found.manifest && (found.stored || next.complete) {
                found.folder.make()?;
                next.store(&found.folder)?;
            }
            return Ok(());
        }
        let mut reprints = Reprinting { found, fresh: Fresh::default(), scratch: Vec::new() };
        generation.replace(
            &found.folder,
            next,
            journal.as_ref().map(|(segment, bytes)| (segment, *bytes)),
            &mut |partition, base, out| {
                if settled && found.reprints > 0 { reprints.of(partition, base, out) } else { Ok(()) }
            },
        )?;
        let keep = Keep {
            rows: found.keep_rows,
            key: &found.key_names,
            garbage_rows_min: found.sizes.garbage_rows_min,
        };
        match compact(&found.folder, &mut generation, keep) {
            // The baseline is replaced and whole; there is only no room to make it smaller.
            Err(failure) if failure.code == warren_engine::codes::STATE_UNWRITABLE => {
                tracing::warn!(%failure, "the baseline's row files could not be compacted");
                Ok(())
            }
            other => other,
        }
    }
}

/// Finds again which entries get another print.
struct Reprinting<'a> {
    found: &'a Found,
    fresh: Fresh,
    scratch: Vec<u8>,
}

impl Reprinting<'_> {
    fn of(&mut self, partition: usize, base: &[Entry], out: &mut Vec<Entry>) -> Result<(), Failure> {
        self.found.spill.fresh(partition, &mut self.fresh, &mut self.scratch)?;
        judge(base, &self.fresh, self.found.rules, |verdict| {
            if let Verdict::Reprint(entry) = verdict {
                out.push(entry);
            }
        });
        Ok(())
    }
}

/// Changes as they are written into the journal.
fn lines<'t>(
    journal: &mut RowsWriter,
    found: &Found,
    changes: impl IntoIterator<Item = &'t Telling>,
) -> Result<Vec<Line>, Failure> {
    let mut known: Option<(&Arc<Schema>, u16)> = None;
    let mut lines = Vec::new();
    for Telling { entry, op, before, row } in changes {
        let (entry, op, before) = (*entry, *op, *before);
        let Some(row) = row else {
            lines.push(Line { entry, op, before, row: None });
            continue;
        };
        let number = match known.filter(|(schema, _)| Arc::ptr_eq(schema, &row.schema)) {
            Some((_, number)) => number,
            None => journal.schema(&stored_schema(found, &row.schema)?)?,
        };
        known = Some((&row.schema, number));
        let bytes = if found.keep_rows {
            row.bytes.clone()
        } else {
            let cells = found.key_names.iter().filter_map(|name| row.schema.index_of(name));
            Bytes::from(project(RowRef::new(&row.bytes), cells))
        };
        lines.push(Line { entry, op, before, row: Some((number, bytes)) });
    }
    Ok(lines)
}

/// Creates the run's journal. The manifest is written before it, if there is none yet: see [`super::manifest`].
fn begin_journal(found: &Found) -> Result<RowsWriter, Failure> {
    found.folder.make()?;
    if !found.stored {
        found.manifest.store(&found.folder)?;
    }
    let header = Header {
        number: found.manifest.next_segment,
        base_generation: found.manifest.generation,
        epoch: found.manifest.epoch,
        partition_bits: PARTITION_BITS,
        compacted: false,
        key: found.key.clone(),
        compare: found.compare.clone(),
    };
    let mut journal = RowsWriter::journal(&found.folder, &header)?;
    // Blocks of removals have no rows and name the first schema, so there is one.
    journal.schema(&stored_schema(found, &found.schema)?)?;
    Ok(journal)
}

fn stored_schema(found: &Found, schema: &Arc<Schema>) -> Result<StoredSchema, Failure> {
    if found.keep_rows {
        return Ok(StoredSchema { schema: Arc::clone(schema), whole: true });
    }
    key_schema(schema, &found.key_names)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while it was held left an error in its own task; the state is checked on disk by the next run.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

fn stopped(error: JoinError) -> Failure {
    Failure::internal("work on the baseline's files").because(error)
}

//! A baseline in memory.
//!
//! Stricter than the one on disk where a caller could go wrong: a set of changes that is not the newest, and a change
//! that was not handed out or was advanced before, are refused. What was advanced counts at once, so dropping a set is what
//! the death of a process is to the files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::change::{Change, Op};
use crate::codes;
use crate::doubt::Doubt;
use crate::failure::{Failure, FailureKind};
use crate::fingerprint::{KeyPrint, Picker, Printer, RowPrint};
use crate::key::key_text_at;
use crate::model::{Column, ColumnType, Schema};
use crate::ports::{Baseline, ChangeSet, Compare, DiffSpec, DiffSummary, Progress, RowFault, RowStream};
use crate::row::{Cells, Row};

/// Samples kept of each code.
const SAMPLES_MAX: usize = 100;

/// What a destination was told, in memory.
#[derive(Debug, Default)]
pub struct MemoryBaseline(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    entries: BTreeMap<KeyPrint, Entry>,
    /// The version with which a key that was removed begins again.
    gone: BTreeMap<KeyPrint, u16>,
    doubts: BTreeMap<KeyPrint, InDoubt>,
    key: Vec<Column>,
    complete: bool,
    sets: u64,
    advances_left: Option<usize>,
    pause: Duration,
}

/// One key that was told.
#[derive(Debug, Clone)]
struct Entry {
    print: RowPrint,
    version: u16,
    /// The columns that the print is of.
    compare: Vec<Column>,
    row: Row,
    whole: bool,
}

/// What one key may have been told.
#[derive(Debug, Clone)]
struct InDoubt {
    doubt: Doubt,
    /// The row perhaps told; nothing of a removed key.
    row: Option<Kept>,
    /// The row before.
    before: Option<Kept>,
}

/// A row as it is kept, and whether that is whole.
#[derive(Debug, Clone)]
struct Kept {
    row: Row,
    whole: bool,
}

impl MemoryBaseline {
    /// How many keys it has.
    pub fn rows(&self) -> usize {
        lock(&self.0).entries.len()
    }

    /// After so many more, every [`ChangeSet::advance`] fails as a full disk does; `None`: none fails.
    pub fn fail_after(&self, advances: Option<usize>) {
        lock(&self.0).advances_left = advances;
    }

    /// How long [`ChangeSet::next`] takes.
    pub fn slow(&self, pause: Duration) {
        lock(&self.0).pause = pause;
    }
}

#[async_trait]
impl Baseline for MemoryBaseline {
    async fn diff(
        &self,
        rows: &mut dyn RowStream,
        spec: &DiffSpec,
        progress: &Progress,
    ) -> Result<Box<dyn ChangeSet>, Failure> {
        let schema = rows.schema().clone();
        let (mut read, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = rows.next().await? {
            if batch.is_empty() {
                return Err(Failure::internal("a stream of rows yielded an empty batch"));
            }
            bytes += batch.size() as u64;
            read.extend(
                batch
                    .rows()
                    .map(|row| Row { schema: schema.clone(), bytes: Bytes::copy_from_slice(row.as_bytes()) }),
            );
            progress(read.len() as u64, bytes);
        }
        let mut told = lock(&self.0);
        told.sets += 1;
        let columns = Columns::resolve(&schema, spec, &mut told)?;
        let (changes, reprints, summary) = judge(&told, &columns, &read, spec);
        Ok(Box::new(Changes {
            told: self.0.clone(),
            set: told.sets,
            summary,
            waiting: changes,
            handed: BTreeSet::new(),
            announced: BTreeMap::new(),
            reprints,
            columns,
            spec: spec.clone(),
            advanced: 0,
        }))
    }
}

/// The columns of a diff.
struct Columns {
    key: Vec<Column>,
    key_picker: Picker,
    compare: Vec<Column>,
    picker: Picker,
    /// What the query's columns have lost against those that entries were printed with.
    sentence: Option<String>,
}

impl Columns {
    fn resolve(schema: &Schema, spec: &DiffSpec, told: &mut Told) -> Result<Columns, Failure> {
        let unknown = |name: String| Failure::internal(format!("diff by column `{name}`, which no row has"));
        let column = |name: &str| {
            schema
                .index_of(name)
                .map(|at| schema.columns()[at].clone())
                .ok_or_else(|| unknown(name.to_owned()))
        };
        let key = spec.key.iter().map(|name| column(name)).collect::<Result<Vec<_>, _>>()?;
        let mut compare = match &spec.compare {
            Compare::These(names) => names.iter().map(|name| column(name)).collect::<Result<Vec<_>, _>>()?,
            Compare::AllBut(names) => {
                schema.columns().iter().filter(|column| !names.contains(&column.name)).cloned().collect()
            }
        };
        compare.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut columns = Columns {
            key_picker: Picker::in_order(schema, spec.key.iter().map(String::as_str)).map_err(unknown)?,
            picker: picker(schema, &compare).map_err(unknown)?,
            sentence: None,
            key,
            compare,
        };
        columns.sentence = columns.reconcile(schema, told);
        Ok(columns)
    }

    /// Prints entries anew whose columns are gone from the query, or says why it cannot.
    fn reconcile(&self, schema: &Schema, told: &mut Told) -> Option<String> {
        let mut faults = BTreeSet::new();
        if !told.key.is_empty() && !same_names(&told.key, &self.key) {
            faults.insert("the key has other columns".to_owned());
        }
        let olds = told.entries.values().flat_map(|entry| &entry.compare).chain(&told.key);
        for old in olds {
            if let Some(now) = self.compare.iter().chain(&self.key).find(|now| now.name == old.name)
                && differ(now.kind, old.kind)
            {
                faults.insert(format!("`{}` was {} and is {}", old.name, old.kind, now.kind));
            }
        }
        let mut printer = Printer::default();
        for entry in told.entries.values_mut() {
            if picker(schema, &entry.compare).is_ok() {
                continue;
            }
            match picker(&entry.row.schema, &self.compare) {
                Ok(picker) if entry.whole => {
                    entry.print = printer.row(entry.row.as_ref(), &picker);
                    entry.compare.clone_from(&self.compare);
                }
                _ => {
                    faults.insert("a column is gone from the query".to_owned());
                }
            }
        }
        (!faults.is_empty()).then(|| {
            format!("columns that count changed: {}", faults.into_iter().collect::<Vec<_>>().join("; "))
        })
    }
}

/// What differs: removed keys first, then rows as they were read.
fn judge(
    told: &Told,
    columns: &Columns,
    read: &[Row],
    spec: &DiffSpec,
) -> (VecDeque<Change>, Vec<(KeyPrint, RowPrint)>, DiffSummary) {
    let mut printer = Printer::default();
    let mut summary = DiffSummary {
        first_run: !told.complete,
        columns_changed: columns.sentence.clone(),
        ..DiffSummary::default()
    };
    summary.counts.rows = read.len() as u64;
    summary.counts.baseline_rows = told.entries.len() as u64;
    let mut by_key: BTreeMap<KeyPrint, Vec<&Row>> = BTreeMap::new();
    let mut order = Vec::new();
    for row in read {
        if let Some(key) = printer.key(row.as_ref(), &columns.key_picker) {
            by_key.entry(key).or_default().push(row);
            order.push(key);
        } else {
            summary.counts.null_keys += 1;
            fault(&mut summary, codes::NULL_KEY, row, columns);
        }
    }
    let mut changes = VecDeque::new();
    let gone = |key: &KeyPrint| !by_key.contains_key(key) && !spec.full;
    for (&key, entry) in told.entries.iter().filter(|(key, _)| gone(key) && !told.doubts.contains_key(key)) {
        changes.push_back(Change {
            op: Op::Removed,
            key,
            before: Some(entry.print),
            after: None,
            version: entry.version,
            row: entry.row.clone(),
            previous: entry.whole.then(|| entry.row.clone()),
        });
    }
    for (&key, in_doubt) in told.doubts.iter().filter(|(key, _)| gone(key)) {
        changes.extend(in_doubt.settling(key, None, None));
    }
    let mut reprints = Vec::new();
    for key in order {
        let rows = &by_key[&key];
        if let [row] = rows[..] {
            let print = printer.row(row.as_ref(), &columns.picker);
            if let Some(in_doubt) = told.doubts.get(&key) {
                changes.extend(if spec.full {
                    let version = in_doubt.doubt.version_after().wrapping_add(1);
                    Some(Change { version, ..here(told, None, key, row, print) })
                } else {
                    in_doubt.settling(key, Some(print), Some(row))
                });
                continue;
            }
            let before = told.entries.get(&key);
            match before.filter(|_| !spec.full) {
                Some(entry) if entry.print == print && same_names(&entry.compare, &columns.compare) => {}
                Some(entry) if is_same(entry, row, &mut printer) => reprints.push((key, print)),
                before => changes.push_back(here(told, before, key, row, print)),
            }
        } else {
            summary.counts.duplicate_keys += 1;
            fault(&mut summary, codes::DUPLICATE_KEY, rows[0], columns);
        }
    }
    for change in &changes {
        *summary.counts.planned.of(change.op) += 1;
        let digest = Change::digest(change.op, change.key, change.before, change.after);
        summary.digest = summary.digest.wrapping_add(digest);
    }
    (changes, reprints, summary)
}

impl InDoubt {
    /// What is said of the key now that its row has this print, or there is none.
    fn settling(&self, key: KeyPrint, now: Option<RowPrint>, row: Option<&Row>) -> Option<Change> {
        let (op, before, version) = self.doubt.next(now);
        let again = now == self.doubt.after;
        let kept = if again { &self.before } else { &self.row };
        let previous =
            kept.as_ref().filter(|kept| kept.whole && op != Op::Added).map(|kept| kept.row.clone());
        let row = row.or(kept.as_ref().map(|kept| &kept.row))?.clone();
        Some(Change { op, key, before, after: now, version, row, previous })
    }
}

/// Whether a row is what was told, by the columns that counted then.
fn is_same(entry: &Entry, row: &Row, printer: &mut Printer) -> bool {
    picker(&row.schema, &entry.compare).is_ok_and(|picker| printer.row(row.as_ref(), &picker) == entry.print)
}

/// A row that is added, or changed from `before`.
fn here(told: &Told, before: Option<&Entry>, key: KeyPrint, row: &Row, print: RowPrint) -> Change {
    let begins = match told.entries.get(&key) {
        Some(entry) => entry.version.wrapping_add(1), // sent again in full
        None => told.gone.get(&key).copied().unwrap_or_default(),
    };
    Change {
        op: if before.is_some() { Op::Changed } else { Op::Added },
        key,
        before: before.map(|entry| entry.print),
        after: Some(print),
        version: before.map_or(begins, |entry| entry.version),
        row: row.clone(),
        previous: before.filter(|entry| entry.whole).map(|entry| entry.row.clone()),
    }
}

fn fault(summary: &mut DiffSummary, code: codes::Code, row: &Row, columns: &Columns) {
    if summary.faults.iter().filter(|fault| fault.code == code).count() < SAMPLES_MAX {
        summary.faults.push(RowFault { code, key: key_text_at(row.as_ref(), columns.key_picker.indexes()) });
    }
}

struct Changes {
    told: Arc<Mutex<Told>>,
    set: u64,
    summary: DiffSummary,
    waiting: VecDeque<Change>,
    /// Handed out and not advanced.
    handed: BTreeSet<KeyPrint>,
    /// Announced, with the doubt there was before.
    announced: BTreeMap<KeyPrint, Option<InDoubt>>,
    /// Rows that are the same, whose entries have prints of other columns.
    reprints: Vec<(KeyPrint, RowPrint)>,
    columns: Columns,
    spec: DiffSpec,
    advanced: usize,
}

impl Changes {
    fn told(&self) -> Result<MutexGuard<'_, Told>, Failure> {
        let told = lock(&self.told);
        if told.sets == self.set { Ok(told) } else { Err(Failure::internal("another diff was begun since")) }
    }

    /// The row as it is kept.
    fn kept(&self, row: &Row) -> Result<Row, Failure> {
        if self.spec.keep_rows {
            return Ok(row.clone());
        }
        let schema = Schema::new(self.columns.key.clone())
            .map_err(|error| Failure::internal("a key names a column twice").because(error))?;
        let mut bytes = Vec::new();
        for &place in self.columns.key_picker.indexes() {
            Cells::new(&mut bytes).value(row.as_ref().get(place));
        }
        Ok(Row { schema, bytes: Bytes::from(bytes) })
    }
}

#[async_trait]
impl ChangeSet for Changes {
    fn summary(&self) -> &DiffSummary {
        &self.summary
    }

    async fn next(&mut self, max: usize) -> Result<Vec<Change>, Failure> {
        let pause = self.told()?.pause;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let count = self.waiting.len().min(max.max(1));
        let changes: Vec<Change> = self.waiting.drain(..count).collect();
        self.handed.extend(changes.iter().map(|change| change.key));
        Ok(changes)
    }

    async fn announce(&mut self, changes: &[&Change]) -> Result<(), Failure> {
        let whole = self.spec.keep_rows;
        let mut kept = Vec::new();
        for change in changes {
            if !self.handed.contains(&change.key) {
                return Err(Failure::internal("announce a change that was not handed out"));
            }
            kept.push(Kept { row: self.kept(&change.row)?, whole });
        }
        let mut replaced = Vec::new();
        {
            let mut told = self.told()?;
            for (change, kept) in changes.iter().zip(kept) {
                let old = told.doubts.get(&change.key).cloned();
                let doubt = Doubt::of(change);
                let entry = told.entries.get(&change.key);
                let before = match &old {
                    // The same once more: what was before it is not told any better now.
                    Some(old) if old.doubt == doubt => old.before.clone(),
                    Some(old) => old.row.clone(),
                    None => entry.map(|entry| Kept { row: entry.row.clone(), whole: entry.whole }),
                };
                let row = (change.op != Op::Removed).then_some(kept);
                // A row that is sent again in full is what was told before, whether it arrives or not.
                let same =
                    change.op == Op::Added && entry.is_some_and(|entry| Some(entry.print) == change.after);
                if old.is_some() || !same {
                    told.doubts.insert(change.key, InDoubt { doubt, row, before });
                }
                replaced.push((change.key, old));
            }
        }
        self.announced.extend(replaced);
        Ok(())
    }

    async fn withdraw(&mut self, changes: &[&Change]) -> Result<(), Failure> {
        for change in changes {
            let Some(old) = self.announced.remove(&change.key) else { continue };
            let mut told = self.told()?;
            match old {
                Some(old) => told.doubts.insert(change.key, old),
                None => told.doubts.remove(&change.key),
            };
        }
        Ok(())
    }

    async fn advance(&mut self, accepted: &[&Change]) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for change in accepted {
            if !self.handed.remove(&change.key) {
                return Err(Failure::internal("advance by a change that is not under way"));
            }
            rows.push(self.kept(&change.row)?);
        }
        let mut told = self.told()?;
        match &mut told.advances_left {
            Some(0) => {
                let what = "write what the destination was told";
                return Err(Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
                    .detail("the disk is full"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for (change, row) in accepted.iter().zip(rows) {
            told.doubts.remove(&change.key);
            match (change.op, change.after) {
                (Op::Removed, _) => {
                    told.entries.remove(&change.key);
                    told.gone.insert(change.key, change.version.wrapping_add(1));
                }
                (op, Some(print)) => {
                    let version = change.version.wrapping_add(u16::from(op == Op::Changed));
                    let (compare, whole) = (self.columns.compare.clone(), self.spec.keep_rows);
                    told.entries.insert(change.key, Entry { print, version, compare, row, whole });
                }
                (_, None) => return Err(Failure::internal("advance by a change that has no row")),
            }
        }
        drop(told);
        self.advanced += accepted.len();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), Failure> {
        let mut told = self.told()?;
        told.complete |= self.waiting.is_empty();
        if self.summary.columns_changed.is_none()
            || self.advanced > 0
            || self.summary.counts.planned.total() == 0
        {
            told.key.clone_from(&self.columns.key);
            for (key, print) in &self.reprints {
                if let Some(entry) = told.entries.get_mut(key) {
                    entry.print = *print;
                    entry.compare.clone_from(&self.columns.compare);
                }
            }
        }
        Ok(())
    }
}

fn picker(schema: &Schema, columns: &[Column]) -> Result<Picker, String> {
    Picker::by_name(schema, columns.iter().map(|column| column.name.as_str()))
}

fn same_names(one: &[Column], other: &[Column]) -> bool {
    one.iter().map(|column| &column.name).eq(other.iter().map(|column| &column.name))
}

/// Under [`ColumnType::Any`] values of two types may be the same bytes.
fn differ(one: ColumnType, other: ColumnType) -> bool {
    one != other && one != ColumnType::Any && other != ColumnType::Any
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A small world for tests of the baseline: a source in memory, and a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use warren_engine::change::{Change, ChangeId, Op};
use warren_engine::failure::Failure;
use warren_engine::model::{Column, ColumnType, Schema};
use warren_engine::ports::{Baseline, ChangeSet, Compare, DiffSpec, RowStream};
use warren_engine::row::{Batch, Row, Value};
use warren_store::baseline::{BaselineOptions, FileBaseline, Sizes};

/// A row of the source: a key and two columns.
pub type Cells = (Option<i64>, String, i64);

/// Rows from memory, a few a batch; may break off with an error.
pub struct Rows {
    schema: Arc<Schema>,
    batches: std::vec::IntoIter<Batch>,
    fails: bool,
}

impl Rows {
    pub fn new(schema: Arc<Schema>, batches: Vec<Batch>) -> Rows {
        Rows { schema, batches: batches.into_iter(), fails: false }
    }

    /// Rows `id`, `name`, `size`.
    pub fn of(cells: &[Cells]) -> Rows {
        let batches = cells.chunks(3).map(|rows| {
            let mut batch = Batch::default();
            for (id, name, size) in rows {
                let mut cells = batch.cells();
                match id {
                    Some(id) => cells.int(*id),
                    None => cells.null(),
                }
                cells.text(name);
                cells.int(*size);
                batch.end_row();
            }
            batch
        });
        Rows::new(
            schema(&[("id", ColumnType::Int), ("name", ColumnType::Text), ("size", ColumnType::Int)]),
            batches.collect(),
        )
    }

    /// Breaks off after its rows.
    pub fn failing(mut self) -> Rows {
        self.fails = true;
        self
    }
}

#[async_trait]
impl RowStream for Rows {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        match self.batches.next() {
            Some(batch) => Ok(Some(batch)),
            None if self.fails => Err(Failure::internal("the source broke off")),
            None => Ok(None),
        }
    }
}

pub fn schema(columns: &[(&str, ColumnType)]) -> Arc<Schema> {
    let columns = columns.iter().map(|&(name, kind)| Column { name: name.into(), kind });
    Schema::new(columns.collect()).unwrap()
}

/// The usual question: key `id`, all columns count, rows are kept.
pub fn spec() -> DiffSpec {
    DiffSpec {
        key: vec!["id".into()],
        compare: Compare::AllBut([].into()),
        keep_rows: true,
        full: false,
        previous: true,
    }
}

/// Sizes at which even a few rows are spilled, compressed and compacted.
pub fn tiny() -> BaselineOptions {
    let sizes = Sizes {
        rows_chunk_bytes: 64,
        rows_memory_bytes: 150,
        prints_chunk_bytes: 64,
        compress_after_bytes: 200,
        previous_bytes: 100,
        differences_kept: 20,
        garbage_rows_min: 5,
    };
    BaselineOptions { sizes, ..BaselineOptions::default() }
}

/// A folder with a baseline in it.
pub struct World {
    pub folder: TempDir,
    pub options: BaselineOptions,
}

impl World {
    pub fn new() -> World {
        // In memory where there is such a folder: these tests sync thousands of files.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        World { folder: folder.unwrap(), options: tiny() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("baseline")
    }

    /// Another world whose folder holds the same files.
    pub fn copy(&self) -> World {
        let world = World::new();
        copy_files(&self.path(), &world.path());
        world
    }

    pub fn baseline(&self) -> FileBaseline {
        FileBaseline::open(self.path(), self.options.clone())
    }

    pub async fn diff(&self, rows: &[Cells], spec: &DiffSpec) -> Result<Box<dyn ChangeSet>, Failure> {
        self.baseline().diff(&mut Rows::of(rows), spec, &|_, _| ()).await
    }

    /// One run in which everything is accepted; returns the changes.
    pub async fn run(&self, rows: &[Cells], spec: &DiffSpec) -> Result<Vec<Change>, Failure> {
        let mut set = self.diff(rows, spec).await?;
        let changes = all(set.as_mut()).await?;
        set.announce(&changes.iter().collect::<Vec<_>>()).await?;
        set.advance(&changes.iter().collect::<Vec<_>>()).await?;
        set.finish().await?;
        Ok(changes)
    }
}

pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// All changes of a set, fetched a few at a time; each key at most once, and removals first.
pub async fn all(set: &mut dyn ChangeSet) -> Result<Vec<Change>, Failure> {
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let next = set.next(3).await?;
        assert!(next.len() <= 3);
        if next.is_empty() {
            break;
        }
        changes.extend(next);
    }
    assert!(changes.is_sorted_by_key(|change| change.op != Op::Removed), "removals come first");
    let mut keys: Vec<_> = changes.iter().map(|change| change.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), changes.len(), "a key occurs twice");
    let planned = set.summary().counts.planned;
    assert_eq!(planned.total(), changes.len() as u64);
    Ok(changes)
}

/// What is told of a key: name and size.
pub type Told = (String, i64);

/// A change in short: the key's value, what happened, the previous row's cells and the row's.
pub type Brief = BTreeMap<i64, (Op, Option<Told>, Told)>;

pub fn brief(changes: &[Change]) -> Brief {
    changes
        .iter()
        .map(|change| {
            let previous = change.previous.as_ref().map(|row| cells(row).1);
            let (key, row) = cells(&change.row);
            (key, (change.op, previous, row))
        })
        .collect()
}

/// The cells of a row `id`, `name`, `size`; what it does not have is empty.
pub fn cells(row: &Row) -> (i64, Told) {
    let Some(Value::Int(id)) = row.get("id") else { panic!("a row has its key") };
    let name = match row.get("name") {
        Some(Value::Text(name)) => name.to_owned(),
        _ => String::new(),
    };
    let size = match row.get("size") {
        Some(Value::Int(size)) => size,
        _ => 0,
    };
    (id, (name, size))
}

pub fn id(change: &Change) -> ChangeId {
    ChangeId::of("sync", change, "")
}

pub fn row(id: i64, name: &str, size: i64) -> Cells {
    (Some(id), name.to_owned(), size)
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

//! A sync with real files, between a source and a broker in memory. The process may die, and is begun again.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use warren_engine::change::Op;
use warren_engine::memory::{Fault, MemoryBroker, MemorySource};
use warren_engine::model::{Column, ColumnType, Model, Schema};
use warren_engine::ports::{Baseline, Source};
use warren_engine::row::Value;
use warren_engine::run::{RunKind, RunRecord};
use warren_engine::sync::bind::bind;
use warren_engine::sync::plan::{
    BATCHES_AHEAD, BodyPlan, CompareChoice, Dynamic, Guard, Initial, PropertyPlan, RoutePlan, SyncPlan,
    Trigger,
};
use warren_engine::sync::run::{self, Ask, Ports};
use warren_engine::sync::watch::Silent;
use warren_liquid::{Options, Template};
use warren_store::baseline::{BaselineOptions, FileBaseline, Sizes};
use warren_store::state::{Retention, SqliteState, SystemClock};

use super::Cut;

/// The columns of a row beside its key. A row whose queue does not exist is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    pub name: String,
    pub size: i64,
    pub queue: &'static str,
}

impl Cells {
    /// Few different ones, so that rows go back to what they were.
    pub fn random(rng: &mut Rng) -> Cells {
        let queue = if rng.u8(..12) == 0 { "nowhere" } else { QUEUE };
        Cells { name: rng.choice(["", "Ann", "Bob \"B\""]).unwrap().into(), size: rng.i64(0..3), queue }
    }
}

/// The queue that exists.
pub const QUEUE: &str = "crm";

/// Which columns count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    Name,
    NameAndSize,
    /// Those that the message and the queue use, which are all.
    Used,
    All,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub op: Op,
    pub key: i64,
    /// Name and size; `None` for a removal.
    pub row: Option<(String, i64)>,
    pub id: String,
}

/// What lives in the process.
struct Process {
    runtime: Runtime,
    state: Arc<SqliteState>,
}

pub struct World {
    folder: TempDir,
    process: Option<Process>,
    pub source: Arc<MemorySource>,
    pub broker: Arc<MemoryBroker>,
    plan: SyncPlan,
    /// Steps of the baseline that still go well; below zero no step does.
    steps_left: Arc<AtomicI64>,
    heard: usize,
}

impl World {
    pub fn new(batch_messages: usize, batches_in_flight: usize) -> World {
        let columns = [
            ("id", ColumnType::Int),
            ("name", ColumnType::Text),
            ("size", ColumnType::Int),
            ("queue", ColumnType::Text),
        ];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), kind });
        let message = r#"{"op": {{ op }}, "id": {{ key }}, "row": [{{ row.name }}, {{ row.size }}]}"#;
        let here = trigger(message, Dynamic::Column("queue".into()));
        // A row that is not kept has only its key.
        let gone =
            trigger(r#"{"op": {{ op }}, "id": {{ key }}, "row": null}"#, Dynamic::Literal(QUEUE.into()));
        World {
            folder: folder(),
            process: None,
            source: Arc::new(MemorySource::new(Schema::new(columns.to_vec()).unwrap())),
            broker: Arc::new(MemoryBroker::with_queues([QUEUE])),
            plan: SyncPlan {
                name: "truth".into(),
                model: Arc::new(Model {
                    name: "rows".into(),
                    sql: "SELECT".into(),
                    key: vec!["id".into()],
                    timeout: None,
                }),
                added: Some(here.clone()),
                changed: Some(here),
                removed: Some(gone),
                compare: CompareChoice::All,
                ignore: [].into(),
                keep_rows: true,
                initial: Initial::Backfill,
                guard: Guard::default(),
                nan_as_null: false,
                give_up_after: Duration::from_secs(20),
                batch_messages,
                batches_in_flight,
            },
            steps_left: Arc::new(AtomicI64::new(i64::MAX)),
            heard: 0,
        }
    }

    /// Messages that may be under way at once.
    pub fn in_flight_max(&self) -> usize {
        self.plan.batch_messages * (self.plan.batches_in_flight + BATCHES_AHEAD)
    }

    pub fn plan(&mut self, compared: Compared, keep_rows: bool) {
        let these = |names: &[&str]| CompareChoice::These(names.iter().map(|&name| name.into()).collect());
        self.plan.compare = match compared {
            Compared::Name => these(&["name"]),
            Compared::NameAndSize => these(&["name", "size"]),
            Compared::Used => CompareChoice::Used,
            Compared::All => CompareChoice::All,
        };
        self.plan.keep_rows = keep_rows;
    }

    /// What the query yields from now on; a key of `None` is NULL.
    pub fn rows(&self, rows: &[(Option<i64>, Cells)]) {
        self.source.set(rows.iter().map(|(key, cells)| {
            let key = key.map_or(Value::Null, Value::Int);
            [key, Value::Text(&cells.name), Value::Int(cells.size), Value::Text(cells.queue)]
        }));
    }

    /// So many messages go, and then each has this fault.
    pub fn script(&self, after: usize, fault: Fault) {
        let fine = std::iter::repeat_n(None, after);
        self.broker.script(fine.chain(std::iter::repeat_n(Some(fault), 20_000)));
    }

    /// The disk is full after so many more steps; `None`: it is not.
    pub fn disk(&self, steps: Option<usize>) {
        self.steps_left.store(steps.map_or(i64::MAX, |steps| steps as i64), Ordering::Relaxed);
    }

    /// Runs the sync; `None`: the process died.
    pub fn run(&mut self, kind: RunKind, no_guard: bool, cut: Cut) -> Option<RunRecord> {
        let process = self.process.take().unwrap_or_else(|| self.begin());
        let steps_left = self.steps_left.clone();
        let full = || io::Error::from_raw_os_error(28); // ENOSPC
        let options = BaselineOptions {
            // Even a few rows are spilled, compressed and compacted.
            sizes: Sizes {
                rows_chunk_bytes: 64,
                rows_memory_bytes: 150,
                prints_chunk_bytes: 64,
                compress_after_bytes: 200,
                previous_bytes: 100,
                differences_kept: 20,
                garbage_rows_min: 5,
            },
            faults: Some(Arc::new(move |_, _| {
                if steps_left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(full()) }
            })),
            ..BaselineOptions::default()
        };
        let ports = Ports {
            source: self.source.clone(),
            broker: self.broker.clone(),
            baseline: Arc::new(FileBaseline::open(self.baseline_path(), options)),
            records: process.state.clone(),
            leases: process.state.clone(),
            clock: Arc::new(SystemClock),
        };
        let ask = Ask { kind, no_guard, ..Ask::default() };
        let (plan, cancel) = (Arc::new(self.plan.clone()), CancellationToken::new());
        let record = process.runtime.block_on(async {
            let mut run = pin!(run::run(&plan, &ports, ask, &Silent, &cancel));
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                match cut {
                    Cut::Stop(at) if at == polls => cancel.cancel(),
                    Cut::Death(at) if at == polls => return Poll::Ready(None),
                    _ => {}
                }
                run.as_mut().poll(context).map(Some)
            })
            .await
        });
        // The end of a process: what waits for a thread is dropped, what runs on one is one call of the system.
        if record.is_some() {
            self.process = Some(process)
        } else {
            drop(process)
        }
        record.map(Result::unwrap)
    }

    /// Begins a process.
    fn begin(&self) -> Process {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let state = SqliteState::open(&self.folder.path().join("state"), Retention::default()).unwrap();
        Process { runtime, state: Arc::new(state) }
    }

    /// What arrived since this was asked last.
    pub fn heard(&mut self) -> Vec<Heard> {
        let messages = self.broker.messages(QUEUE).split_off(self.heard);
        self.heard += messages.len();
        let heard = messages.into_iter().map(|message| {
            let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            let row = body["row"].as_array().map(|row| {
                let name = row[0].as_str().unwrap().to_owned();
                (name, row[1].as_i64().unwrap())
            });
            Heard {
                op: body["op"].as_str().unwrap().parse().unwrap(),
                key: body["id"].as_i64().unwrap(),
                row,
                id: message.properties.message_id.unwrap(),
            }
        });
        heard.collect()
    }

    /// The keys that differ from what the baseline knows. Looks at a copy, so that the baseline's own next run has to
    /// take up by itself what one that died left behind.
    pub fn differing(&self) -> BTreeSet<i64> {
        let copy = folder();
        // There is no folder before something was first written.
        for file in std::fs::read_dir(self.baseline_path()).into_iter().flatten() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let options = BaselineOptions::default();
        let baseline = FileBaseline::open(copy.path().to_owned(), options);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut rows = self.source.rows(&self.plan.model).await.unwrap();
            let spec = bind(&self.plan, rows.schema()).unwrap().spec;
            let mut changes = baseline.diff(rows.as_mut(), &spec, &|_, _| ()).await.unwrap();
            let mut keys = BTreeSet::new();
            loop {
                let some = changes.next(1000).await.unwrap();
                if some.is_empty() {
                    return keys;
                }
                keys.extend(some.iter().map(|change| match change.row.get("id") {
                    Some(Value::Int(key)) => key,
                    other => panic!("a row has a key: {other:?}"),
                }));
            }
        })
    }

    fn baseline_path(&self) -> PathBuf {
        self.folder.path().join("baseline")
    }

    /// Keys of the baseline.
    pub fn baseline_rows(&self) -> usize {
        let baseline = FileBaseline::open(self.baseline_path(), BaselineOptions::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let info = runtime.block_on(baseline.info()).unwrap();
        info.map_or(0, |info| info.rows as usize)
    }
}

/// A folder in memory where there is one: what is tried here is what is written, not the disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn trigger(message: &str, queue: Dynamic) -> Arc<Trigger> {
    let template = Box::new(Template::parse(message, &Options::default()).unwrap());
    let body = BodyPlan::Template { template, json: true };
    Arc::new(Trigger {
        when: None,
        route: RoutePlan::Queue(queue),
        body,
        properties: PropertyPlan::default(),
    })
}

//! A small world for a sync: rows, a broker, and what is remembered, all in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use warren_engine::failure::Failure;
use warren_engine::memory::{
    Fault, FixedClock, MemoryBaseline, MemoryBroker, MemoryLeases, MemoryRecords, MemorySource,
};
use warren_engine::model::{Column, ColumnType, Model, Schema};
use warren_engine::row::Value;
use warren_engine::run::{PerOp, RowOutcome, RunRecord};
use warren_engine::sync::plan::{
    BodyPlan, CompareChoice, Dynamic, Guard, Initial, PropertyPlan, RoutePlan, SyncPlan, Trigger,
};
use warren_engine::sync::run::{self, Ask, Ports};
use warren_engine::sync::watch::Silent;
use warren_liquid::{Condition, Format, Options, Template};

/// When every run begins.
pub const NOW_MS: i64 = 1_767_225_600_000; // 2026-01-01

/// The columns of every model here: a key, two texts and a number.
pub const COLUMNS: [(&str, ColumnType); 4] = [
    ("id", ColumnType::Int),
    ("name", ColumnType::Text),
    ("queue", ColumnType::Text),
    ("size", ColumnType::Float),
];

/// A row of [`COLUMNS`].
pub type Cells<'v> = [Value<'v>; 4];

pub struct World {
    pub source: Arc<MemorySource>,
    pub broker: Arc<MemoryBroker>,
    pub baseline: Arc<MemoryBaseline>,
    pub records: Arc<MemoryRecords>,
    pub leases: MemoryLeases,
    pub plan: SyncPlan,
    pub cancel: CancellationToken,
}

impl World {
    /// A sync `customers` to queue `crm`, three messages a batch, two batches at once. Each message says what
    /// happened to which row, such as `added 1 Ann`.
    pub fn new() -> World {
        let trigger = Some(Arc::new(says(SHORT)));
        World {
            source: Arc::new(MemorySource::new(schema(&COLUMNS))),
            broker: Arc::new(MemoryBroker::with_queues(["crm", "other"])),
            baseline: Arc::default(),
            records: Arc::default(),
            leases: MemoryLeases::default(),
            plan: SyncPlan {
                name: "customers".into(),
                model: Arc::new(Model {
                    name: "customers".into(),
                    sql: "SELECT".into(),
                    key: vec!["id".into()],
                    timeout: None,
                }),
                added: trigger.clone(),
                changed: trigger.clone(),
                removed: trigger,
                compare: CompareChoice::Used,
                ignore: [].into(),
                keep_rows: true,
                initial: Initial::Backfill,
                guard: Guard::default(),
                nan_as_null: false,
                give_up_after: Duration::from_secs(60),
                batch_messages: 3,
                batches_in_flight: 2,
            },
            cancel: CancellationToken::new(),
        }
    }

    /// The same trigger for all that happens.
    pub fn on_all(&mut self, trigger: Trigger) {
        let trigger = Some(Arc::new(trigger));
        (self.plan.added, self.plan.changed, self.plan.removed) = (trigger.clone(), trigger.clone(), trigger);
    }

    /// A source of other columns.
    pub fn columns(&mut self, columns: &[(&str, ColumnType)]) {
        self.source = Arc::new(MemorySource::new(schema(columns)));
    }

    /// What the source holds now: keys and names.
    pub fn rows(&self, rows: &[(i64, &str)]) {
        self.source.set(rows.iter().map(|&(id, name)| row(id, name)));
    }

    /// As many rows, `1 a`, `2 a` and so on.
    pub fn many(&self, rows: i64) {
        self.source.set((1..=rows).map(|id| row(id, "a")));
    }

    pub fn ports(&self) -> Ports {
        Ports {
            source: self.source.clone(),
            broker: self.broker.clone(),
            baseline: self.baseline.clone(),
            records: self.records.clone(),
            leases: Arc::new(self.leases.clone()),
            clock: Arc::new(FixedClock(NOW_MS)),
        }
    }

    pub async fn try_run(&self, ask: Ask) -> Result<RunRecord, Failure> {
        let result = run::run(&Arc::new(self.plan.clone()), &self.ports(), ask, &Silent, &self.cancel).await;
        if let Ok(record) = &result {
            assert!(record.state.is_final());
            assert_eq!(
                self.records.run(record.id).as_ref(),
                Some(record),
                "the run is on record as it ended"
            );
        }
        result
    }

    pub async fn run_as(&self, ask: Ask) -> RunRecord {
        self.try_run(ask).await.unwrap()
    }

    pub async fn run(&self) -> RunRecord {
        self.run_as(Ask::default()).await
    }

    /// The bodies that arrived in `crm`, in order.
    pub fn said(&self) -> Vec<String> {
        self.said_in("crm")
    }

    pub fn said_in(&self, queue: &str) -> Vec<String> {
        let messages = self.broker.messages(queue);
        messages.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
    }

    /// As [`said`](Self::said), sorted: of several batches at once.
    pub fn said_sorted(&self) -> Vec<String> {
        let mut said = self.said();
        said.sort();
        said
    }

    /// The message ids that arrived with each body.
    pub fn ids(&self) -> BTreeMap<String, Vec<String>> {
        let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in self.broker.messages("crm") {
            let body = String::from_utf8(message.body.to_vec()).unwrap();
            ids.entry(body).or_default().push(message.properties.message_id.unwrap());
        }
        ids
    }

    /// What became of the rows of a run, by key.
    pub fn outcomes(&self, run: &RunRecord) -> BTreeMap<String, RowOutcome> {
        let outcomes = self.records.outcomes(run.id);
        let count = outcomes.len();
        let by_key: BTreeMap<_, _> =
            outcomes.into_iter().map(|outcome| (outcome.key.clone(), outcome)).collect();
        assert_eq!(by_key.len(), count, "one outcome for each row");
        by_key
    }

    /// The codes of the rows of a run that were not sent, by key.
    pub fn refusals(&self, run: &RunRecord) -> Vec<(String, &'static str)> {
        let outcomes = self.outcomes(run).into_iter();
        outcomes.filter_map(|(key, outcome)| Some((key, outcome.code?.as_str()))).collect()
    }
}

/// What a message says unless a test wants something else.
pub const SHORT: &str = "{{ op }} {{ key }} {{ row.name }}";

/// A trigger that sends a text to `crm`.
pub fn says(template: &str) -> Trigger {
    sends(BodyPlan::Template { template: Box::new(text(template)), json: false })
}

/// A trigger that sends JSON to `crm`.
pub fn says_json(template: &str) -> Trigger {
    let template = Box::new(Template::parse(template, &Options::default()).unwrap());
    sends(BodyPlan::Template { template, json: true })
}

/// A trigger that sends a body to `crm`.
pub fn sends(body: BodyPlan) -> Trigger {
    Trigger { when: None, route: to(literal("crm")), body, properties: PropertyPlan::default() }
}

pub fn to(queue: Dynamic) -> RoutePlan {
    RoutePlan::Queue(queue)
}

pub fn literal(text: &str) -> Dynamic {
    Dynamic::Literal(text.into())
}

pub fn column(name: &str) -> Dynamic {
    Dynamic::Column(name.into())
}

pub fn text(template: &str) -> Template {
    Template::parse(template, &Options { format: Format::Text, ..Options::default() }).unwrap()
}

pub fn dynamic(template: &str) -> Dynamic {
    Dynamic::Template(Box::new(text(template)))
}

pub fn when(condition: &str) -> Condition {
    Condition::parse(condition, &Options::default()).unwrap()
}

pub fn row(id: i64, name: &str) -> Cells<'_> {
    [Value::Int(id), Value::Text(name), Value::Text("crm"), Value::Float(1.5)]
}

pub fn schema(columns: &[(&str, ColumnType)]) -> Arc<Schema> {
    let columns = columns.iter().map(|&(name, kind)| Column { name: name.into(), kind });
    Schema::new(columns.collect()).unwrap()
}

/// The next publishes: `count` without a fault.
pub fn fine(count: usize) -> impl Iterator<Item = Option<Fault>> {
    std::iter::repeat_n(None, count)
}

/// The next publishes: `count` with this fault.
pub fn failing(fault: Fault, count: usize) -> impl Iterator<Item = Option<Fault>> {
    std::iter::repeat_n(Some(fault), count)
}

pub fn per_op(added: u64, changed: u64, removed: u64) -> PerOp {
    PerOp { added, changed, removed }
}

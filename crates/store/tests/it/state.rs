//! The state of one machine.

#![expect(clippy::unwrap_used, reason = "what a test sets up is there, or the test fails")]

mod bounds;
mod crash;
mod faults;
mod formats;
mod queries;
mod runs;
mod speed;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tempfile::TempDir;
use warren_engine::change::{ChangeId, Op};
use warren_engine::codes;
use warren_engine::message::{Message, Outbound, Properties, Route};
use warren_engine::ports::{Clock, Records};
use warren_engine::run::{Attempt, RowOutcome, RowStatus, RunId, RunKind, RunRecord, RunState};
use warren_engine::size::ByteSize;
use warren_store::state::{OutcomeFilter, Recorded, Retention, SqliteOptions, SqliteState, State};

/// 2026-01-01, the time at which tests begin.
const NOW: i64 = 1_767_225_600_000;
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A clock that stands still until it is set.
#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A state folder with a state and a clock.
struct World {
    folder: TempDir,
    clock: Arc<SetClock>,
    state: Arc<SqliteState>,
}

impl World {
    fn new() -> World {
        World::with(Retention::default(), None)
    }

    fn with(retention: Retention, file_bytes_max: Option<u64>) -> World {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(NOW)));
        let options = SqliteOptions { retention, file_bytes_max, clock: clock.clone() };
        let state = Arc::new(SqliteState::open_with(&folder.path().join("state"), options).unwrap());
        World { folder, clock, state }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    fn set_time(&self, now: i64) {
        self.clock.0.store(now, Ordering::Relaxed);
    }

    /// A run that recorded some rows and ended.
    async fn run_of(&self, sync: &str, outcomes: Vec<RowOutcome>) -> RunId {
        let run = self.state.begin(sync, RunKind::Changes).await.unwrap();
        self.state.append(run, outcomes).await.unwrap();
        self.end(run, RunState::Success).await;
        run
    }

    async fn end(&self, run: RunId, state: RunState) -> RunRecord {
        let mut record = self.state.run(run).await.unwrap().unwrap();
        record.state = state;
        record.ended_at = Some(self.clock.now_ms());
        self.state.update(&record).await.unwrap();
        record
    }

    async fn all(&self, filter: OutcomeFilter) -> Vec<Recorded> {
        all(self.state.as_ref(), filter).await
    }

    async fn keys(&self, filter: OutcomeFilter) -> Vec<String> {
        self.all(filter).await.into_iter().map(|recorded| recorded.outcome.key).collect()
    }
}

async fn all(state: &dyn State, filter: OutcomeFilter) -> Vec<Recorded> {
    let (mut outcomes, mut all) = (state.find(filter), Vec::new());
    loop {
        let found = outcomes.next().await.unwrap();
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

/// A row that was sent at a time, with a message like those of a real sync.
fn sent(key: &str, at: i64) -> RowOutcome {
    let change = ChangeId(u128::from(at as u64) << 64 | u128::from(seed_of(key)));
    let body = format!(
        r#"{{"id": {key}, "name": "Ada Lovelace {key}", "email": "{:x}@example.com", "region": "{}", "orders": {}, "since": "2019-04-{:02}"}}"#,
        seed_of(key),
        ["north", "south", "east", "west"][(seed_of(key) >> 20) as usize % 4],
        (seed_of(key) >> 8) % 1000,
        (seed_of(key) >> 30) % 28 + 1,
    );
    let properties = Properties {
        content_type: Some("application/json".to_owned()),
        message_id: Some(change.to_string()),
        timestamp: Some((NOW / 1000) as u64),
        ..Properties::default()
    };
    RowOutcome {
        change: Some(change),
        op: Some(Op::Added),
        key: key.to_owned(),
        status: RowStatus::Sent,
        code: None,
        outbound: Some(Outbound {
            route: Route::Queue("crm.customers".to_owned()),
            message: Message { body: Bytes::from(body), properties },
        }),
        attempts: vec![Attempt { at, answer: "confirmed".to_owned() }],
    }
}

/// A row that was rejected because its queue does not exist.
fn rejected(key: &str, at: i64) -> RowOutcome {
    let mut outcome = sent(key, at);
    outcome.status = RowStatus::Rejected;
    outcome.code = Some(codes::NO_SUCH_QUEUE);
    outcome.attempts = vec![Attempt { at, answer: "returned: 312 NO_ROUTE".to_owned() }];
    if let Some(outbound) = &mut outcome.outbound {
        outbound.route = Route::Queue("nowhere".to_owned());
    }
    outcome
}

/// Random to look at, and to a packer; the same for the same key.
fn seed_of(key: &str) -> u64 {
    let seed = key.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(257).wrapping_add(u64::from(byte)));
    fastrand::Rng::with_seed(seed).u64(..)
}

/// Many sent rows, with keys from `first` on.
fn many(first: u64, count: u64, at: i64) -> Vec<RowOutcome> {
    (first..first + count).map(|key| sent(&key.to_string(), at)).collect()
}

fn file_bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("state.db")).unwrap().len()
}

fn kept(age_days: i64, size: u64) -> Retention {
    Retention {
        age: std::time::Duration::from_millis((age_days * DAY) as u64),
        size: ByteSize(size),
        ..Retention::default()
    }
}

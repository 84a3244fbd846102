//! Files that earlier versions wrote are read and brought up to date.
//!
//! `golden/state-vN.sql` is a state of version N as SQL. When the version is raised, the last one stays as it is and one of
//! the new version is made beside it:
//! `cargo test -p warren-store --test it -- --ignored state::formats::write_golden`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use warren_engine::change::{ChangeId, Op};
use warren_engine::codes;
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Route};
use warren_engine::ports::Records;
use warren_engine::run::{
    Attempt, PerOp, RowOutcome, RowStatus, RunError, RunId, RunKind, RunRecord, RunState,
};
use warren_store::state::{Order, OutcomeFilter, Retention, RunFilter, SqliteState, State};

use super::{DAY, NOW, World};

/// The version that this Warren writes.
const VERSION: i64 = 1;

fn golden(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/state-v{version}.sql"))
}

/// What the golden files hold: every field of every kind once.
fn outcomes() -> Vec<RowOutcome> {
    let headers: Headers = [
        ("void", HeaderValue::Void),
        ("bool", HeaderValue::Bool(true)),
        ("i8", HeaderValue::I8(-1)),
        ("u8", HeaderValue::U8(255)),
        ("i16", HeaderValue::I16(-300)),
        ("u16", HeaderValue::U16(65_535)),
        ("i32", HeaderValue::I32(i32::MIN)),
        ("u32", HeaderValue::U32(u32::MAX)),
        ("i64", HeaderValue::I64(i64::MIN)),
        ("f32", HeaderValue::F32(0.5)),
        ("f64", HeaderValue::F64(-0.25)),
        ("decimal", HeaderValue::Decimal { scale: 2, value: 1234 }),
        ("text", HeaderValue::Text("grün".into())),
        ("bytes", HeaderValue::Bytes(vec![0, 255])),
        ("timestamp", HeaderValue::Timestamp(1_767_225_600)),
        ("array", HeaderValue::Array(vec![HeaderValue::I64(1), HeaderValue::Void])),
        ("table", HeaderValue::Table([("x".to_owned(), HeaderValue::Bool(false))].into_iter().collect())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let text = |text: &str| Some(text.to_owned());
    let full = Properties {
        content_type: text("application/json"),
        content_encoding: text("identity"),
        persistent: false,
        priority: Some(0),
        correlation_id: text("c"),
        reply_to: text("r"),
        expiration: text("60000"),
        message_id: text("m"),
        timestamp: Some(0),
        kind: text("k"),
        user_id: text("u"),
        app_id: text("a"),
        headers,
    };
    let change = ChangeId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    let own_id = Properties { message_id: Some(change.to_string()), ..Properties::default() };
    let outbound = |route, properties, body: &'static str| {
        Some(Outbound { route, message: Message { body: Bytes::from(body), properties } })
    };
    let queue = || Route::Queue("crm.customers".into());
    let exchange = Route::Exchange { exchange: "crm".into(), routing_key: "north".into() };
    let attempt = |at, answer: &str| Attempt { at, answer: answer.into() };
    vec![
        RowOutcome {
            change: Some(change),
            op: Some(Op::Added),
            key: "1".into(),
            status: RowStatus::Sent,
            code: None,
            outbound: outbound(queue(), own_id, r#"{"id": 1}"#),
            attempts: vec![attempt(NOW + 1, "nack"), attempt(NOW + 2, "confirmed")],
        },
        RowOutcome {
            change: Some(ChangeId(2)),
            op: Some(Op::Changed),
            key: "[2, \"b\"]".into(),
            status: RowStatus::Rejected,
            code: Some(codes::UNROUTABLE),
            outbound: outbound(exchange, full, r#"{"id": 2}"#),
            attempts: vec![attempt(NOW + 3, "returned: 312 NO_ROUTE")],
        },
        RowOutcome {
            change: Some(ChangeId(3)),
            op: Some(Op::Removed),
            key: "3".into(),
            status: RowStatus::Unknown,
            code: Some(codes::CONNECTION_LOST),
            outbound: outbound(queue(), Properties::default(), ""),
            attempts: vec![attempt(NOW + 4, "connection lost")],
        },
        RowOutcome {
            change: Some(ChangeId(4)),
            op: Some(Op::Added),
            key: "4".into(),
            status: RowStatus::Held,
            code: None,
            outbound: None,
            attempts: vec![],
        },
        RowOutcome {
            change: None,
            op: None,
            key: "null".into(),
            status: RowStatus::Rejected,
            code: Some(codes::NULL_KEY),
            outbound: None,
            attempts: vec![],
        },
    ]
}

fn first_run() -> RunRecord {
    let mut run = RunRecord {
        id: RunId(1),
        sync: "customers".into(),
        kind: RunKind::Changes,
        state: RunState::Warning,
        started_at: NOW,
        ended_at: Some(NOW + 10),
        counts: warren_engine::run::RunCounts::default(),
        times: warren_engine::run::RunTimes { querying_ms: 1, planning_ms: 2, sending_ms: 3, total_ms: 10 },
        error: Some(RunError { code: "unroutable".into(), message: "no queue".into(), remedy: None }),
    };
    run.counts.rows = 5;
    run.counts.planned = PerOp { added: 2, changed: 1, removed: 1 };
    run.counts.sent.added = 1;
    run.counts.null_keys = 1;
    run
}

#[tokio::test]
async fn every_version_so_far_is_read() {
    for version in 1..=VERSION {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let sql = std::fs::read_to_string(golden(version)).unwrap();
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
        let state = SqliteState::open(folder.path(), Retention::default()).unwrap();
        // 1: it is what was written.
        let filter = OutcomeFilter { order: Order::OldestFirst, ..OutcomeFilter::default() };
        let read = super::all(&state, filter).await;
        assert_eq!(
            read.iter().map(|recorded| &recorded.outcome).collect::<Vec<_>>(),
            outcomes().iter().collect::<Vec<_>>()
        );
        assert_eq!(read[3].at, NOW);
        let runs = state.runs(&RunFilter::default()).await.unwrap();
        assert_eq!(runs[1], first_run());
        assert_eq!((runs[0].state, runs[0].sync.as_str()), (RunState::Interrupted, "orders"));
        assert_eq!(state.tallies(RunId(1)).await.unwrap().len(), 5);
        let by_key = OutcomeFilter { key: Some("3".into()), ..OutcomeFilter::default() };
        assert_eq!(super::all(&state, by_key).await.len(), 1);
        // 2: it can be written.
        let run = state.begin("customers", RunKind::Replay).await.unwrap();
        state.append(run, outcomes()).await.unwrap();
        // 3: it is a file of the present version in every respect.
        let fresh = World::new();
        assert_eq!(shape(&path), shape(&fresh.path().join("state.db")));
    }
}

/// The tables and indexes of a file, and its version.
fn shape(path: &Path) -> (i64, Vec<String>) {
    let connection = Connection::open(path).unwrap();
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    (version, rows.map(Result::unwrap).collect())
}

#[tokio::test]
async fn the_present_version_has_a_golden_file() {
    let world = World::new();
    let (version, _) = shape(&world.path().join("state.db"));
    assert_eq!(version, VERSION);
    assert!(golden(VERSION).exists());
}

#[tokio::test]
#[ignore = "writes the golden file of a new version"]
async fn write_golden() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    world.state.append(run, outcomes()).await.unwrap();
    world.state.update(&first_run()).await.unwrap();
    world.set_time(NOW + DAY);
    world.state.begin("orders", RunKind::Full).await.unwrap();
    let path = world.path().join("state.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE runs SET owner = '1-1'", []).unwrap();
    let file = golden(VERSION);
    assert!(!file.exists(), "{} is there: the files of released versions stay as they are", file.display());
    std::fs::write(file, dump(&connection)).unwrap();
}

/// The whole file as SQL.
fn dump(connection: &Connection) -> String {
    let mut sql =
        String::from("-- A state as this version wrote it. Made by `write_golden`; never changed.\n");
    for pragma in ["application_id", "user_version"] {
        let value: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        writeln!(sql, "PRAGMA {pragma} = {value};").unwrap();
    }
    let own = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(own).unwrap();
    for table in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        writeln!(sql, "{};", table.unwrap()).unwrap();
    }
    for table in ["runs", "tallies", "blocks", "block_rows"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns).map(|at| literal(row.get_ref(at).unwrap())).collect();
            writeln!(sql, "INSERT INTO {table} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    sql
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => format!("'{}'", std::str::from_utf8(text).unwrap().replace('\'', "''")),
        ValueRef::Blob(bytes) => {
            bytes.iter().fold("X'".to_owned(), |hex, byte| format!("{hex}{byte:02x}")) + "'"
        }
    }
}

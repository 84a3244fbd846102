//! The broker's file: its tables, its version, and how it is opened.
//!
//! WAL, so that readers never wait. A transaction that accepts messages commits with `synchronous=FULL`, as do
//! declarations: what was confirmed survives the loss of power. One that only hands out or settles messages commits with
//! `NORMAL`: it survives the death of the process, and after a loss of power messages may come a second time, never
//! not at all, because frames of the log are only ever lost from its end.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::fault::{damaged, translate};

/// "WaBr": marks the file as ours.
const APPLICATION_ID: i64 = 0x5761_4272;
/// The version of the tables below.
const VERSION: i64 = 1;

/// - `state`: one row; `topology` counts declarations, so that every process knows when to read them again; `next_id` is
///   the next message's id. Ids only grow: they are a queue's order.
/// - `message`: what was published, once for each queue that has it.
/// - `ready`: the messages that wait. `taken`: those that a consumer holds. A message is in exactly one of the two.
/// - `depth`: how many rows of these two a queue has.
/// - `holder`: the processes that have the file open; each holds the lock of the file `lock`.
const TABLES: &str = "
CREATE TABLE state (topology INTEGER NOT NULL, next_id INTEGER NOT NULL);
INSERT INTO state VALUES (1, 1);
CREATE TABLE queue (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, ttl_ms INTEGER, max_length INTEGER,
  overflow TEXT NOT NULL, dead_letter_exchange TEXT, dead_letter_routing_key TEXT, arguments BLOB NOT NULL);
CREATE TABLE exchange (name TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO exchange VALUES ('amq.direct', 'direct'), ('amq.fanout', 'fanout'), ('amq.topic', 'topic'),
  ('amq.headers', 'headers'), ('amq.match', 'headers');
CREATE TABLE binding (
  id INTEGER PRIMARY KEY, exchange TEXT NOT NULL, queue INTEGER NOT NULL, routing_key TEXT NOT NULL,
  arguments BLOB NOT NULL, UNIQUE (exchange, queue, routing_key, arguments));
CREATE TABLE message (
  id INTEGER PRIMARY KEY, exchange TEXT NOT NULL, routing_key TEXT NOT NULL, published_ms INTEGER NOT NULL,
  properties BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE ready (
  queue INTEGER NOT NULL, id INTEGER NOT NULL, deliveries INTEGER NOT NULL, expires_ms INTEGER,
  PRIMARY KEY (queue, id)) WITHOUT ROWID;
CREATE TABLE taken (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, holder INTEGER NOT NULL, deliveries INTEGER NOT NULL,
  expires_ms INTEGER);
CREATE TABLE depth (queue INTEGER PRIMARY KEY, ready INTEGER NOT NULL, taken INTEGER NOT NULL);
CREATE TABLE holder (id INTEGER PRIMARY KEY AUTOINCREMENT, lock TEXT NOT NULL, process INTEGER NOT NULL);
CREATE TABLE consumer (holder INTEGER NOT NULL, id INTEGER NOT NULL, queue INTEGER NOT NULL,
  PRIMARY KEY (holder, id)) WITHOUT ROWID;
";

/// How often a wait for another process's transaction looks again, a millisecond apart: ten seconds in all.
const BUSY_TRIES_MAX: i32 = 10_000;

/// Opens the file for writing, and makes it if it is not there.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    let what = "open the embedded broker's file";
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::new(FailureKind::Refused, codes::STATE_UNWRITABLE, what)
                .at(path.display().to_string())
                .detail(error.to_string())
                .remedy("make the folder of this file exist and writable for this user, or set the broker's `path`")
                .because(error)
        })?;
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(|error| translate(error, what, path))?;
    prepare(&mut conn, path)?;
    Ok(conn)
}

/// Opens the file for looking at it only; it exists.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Failure> {
    let what = "open the embedded broker's file";
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(|error| translate(error, what, path))?;
    conn.execute_batch("PRAGMA query_only = ON")
        .and_then(|()| conn.busy_handler(Some(wait)))
        .map_err(|error| translate(error, what, path))?;
    Ok(conn)
}

#[expect(clippy::disallowed_methods, reason = "SQLite's busy handler; runs on threads that may block")]
fn wait(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    tries < BUSY_TRIES_MAX
}

fn prepare(conn: &mut Connection, path: &Path) -> Result<(), Failure> {
    let what = "open the embedded broker's file";
    let sql = |error| translate(error, what, path);
    conn.busy_handler(Some(wait)).map_err(sql)?;
    conn.set_prepared_statement_cache_capacity(64);
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    // Asked before anything is written: a file of somebody else's is left as it is.
    let (application, version) =
        (number("application_id").map_err(sql)?, number("user_version").map_err(sql)?);
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    let empty = objects == 0 && application == 0 && version == 0;
    if !empty && application != APPLICATION_ID {
        return Err(damaged(what, "the file is a database, but not an embedded broker's")
            .at(path.display().to_string()));
    }
    if version > VERSION {
        return Err(Failure::new(FailureKind::Internal, codes::STATE_TOO_NEW, what)
            .at(path.display().to_string())
            .detail(format!("it has version {version}, this program reads up to {VERSION}"))
            .remedy("use the newer program, or set another `path` for the broker"));
    }
    // 16 MiB of log before it is folded into the file; the log is cut back to that size afterwards.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096;
         PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
    )
    .map_err(sql)?;
    conn.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
    let made = create(conn).and_then(|()| conn.execute_batch("COMMIT"));
    made.map_err(|error| {
        // The error that counts is the first; a failed rollback is repeated by closing the connection.
        conn.execute_batch("ROLLBACK").ok();
        sql(error)
    })
}

/// Makes the tables unless another process has made them since we looked.
fn create(conn: &Connection) -> rusqlite::Result<()> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == VERSION {
        return Ok(());
    }
    conn.execute_batch(TABLES)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)
}

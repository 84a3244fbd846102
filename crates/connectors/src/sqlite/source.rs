//! The source: a model's query described, or stepped to its end by a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::{Column, ColumnType, Model, Schema};
use warren_engine::ports::{RowStream, Source};
use warren_engine::row::{Batch, Cells};

use super::config::Config;
use super::fault;
use crate::kit::feed::{BATCH_BYTES, Feed, Feeder, Gone, feed};
use crate::kit::limit::Limit;

/// A SQLite file as a source. Nothing is opened yet.
///
/// # Errors
/// The path is empty.
pub fn source(name: &str, config: &Config) -> Result<Arc<dyn Source>, Failure> {
    if config.path.as_os_str().is_empty() {
        return Err(Failure::new(
            FailureKind::Invalid,
            codes::INVALID_VALUE,
            "read the settings of the SQLite source",
        )
        .at(format!("source `{name}`"))
        .detail("`path` is empty")
        .remedy("Give the path of the database file."));
    }
    Ok(Arc::new(Sqlite {
        path: config.path.clone(),
        busy_timeout: config.busy_timeout.map_or(BUSY_TIMEOUT, |span| span.0),
        statement_timeout: config.statement_timeout.map(|span| span.0),
        readers: TaskTracker::new(),
    }))
}

pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Steps of SQLite's machine between two looks at the clock: about a tenth of a millisecond.
pub(super) const STEPS_BETWEEN_LOOKS: i32 = 4_000;

struct Sqlite {
    path: PathBuf,
    busy_timeout: Duration,
    statement_timeout: Option<Duration>,
    /// One thread a query that is being read. Each ends with its query, or soon after its feed is dropped.
    readers: TaskTracker,
}

#[async_trait]
impl Source for Sqlite {
    async fn describe(&self, model: &Model) -> Result<Arc<Schema>, Failure> {
        let query = self.query(model, "describe");
        let described = self.readers.spawn_blocking(move || {
            let connection = query.open()?;
            let statement = query.prepare(&connection)?;
            query.schema(&statement)
        });
        described.await.unwrap_or_else(|_| Err(died()))
    }

    async fn rows(&self, model: &Model) -> Result<Box<dyn RowStream>, Failure> {
        let query = self.query(model, "run");
        let (begun, feed) = oneshot::channel();
        self.readers.spawn_blocking(move || query.run(begun));
        let feed = feed.await.unwrap_or_else(|_| Err(died()))?;
        Ok(Box::new(feed))
    }
}

impl Sqlite {
    fn query(&self, model: &Model, verb: &str) -> Query {
        let limit = Limit::of_model(model, self.statement_timeout);
        Query {
            what: format!("{verb} the query of model `{}`", model.name),
            sql: model.sql.clone(),
            path: self.path.clone(),
            busy_timeout: self.busy_timeout,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit.after)),
            limit,
        }
    }
}

fn died() -> Failure {
    Failure::internal("read a SQLite query: its thread ended without an answer")
}

/// One query, in its thread.
struct Query {
    what: String,
    sql: String,
    path: PathBuf,
    busy_timeout: Duration,
    deadline: Option<Instant>,
    limit: Option<Limit>,
}

/// Why stepping ended before the result did.
enum Stop {
    Gone,
    Failed(Failure),
}

impl Query {
    /// Opens the file and begins the read transaction, in which the schema cannot change between preparing and stepping.
    fn open(&self) -> Result<Connection, Failure> {
        // No URI: a path with a `?` is a path.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(self.busy_timeout)?;
            connection.execute_batch("PRAGMA query_only = ON; BEGIN; SELECT count(*) FROM sqlite_schema;")?;
            Ok(connection)
        });
        opened.map_err(|error| fault::open(error, &self.path))
    }

    fn prepare<'a>(&self, connection: &'a Connection) -> Result<Statement<'a>, Failure> {
        let statement = connection
            .prepare(&self.sql)
            .map_err(|error| fault::query(error, &self.what, &self.sql, false))?;
        if !statement.readonly() {
            return Err(fault::writes(&self.what));
        }
        let refused = |detail: &str, remedy: &str| {
            Err(Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, &self.what)
                .detail(detail)
                .remedy(remedy))
        };
        if statement.column_count() == 0 {
            return refused("the query yields no columns", "Give a SELECT, WITH … SELECT or VALUES.");
        }
        if statement.parameter_count() > 0 {
            return refused(
                "the query has parameters such as `?`",
                "Write the value into the query, by a variable of the configuration if it must vary.",
            );
        }
        Ok(statement)
    }

    fn schema(&self, statement: &Statement<'_>) -> Result<Arc<Schema>, Failure> {
        let mut columns = Vec::new();
        for name in statement.column_names() {
            columns.push(Column { name: name.to_owned(), kind: ColumnType::Any });
        }
        Schema::new(columns).map_err(|duplicate| {
            Failure::new(FailureKind::Invalid, codes::DUPLICATE_COLUMN, &self.what)
                .detail(duplicate.to_string())
                .remedy(format!("Give one of them another name: … AS another_{}.", duplicate.0))
        })
    }

    /// The whole of a query: answers `begun` once the columns are known, then feeds the rows.
    fn run(self, begun: oneshot::Sender<Result<Feed, Failure>>) {
        let mut connection = match self.open() {
            Ok(connection) => connection,
            Err(failure) => return drop(begun.send(Err(failure))),
        };
        let schema = match self.prepare(&connection).and_then(|statement| self.schema(&statement)) {
            Ok(schema) => schema,
            Err(failure) => return drop(begun.send(Err(failure))),
        };
        let (feeder, feed) = feed(schema);
        if begun.send(Ok(feed)).is_err() {
            return;
        }
        let watch = feeder.watch();
        let deadline = self.deadline;
        let may_stop =
            move || watch.is_closed() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Err(error) = connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(may_stop)) {
            return feeder.finish_blocking(Err(fault::query(error, &self.what, &self.sql, false)));
        }
        let read = self.read(&connection, &feeder);
        // The handler holds the feed open.
        drop(connection);
        match read {
            Ok(()) => feeder.finish_blocking(Ok(())),
            Err(Stop::Failed(failure)) => feeder.finish_blocking(Err(failure)),
            Err(Stop::Gone) => {}
        }
    }

    fn read(&self, connection: &Connection, feeder: &Feeder) -> Result<(), Stop> {
        let mut statement = self.prepare(connection).map_err(Stop::Failed)?;
        let columns = statement.column_count();
        let mut rows_came = false;
        let mut batch = Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8);
        let mut rows = statement.raw_query();
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => return Err(self.stopped(error, feeder, rows_came)),
            };
            let mut cells = batch.cells();
            for index in 0..columns {
                let value = row.get_ref(index).map_err(|error| self.stopped(error, feeder, rows_came))?;
                put(value, &mut cells);
            }
            batch.end_row();
            rows_came = true;
            if batch.size() >= BATCH_BYTES {
                let full = std::mem::replace(&mut batch, Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8));
                feeder.rows_blocking(full).map_err(|Gone| Stop::Gone)?;
            }
        }
        feeder.rows_blocking(batch).map_err(|Gone| Stop::Gone)
    }

    fn stopped(&self, error: rusqlite::Error, feeder: &Feeder, rows_came: bool) -> Stop {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            if feeder.watch().is_closed() {
                return Stop::Gone;
            }
            return Stop::Failed(Limit::passed(self.limit, &self.what));
        }
        Stop::Failed(fault::query(error, &self.what, &self.sql, rows_came))
    }
}

pub(super) fn put(value: ValueRef<'_>, cells: &mut Cells<'_>) {
    match value {
        ValueRef::Null => cells.null(),
        ValueRef::Integer(number) => cells.int(number),
        ValueRef::Real(number) => cells.float(number),
        // SQLite does not check that text is UTF-8.
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => cells.text(text),
            Err(_) => cells.bytes(bytes),
        },
        ValueRef::Blob(bytes) => cells.bytes(bytes),
    }
}

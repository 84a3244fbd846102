//! Statements with parameters, for `sql` steps.
//!
//! Each call has a thread, which opens the file for writing and executes everything in one immediate transaction. SQLite asks
//! every few thousand steps whether to go on; a call that is dropped, or out of time, is rolled back.
//!
//! Only one such transaction can be open in a file, so calls go one after another, in the order in which they came: beside each
//! other they would wait for the file's lock all the same, in no order, and as many threads with them. The file is opened for each
//! call, which costs less than making sure that nothing of the one before is left (a `PRAGMA`, an `ATTACH`, a temporary table).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior, params_from_iter};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{SqlAnswer, SqlCall, json_rows};
use warren_engine::ports::SqlExecutor;
use warren_engine::row::Batch;

use super::config::Config;
use super::fault;
use super::source::{BUSY_TIMEOUT, STEPS_BETWEEN_LOOKS, put};
use crate::kit::limit::Limit;

/// A SQLite file to execute statements on. Nothing is opened yet.
///
/// # Errors
/// The path is empty.
pub fn executor(name: &str, config: &Config) -> Result<Arc<dyn SqlExecutor>, Failure> {
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
    Ok(Arc::new(Executor {
        name: name.to_owned(),
        path: config.path.clone(),
        busy_timeout: config.busy_timeout.map_or(BUSY_TIMEOUT, |span| span.0),
        turn: Arc::default(),
        running: TaskTracker::new(),
    }))
}

struct Executor {
    name: String,
    path: PathBuf,
    busy_timeout: Duration,
    /// Whose turn it is; held by the thread, which may outlive its caller a little.
    turn: Arc<Mutex<()>>,
    /// One thread a call; each ends with its statement, or soon after its caller is gone.
    running: TaskTracker,
}

/// Tells the thread when the caller is gone.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl SqlExecutor for Executor {
    async fn execute(&self, call: &SqlCall) -> Result<SqlAnswer, Failure> {
        let what = format!("execute the statement on source `{}`", self.name);
        let turn = self.turn.clone().lock_owned().await;
        let waiting = Waiting(Arc::default());
        let work = Work {
            path: self.path.clone(),
            busy_timeout: self.busy_timeout,
            call: call.clone(),
            what: what.clone(),
            gone: waiting.0.clone(),
        };
        let thread = self.running.spawn_blocking(move || {
            let result = work.run();
            drop(turn);
            result
        });
        thread.await.unwrap_or_else(|_| Err(Failure::internal(what)))
    }
}

struct Work {
    path: PathBuf,
    busy_timeout: Duration,
    call: SqlCall,
    what: String,
    gone: Arc<AtomicBool>,
}

impl Work {
    fn run(self) -> Result<SqlAnswer, Failure> {
        // No URI: a path with a `?` is a path. A file that is not there is not made.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(self.busy_timeout.min(self.call.timeout))?;
            Ok(connection)
        });
        let mut connection = opened.map_err(|error| fault::open(error, &self.path))?;
        let deadline = Instant::now().checked_add(self.call.timeout);
        let gone = self.gone.clone();
        let may_stop = move || {
            gone.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() >= deadline)
        };
        let asked = connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(may_stop));
        asked.map_err(|error| self.failed(error))?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.failed(error))?;
        let answer = self.execute(&transaction)?;
        // Nobody may be told of what nobody waits for.
        if self.gone.load(Ordering::Relaxed) {
            return Err(Limit::passed(Some(Limit::of_step(self.call.timeout)), &self.what));
        }
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(answer)
    }

    fn execute(&self, connection: &Connection) -> Result<SqlAnswer, Failure> {
        let mut statement = connection.prepare(&self.call.statement).map_err(|error| self.failed(error))?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let wanted = statement.parameter_count();
        let reads_only = statement.readonly();
        let mut answer = SqlAnswer::default();
        for set in &self.call.parameters {
            if set.len() != wanted {
                let detail = format!("the statement has {wanted} parameters, and {} are given", set.len());
                let failure = self.wrong(detail, "give one under `params` for each `?`");
                return Err(Failure { code: codes::INVALID_PARAMETER, ..failure });
            }
            let mut batch = Batch::with_capacity(0);
            let mut rows = statement
                .query(params_from_iter(set.iter().map(parameter)))
                .map_err(|error| self.failed(error))?;
            while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
                if answer.rows.len() + batch.len() >= self.call.rows_max {
                    let detail = format!("it yields more than {} rows", self.call.rows_max);
                    return Err(self.wrong(detail, "raise `max_rows`, or add a LIMIT"));
                }
                let mut cells = batch.cells();
                for index in 0..names.len() {
                    put(row.get_ref(index).map_err(|error| self.failed(error))?, &mut cells);
                }
                batch.end_row();
            }
            drop(rows);
            if !reads_only {
                answer.affected += connection.changes();
            }
            answer.rows.extend(json_rows(&names, &batch));
        }
        Ok(answer)
    }

    fn failed(&self, error: Error) -> Failure {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            return Limit::passed(Some(Limit::of_step(self.call.timeout)), &self.what);
        }
        // SQLITE_MISMATCH, SQLITE_TOOBIG, and SQLITE_CONSTRAINT_DATATYPE of a strict table.
        let of_parameter = self.call.parameters.iter().any(|set| !set.is_empty())
            && (matches!(error.sqlite_error_code(), Some(ErrorCode::TypeMismatch | ErrorCode::TooBig))
                || error.sqlite_error().is_some_and(|error| error.extended_code == 3091));
        let failure = fault::query(error, &self.what, &self.call.statement, false);
        if of_parameter {
            return Failure { code: codes::INVALID_PARAMETER, ..failure }.remedy(
                "give a value of the type that the statement wants there, or cast it in the statement",
            );
        }
        failure
    }

    fn wrong(&self, detail: String, remedy: &str) -> Failure {
        Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, &self.what).detail(detail).remedy(remedy)
    }
}

fn parameter(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::Null,
        Value::Bool(value) => Sql::Integer(i64::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Sql::Integer(number),
            // SQLite has no larger whole numbers; as text nothing is lost.
            (None, _) if number.as_u64().is_some() => Sql::Text(number.to_string()),
            (None, Some(number)) => Sql::Real(number),
            (None, None) => Sql::Text(number.to_string()),
        },
        Value::String(text) => Sql::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Sql::Text(value.to_string()),
    }
}

//! Statements with parameters, for `sql` steps.
//!
//! Each call has a connection for itself, from a small pool, and one transaction on it: all executions count or none (of tables whose
//! engine has transactions). A connection goes back to the pool only after it was reset, so that nothing a statement left there (a
//! setting, a user variable, a lock, a temporary table) meets the next one; one that broke while nobody used it is replaced without
//! a word, since nothing was executed yet.
//! A call that is dropped is killed on the server, and rolled back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value as Sql};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{SqlAnswer, SqlCall, json_rows};
use warren_engine::ports::SqlExecutor;
use warren_engine::row::Batch;

use super::columns::Cell;
use super::config::{Config, Settings};
use super::connection;
use super::fault::{self, Query};
use crate::kit::limit::Limit;
use crate::kit::pool::{CONNECTIONS_MAX, Place, Pool};
use crate::kit::renew::Made;

/// A MySQL or MariaDB database to execute statements on. Nothing is connected yet.
///
/// # Errors
/// The settings contradict each other, or a certificate cannot be read.
pub fn executor(name: &str, config: &Config) -> Result<Arc<dyn SqlExecutor>, Failure> {
    let settings = Made::new(config, Settings::new).map_err(|failure| match failure.place {
        None => failure.at(format!("source `{name}`")),
        Some(_) => failure,
    })?;
    let (pool, running) = (Pool::new(CONNECTIONS_MAX), TaskTracker::new());
    Ok(Arc::new(Executor { name: name.to_owned(), settings: Arc::new(settings), pool, running }))
}

/// How long a connection that was used before may take to begin a transaction. Longer is one that is dead and does not know.
const USED_ANSWERS: Duration = Duration::from_secs(5);
/// How long cleaning may take.
const CLEANED: Duration = Duration::from_secs(5);

struct Executor {
    name: String,
    settings: Arc<Made<Config, Settings>>,
    pool: Arc<Pool<Conn>>,
    /// One task a call; each ends with its statement, or soon after its caller is gone.
    running: TaskTracker,
}

/// Why a call ended without a result.
enum Stop {
    Lost(Error),
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Lost(error)
    }
}

#[async_trait]
impl SqlExecutor for Executor {
    async fn execute(&self, call: &SqlCall) -> Result<SqlAnswer, Failure> {
        let what = format!("execute the statement on source `{}`", self.name);
        let place = self.pool.place().await;
        let (answer, answered) = oneshot::channel();
        self.running.spawn(run(place, self.settings.clone(), call.clone(), what.clone(), answer));
        answered.await.unwrap_or_else(|_| Err(Failure::internal(what)))
    }
}

async fn run(
    place: Place<Conn>,
    settings: Arc<Made<Config, Settings>>,
    call: SqlCall,
    what: String,
    mut answer: oneshot::Sender<Result<SqlAnswer, Failure>>,
) {
    let query = Query {
        what,
        sql: call.statement.clone(),
        rows_came: false,
        limit: Some(Limit::of_step(call.timeout)),
    };
    // The branch that is dropped is one that nobody waits for; nothing was executed yet.
    let begun = tokio::select! {
        begun = begun(&place, &settings, &call, &query) => begun,
        () = answer.closed() => return,
    };
    let mut connection = match begun {
        Ok(connection) => connection,
        Err(failure) => return drop(answer.send(Err(failure))),
    };
    // As above, and the server is told.
    let result = tokio::select! {
        result = work(&mut connection, &call, &query.what) => Some(result),
        () = answer.closed() => None,
    };
    // Whoever asked may have gone meanwhile; what they are told does not wait for the connection to be cleaned.
    match result {
        None => connection::kill(connection, &settings.last()).await,
        Some(Ok(found)) => {
            drop(answer.send(Ok(found)));
            clean(place, connection).await;
        }
        Some(Err(Stop::Failed(failure))) => {
            // Rows may still be on their way. What is open is rolled back by the server.
            connection::close(connection).await;
            drop(answer.send(Err(failure)));
        }
        Some(Err(Stop::Lost(error))) => {
            let refused = matches!(error, Error::Server(_));
            let of_parameter = call.parameters.iter().any(|set| !set.is_empty()) && is_data_exception(&error);
            let mut failure = fault::query(error, &query);
            if of_parameter {
                failure.code = codes::INVALID_PARAMETER;
                failure.remedy = Some(PARAMETER_REMEDY.to_owned());
            }
            drop(answer.send(Err(failure)));
            if refused {
                clean(place, connection).await;
            } else {
                connection::close(connection).await;
            }
        }
    }
}

const PARAMETER_REMEDY: &str =
    "give a value of the type that the statement wants there, or cast it in the statement";

/// Whether a value is not one of its type, is out of its range, or too long: class 22, and what MySQL and MariaDB put elsewhere
/// (`ER_WARN_DATA_TRUNCATED`, `ER_TRUNCATED_WRONG_VALUE_FOR_FIELD`, `ER_INVALID_JSON_TEXT`, `ER_CONSTRAINT_FAILED` of a JSON column excepted).
/// A division by zero (`ER_DIVISION_BY_ZERO`) may come from stored rows.
fn is_data_exception(error: &Error) -> bool {
    match error {
        Error::Server(refusal) => {
            refusal.code != 1365
                && (refusal.state.starts_with("22") || matches!(refusal.code, 1265 | 1366 | 3140))
        }
        _ => false,
    }
}

/// A connection with an open transaction: one that was used before, or where none of these works, another.
async fn begun(
    place: &Place<Conn>,
    settings: &Made<Config, Settings>,
    call: &SqlCall,
    query: &Query,
) -> Result<Conn, Failure> {
    while let Some(mut connection) = place.used() {
        if matches!(timeout(USED_ANSWERS, begin(&mut connection, call.timeout)).await, Ok(Ok(()))) {
            return Ok(connection);
        }
    }
    let mut connection = connection::open(&settings.now()).await?;
    match begin(&mut connection, call.timeout).await {
        Ok(()) => Ok(connection),
        Err(error) => Err(fault::query(error, query)),
    }
}

async fn begin(connection: &mut Conn, limit: Duration) -> Result<(), Error> {
    connection.query_drop("SET NAMES utf8mb4").await?;
    connection.query_drop("SET SESSION time_zone = '+00:00'").await?;
    connection::set_limit(connection, limit).await?;
    connection.query_drop("START TRANSACTION").await
}

/// Gives a connection back as new, or ends it. A reset rolls back what is open.
async fn clean(place: Place<Conn>, mut connection: Conn) {
    match timeout(CLEANED, connection.reset()).await {
        Ok(Ok(true)) => place.give_back(connection),
        // A server that is too old for it has each connection used once.
        Ok(Ok(false) | Err(_)) | Err(_) => connection::close(connection).await,
    }
}

async fn work(connection: &mut Conn, call: &SqlCall, what: &str) -> Result<SqlAnswer, Stop> {
    let statement = connection.prep(call.statement.as_str()).await?;
    let wanted = usize::from(statement.num_params());
    let mut answer = SqlAnswer::default();
    let mut scratch = String::new();
    for set in &call.parameters {
        if set.len() != wanted {
            let detail = format!("the statement has {wanted} parameters, and {} are given", set.len());
            let failure = wrong(what, detail, "give one under `params` for each `?`");
            return Err(Stop::Failed(Failure { code: codes::INVALID_PARAMETER, ..failure }));
        }
        let parameters = if set.is_empty() {
            Params::Empty
        } else {
            Params::Positional(set.iter().map(parameter).collect())
        };
        let mut result = connection.exec_iter(&statement, parameters).await?;
        let columns = result.columns();
        let columns = columns.as_deref().unwrap_or_default();
        let cells: Vec<Cell> = columns.iter().map(Cell::of).collect();
        let names: Vec<String> = columns.iter().map(|column| column.name_str().into_owned()).collect();
        let mut batch = Batch::with_capacity(0);
        while let Some(row) = result.next().await? {
            if answer.rows.len() + batch.len() >= call.rows_max {
                let detail = format!("it yields more than {} rows", call.rows_max);
                return Err(Stop::Failed(wrong(what, detail, "raise `max_rows`, or add a LIMIT")));
            }
            put(&row, &cells, &mut batch, &mut scratch);
        }
        answer.affected += result.affected_rows();
        drop(result);
        answer.rows.extend(json_rows(&names, &batch));
    }
    connection.query_drop("COMMIT").await?;
    Ok(answer)
}

fn put(row: &Row, cells: &[Cell], batch: &mut Batch, scratch: &mut String) {
    let mut into = batch.cells();
    for (index, cell) in cells.iter().enumerate() {
        match row.as_ref(index) {
            None | Some(Sql::NULL) => into.null(),
            Some(value) => cell.put(value, &mut into, scratch),
        }
    }
    batch.end_row();
}

fn parameter(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::NULL,
        Value::Bool(value) => Sql::Int(i64::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Sql::Int(number),
            (None, Some(number)) => Sql::UInt(number),
            // The digits, which the server reads as the decimal they are.
            (None, None) => Sql::Bytes(number.to_string().into_bytes()),
        },
        Value::String(text) => Sql::Bytes(text.clone().into_bytes()),
        Value::Array(_) | Value::Object(_) => Sql::Bytes(value.to_string().into_bytes()),
    }
}

fn wrong(what: &str, detail: String, remedy: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, what).detail(detail).remedy(remedy)
}

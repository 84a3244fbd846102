//! Statements with parameters, for `sql` steps.
//!
//! Each call has a connection for itself, from a small pool, and one transaction on it: all executions count or none. A connection goes
//! back to the pool only after `DISCARD ALL`, so that nothing a statement left there (a setting, a role, a lock, a temporary table) meets
//! the next one; one that broke while nobody used it is replaced without a word, since nothing was sent over it yet. Parameters are sent as text, which the server
//! reads by the type it expects; so a number can stand for a `numeric`, a text for a `date` or an `enum`, an array for an array.
//! A call that is dropped is cancelled on the server, and rolled back.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Statement};
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{SqlAnswer, SqlCall, json_rows};
use warren_engine::ports::SqlExecutor;
use warren_engine::row::Batch;

use super::cell::Cell;
use super::columns::uncast;
use super::config::{Config, Settings};
use super::connection::{ANY_BYTES, Session};
use super::fault::{self, Query};
use crate::kit::limit::Limit;
use crate::kit::pool::{CONNECTIONS_MAX, Place, Pool};
use crate::kit::renew::Made;

/// A PostgreSQL database to execute statements on. Nothing is connected yet.
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
    pool: Arc<Pool<Session>>,
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
    place: Place<Session>,
    settings: Arc<Made<Config, Settings>>,
    call: SqlCall,
    what: String,
    mut answer: oneshot::Sender<Result<SqlAnswer, Failure>>,
) {
    let query = Query {
        what,
        sql: call.statement.clone(),
        chars_before: 0,
        rows_came: false,
        limit: Some(Limit::of_step(call.timeout)),
    };
    // The branch that is dropped is one that nobody waits for; nothing was executed yet.
    let begun = tokio::select! {
        begun = begun(&place, &settings, &call, &query) => begun,
        () = answer.closed() => return,
    };
    let mut session = match begun {
        Ok(session) => session,
        Err(failure) => return drop(answer.send(Err(failure))),
    };
    let work = session.work(async |client| work(client, &call, &query.what).await);
    // As above, and the server is told.
    let result = tokio::select! {
        result = work => result,
        () = answer.closed() => return session.cancel().await,
    };
    // Whoever asked may have gone meanwhile; what they are told does not wait for the connection to be cleaned.
    match result {
        Ok(found) => {
            drop(answer.send(Ok(found)));
            clean(place, session, true).await;
        }
        Err(Stop::Failed(failure)) => {
            // Rows may still be on their way.
            session.close().await;
            drop(answer.send(Err(failure)));
        }
        Err(Stop::Lost(error)) => {
            let lost = session.why_closed();
            let of_parameter = call.parameters.iter().any(|set| !set.is_empty()) && is_data_exception(&error);
            let mut failure = fault::query(error, lost, &query);
            if of_parameter {
                failure.code = codes::INVALID_PARAMETER;
                failure.remedy = Some(PARAMETER_REMEDY.to_owned());
            }
            drop(answer.send(Err(failure)));
            clean(place, session, false).await;
        }
    }
}

const PARAMETER_REMEDY: &str =
    "give a value of the type that the statement wants there, or cast it in the statement";

/// Whether a value is not one of its type, is out of its range, or too long: class 22. A division by zero may come from stored rows.
fn is_data_exception(error: &Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("22") && *state != SqlState::DIVISION_BY_ZERO)
}

/// A connection with an open transaction: one that was used before, or where none of these works, another.
async fn begun(
    place: &Place<Session>,
    settings: &Made<Config, Settings>,
    call: &SqlCall,
    query: &Query,
) -> Result<Session, Failure> {
    let begin = begin(call.timeout);
    while let Some(mut session) = place.used() {
        let begun = session.work(async |client| client.batch_execute(&begin).await);
        if matches!(timeout(USED_ANSWERS, begun).await, Ok(Ok(()))) {
            return Ok(session);
        }
    }
    let mut session = Session::open(&settings.now()).await?;
    match session.work(async |client| client.batch_execute(&begin).await).await {
        Ok(()) => Ok(session),
        Err(error) => Err(fault::query(error, session.why_closed(), query)),
    }
}

/// Gives a connection back as new, or ends it.
async fn clean(place: Place<Session>, mut session: Session, committed: bool) {
    let cleaning = session.work(async |client| {
        if !committed {
            client.batch_execute("ROLLBACK").await?;
        }
        // In a request of its own, since it may not be within a transaction, as which the server takes several statements.
        client.batch_execute("DISCARD ALL").await
    });
    match timeout(CLEANED, cleaning).await {
        Ok(Ok(())) => place.give_back(session),
        Ok(Err(_)) => session.close().await,
        Err(_) => session.cancel().await,
    }
}

async fn work(client: &Client, call: &SqlCall, what: &str) -> Result<SqlAnswer, Stop> {
    let statement = client.prepare(&call.statement).await?;
    let cells = cells(&statement, what).map_err(Stop::Failed)?;
    let names: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut answer = SqlAnswer::default();
    let mut scratch = String::new();
    for set in &call.parameters {
        let wanted = statement.params().len();
        if set.len() != wanted {
            let detail = format!("the statement has {wanted} parameters, and {} are given", set.len());
            let remedy = "give one under `params` for each of `$1`, `$2`, …";
            return Err(Stop::Failed(Failure {
                code: codes::INVALID_PARAMETER,
                ..wrong(what, detail, remedy)
            }));
        }
        let parameters: Vec<Parameter> =
            set.iter().zip(statement.params()).map(|(value, kind)| Parameter::of(value, kind)).collect();
        let parameters = parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync));
        let mut rows = pin!(client.query_raw(&statement, parameters).await?);
        let mut batch = Batch::with_capacity(0);
        while let Some(row) = rows.next().await {
            let row = row?;
            if answer.rows.len() + batch.len() >= call.rows_max {
                let detail = format!("it yields more than {} rows", call.rows_max);
                return Err(Stop::Failed(wrong(what, detail, "raise `max_rows`, or add a LIMIT")));
            }
            let mut into = batch.cells();
            for (index, cell) in cells.iter().enumerate() {
                match row.try_get::<_, Option<Raw<'_>>>(index)? {
                    None => into.null(),
                    Some(Raw(field)) => cell.put(field, &mut into, &mut scratch).map_err(|_| {
                        Stop::Failed(Failure::internal(format!("{what}: read the column `{}`", names[index])))
                    })?,
                }
            }
            batch.end_row();
        }
        answer.affected += rows.rows_affected().unwrap_or(0);
        answer.rows.extend(json_rows(&names, &batch));
    }
    // Within the transaction: a pooler may give the server's connection to another as soon as it ends.
    drop(statement);
    client.batch_execute("COMMIT").await?;
    Ok(answer)
}

/// Settings are `LOCAL`: behind a pooler the next user of the server's connection finds none of them.
fn begin(limit: Duration) -> String {
    let limit = limit.as_millis().clamp(1, i32::MAX as u128); // 0 would mean no limit
    format!(
        "BEGIN;\nSET LOCAL statement_timeout = {limit};\nSET LOCAL extra_float_digits = 3;\nSET LOCAL DateStyle = 'ISO';\n{ANY_BYTES}"
    )
}

fn cells(statement: &Statement, what: &str) -> Result<Vec<Cell>, Failure> {
    let columns = statement.columns().iter();
    columns
        .map(|column| {
            uncast(column.type_()).ok_or_else(|| {
                let detail = format!(
                    "the column `{}` is of the type {}, which cannot be read here",
                    column.name(),
                    column.type_()
                );
                wrong(what, detail, "cast it in the statement, such as `column::text`")
            })
        })
        .collect()
}

fn wrong(what: &str, detail: String, remedy: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, what).detail(detail).remedy(remedy)
}

/// The bytes of a field.
struct Raw<'r>(&'r [u8]);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, bytes: &'r [u8]) -> Result<Raw<'r>, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A parameter as the server's own text for its type.
#[derive(Debug)]
struct Parameter(Option<String>);

impl Parameter {
    fn of(value: &Value, kind: &Type) -> Parameter {
        Parameter(text(value, kind))
    }
}

fn text(value: &Value, kind: &Type) -> Option<String> {
    let json = matches!(*kind, Type::JSON | Type::JSONB);
    match (value, kind.kind()) {
        (Value::Null, _) => None,
        (value, _) if json => Some(value.to_string()),
        (value, Kind::Domain(base)) => text(value, base),
        (Value::Bool(value), _) => Some(value.to_string()),
        (Value::Number(number), _) => Some(number.to_string()),
        (Value::String(text), _) => Some(text.clone()),
        (Value::Array(items), Kind::Array(element)) => Some(array(items, element)),
        (Value::Array(_) | Value::Object(_), _) => Some(value.to_string()),
    }
}

/// `{1,"a \"b\"",NULL}`
fn array(items: &[Value], element: &Type) -> String {
    let items = items.iter().map(|item| match (item, text(item, element)) {
        (_, None) => "NULL".to_owned(),
        // An array within an array.
        (Value::Array(_), Some(text)) if text.starts_with('{') => text,
        (_, Some(text)) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

impl ToSql for Parameter {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Ok(match &self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

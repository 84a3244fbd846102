//! The source: a model's query described, or run to its end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::{Model, Schema};
use warren_engine::ports::{RowStream, Source};
use warren_engine::row::Batch;

use super::columns::Columns;
use super::config::{Config, Settings};
use super::connection::Session;
use super::fault::{self, Query};
use super::grants;
use super::reader::{Broken, Reader};
use super::undescribed;
use crate::kit::feed::{BATCH_BYTES, Feeder, Gone, feed};
use crate::kit::limit::Limit;
use crate::kit::renew::Made;

/// A PostgreSQL database as a source. Nothing is connected yet.
///
/// # Errors
/// The settings contradict each other, or a certificate cannot be read.
pub fn source(name: &str, config: &Config) -> Result<Arc<dyn Source>, Failure> {
    let settings = Made::new(config, Settings::new).map_err(|failure| match failure.place {
        None => failure.at(format!("source `{name}`")),
        Some(_) => failure,
    })?;
    Ok(Arc::new(Postgres { settings, readers: TaskTracker::new() }))
}

struct Postgres {
    settings: Made<Config, Settings>,
    /// One task a query that is being read. Each ends with its query, or soon after its feed is dropped.
    readers: TaskTracker,
}

/// How much later than the server we give a query up ourselves: the server's own word is the better one, but a server
/// that went silent gives none.
const GRACE: Duration = Duration::from_secs(5);

/// How long a query without a limit may take to be parsed.
const PREPARED_WITHIN: Duration = Duration::from_secs(600);

#[async_trait]
impl Source for Postgres {
    async fn describe(&self, model: &Model) -> Result<Arc<Schema>, Failure> {
        let query = self.query(model, "describe");
        let limit = self.limit(model);
        let settings = self.settings.now();
        let session = begun(&settings, limit, &query).await?;
        let described = async {
            let (session, columns) = prepare(session, &query).await?;
            start(session, &columns, &query).await.map(|session| (session, columns.schema))
        };
        match within(prepared_by(limit), &query, described).await {
            Ok((session, schema)) => {
                session.close().await;
                Ok(schema)
            }
            Err(failure) => Err(grants::name(failure, &settings, &query.sql).await),
        }
    }

    async fn rows(&self, model: &Model) -> Result<Box<dyn RowStream>, Failure> {
        let query = self.query(model, "run");
        let limit = self.limit(model);
        let settings = self.settings.now();
        let session = begun(&settings, limit, &query).await?;
        let deadline = deadline(limit);
        let (session, columns) = within(prepared_by(limit), &query, prepare(session, &query)).await?;
        let (feeder, feed) = feed(columns.schema.clone());
        let reading = Reading::new(session, columns, query, settings.connect_timeout);
        self.readers.spawn(reading.run(feeder, deadline));
        Ok(Box::new(feed))
    }
}

impl Postgres {
    fn limit(&self, model: &Model) -> Option<Duration> {
        model.timeout.or(self.settings.last().statement_timeout)
    }

    fn query(&self, model: &Model, verb: &str) -> Query {
        Query { limit: Limit::of_model(model, self.settings.last().statement_timeout), ..query(model, verb) }
    }
}

fn query(model: &Model, verb: &str) -> Query {
    Query {
        what: format!("{verb} the query of model `{}`", model.name),
        sql: model.sql.clone(),
        chars_before: 0,
        rows_came: false,
        limit: None,
    }
}

fn deadline(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?.checked_add(GRACE)?)
}

/// When a query must have been parsed: it may wait for a table that is being altered.
fn prepared_by(limit: Option<Duration>) -> Option<Instant> {
    deadline(limit).or_else(|| deadline(Some(PREPARED_WITHIN)))
}

/// A connection in its transaction, which begins at once, or the server does not answer.
async fn begun(settings: &Settings, limit: Option<Duration>, query: &Query) -> Result<Session, Failure> {
    let mut session = Session::open(settings).await?;
    match timeout(settings.connect_timeout, session.begin(limit)).await {
        Ok(Ok(())) => Ok(session),
        Ok(Err(error)) => Err(lost(session, error, query)),
        Err(_) => Err(fault::connect_timeout(settings)),
    }
}

/// Has the server parse the query, which tells its columns and finds its faults, in the places they have in the text as
/// written.
async fn prepare(mut session: Session, query: &Query) -> Result<(Session, Columns), Failure> {
    match session.prepare(&query.sql).await {
        Ok(statement) => Columns::of(&statement, &query.what).map(|columns| (session, columns)),
        Err(error) if undescribed::is(&error) => undescribed::columns(session, query).await,
        Err(error) => Err(lost(session, error, query)),
    }
}

/// Starts the query, and reads no row: permissions are checked when a query starts, not when it is parsed.
async fn start(mut session: Session, columns: &Columns, query: &Query) -> Result<Session, Failure> {
    let cursor = columns.cursor(&query.sql);
    let query = Query { chars_before: cursor.chars_before, ..query.clone() };
    match session.work(async |client| client.batch_execute(&cursor.text).await).await {
        Ok(()) => Ok(session),
        Err(error) => {
            // What can be prepared but is not a query that reads.
            let other = [SqlState::SYNTAX_ERROR, SqlState::FEATURE_NOT_SUPPORTED];
            let other = error.code().is_some_and(|code| other.contains(code));
            let failure = lost(session, error, &query);
            if !other {
                return Err(failure);
            }
            Err(Failure { kind: FailureKind::Refused, ..failure }.remedy(
                "Warren only reads: give a SELECT, WITH … SELECT, TABLE or VALUES, without INSERT, UPDATE or DELETE.",
            ))
        }
    }
}

pub(super) fn lost(mut session: Session, error: Error, query: &Query) -> Failure {
    fault::query(error, session.why_closed(), query)
}

async fn within<T>(
    deadline: Option<Instant>,
    query: &Query,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match deadline {
        None => work.await,
        Some(deadline) => match timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(Limit::passed(query.limit, &query.what)),
        },
    }
}

/// A copy being read. It is begun by the reading task too: the server does not answer before the first rows, and
/// a stream that is dropped meanwhile must end the query.
struct Reading {
    session: Session,
    copy: String,
    reader: Reader,
    query: Query,
    /// How long the server may take for what needs no work.
    answers_within: Duration,
}

/// Why reading ended before the result did.
enum Stop {
    Gone,
    Silent,
    Lost(Error),
    Broken(Broken),
}

impl Reading {
    fn new(session: Session, columns: Columns, query: Query, answers_within: Duration) -> Reading {
        let copy = columns.copy(&query.sql);
        let query = Query { chars_before: copy.chars_before, ..query };
        Reading { session, copy: copy.text, reader: Reader::new(columns.cells), query, answers_within }
    }

    async fn run(self, feeder: Feeder, deadline: Option<Instant>) {
        let Reading { mut session, copy, mut reader, mut query, answers_within } = self;
        let end = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let rows_came = &mut query.rows_came;
        let reading = session.work(async |client| read(client, &copy, &mut reader, rows_came, &feeder).await);
        // Each branch that is dropped half-way is one whose work nobody wants any more.
        let read = tokio::select! {
            read = reading => read,
            () = feeder.closed() => Err(Stop::Gone),
            () = end => Err(Stop::Silent),
        };
        let result = match read {
            Ok(()) => match timeout(answers_within, session.end()).await {
                Ok(Ok(())) => {
                    session.close().await;
                    Ok(())
                }
                Ok(Err(error)) => Err(lost(session, error, &query)),
                Err(_) => {
                    session.cancel().await;
                    Err(fault::unended(&query))
                }
            },
            Err(Stop::Gone) => return session.cancel().await,
            Err(Stop::Silent) => {
                session.cancel().await;
                Err(Limit::passed(query.limit, &query.what))
            }
            Err(Stop::Lost(error)) => Err(lost(session, error, &query)),
            Err(Stop::Broken(broken)) => {
                session.cancel().await;
                Err(Failure::new(FailureKind::Internal, codes::QUERY_INTERRUPTED, &query.what)
                    .detail(broken.to_string())
                    .remedy("Look whether something between Warren and PostgreSQL changes what is sent; if nothing is, report it."))
            }
        };
        feeder.finish(result).await;
    }
}

/// Reads the copy to its end and feeds its rows.
async fn read(
    client: &Client,
    copy: &str,
    reader: &mut Reader,
    rows_came: &mut bool,
    feeder: &Feeder,
) -> Result<(), Stop> {
    let mut batch = Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8);
    let mut messages = pin!(client.copy_out(copy).await.map_err(Stop::Lost)?);
    while let Some(message) = messages.next().await {
        let message = message.map_err(Stop::Lost)?;
        reader.take(&message, &mut batch).map_err(Stop::Broken)?;
        *rows_came |= !batch.is_empty();
        if batch.size() >= BATCH_BYTES {
            let full = std::mem::replace(&mut batch, Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8));
            feeder.rows(full).await.map_err(|Gone| Stop::Gone)?;
        }
    }
    reader.finish().map_err(Stop::Broken)?;
    feeder.rows(batch).await.map_err(|Gone| Stop::Gone)
}

//! The source: a model's query described, or run to its end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Statement};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::{Model, Schema};
use warren_engine::ports::{RowStream, Source};
use warren_engine::row::Batch;

use super::columns::{Cell, columns};
use super::config::{Config, Settings};
use super::connection;
use super::fault::{self, Query};
use super::statement::is_query;
use crate::kit::feed::{BATCH_BYTES, Feeder, Gone, feed};
use crate::kit::limit::Limit;
use crate::kit::renew::Made;

/// A MySQL or MariaDB database as a source. Nothing is connected yet.
///
/// # Errors
/// The settings contradict each other, or a certificate cannot be read.
pub fn source(name: &str, config: &Config) -> Result<Arc<dyn Source>, Failure> {
    let settings = Made::new(config, Settings::new).map_err(|failure| match failure.place {
        None => failure.at(format!("source `{name}`")),
        Some(_) => failure,
    })?;
    Ok(Arc::new(MySql { settings, readers: TaskTracker::new() }))
}

struct MySql {
    settings: Made<Config, Settings>,
    /// One task a query that is being read. Each ends with its query, or soon after its feed is dropped.
    readers: TaskTracker,
}

/// How much later than the server we give a query up ourselves: the server's own word is the better one, but a server
/// that went silent, or knows no limits, gives none.
const GRACE: Duration = Duration::from_secs(2);

/// How long a query without a limit may take to be parsed; it may wait for a table that is being altered.
const PREPARED_WITHIN: Duration = Duration::from_secs(600);

#[async_trait]
impl Source for MySql {
    async fn describe(&self, model: &Model) -> Result<Arc<Schema>, Failure> {
        let query = self.query(model, "describe");
        let prepared = self.prepare(model, &query).await?;
        connection::close(prepared.connection).await;
        Ok(prepared.schema)
    }

    async fn rows(&self, model: &Model) -> Result<Box<dyn RowStream>, Failure> {
        let query = self.query(model, "run");
        let deadline = self.deadline(model);
        let prepared = self.prepare(model, &query).await?;
        let (feeder, feed) = feed(prepared.schema.clone());
        let reading = Reading { prepared, query, settings: self.settings.last() };
        self.readers.spawn(reading.run(feeder, deadline));
        Ok(Box::new(feed))
    }
}

/// A connection in its transaction, with the query parsed.
struct Prepared {
    connection: Conn,
    statement: Statement,
    schema: Arc<Schema>,
    cells: Vec<Cell>,
}

impl MySql {
    fn limit(&self, model: &Model) -> Option<Duration> {
        model.timeout.or(self.settings.last().statement_timeout)
    }

    fn query(&self, model: &Model, verb: &str) -> Query {
        Query { limit: Limit::of_model(model, self.settings.last().statement_timeout), ..query(model, verb) }
    }

    fn deadline(&self, model: &Model) -> Option<Instant> {
        Instant::now().checked_add(self.limit(model)?.checked_add(GRACE)?)
    }

    async fn prepare(&self, model: &Model, query: &Query) -> Result<Prepared, Failure> {
        if !is_query(&query.sql) {
            return Err(Failure::new(FailureKind::Refused, codes::QUERY_FAILED, &query.what)
                .detail("the statement is no query")
                .remedy("Warren only reads: give a SELECT, WITH … SELECT or VALUES."));
        }
        let deadline = self.deadline(model).or_else(|| Instant::now().checked_add(PREPARED_WITHIN));
        let settings = self.settings.now();
        let mut opened = connection::open(&settings).await?;
        let limit = self.limit(model);
        // The transaction begins at once, or the server does not answer.
        match timeout(settings.connect_timeout, connection::begin(&mut opened, limit)).await {
            Ok(begun) => begun.map_err(|error| fault::query(error, query))?,
            Err(_) => return Err(fault::connect_timeout(&settings)),
        }
        let work = prepare(opened, query);
        match deadline {
            None => work.await,
            Some(deadline) => timeout_at(deadline, work).await.unwrap_or_else(|_| Err(silent(query))),
        }
    }
}

fn query(model: &Model, verb: &str) -> Query {
    Query {
        what: format!("{verb} the query of model `{}`", model.name),
        sql: model.sql.clone(),
        rows_came: false,
        limit: None,
    }
}

async fn prepare(mut connection: Conn, query: &Query) -> Result<Prepared, Failure> {
    let statement = connection.prep(&query.sql).await.map_err(|error| fault::query(error, query))?;
    let refused = |detail: &str, remedy: &str| {
        Err(Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, &query.what)
            .detail(detail)
            .remedy(remedy))
    };
    if statement.num_params() > 0 {
        return refused(
            "the query has parameters such as `?`",
            "Write the value into the query, by a variable of the configuration if it must vary.",
        );
    }
    if statement.columns().is_empty() {
        return refused("the query yields no columns", "Give a SELECT, WITH … SELECT or VALUES.");
    }
    let (schema, cells) = columns(&statement.columns(), &query.what)?;
    Ok(Prepared { connection, statement, schema, cells })
}

/// The query is out of time and the server has not said so.
fn silent(query: &Query) -> Failure {
    fault::timeout(query)
}

/// A result being read.
struct Reading {
    prepared: Prepared,
    query: Query,
    settings: Settings,
}

/// Why reading ended before the result did.
enum Stop {
    Gone,
    Silent,
    /// The server does not answer to the end of the transaction.
    Unended,
    Failed(Error),
}

impl Reading {
    async fn run(mut self, feeder: Feeder, deadline: Option<Instant>) {
        let end = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        // Each branch that is dropped half-way is one whose work nobody wants any more.
        let read = tokio::select! {
            read = self.read(&feeder) => read,
            () = feeder.closed() => Err(Stop::Gone),
            () = end => Err(Stop::Silent),
        };
        let connection = self.prepared.connection;
        let result = match read {
            Ok(()) => {
                connection::close(connection).await;
                Ok(())
            }
            Err(Stop::Gone) => return connection::kill(connection, &self.settings).await,
            Err(Stop::Silent) => {
                connection::kill(connection, &self.settings).await;
                Err(silent(&self.query))
            }
            Err(Stop::Unended) => {
                connection::kill(connection, &self.settings).await;
                Err(fault::unended(&self.query))
            }
            Err(Stop::Failed(error)) => {
                connection::close(connection).await;
                Err(fault::query(error, &self.query))
            }
        };
        feeder.finish(result).await;
    }

    async fn read(&mut self, feeder: &Feeder) -> Result<(), Stop> {
        let Prepared { connection, statement, cells, .. } = &mut self.prepared;
        let mut scratch = String::new();
        let mut batch = Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8);
        let mut result = connection.exec_iter(&*statement, ()).await.map_err(Stop::Failed)?;
        while let Some(row) = result.next().await.map_err(Stop::Failed)? {
            let mut out = batch.cells();
            for (index, cell) in cells.iter().enumerate() {
                match row.as_ref(index) {
                    Some(value) => cell.put(value, &mut out, &mut scratch),
                    None => out.null(),
                }
            }
            batch.end_row();
            self.query.rows_came = true;
            if batch.size() >= BATCH_BYTES {
                let full = std::mem::replace(&mut batch, Batch::with_capacity(BATCH_BYTES + BATCH_BYTES / 8));
                feeder.rows(full).await.map_err(|Gone| Stop::Gone)?;
            }
        }
        drop(result);
        // Refused if the connection did not stay whole. There is nothing to wait for, whatever the query's limit is.
        match timeout(self.settings.connect_timeout, connection.query_drop("COMMIT")).await {
            Ok(ended) => ended.map_err(Stop::Failed)?,
            Err(_) => return Err(Stop::Unended),
        }
        feeder.rows(batch).await.map_err(|Gone| Stop::Gone)
    }
}

//! Queries whose types the driver cannot describe: labels of an enum, or names of a composite's fields, that are not UTF-8,
//! as a database in SQL_ASCII may have them.
//!
//! The server is asked for names and types in another way, which reads no row, and what is not one of its own types is read as the
//! text it writes.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::{Oid, Type};
use tokio_postgres::{Error, SimpleQueryMessage};
use warren_engine::failure::Failure;

use super::columns::{Columns, Reading};
use super::connection::Session;
use super::fault::Query;
use super::source::lost;
use super::sql::without_trailing_semicolons;

/// Domains over domains are followed this far.
const DEPTH_MAX: usize = 32;

/// Whether a query was prepared, and only what its types are called could not be read.
pub(super) fn is(error: &Error) -> bool {
    // The driver has no other word for its kinds of errors than their texts.
    error.as_db_error().is_none() && error.to_string().starts_with("error deserializing column")
}

/// The columns of such a query.
pub(super) async fn columns(mut session: Session, query: &Query) -> Result<(Session, Columns), Failure> {
    match describe(&mut session, &query.sql).await {
        Ok(readings) => Columns::new(readings, &query.what).map(|columns| (session, columns)),
        Err(error) => Err(lost(session, error, query)),
    }
}

async fn describe(session: &mut Session, sql: &str) -> Result<Vec<(String, Reading)>, Error> {
    let sql = without_trailing_semicolons(sql);
    let names = names(session, &format!("SELECT * FROM (\n{sql}\n) AS q LIMIT 0")).await?;
    if names.iter().collect::<HashSet<_>>().len() < names.len() {
        // Refused for that, whatever their types are.
        return Ok(names.into_iter().map(|name| (name, Reading::as_text())).collect());
    }
    let types: Vec<String> = names
        .iter()
        .map(|name| format!("pg_catalog.pg_typeof(q.\"{}\")::oid", name.replace('"', "\"\"")))
        .collect();
    // One row without values, whose types are those of the query.
    let asked = format!(
        "SELECT {} FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM (\n{sql}\n) AS r LIMIT 0) AS q ON true",
        types.join(", ")
    );
    let row = row(session, &asked).await?;
    let mut known = HashMap::new();
    let mut readings = Vec::new();
    for (name, oid) in names.into_iter().zip(row) {
        let oid = oid.and_then(|oid| oid.parse().ok()).unwrap_or_default();
        let reading = match known.get(&oid) {
            Some(reading) => Reading::clone(reading),
            None => reading(session, oid).await?,
        };
        known.insert(oid, reading.clone());
        readings.push((name, reading));
    }
    Ok(readings)
}

/// How a type is read that may be a user's own.
async fn reading(session: &mut Session, mut oid: Oid) -> Result<Reading, Error> {
    for _ in 0..DEPTH_MAX {
        if let Some(own) = Type::from_oid(oid) {
            return Ok(Reading::of(&own));
        }
        let asked =
            format!("SELECT typbasetype, typcategory = 'A' FROM pg_catalog.pg_type WHERE oid = {oid}");
        let row = row(session, &asked).await?;
        let base: Option<Oid> = row.first().cloned().flatten().and_then(|base| base.parse().ok());
        match base {
            Some(base) if base != 0 => oid = base,
            _ if row.get(1).is_some_and(|is_array| is_array.as_deref() == Some("t")) => {
                return Ok(Reading::as_texts());
            }
            _ => break,
        }
    }
    Ok(Reading::as_text())
}

/// The names of a query's columns.
async fn names(session: &mut Session, sql: &str) -> Result<Vec<String>, Error> {
    let messages = session.work(async |client| client.simple_query(sql).await).await?;
    let described = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => Some(columns),
        _ => None,
    });
    let columns = described.iter().flat_map(|columns| columns.iter());
    Ok(columns.map(|column| column.name().to_owned()).collect())
}

/// The values of a query's first row, as text.
async fn row(session: &mut Session, sql: &str) -> Result<Vec<Option<String>>, Error> {
    let messages = session.work(async |client| client.simple_query(sql).await).await?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Ok(Vec::new()) };
    (0..row.len()).map(|at| Ok(row.try_get(at)?.map(str::to_owned))).collect()
}

//! Reading a source to its end, and rows as text that can be compared.

use std::sync::Arc;
use std::time::Duration;

use warren_engine::failure::Failure;
use warren_engine::model::{Model, Schema};
use warren_engine::ports::{RowStream, Source};
use warren_engine::row::{Value, check};

/// All a query gave.
#[derive(Debug)]
pub struct Table {
    pub schema: Arc<Schema>,
    /// Each value as [`show`] shows it.
    pub rows: Vec<Vec<String>>,
}

pub fn model(sql: &str) -> Model {
    Model { name: "m".into(), sql: sql.into(), key: vec!["id".into()], timeout: None }
}

pub fn limited(sql: &str, timeout: Duration) -> Model {
    Model { timeout: Some(timeout), ..model(sql) }
}

/// Runs a query and reads it to its end. The columns described must be those that come.
pub async fn read(source: &dyn Source, sql: &str) -> Result<Table, Failure> {
    let described = source.describe(&model(sql)).await?;
    let mut stream = source.rows(&model(sql)).await?;
    assert_eq!(stream.schema(), &described);
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await? {
        assert!(!batch.is_empty());
        for row in batch.rows() {
            check(row.as_bytes(), described.len()).expect("a source packs well");
            rows.push(row.values().map(show).collect());
        }
    }
    Ok(Table { schema: described, rows })
}

/// The one value of a query that has one.
pub async fn one(source: &dyn Source, sql: &str) -> String {
    let table = read(source, sql).await.unwrap_or_else(|failure| panic!("{sql}: {failure:?}"));
    assert_eq!((table.rows.len(), table.schema.len()), (1, 1), "{sql}");
    format!("{}: {}", table.schema.columns()[0].kind, table.rows[0][0])
}

/// How many rows come, and the failure they end in, if they do.
pub async fn count(stream: &mut dyn RowStream) -> (usize, Option<Failure>) {
    let mut rows = 0;
    loop {
        match stream.next().await {
            Ok(Some(batch)) => rows += batch.len(),
            Ok(None) => return (rows, None),
            Err(failure) => return (rows, Some(failure)),
        }
    }
}

/// A failure's code, sentence and remedy.
pub fn told(failure: &Failure) -> String {
    let remedy = failure.remedy.as_deref().expect("a failure names the way out");
    format!("{} | {failure} | {remedy}", failure.code)
}

pub fn show(value: Value<'_>) -> String {
    match value {
        Value::Array(array) => {
            let values: Vec<String> = array.values().map(show).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Uuid(bytes) => format!("Uuid({})", bytes.map(|byte| format!("{byte:02x}")).concat()),
        other => format!("{other:?}"),
    }
}

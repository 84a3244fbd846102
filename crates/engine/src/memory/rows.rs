//! A source in memory, which can be told to break.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::model::{Model, Schema};
use crate::ports::{RowStream, Source};
use crate::row::{Batch, Value};

/// Rows that a test sets.
pub struct MemorySource {
    schema: Arc<Schema>,
    rows: Mutex<(Batch, Option<usize>)>,
}

impl MemorySource {
    /// A source of rows of these columns; none yet.
    pub fn new(schema: Arc<Schema>) -> MemorySource {
        MemorySource { schema, rows: Mutex::new((Batch::default(), None)) }
    }

    /// What the next queries yield.
    pub fn set<'v, R: IntoIterator<Item = Value<'v>>>(&self, rows: impl IntoIterator<Item = R>) {
        let mut batch = Batch::default();
        for row in rows {
            for value in row {
                batch.cells().value(value);
            }
            batch.end_row();
        }
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = (batch, None);
    }

    /// The next queries fail after so many rows.
    pub fn break_after(&self, rows: usize) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(rows);
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn describe(&self, _: &Model) -> Result<Arc<Schema>, Failure> {
        Ok(self.schema.clone())
    }

    async fn rows(&self, _: &Model) -> Result<Box<dyn RowStream>, Failure> {
        let (batch, breaks) = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(MemoryRows { schema: self.schema.clone(), batch, breaks, at: 0 }))
    }
}

struct MemoryRows {
    schema: Arc<Schema>,
    batch: Batch,
    breaks: Option<usize>,
    at: usize,
}

#[async_trait]
impl RowStream for MemoryRows {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        const ROWS: usize = 7;
        let mut batch = Batch::default();
        while batch.len() < ROWS && self.at < self.batch.len() && self.breaks != Some(self.at) {
            batch.push_row(self.batch.row(self.at));
            self.at += 1;
        }
        if !batch.is_empty() {
            return Ok(Some(batch));
        }
        if self.breaks == Some(self.at) {
            let what = "read the rows";
            return Err(Failure::new(FailureKind::Disconnected, codes::QUERY_INTERRUPTED, what));
        }
        Ok(None)
    }
}

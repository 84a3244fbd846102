//! Recording rows: packed into blocks, and counted.

use std::collections::HashMap;

use rusqlite::{Connection, params};
use warren_engine::change::Op;
use warren_engine::codes::Code;
use warren_engine::run::{RowOutcome, RowStatus, RunId};

use super::fault::Fault;
use crate::state::block::{Block, BlockWriter};

/// How much of a sample is kept, in characters.
const SAMPLE_KEY_CHARS_MAX: usize = 200;
const SAMPLE_ANSWER_CHARS_MAX: usize = 1000;

/// The rows of one run that are recorded in one transaction.
pub(super) struct Appending<'a> {
    connection: &'a Connection,
    block: &'a mut BlockWriter,
    run: RunId,
    now: i64,
    tallies: HashMap<(RowStatus, Option<Op>, Option<Code>), Count>,
    /// Bytes written so far.
    bytes: u64,
}

struct Count {
    rows: u64,
    body_bytes: u64,
    sample_key: String,
    sample_answer: Option<String>,
}

impl<'a> Appending<'a> {
    /// Begins; the connection is in a transaction.
    pub(super) fn to(connection: &'a Connection, block: &'a mut BlockWriter, run: RunId, now: i64) -> Self {
        block.clear(); // of a transaction that failed
        Appending { connection, block, run, now, tallies: HashMap::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, outcomes: &[RowOutcome]) -> Result<(), Fault> {
        for outcome in outcomes {
            self.block.push(self.now, outcome);
            self.count(outcome);
            if self.block.is_full() {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and the counts. Returns how many bytes were written.
    pub(super) fn end(mut self) -> Result<u64, Fault> {
        self.write_block()?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO tallies (run, status, op, code, rows, body_bytes, sample_key, sample_answer) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET \
             rows = rows + excluded.rows, body_bytes = body_bytes + excluded.body_bytes",
        )?;
        for ((status, op, code), count) in self.tallies {
            statement.execute(params![
                self.run.0,
                status.as_str(),
                op.map_or(String::new(), |op| op.to_string()),
                code.map_or("", Code::as_str),
                count.rows as i64,
                count.body_bytes as i64,
                count.sample_key,
                count.sample_answer,
            ])?;
        }
        Ok(self.bytes)
    }

    fn count(&mut self, outcome: &RowOutcome) {
        let count = self.tallies.entry((outcome.status, outcome.op, outcome.code)).or_insert_with(|| Count {
            rows: 0,
            body_bytes: 0,
            sample_key: outcome.key.chars().take(SAMPLE_KEY_CHARS_MAX).collect(),
            sample_answer: outcome
                .attempts
                .last()
                .map(|attempt| attempt.answer.chars().take(SAMPLE_ANSWER_CHARS_MAX).collect()),
        });
        count.rows += 1;
        count.body_bytes +=
            outcome.outbound.as_ref().map_or(0, |outbound| outbound.message.body.len() as u64);
    }

    fn write_block(&mut self) -> Result<(), Fault> {
        let Some(block) = self.block.take().map_err(Fault::Pack)? else { return Ok(()) };
        let Block { count, statuses, oldest_at, newest_at, seen, ids, rows, bodies } = block;
        self.bytes += (seen.len() + ids.len() + rows.len() + bodies.len()) as u64;
        self.connection
            .prepare_cached(
                "INSERT INTO blocks (run, count, statuses, oldest_at, newest_at, seen) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![self.run.0, count, statuses, oldest_at, newest_at, seen])
            .map_err(|error| of_insert(error, self.run))?;
        self.connection
            .prepare_cached("INSERT INTO block_rows (block, ids, rows, bodies) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.connection.last_insert_rowid(), ids, rows, bodies])?;
        Ok(())
    }
}

/// Rows of a run that is not there are a bug of the caller's, and should be named as one.
fn of_insert(error: rusqlite::Error, run: RunId) -> Fault {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => Fault::NoSuchRun(run.0),
        _ => error.into(),
    }
}

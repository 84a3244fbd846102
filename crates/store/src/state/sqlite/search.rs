//! Finding recorded rows: block by block, reading whole only those that may hold what is wanted.
//!
//! Reading begins and ends within one call, so a reader that thinks for long keeps no log from being cut back. Between
//! calls only the number of the last block is kept; blocks that were pruned meanwhile are no longer found.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use warren_engine::codes::Code;
use warren_engine::run::RunId;

use super::connection;
use super::fault::Fault;
use crate::packed::seen;
use crate::state::block::{Packed, RowView, status_mask};
use crate::state::{Order, OutcomeFilter, Recorded};

/// Blocks looked at in one statement.
const CANDIDATES_MAX: i64 = 256;

/// Rows given back at once, about; at most one more block's.
const ROWS_WANTED: usize = 1000;

/// Bytes of bodies given back at once, about; at most one more block's.
const BODY_BYTES_WANTED: usize = 4 << 20;

/// A search, and how far it is.
pub(super) struct Search {
    filter: OutcomeFilter,
    connection: Option<Connection>,
    /// The last block that was looked at.
    after: i64,
    candidates: VecDeque<Candidate>,
    exhausted: bool,
    left: usize,
}

struct Candidate {
    block: i64,
    run: RunId,
    sync: String,
}

impl Search {
    pub(super) fn new(filter: OutcomeFilter) -> Search {
        let after = match filter.order {
            Order::NewestFirst => i64::MAX,
            Order::OldestFirst => 0,
        };
        let left = filter.limit.unwrap_or(usize::MAX);
        Search { filter, connection: None, after, candidates: VecDeque::new(), exhausted: false, left }
    }

    /// The next rows; none at the end.
    pub(super) fn next(&mut self, path: &Path) -> Result<Vec<Recorded>, Fault> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connection::open_to_read(path)?,
        };
        let found = self.next_with(&connection);
        self.connection = Some(connection);
        found
    }

    fn next_with(&mut self, connection: &Connection) -> Result<Vec<Recorded>, Fault> {
        let (mut found, mut body_bytes) = (Vec::new(), 0);
        while self.left > 0 && found.len() < ROWS_WANTED && body_bytes < BODY_BYTES_WANTED {
            let Some(candidate) = self.candidate(connection)? else { break };
            for recorded in self.rows_of(connection, &candidate)? {
                body_bytes += recorded.outcome.outbound.as_ref().map_or(0, |it| it.message.body.len());
                found.push(recorded);
                self.left -= 1;
            }
        }
        Ok(found)
    }

    /// The next block that may hold what is wanted.
    fn candidate(&mut self, connection: &Connection) -> Result<Option<Candidate>, Fault> {
        while self.candidates.is_empty() && !self.exhausted {
            self.look(connection)?;
        }
        Ok(self.candidates.pop_front())
    }

    /// Looks at the next blocks, without their rows.
    fn look(&mut self, connection: &Connection) -> Result<(), Fault> {
        let (compare, order) = match self.filter.order {
            Order::NewestFirst => ("<", "DESC"),
            Order::OldestFirst => (">", "ASC"),
        };
        // Left out rather than `?1 IS NULL OR`, so that SQLite can go by the index of a run's blocks.
        let of_run = if self.filter.run.is_some() { "b.run = ?2" } else { "?2 IS NULL" };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT b.id, b.run, r.sync, b.statuses, b.oldest_at, b.newest_at, b.seen \
             FROM blocks b CROSS JOIN runs r ON r.id = b.run \
             WHERE b.id {compare} ?1 AND {of_run} ORDER BY b.id {order} LIMIT ?3"
        ))?;
        let mut rows =
            statement.query(params![self.after, self.filter.run.map(|run| run.0), CANDIDATES_MAX])?;
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            looked_at += 1;
            self.after = row.get(0)?;
            let (statuses, oldest_at, newest_at) = (row.get(3)?, row.get(4)?, row.get(5)?);
            let sync = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            let filter = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
            if self.may_hold(sync, statuses, oldest_at, newest_at, filter) {
                let candidate =
                    Candidate { block: self.after, run: RunId(row.get(1)?), sync: sync.to_owned() };
                self.candidates.push_back(candidate);
            }
        }
        self.exhausted = looked_at < CANDIDATES_MAX;
        Ok(())
    }

    fn may_hold(&self, sync: &str, statuses: u8, oldest_at: i64, newest_at: i64, filter: &[u8]) -> bool {
        let wanted = &self.filter;
        wanted.sync.as_deref().is_none_or(|wanted| wanted == sync)
            && wanted.status.is_none_or(|status| statuses & status_mask(status) != 0)
            && wanted.since.is_none_or(|since| newest_at >= since)
            && wanted.until.is_none_or(|until| oldest_at < until)
            && wanted.key.as_deref().is_none_or(|key| seen::may_hold(filter, seen::of_key(key)))
            && wanted.change.is_none_or(|change| seen::may_hold(filter, seen::of_change(change)))
    }

    /// The rows of a block that are wanted, in the order asked for.
    fn rows_of(&self, connection: &Connection, candidate: &Candidate) -> Result<Vec<Recorded>, Fault> {
        let packed: Option<(Vec<u8>, Vec<u8>)> = connection
            .prepare_cached("SELECT rows, ids FROM block_rows WHERE block = ?1")?
            .query_row([candidate.block], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((rows, ids)) = packed else { return Ok(Vec::new()) }; // pruned meanwhile
        let packed = Packed::open(&rows, &ids)?;
        let mut rows = Vec::new();
        for row in packed.rows()? {
            if self.wants(&row)? {
                rows.push(row);
            }
        }
        if self.filter.order == Order::NewestFirst {
            rows.reverse();
        }
        rows.truncate(self.left);
        let bodies = if rows.iter().any(RowView::has_body) {
            let bodies: Option<Vec<u8>> = connection
                .prepare_cached("SELECT bodies FROM block_rows WHERE block = ?1")?
                .query_row([candidate.block], |row| row.get(0))
                .optional()?;
            let Some(bodies) = bodies else { return Ok(Vec::new()) }; // pruned meanwhile
            packed.bodies(&bodies)?
        } else {
            Vec::new()
        };
        let recorded = rows.iter().map(|row| {
            let outcome = row.to_outcome(&bodies)?;
            Ok(Recorded { run: candidate.run, sync: candidate.sync.clone(), at: row.at, outcome })
        });
        recorded.collect()
    }

    fn wants(&self, row: &RowView<'_>) -> Result<bool, Fault> {
        let wanted = &self.filter;
        let fits = wanted.key.as_deref().is_none_or(|key| key == row.key)
            && wanted.change.is_none_or(|change| row.change == Some(change))
            && wanted.status.is_none_or(|status| status == row.status)
            && wanted.code.is_none_or(|code| row.code == Some(Code::as_str(code)))
            && wanted.wants_time(row.at);
        Ok(fits && (wanted.destination.is_none() || wanted.wants_route(row.route()?.as_ref())))
    }
}

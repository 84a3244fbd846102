//! Keeping the record within its bounds: the oldest blocks go, whole, in steps of some milliseconds.
//!
//! When the file has outgrown its bound, more goes than must, so that the next rows find free pages instead of growing
//! the file; pages beyond that are given back to the disk.

use rusqlite::{Connection, TransactionBehavior, params};

use super::fault::Fault;
use crate::state::{Pruned, Retention};

/// Blocks dropped in one step: some 2 MiB.
const BLOCKS_A_STEP: i64 = 32;

/// Runs dropped in one step.
const RUNS_A_STEP: i64 = 200;

/// Pages given back in one step: 2 MiB.
const PAGES_A_STEP: i64 = 256;

/// Pruning under way.
#[derive(Debug)]
pub(super) struct Pruning {
    /// Rows go until the file uses no more than this.
    used_bytes_max: u64,
    /// What has gone so far.
    pub(super) pruned: Pruned,
}

impl Pruning {
    pub(super) fn begin(connection: &Connection, retention: &Retention) -> Result<Pruning, Fault> {
        let over = Usage::of(connection)?.used > retention.size.0;
        let used_bytes_max = if over { retention.size.0 / 8 * 7 } else { retention.size.0 };
        Ok(Pruning { used_bytes_max, pruned: Pruned::default() })
    }

    /// Does a little; returns whether more is to be done.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        retention: &Retention,
        now: i64,
    ) -> Result<bool, Fault> {
        let more =
            self.drop_blocks(connection, retention, now)? || self.drop_runs(connection, retention, now)?;
        Ok(more || give_back(connection, retention.size.0 / 8)?)
    }

    fn drop_blocks(
        &mut self,
        connection: &mut Connection,
        retention: &Retention,
        now: i64,
    ) -> Result<bool, Fault> {
        let before = before(now, retention.age);
        let oldest: Option<i64> =
            connection.query_row("SELECT (SELECT newest_at FROM blocks ORDER BY id LIMIT 1)", [], |row| {
                row.get(0)
            })?;
        let Some(oldest) = oldest else { return Ok(false) };
        let too_large = Usage::of(connection)?.used > self.used_bytes_max;
        if oldest >= before && !too_large {
            return Ok(false);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (last, rows): (Option<i64>, i64) = transaction.query_row(
            "SELECT max(id), coalesce(sum(count), 0) FROM \
             (SELECT id, count, newest_at FROM blocks ORDER BY id LIMIT ?1) WHERE ?2 OR newest_at < ?3",
            params![BLOCKS_A_STEP, too_large, before],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let dropped = transaction.execute(
            "DELETE FROM blocks WHERE id <= ?1 AND (?2 OR newest_at < ?3)",
            params![last, too_large, before],
        )?;
        transaction.commit()?;
        self.pruned.rows += rows as u64;
        Ok(dropped > 0)
    }

    /// Runs that began long ago, or ended and are too many. Those that have rows yet stay until these are gone.
    fn drop_runs(
        &mut self,
        connection: &mut Connection,
        retention: &Retention,
        now: i64,
    ) -> Result<bool, Fault> {
        let before = before(now, retention.runs_age);
        let runs_max = i64::try_from(retention.runs_max.max(1)).unwrap_or(i64::MAX);
        let dropped = connection.execute(
            "DELETE FROM runs WHERE id IN (\
               SELECT r.id FROM runs r WHERE (r.started_at < ?1 OR (r.ended_at IS NOT NULL \
                 AND r.id <= (SELECT id FROM runs ORDER BY id DESC LIMIT 1 OFFSET ?2))) \
               AND NOT EXISTS (SELECT 1 FROM blocks WHERE run = r.id) ORDER BY r.id LIMIT ?3)",
            params![before, runs_max, RUNS_A_STEP],
        )?;
        self.pruned.runs += dropped as u64;
        Ok(dropped > 0)
    }
}

/// Gives back free pages beyond those kept for the next rows; returns whether there may be more.
fn give_back(connection: &Connection, kept_bytes: u64) -> Result<bool, Fault> {
    let usage = Usage::of(connection)?;
    let beyond = (usage.free.saturating_sub(kept_bytes) / usage.page) as i64;
    if beyond == 0 {
        return Ok(false);
    }
    // Each row of this statement is a page given back, so it must be read to its end.
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({})", beyond.min(PAGES_A_STEP)))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(Usage::of(connection)?.free < usage.free)
}

/// What the file is made of, in bytes.
struct Usage {
    page: u64,
    used: u64,
    free: u64,
}

impl Usage {
    fn of(connection: &Connection) -> Result<Usage, Fault> {
        let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (page, pages, free) = (number("page_size")?, number("page_count")?, number("freelist_count")?);
        Ok(Usage { page: page as u64, used: (page * (pages - free)) as u64, free: (page * free) as u64 })
    }
}

fn before(now: i64, age: std::time::Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

//! Runs: begun, updated, shown; and those whose process is gone.
//!
//! A run is under way as long as the process that began it holds the lease of its sync. When it does not, and the record
//! says otherwise, the process was killed: the run is shown as interrupted, and the next run of the sync writes that
//! down. What it had sent and rejected is then counted from the rows it recorded, because its last own counts are older.

use rusqlite::{Connection, OptionalExtension, Row, params};
use warren_engine::change::Op;
use warren_engine::codes::{self, Code};
use warren_engine::run::{RowStatus, RunCounts, RunId, RunKind, RunRecord, RunState, RunTimes};

use super::fault::Fault;
use crate::state::lease::{LeaseFolder, Owner};
use crate::state::{RunFilter, Tally};

const COLUMNS: &str = "id, sync, kind, state, started_at, ended_at, counts, times, error, owner";

/// Records a run that begins, and the end of earlier ones of its sync that nobody runs any more.
pub(super) fn begin(
    connection: &Connection,
    leases: &LeaseFolder,
    now: i64,
    sync: &str,
    kind: RunKind,
) -> Result<RunId, Fault> {
    end_interrupted(connection, leases, sync)?;
    connection
        .prepare_cached(
            "INSERT INTO runs (sync, kind, state, started_at, counts, times, owner) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            sync,
            kind_text(kind),
            RunState::Queued.as_str(),
            now,
            serde_json::to_string(&RunCounts::default())?,
            serde_json::to_string(&RunTimes::default())?,
            leases.owner().as_str(),
        ])?;
    Ok(RunId(connection.last_insert_rowid()))
}

/// Writes down what a run has done.
pub(super) fn update(connection: &Connection, run: &RunRecord) -> Result<(), Fault> {
    let error = run.error.as_ref().map(serde_json::to_string).transpose()?;
    let updated = connection
        .prepare_cached(
            "UPDATE runs SET state = ?2, started_at = ?3, ended_at = ?4, counts = ?5, times = ?6, error = ?7 \
             WHERE id = ?1",
        )?
        .execute(params![
            run.id.0,
            run.state.as_str(),
            run.started_at,
            run.ended_at,
            serde_json::to_string(&run.counts)?,
            serde_json::to_string(&run.times)?,
            error,
        ])?;
    if updated == 0 { Err(Fault::NoSuchRun(run.id.0)) } else { Ok(()) }
}

/// The runs that a filter asks for, newest first.
pub(super) fn list(
    connection: &Connection,
    leases: &LeaseFolder,
    filter: &RunFilter,
) -> Result<Vec<RunRecord>, Fault> {
    // States are filtered here and not by SQLite: whether a run is interrupted is known only after looking at it.
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM runs WHERE (?1 IS NULL OR sync = ?1) AND (?2 IS NULL OR started_at >= ?2) \
         ORDER BY id DESC"
    ))?;
    let mut rows = statement.query(params![filter.sync, filter.since])?;
    let mut runs = Vec::new();
    while runs.len() < filter.limit.unwrap_or(usize::MAX) {
        let Some(row) = rows.next()? else { break };
        let run = shown(connection, leases, OnRecord::of(row)?)?;
        if filter.states.is_empty() || filter.states.contains(&run.state) {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// One run.
pub(super) fn one(
    connection: &Connection,
    leases: &LeaseFolder,
    run: RunId,
) -> Result<Option<RunRecord>, Fault> {
    let found = connection
        .query_row(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"), [run.0], |row| Ok(OnRecord::of(row)))
        .optional()?;
    found.map(|found| shown(connection, leases, found?)).transpose()
}

/// How the rows of a run ended, most rows first.
pub(super) fn tallies(connection: &Connection, run: RunId) -> Result<Vec<Tally>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT status, op, code, rows, body_bytes, sample_key, sample_answer FROM tallies WHERE run = ?1 \
         ORDER BY rows DESC, status, op, code",
    )?;
    let mut rows = statement.query([run.0])?;
    let mut tallies = Vec::new();
    while let Some(row) = rows.next()? {
        let status: String = row.get(0)?;
        let op: String = row.get(1)?;
        let code: String = row.get(2)?;
        tallies.push(Tally {
            status: status.parse().map_err(|()| Fault::Damaged("a status that does not exist"))?,
            op: op.parse::<Op>().ok(),
            code: Code::from_name(&code),
            rows: row.get::<_, i64>(3)? as u64,
            body_bytes: row.get::<_, i64>(4)? as u64,
            sample_key: row.get(5)?,
            sample_answer: row.get(6)?,
        });
    }
    Ok(tallies)
}

/// Writes the end of runs of a sync whose process is gone.
fn end_interrupted(connection: &Connection, leases: &LeaseFolder, sync: &str) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM runs WHERE sync = ?1 AND state IN ('queued', 'querying', 'planning', 'sending')"
    ))?;
    let mut rows = statement.query([sync])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        open.push(OnRecord::of(row)?);
    }
    if open.is_empty() {
        return Ok(());
    }
    let holder = leases.owner_of(sync)?;
    if holder.as_ref().is_some_and(|holder| holder != leases.owner()) {
        return Ok(()); // another process runs it: which of these is its, it knows itself
    }
    for found in open {
        // We hold the lease for the run that begins now, so of ours only one that waits can still be alive.
        if found.owner == leases.owner().as_str() && found.record.state == RunState::Queued {
            continue;
        }
        update(connection, &interrupted(connection, found.record)?)?;
    }
    Ok(())
}

/// A run as it is now.
fn shown(connection: &Connection, leases: &LeaseFolder, found: OnRecord) -> Result<RunRecord, Fault> {
    if found.record.state.is_final() || is_alive(leases, &found)? {
        Ok(found.record)
    } else {
        interrupted(connection, found.record)
    }
}

fn is_alive(leases: &LeaseFolder, found: &OnRecord) -> Result<bool, Fault> {
    if found.record.state == RunState::Queued && found.owner == leases.owner().as_str() {
        return Ok(true); // waits in this process, and may wait for the lease
    }
    Ok(leases.owner_of(&found.record.sync)?.as_ref().map(Owner::as_str) == Some(&found.owner))
}

/// How a run ended that was cut off: when it recorded its last rows, with what it recorded.
fn interrupted(connection: &Connection, mut run: RunRecord) -> Result<RunRecord, Fault> {
    let last: Option<i64> =
        connection
            .query_row("SELECT max(newest_at) FROM blocks WHERE run = ?1", [run.id.0], |row| row.get(0))?;
    let ended_at = last.unwrap_or(run.started_at).max(run.started_at);
    run.state = RunState::Interrupted;
    run.ended_at = Some(ended_at);
    run.times.total_ms = run.times.total_ms.max((ended_at - run.started_at) as u64);
    recount(&mut run.counts, &tallies(connection, run.id)?);
    Ok(run)
}

/// What the recorded rows say, where that is more than what the run said last.
fn recount(counts: &mut RunCounts, tallies: &[Tally]) {
    let mut seen = RunCounts::default();
    for tally in tallies {
        match (tally.status, tally.op) {
            (RowStatus::Sent, Some(op)) => {
                *seen.sent.of(op) += tally.rows;
                seen.bytes += tally.body_bytes;
            }
            (RowStatus::Sent, None) => seen.bytes += tally.body_bytes,
            (RowStatus::Rejected, Some(op)) => *seen.rejected.of(op) += tally.rows,
            (RowStatus::Rejected, None) if tally.code == Some(codes::NULL_KEY) => {
                seen.null_keys += tally.rows
            }
            (RowStatus::Rejected, None) if tally.code == Some(codes::DUPLICATE_KEY) => {
                seen.duplicate_keys += tally.rows;
            }
            (RowStatus::Rejected | RowStatus::Unknown | RowStatus::Held, None) => {}
            (RowStatus::Held, Some(op)) => *seen.held.of(op) += tally.rows,
            (RowStatus::Unknown, Some(_)) => {} // neither sent nor rejected, as far as anybody knows
        }
    }
    for op in [Op::Added, Op::Changed, Op::Removed] {
        for (said, seen) in [
            (&mut counts.sent, &mut seen.sent),
            (&mut counts.rejected, &mut seen.rejected),
            (&mut counts.held, &mut seen.held),
        ] {
            *said.of(op) = (*said.of(op)).max(*seen.of(op));
        }
    }
    counts.null_keys = counts.null_keys.max(seen.null_keys);
    counts.duplicate_keys = counts.duplicate_keys.max(seen.duplicate_keys);
    counts.bytes = counts.bytes.max(seen.bytes);
}

/// A run with the process that began it.
struct OnRecord {
    record: RunRecord,
    owner: String,
}

impl OnRecord {
    /// Of the [columns](COLUMNS).
    fn of(row: &Row<'_>) -> Result<OnRecord, Fault> {
        let kind: String = row.get(2)?;
        let state: String = row.get(3)?;
        let (counts, times): (String, String) = (row.get(6)?, row.get(7)?);
        let error: Option<String> = row.get(8)?;
        Ok(OnRecord {
            record: RunRecord {
                id: RunId(row.get(0)?),
                sync: row.get(1)?,
                kind: kind_of(&kind).ok_or(Fault::Damaged("a kind of run that does not exist"))?,
                state: state.parse().map_err(|()| Fault::Damaged("a state of a run that does not exist"))?,
                started_at: row.get(4)?,
                ended_at: row.get(5)?,
                counts: serde_json::from_str(&counts)?,
                times: serde_json::from_str(&times)?,
                error: error.as_deref().map(serde_json::from_str).transpose()?,
            },
            owner: row.get(9)?,
        })
    }
}

fn kind_text(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Changes => "changes",
        RunKind::Full => "full",
        RunKind::ResetBaseline => "reset_baseline",
        RunKind::Plan => "plan",
        RunKind::Replay => "replay",
    }
}

fn kind_of(text: &str) -> Option<RunKind> {
    [RunKind::Changes, RunKind::Full, RunKind::ResetBaseline, RunKind::Plan, RunKind::Replay]
        .into_iter()
        .find(|kind| kind_text(*kind) == text)
}

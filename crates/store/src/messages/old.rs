//! What versions 1 and 2 of the record wrote: a row an attempt. It is read where it is, and packed when the record is opened to write.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use warren_engine::consume::record::{MessageError, MessageRunId};

use super::block::Gathered;
use super::query::{MessageFilter, RecordedMessage};
use crate::database::Fault;

/// Rows packed in one transaction.
const TOGETHER: usize = 16 * 1024;

/// Whether there may be rows of old.
pub(super) fn is_there(connection: &Connection) -> Result<bool, Fault> {
    let question = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'attempts'";
    Ok(connection.query_row(question, [], |_| Ok(())).optional()?.is_some())
}

/// Packs them all, and drops their table. What was packed stays so where this is interrupted.
pub(super) fn convert(connection: &mut Connection) -> Result<(), Fault> {
    if !is_there(connection)? {
        return Ok(());
    }
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let filter = MessageFilter { limit: Some(TOGETHER), oldest_first: true, ..MessageFilter::default() };
        let rows = find(&transaction, &filter)?;
        let Some(last) = rows.last().map(|row| row.id) else {
            transaction.execute_batch("DROP TABLE attempts")?;
            return Ok(transaction.commit()?);
        };
        let mut gathered = Gathered::new(0);
        for row in &rows {
            let next = gathered.first + gathered.count() as i64;
            if gathered.count() == 0 || gathered.is_full() || row.id.0 != next {
                let full = std::mem::replace(&mut gathered, Gathered::new(row.id.0));
                if full.count() > 0 {
                    full.pack()?.insert(&transaction)?;
                }
            }
            gathered.add_recorded(row)?;
        }
        gathered.pack()?.insert(&transaction)?;
        transaction.execute("DELETE FROM attempts WHERE id <= ?1", [last.0])?;
        transaction.commit()?;
    }
}

/// Those that a filter asks for.
pub(super) fn find(connection: &Connection, filter: &MessageFilter) -> Result<Vec<RecordedMessage>, Fault> {
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let mut statement = connection.prepare(&format!(
        "SELECT id, consumer, message, attempt, status, class, received_at, started_at, ended_at, next_at, error, \
         steps, properties, envelope, body_bytes, body FROM attempts WHERE (?1 IS NULL OR id = ?1) \
         AND (?2 IS NULL OR message = ?2) AND (?3 IS NULL OR consumer = ?3) \
         AND (?4 = '[]' OR status IN (SELECT value FROM json_each(?4))) \
         AND (?5 IS NULL OR ended_at >= ?5) AND (?6 IS NULL OR ended_at < ?6) ORDER BY id {order} LIMIT ?7"
    ))?;
    let mut rows = statement.query(params![
        filter.id.map(|id| id.0),
        filter.message,
        filter.consumer,
        serde_json::to_string(&statuses)?,
        filter.since,
        filter.until,
        filter.limit() as i64,
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<RecordedMessage, Fault> {
    let status: String = row.get(4)?;
    let error: Option<String> = row.get(10)?;
    let error: Option<MessageError> = error.map(|error| serde_json::from_str(&error)).transpose()?;
    let steps: Option<String> = row.get(11)?;
    let steps = steps.map(|steps| serde_json::from_str(&steps)).transpose()?;
    let body: Option<Vec<u8>> = row.get(15)?;
    Ok(RecordedMessage {
        id: MessageRunId(row.get(0)?),
        consumer: row.get(1)?,
        message: row.get(2)?,
        attempt: row.get(3)?,
        status: status.parse().map_err(|()| Fault::Damaged("a status that does not exist"))?,
        class: row.get(5)?,
        received_at: row.get(6)?,
        started_at: row.get(7)?,
        ended_at: row.get(8)?,
        next_at: row.get(9)?,
        error,
        steps: steps.unwrap_or_default(),
        properties: serde_json::from_str(row.get_ref(12)?.as_str().map_err(rusqlite::Error::from)?)?,
        envelope: serde_json::from_str(row.get_ref(13)?.as_str().map_err(rusqlite::Error::from)?)?,
        body_bytes: row.get::<_, i64>(14)? as u64,
        body: body.map(Bytes::from),
    })
}

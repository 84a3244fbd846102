//! What the record of messages can be asked, and what it answers.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use warren_engine::consume::record::{MessageError, MessageRunId, MessageStatus, StepRecord};
use warren_engine::delivery::Envelope;
use warren_engine::message::Properties;

use crate::database::Fault;
use crate::parking::StoredEnvelope;

/// Which attempts are wanted. Empty: all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageFilter {
    /// This one.
    pub id: Option<MessageRunId>,
    /// Of this trigger or subscription.
    pub consumer: Option<String>,
    /// Of the message with this id, or with this name.
    pub message: Option<String>,
    /// That ended so; empty for any.
    pub statuses: Vec<MessageStatus>,
    /// That ended at or after, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// That ended before.
    pub until: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Whether the oldest come first, as a replay sends; else the newest, as a person reads.
    pub oldest_first: bool,
}

/// An attempt on record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedMessage {
    /// Its number.
    pub id: MessageRunId,
    /// The trigger or subscription.
    pub consumer: String,
    /// What the message is looked up by: its id, or what is made of its content.
    pub message: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What became of it.
    pub status: MessageStatus,
    /// Why it was given up, in a word.
    pub class: Option<String>,
    /// When it was received, in milliseconds since the epoch.
    pub received_at: i64,
    /// When its handler began.
    pub started_at: i64,
    /// When its handler ended.
    pub ended_at: i64,
    /// When it is tried again.
    pub next_at: Option<i64>,
    /// What failed.
    pub error: Option<MessageError>,
    /// What its handler did.
    pub steps: Vec<StepRecord>,
    /// The message's properties.
    pub properties: Properties,
    /// How it came.
    pub envelope: Envelope,
    /// The length of its body.
    pub body_bytes: u64,
    /// Its body, where bodies are recorded.
    pub body: Option<Bytes>,
}

/// Attempts read at once where nobody says how many.
const LIMIT: usize = 10_000;

pub(super) fn find(connection: &Connection, filter: &MessageFilter) -> Result<Vec<RecordedMessage>, Fault> {
    let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut statement = connection.prepare(&question(filter, version))?;
    let mut rows = statement.query(params![
        filter.id.map(|id| id.0),
        filter.message,
        filter.consumer,
        serde_json::to_string(&statuses)?,
        filter.since,
        filter.until,
        filter.limit.unwrap_or(LIMIT) as i64,
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The statement for a filter, in a file of that version.
fn question(filter: &MessageFilter, version: i64) -> String {
    // Left out rather than `?1 IS NULL OR`, so that SQLite can go by an index.
    let by_id = if filter.id.is_some() { "id = ?1" } else { "?1 IS NULL" };
    let by_message = match filter.message {
        None => "?2 IS NULL",
        // A file that no newer Warren has written to since.
        Some(_) if version < 2 => "message = ?2",
        Some(_) => {
            // Not with `OR`: for that SQLite reads the whole record.
            "id IN (SELECT id FROM names WHERE message = ?2 UNION ALL \
             SELECT id FROM attempts WHERE id > (SELECT up_to FROM named) AND message = ?2)"
        }
    };
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    format!(
        "SELECT id, consumer, message, attempt, status, class, received_at, started_at, ended_at, next_at, error, \
         steps, properties, envelope, body_bytes, body FROM attempts WHERE {by_id} AND {by_message} \
         AND (?3 IS NULL OR consumer = ?3) AND (?4 = '[]' OR status IN (SELECT value FROM json_each(?4))) \
         AND (?5 IS NULL OR ended_at >= ?5) AND (?6 IS NULL OR ended_at < ?6) ORDER BY id {order} LIMIT ?7"
    )
}

fn read(row: &Row<'_>) -> Result<RecordedMessage, Fault> {
    let status: String = row.get(4)?;
    let error: Option<String> = row.get(10)?;
    let error: Option<MessageError> = error.map(|error| serde_json::from_str(&error)).transpose()?;
    let steps: Option<String> = row.get(11)?;
    let steps = steps.map(|steps| serde_json::from_str(&steps)).transpose()?;
    let envelope: StoredEnvelope =
        serde_json::from_str(row.get_ref(13)?.as_str().map_err(rusqlite::Error::from)?)?;
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
        envelope: envelope.into(),
        body_bytes: row.get::<_, i64>(14)? as u64,
        body: body.map(Bytes::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite would do for a filter.
    fn plan(filter: &MessageFilter) -> String {
        let connection = Connection::open_in_memory().unwrap();
        for migration in super::super::KIND.migrations {
            connection.execute_batch(migration).unwrap();
        }
        let question = question(filter, 2);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {question}")).unwrap();
        // Parameters that are not bound are null, which is all the same to the plan.
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>(3).unwrap());
        }
        steps.join("; ")
    }

    #[test]
    fn one_message_is_looked_up_without_reading_the_whole_record() {
        for filter in [
            MessageFilter { message: Some("m".into()), ..MessageFilter::default() },
            MessageFilter {
                message: Some("m".into()),
                consumer: Some("c".into()),
                ..MessageFilter::default()
            },
            MessageFilter { id: Some(MessageRunId(7)), ..MessageFilter::default() },
        ] {
            let plan = plan(&filter);
            assert!(!plan.contains("SCAN attempts"), "{plan}");
        }
    }
}

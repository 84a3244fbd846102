//! What the record of messages can be asked, and what it answers.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, params};
use warren_engine::consume::record::{MessageError, MessageRunId, MessageStatus, StepRecord};
use warren_engine::delivery::Envelope;
use warren_engine::message::Properties;

use super::attempt::View;
use super::block::{self, of_consumer, status_mask};
use super::journal;
use super::old;
use crate::database::{self, Fault};
use crate::packed::seen;

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

impl MessageFilter {
    /// At most so many.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT)
    }

    /// Whether an attempt is one of those.
    pub(super) fn wants(&self, id: MessageRunId, status: MessageStatus, attempt: &View<'_>) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
            && self.message.as_deref().is_none_or(|wanted| wanted == attempt.message)
            && self.consumer.as_deref().is_none_or(|wanted| wanted == attempt.consumer)
            && (self.statuses.is_empty() || self.statuses.contains(&status))
            && self.since.is_none_or(|since| attempt.ended_at >= since)
            && self.until.is_none_or(|until| attempt.ended_at < until)
    }

    /// Whether a block may hold one of them, by its filter.
    fn may_be_in(&self, filter: &[u8]) -> bool {
        self.message.as_deref().is_none_or(|message| seen::may_hold(filter, seen::of_key(message)))
            && self.consumer.as_deref().is_none_or(|name| seen::may_hold(filter, of_consumer(name)))
    }
}

/// All that a filter asks for, from the journals and the file of a folder.
pub(super) fn find(
    folder: &Path,
    path: &Path,
    filter: &MessageFilter,
) -> Result<Vec<RecordedMessage>, Fault> {
    // The journals first: of one that is packed meanwhile, the block is there when the file is read after it.
    let mut journals = Vec::new();
    for path in journal::files(folder)? {
        journals.extend(journal::read(&path)?);
    }
    let mut found = Vec::new();
    if let Some(mut connection) = database::open_to_read(path, super::KIND)? {
        let snapshot = connection.transaction()?;
        if is_there(&snapshot)? {
            let mut packed = snapshot.prepare("SELECT 1 FROM blocks WHERE first = ?1")?;
            let mut unpacked = Vec::new();
            for journal in journals {
                if !packed.exists([journal.first])? {
                    unpacked.push(journal);
                }
            }
            journals = unpacked;
            in_blocks(&snapshot, filter, &mut found)?;
        }
        if old::is_there(&snapshot)? {
            found.append(&mut old::find(&snapshot, filter)?);
        }
    }
    for journal in journals {
        found.append(&mut journal.find(filter)?);
    }
    found.sort_unstable_by_key(|attempt| attempt.id);
    if !filter.oldest_first {
        found.reverse();
    }
    found.truncate(filter.limit());
    Ok(found)
}

/// Whether the file has blocks: one that no newer Warren has written to has none.
fn is_there(connection: &Connection) -> Result<bool, Fault> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version >= 3)
}

fn in_blocks(
    connection: &Connection,
    filter: &MessageFilter,
    found: &mut Vec<RecordedMessage>,
) -> Result<(), Fault> {
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    // By its number an attempt is in the last block that begins at or before it.
    let by_id = if filter.id.is_some() {
        "first = (SELECT max(first) FROM blocks WHERE first <= ?1)"
    } else {
        "?1 IS NULL"
    };
    let mut statement = connection.prepare(&format!(
        "SELECT first, seen, attempts, bodies FROM blocks WHERE {by_id} AND (statuses & ?2) <> 0 \
         AND (?3 IS NULL OR newest >= ?3) AND (?4 IS NULL OR oldest < ?4) ORDER BY first {order}"
    ))?;
    let statuses = filter.statuses.iter().fold(0, |mask, status| mask | status_mask(*status));
    let statuses = if filter.statuses.is_empty() { -1 } else { statuses };
    let mut rows =
        statement.query(params![filter.id.map(|id| id.0), statuses, filter.since, filter.until])?;
    while let Some(row) = rows.next()? {
        let blob = |at| Ok::<_, Fault>(row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?);
        if !filter.may_be_in(blob(1)?) {
            continue;
        }
        found.append(&mut block::find(row.get(0)?, blob(2)?, || blob(3), filter)?);
        if found.len() >= filter.limit() {
            break;
        }
    }
    Ok(())
}

//! Messages out of queues: handing them to consumers, settling them, expiring them.

use bytes::Bytes;
use rusqlite::params;
use warren_engine::delivery::{Envelope, Job};
use warren_engine::message::Message;

use super::deposit::Reason;
use super::fault::Fault;
use super::ledger::Ledger;
use super::properties;
use super::topology::QueueId;

/// A message that a consumer now holds.
#[derive(Debug)]
pub(super) struct Taken {
    pub id: i64,
    pub exchange: String,
    pub routing_key: String,
    pub properties: Vec<u8>,
    pub body: Bytes,
    /// How often it was delivered before.
    pub earlier_deliveries: i64,
}

/// What becomes of a message that a consumer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done with.
    Ack,
    /// It is dead-lettered.
    Reject,
    /// It goes back to its place.
    Requeue,
    /// It goes back to its place, and was never delivered: nobody saw it.
    Unseen,
}

/// The most that is taken in one transaction, so that publishers need not wait long for it.
pub(super) const TAKE_MESSAGES_MAX: usize = 512;
const TAKE_BYTES_MAX: usize = 8 << 20;
/// The most that expires in one transaction.
const EXPIRE_MESSAGES_MAX: usize = 512;

impl Taken {
    /// What a handler sees of it; `None` if it cannot be read.
    pub(super) fn into_job(self, queue: &str, delivery_tag: u64, consumer_tag: &str) -> Option<Job> {
        Some(Job {
            message: Message { body: self.body, properties: properties::decode(&self.properties)? },
            envelope: Envelope {
                queue: queue.to_owned(),
                exchange: self.exchange,
                routing_key: self.routing_key,
                redelivered: self.earlier_deliveries > 0,
                delivery_count: Some(self.earlier_deliveries.max(0) as u64),
                delivery_tag,
                consumer_tag: consumer_tag.to_owned(),
                ..Envelope::default()
            },
        })
    }
}

impl Ledger<'_> {
    /// Takes up to `max` messages from the head of a queue. What is found expired there is dead-lettered instead.
    pub(super) fn take(&mut self, queue: QueueId, max: usize) -> Result<Vec<Taken>, Fault> {
        let mut taken = Vec::new();
        if self.depth(queue)?.ready == 0 {
            return Ok(taken);
        }
        // The rows are read before any is moved: SQLite does not promise what a scan sees of its own deletions.
        let mut heads = Vec::new();
        {
            let mut statement = self.conn.prepare_cached(
                "SELECT id, deliveries, expires_ms FROM ready WHERE queue = ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut rows = statement.query(params![queue, max.min(TAKE_MESSAGES_MAX) as i64])?;
            while let Some(row) = rows.next()? {
                heads.push((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?));
            }
        }
        let mut bytes = 0;
        for (id, deliveries, expires_ms) in heads {
            if expires_ms.is_some_and(|expires_ms| expires_ms <= self.now_ms) {
                self.kill_head(queue, Reason::Expired)?;
                continue;
            }
            let message = self.hold(queue, id, deliveries, expires_ms)?;
            bytes += message.body.len() + message.properties.len();
            taken.push(message);
            if bytes >= TAKE_BYTES_MAX {
                break;
            }
        }
        self.bury()?;
        Ok(taken)
    }

    fn hold(
        &mut self,
        queue: QueueId,
        id: i64,
        deliveries: i64,
        expires_ms: Option<i64>,
    ) -> Result<Taken, Fault> {
        self.conn.prepare_cached("DELETE FROM ready WHERE queue = ?1 AND id = ?2")?.execute([queue, id])?;
        self.conn
            .prepare_cached(
                "INSERT INTO taken (id, queue, holder, deliveries, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![id, queue, self.holder, deliveries + 1, expires_ms])?;
        let depth = self.depth(queue)?;
        depth.ready -= 1;
        depth.taken += 1;
        let taken = self
            .conn
            .prepare_cached("SELECT exchange, routing_key, properties, body FROM message WHERE id = ?1")?
            .query_row([id], |row| {
                Ok(Taken {
                    id,
                    exchange: row.get(0)?,
                    routing_key: row.get(1)?,
                    properties: row.get(2)?,
                    body: row.get::<_, Vec<u8>>(3)?.into(),
                    earlier_deliveries: deliveries,
                })
            })?;
        Ok(taken)
    }

    /// Ends the hold on a message that we hold. False if we do not, because its queue was deleted.
    pub(super) fn settle(&mut self, queue: QueueId, id: i64, verdict: Verdict) -> Result<bool, Fault> {
        let (deliveries, expires_ms): (i64, Option<i64>) = {
            let mut statement = self.conn.prepare_cached(
                "DELETE FROM taken WHERE id = ?1 AND queue = ?2 AND holder = ?3 RETURNING deliveries, expires_ms",
            )?;
            let mut rows = statement.query([id, queue, self.holder])?;
            let Some(row) = rows.next()? else { return Ok(false) };
            let held = (row.get(0)?, row.get(1)?);
            // A statement with RETURNING must be run to its end to have done all of its work.
            while rows.next()?.is_some() {}
            held
        };
        self.depth(queue)?.taken -= 1;
        match verdict {
            Verdict::Ack => {
                self.conn.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
            }
            Verdict::Reject => {
                self.kill(queue, id, Reason::Rejected)?;
                self.bury()?;
            }
            Verdict::Requeue => self.put_back(queue, id, deliveries, expires_ms)?,
            Verdict::Unseen => self.put_back(queue, id, deliveries - 1, expires_ms)?,
        }
        Ok(true)
    }

    fn put_back(
        &mut self,
        queue: QueueId,
        id: i64,
        deliveries: i64,
        expires_ms: Option<i64>,
    ) -> Result<(), Fault> {
        self.conn
            .prepare_cached("INSERT INTO ready (queue, id, deliveries, expires_ms) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![queue, id, deliveries, expires_ms])?;
        self.depth(queue)?.ready += 1;
        Ok(())
    }

    /// Puts back all that a dead process held, and forgets the process. Returns how many messages came back.
    pub(super) fn release_all(&mut self, holder: i64) -> Result<u64, Fault> {
        let mut held: Vec<(i64, QueueId, i64, Option<i64>)> = Vec::new();
        {
            let mut statement = self
                .conn
                .prepare_cached("SELECT id, queue, deliveries, expires_ms FROM taken WHERE holder = ?1")?;
            let mut rows = statement.query([holder])?;
            while let Some(row) = rows.next()? {
                held.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            }
        }
        for (id, queue, deliveries, expires_ms) in &held {
            self.conn.prepare_cached("DELETE FROM taken WHERE id = ?1")?.execute([id])?;
            self.depth(*queue)?.taken -= 1;
            self.put_back(*queue, *id, *deliveries, *expires_ms)?;
        }
        self.conn.execute("DELETE FROM consumer WHERE holder = ?1", [holder])?;
        self.conn.execute("DELETE FROM holder WHERE id = ?1", [holder])?;
        Ok(held.len() as u64)
    }

    /// Dead-letters what has expired at the heads of queues; false if more may be due. As on RabbitMQ a message with a
    /// time of its own expires when it reaches the head.
    pub(super) fn expire(&mut self) -> Result<bool, Fault> {
        let mut due: Vec<QueueId> = Vec::new();
        {
            let mut statement = self.conn.prepare_cached(
                "SELECT id FROM queue WHERE
                 (SELECT expires_ms FROM ready WHERE ready.queue = queue.id ORDER BY ready.id LIMIT 1) <= ?1",
            )?;
            let mut rows = statement.query([self.now_ms])?;
            while let Some(row) = rows.next()? {
                due.push(row.get(0)?);
            }
        }
        let mut left = EXPIRE_MESSAGES_MAX;
        for queue in due {
            while self.head_is_due(queue)? {
                if left == 0 {
                    return Ok(false);
                }
                left -= 1;
                self.kill_head(queue, Reason::Expired)?;
                self.bury()?;
            }
        }
        Ok(true)
    }

    fn head_is_due(&self, queue: QueueId) -> Result<bool, Fault> {
        let mut statement =
            self.conn.prepare_cached("SELECT expires_ms FROM ready WHERE queue = ?1 ORDER BY id LIMIT 1")?;
        let mut rows = statement.query([queue])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        Ok(row.get::<_, Option<i64>>(0)?.is_some_and(|expires_ms| expires_ms <= self.now_ms))
    }
}

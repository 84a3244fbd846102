//! Messages into queues: publishing, full queues, and dead-lettering.

use bytes::Bytes;
use rusqlite::{OptionalExtension, params};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{Answer, HeaderValue, Headers, Receipt};

use super::config::Overflow;
use super::fault::Fault;
use super::ledger::Ledger;
use super::properties;
use super::topology::QueueId;

/// A message for an exchange, checked and encoded.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Whether the caller named the queue itself; only changes what a refusal says.
    pub to_queue: bool,
    pub exchange: String,
    pub routing_key: String,
    /// The headers again, where an exchange may look at them.
    pub headers: Headers,
    pub properties: Vec<u8>,
    /// The message's own time to live.
    pub ttl_ms: Option<i64>,
    pub body: Bytes,
}

/// Why a message is dead-lettered; the words are RabbitMQ's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Rejected,
    Expired,
    MaxLength,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::MaxLength => "maxlen",
        }
    }
}

/// A message that left a queue without being done with.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub queue: QueueId,
    pub reason: Reason,
    pub exchange: String,
    pub routing_key: String,
    pub properties: Vec<u8>,
    pub body: Bytes,
}

/// A message as the file has it.
#[derive(Debug)]
pub(super) struct Content<'m> {
    pub exchange: &'m str,
    pub routing_key: &'m str,
    pub properties: &'m [u8],
    pub ttl_ms: Option<i64>,
    pub body: &'m [u8],
}

impl Ledger<'_> {
    /// Routes a message and stores it in every queue it goes to, or in none.
    pub(super) fn publish(&mut self, parcel: &Parcel) -> Result<Receipt, Fault> {
        let Some(queues) = self.topology.route(&parcel.exchange, &parcel.routing_key, &parcel.headers) else {
            return Ok(Receipt::Refused(no_such_exchange(&parcel.exchange)));
        };
        if queues.is_empty() {
            return Ok(Receipt::Refused(unroutable(parcel)));
        }
        for queue in &queues {
            if let Some(failure) = self.full(*queue, parcel)? {
                return Ok(Receipt::Refused(failure));
            }
        }
        let content = Content {
            exchange: &parcel.exchange,
            routing_key: &parcel.routing_key,
            properties: &parcel.properties,
            ttl_ms: parcel.ttl_ms,
            body: &parcel.body,
        };
        for queue in &queues {
            self.deposit(*queue, &content)?;
        }
        self.bury()?;
        Ok(Receipt::Accepted(Answer(match queues.len() {
            1 => "stored in one queue".into(),
            many => format!("stored in {many} queues").into(),
        })))
    }

    /// What the publisher is told if a queue takes no more.
    fn full(&mut self, id: QueueId, parcel: &Parcel) -> Result<Option<Failure>, Fault> {
        let Some(queue) = self.topology.queue_by_id(id).cloned() else { return Ok(None) };
        let Some(max) = queue.settings.max_length else { return Ok(None) };
        let to_dead_letters = match queue.settings.overflow {
            Overflow::DropHead => return Ok(None),
            Overflow::RejectPublish => false,
            Overflow::RejectPublishDlx => true,
        };
        if (self.depth(id)?.ready as u64) < max {
            return Ok(None);
        }
        if to_dead_letters {
            self.dead.push_back(DeadLetter {
                queue: id,
                reason: Reason::MaxLength,
                exchange: parcel.exchange.clone(),
                routing_key: parcel.routing_key.clone(),
                properties: parcel.properties.clone(),
                body: parcel.body.clone(),
            });
            self.bury()?;
        }
        Ok(Some(
            Failure::new(
                FailureKind::Throttled,
                codes::BROKER_REFUSED_MESSAGE,
                format!("publish to queue `{}`", queue.name),
            )
            .detail(format!("the queue has as many messages as it may ({max})"))
            .remedy("let a consumer take messages from it, or raise its max_length"),
        ))
    }

    /// Stores a message at the end of a queue, and drops the head of one that has too many.
    fn deposit(&mut self, id: QueueId, content: &Content<'_>) -> Result<(), Fault> {
        // A binding of a queue that was deleted in this very transaction leads nowhere.
        let Some(queue) = self.topology.queue_by_id(id).cloned() else { return Ok(()) };
        let message = self.new_id();
        let ttl = match (queue.settings.ttl_ms, content.ttl_ms) {
            (Some(queue), Some(own)) => Some(queue.min(own)),
            (ttl, None) | (None, ttl) => ttl,
        };
        self.conn
            .prepare_cached(
                "INSERT INTO message (id, exchange, routing_key, published_ms, properties, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                message,
                content.exchange,
                content.routing_key,
                self.now_ms,
                content.properties,
                content.body
            ])?;
        self.conn
            .prepare_cached("INSERT INTO ready (queue, id, deliveries, expires_ms) VALUES (?1, ?2, 0, ?3)")?
            .execute(params![id, message, ttl.map(|ttl| self.now_ms + ttl)])?;
        self.depth(id)?.ready += 1;
        if let (Some(max), Overflow::DropHead) = (queue.settings.max_length, queue.settings.overflow) {
            while self.depth(id)?.ready as u64 > max {
                if !self.kill_head(id, Reason::MaxLength)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes the first waiting message out of a queue for good, to its dead-letter exchange. False if there is none.
    pub(super) fn kill_head(&mut self, queue: QueueId, reason: Reason) -> Result<bool, Fault> {
        let head: Option<i64> = self
            .conn
            .prepare_cached("SELECT id FROM ready WHERE queue = ?1 ORDER BY id LIMIT 1")?
            .query_row([queue], |row| row.get(0))
            .optional()?;
        let Some(message) = head else { return Ok(false) };
        self.conn
            .prepare_cached("DELETE FROM ready WHERE queue = ?1 AND id = ?2")?
            .execute([queue, message])?;
        self.depth(queue)?.ready -= 1;
        self.kill(queue, message, reason)?;
        Ok(true)
    }

    /// Deletes a message that is in neither `ready` nor `taken` any more, after noting it for the dead-letter exchange.
    pub(super) fn kill(&mut self, id: QueueId, message: i64, reason: Reason) -> Result<(), Fault> {
        let dead_letters =
            self.topology.queue_by_id(id).is_some_and(|queue| queue.settings.dead_letter_exchange.is_some());
        if dead_letters {
            let dead = self
                .conn
                .prepare_cached("SELECT exchange, routing_key, properties, body FROM message WHERE id = ?1")?
                .query_row([message], |row| {
                    Ok(DeadLetter {
                        queue: id,
                        reason,
                        exchange: row.get(0)?,
                        routing_key: row.get(1)?,
                        properties: row.get(2)?,
                        body: row.get::<_, Vec<u8>>(3)?.into(),
                    })
                })?;
            self.dead.push_back(dead);
        }
        self.conn.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([message])?;
        Ok(())
    }

    /// Brings the dead letters where they belong, and those that this makes in turn. Ends, because a dead letter that
    /// comes round to a queue it has been in, with no rejection on the way, is dropped, as RabbitMQ does.
    pub(super) fn bury(&mut self) -> Result<(), Fault> {
        while let Some(dead) = self.dead.pop_front() {
            let Some(queue) = self.topology.queue_by_id(dead.queue).cloned() else { continue };
            let Some(exchange) = &queue.settings.dead_letter_exchange else { continue };
            let routing_key = queue.settings.dead_letter_routing_key.as_ref().unwrap_or(&dead.routing_key);
            // Properties that cannot be read, or leave no room for our headers, do not keep the message from going.
            let read = properties::decode(&dead.properties);
            let readable = read.is_some();
            let mut properties = read.unwrap_or_default();
            let expiration = properties.expiration.take();
            record_death(&mut properties.headers, &dead, &queue.name, expiration, self.now_ms);
            let rewritten = if readable { properties::encode(&properties).ok() } else { None };
            let encoded = rewritten.unwrap_or_else(|| dead.properties.clone());
            // RabbitMQ drops what has no dead-letter exchange to go to; `check` warns of such a queue.
            let Some(targets) = self.topology.route(exchange, routing_key, &properties.headers) else {
                continue;
            };
            let content =
                Content { exchange, routing_key, properties: &encoded, ttl_ms: None, body: &dead.body };
            for target in targets {
                let cycle = dead.reason != Reason::Rejected
                    && self
                        .topology
                        .queue_by_id(target)
                        .is_some_and(|target| is_cycle(&properties.headers, &target.name));
                if !cycle {
                    self.deposit(target, &content)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the headers that RabbitMQ writes on a dead letter.
fn record_death(
    headers: &mut Headers,
    dead: &DeadLetter,
    queue: &str,
    expiration: Option<String>,
    now_ms: i64,
) {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let reason = dead.reason.text();
    let mut deaths = match headers.remove("x-death") {
        Some(HeaderValue::Array(deaths)) => deaths,
        _ => Vec::new(),
    };
    let same = |death: &HeaderValue| {
        let HeaderValue::Table(death) = death else { return false };
        death.get("queue") == Some(&text(queue)) && death.get("reason") == Some(&text(reason))
    };
    if deaths.is_empty() {
        headers.set("x-first-death-exchange", text(&dead.exchange));
        headers.set("x-first-death-queue", text(queue));
        headers.set("x-first-death-reason", text(reason));
    }
    headers.set("x-last-death-exchange", text(&dead.exchange));
    headers.set("x-last-death-queue", text(queue));
    headers.set("x-last-death-reason", text(reason));
    // The latest death stands first; one that happened before is counted and keeps the rest of what it says.
    let earlier = deaths.iter().position(same).map(|at| deaths.remove(at));
    let death = if let Some(HeaderValue::Table(mut death)) = earlier {
        let count = match death.get("count") {
            Some(HeaderValue::I64(count)) => count.saturating_add(1),
            _ => 1,
        };
        death.set("count", HeaderValue::I64(count));
        death
    } else {
        let mut death = Headers::default();
        death.set("count", HeaderValue::I64(1));
        death.set("reason", text(reason));
        death.set("queue", text(queue));
        death.set("time", HeaderValue::Timestamp((now_ms / 1000).max(0) as u64));
        death.set("exchange", text(&dead.exchange));
        death.set("routing-keys", HeaderValue::Array(vec![text(&dead.routing_key)]));
        if let Some(expiration) = expiration {
            death.set("original-expiration", text(&expiration));
        }
        death
    };
    deaths.insert(0, HeaderValue::Table(death));
    headers.set("x-death", HeaderValue::Array(deaths));
}

/// Whether a message died in a queue before, and was not rejected by a consumer since.
fn is_cycle(headers: &Headers, queue: &str) -> bool {
    let Some(HeaderValue::Array(deaths)) = headers.get("x-death") else { return false };
    let says = |death: &HeaderValue, name: &str, value: &str| {
        matches!(death, HeaderValue::Table(death)
            if matches!(death.get(name), Some(HeaderValue::Text(text)) if text == value))
    };
    let Some(at) = deaths.iter().position(|death| says(death, "queue", queue)) else { return false };
    !deaths[..=at].iter().any(|death| says(death, "reason", "rejected"))
}

pub(super) fn no_such_exchange(exchange: &str) -> Failure {
    Failure::new(FailureKind::NotFound, codes::NO_SUCH_EXCHANGE, format!("publish to exchange `{exchange}`"))
        .detail("the embedded broker has no exchange of that name")
        .remedy("add it under the broker's `exchanges:`, or correct the name")
}

pub(super) fn no_such_queue(what: String) -> Failure {
    Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, what)
        .detail("the embedded broker has no queue of that name")
        .remedy("add it under the broker's `queues:`, or correct the name")
}

fn unroutable(parcel: &Parcel) -> Failure {
    if parcel.to_queue {
        return no_such_queue(format!("publish to queue `{}`", parcel.routing_key));
    }
    Failure::new(
        FailureKind::Unroutable,
        codes::UNROUTABLE,
        format!("publish to exchange `{}` with routing key `{}`", parcel.exchange, parcel.routing_key),
    )
    .detail("no queue is bound for it")
    .remedy("bind a queue to the exchange for this routing key")
}

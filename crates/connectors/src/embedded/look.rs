//! Looking without touching: queues, counts, exchanges, messages. Readers never wait for the writer.

use bytes::Bytes;
use rusqlite::{Connection, params};
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::finding::Finding;
use warren_engine::message::{Headers, Message, Route};

use super::config::ExchangeKind;
use super::declare::Binding;
use super::deposit::{no_such_exchange, no_such_queue};
use super::fault::{Fault, damaged};
use super::properties;
use super::topology::{Queue, QueueSettings, Topology};

/// A queue as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// How it was declared.
    pub settings: QueueSettings,
    /// Messages that wait.
    pub ready: u64,
    /// Messages that consumers hold.
    pub unsettled: u64,
    /// Consumers, of all processes.
    pub consumers: u64,
}

/// An exchange with its bindings.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeState {
    /// Its name.
    pub name: String,
    /// How it chooses queues.
    pub kind: ExchangeKind,
    /// Which it may choose.
    pub bindings: Vec<Binding>,
}

/// A message in a queue, looked at and left there.
#[derive(Debug, Clone, PartialEq)]
pub struct PeekedMessage {
    /// Its number in the broker's file; smaller is earlier.
    pub id: u64,
    /// Body and properties.
    pub message: Message,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// When it came into this queue, in milliseconds since the epoch.
    pub published_ms: i64,
    /// When it expires, in milliseconds since the epoch.
    pub expires_ms: Option<i64>,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Whether a consumer holds it now.
    pub unsettled: bool,
}

/// A look at the file as it is at one moment.
pub(super) struct Look<'c> {
    conn: &'c Connection,
    topology: Topology,
}

impl<'c> Look<'c> {
    /// Begins to look. Ended by dropping it.
    pub(super) fn begin(conn: &'c Connection) -> Result<Look<'c>, Fault> {
        conn.execute_batch("BEGIN")?;
        let mut look = Look { conn, topology: Topology::default() };
        look.topology = Topology::load(conn, 1)?;
        Ok(look)
    }

    pub(super) fn queues(&self) -> Result<Vec<QueueState>, Fault> {
        self.topology.queues().map(|queue| self.state(queue)).collect()
    }

    pub(super) fn queue(&self, name: &str) -> Result<QueueState, Fault> {
        match self.topology.queue(name) {
            Some(queue) => self.state(queue),
            None => Err(no_such_queue(format!("look at queue `{name}`")).into()),
        }
    }

    fn state(&self, queue: &Queue) -> Result<QueueState, Fault> {
        let (ready, taken, consumers): (i64, i64, i64) = self
            .conn
            .prepare_cached(
                "SELECT ready, taken, (SELECT count(*) FROM consumer WHERE queue = ?1) FROM depth WHERE queue = ?1",
            )?
            .query_row([queue.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(QueueState {
            name: queue.name.clone(),
            settings: queue.settings.clone(),
            ready: ready.max(0) as u64,
            unsettled: taken.max(0) as u64,
            consumers: consumers.max(0) as u64,
        })
    }

    pub(super) fn exchanges(&self) -> Vec<ExchangeState> {
        let binding = |exchange: &str, binding: &super::topology::Binding| Binding {
            exchange: exchange.to_owned(),
            queue: self
                .topology
                .queue_by_id(binding.queue)
                .map_or_else(String::new, |queue| queue.name.clone()),
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        };
        self.topology
            .exchanges
            .iter()
            .map(|(name, exchange)| ExchangeState {
                name: name.clone(),
                kind: exchange.kind,
                bindings: exchange.bindings.iter().map(|one| binding(name, one)).collect(),
            })
            .collect()
    }

    /// The messages of a queue, oldest first, after the one with number `after`.
    pub(super) fn peek(&self, queue: &str, after: u64, max: usize) -> Result<Vec<PeekedMessage>, Fault> {
        let Some(id) = self.topology.queue(queue).map(|queue| queue.id) else {
            return Err(no_such_queue(format!("look at queue `{queue}`")).into());
        };
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(
            "SELECT place.id, exchange, routing_key, published_ms, expires_ms, deliveries, held, properties, body
             FROM (SELECT id, deliveries, expires_ms, 0 AS held FROM ready WHERE queue = ?1 AND id > ?2
                   UNION ALL
                   SELECT id, deliveries, expires_ms, 1 AS held FROM taken WHERE queue = ?1 AND id > ?2
                   ORDER BY id LIMIT ?3) AS place
             JOIN message ON message.id = place.id ORDER BY place.id",
        )?;
        let mut rows = statement.query(params![id, after, max])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Some(properties) = properties::decode(&row.get::<_, Vec<u8>>(7)?) else {
                let detail = format!("the properties of message {id} cannot be read");
                return Err(damaged(&format!("look at queue `{queue}`"), detail).into());
            };
            messages.push(PeekedMessage {
                id: id.max(0) as u64,
                message: Message { properties, body: Bytes::from(row.get::<_, Vec<u8>>(8)?) },
                exchange: row.get(1)?,
                routing_key: row.get(2)?,
                published_ms: row.get(3)?,
                expires_ms: row.get(4)?,
                deliveries: row.get::<_, i64>(5)?.max(0) as u64,
                unsettled: row.get(6)?,
            });
        }
        Ok(messages)
    }

    /// What is wrong with routes, and with queues whose dead letters would be lost. The subject of each finding is the route
    /// in words, or the broker's name.
    pub(super) fn check(&self, broker: &str, routes: &[Route]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for route in routes {
            findings.extend(self.check_route(route));
        }
        for queue in self.topology.queues() {
            let Some(exchange) = &queue.settings.dead_letter_exchange else { continue };
            let lost = if exchange.is_empty() {
                queue
                    .settings
                    .dead_letter_routing_key
                    .as_ref()
                    .filter(|name| self.topology.queue(name).is_none())
                    .map(|name| format!("queue `{name}`, which does not exist"))
            } else if self.topology.exchanges.contains_key(exchange) {
                None
            } else {
                Some(format!("exchange `{exchange}`, which does not exist"))
            };
            if let Some(to) = lost {
                let message = format!("queue `{}` dead-letters to {to}: those messages are lost", queue.name);
                findings.push(
                    Finding::warning(codes::NO_SUCH_EXCHANGE, broker, message)
                        .remedy("declare what it names under the broker's `queues:` or `exchanges:`"),
                );
            }
        }
        findings
    }

    fn check_route(&self, route: &Route) -> Option<Finding> {
        let subject = route.to_string();
        match route {
            Route::Queue(name) => match self.topology.queue(name) {
                Some(_) => None,
                None => Some(Finding::from_failure(
                    subject,
                    &no_such_queue(format!("queue `{name}` does not exist")),
                )),
            },
            Route::Exchange { exchange, routing_key } => {
                let named = |failure: Failure| Failure {
                    what: format!("exchange `{exchange}` does not exist"),
                    ..failure
                };
                // A headers exchange chooses by headers, which nobody knows yet.
                let by_headers = self.topology.exchanges.get(exchange).is_some_and(|exchange| {
                    exchange.kind == ExchangeKind::Headers && !exchange.bindings.is_empty()
                });
                match self.topology.route(exchange, routing_key, &Headers::default()) {
                    None => Some(Finding::from_failure(subject, &named(no_such_exchange(exchange)))),
                    Some(queues) if queues.is_empty() && !by_headers => Some(
                        Finding::warning(
                            codes::UNROUTABLE,
                            subject,
                            format!("no queue is bound for {route}"),
                        )
                        .remedy("bind a queue to the exchange for this routing key"),
                    ),
                    Some(_) => None,
                }
            }
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.conn.execute_batch("ROLLBACK").ok(); // nothing was written; fails only where nothing is open
    }
}

//! The queues, exchanges and bindings of a file, in memory: what a message is routed by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::Connection;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers};

use super::config::{Argument, ExchangeKind, Overflow, QueueConfig};
use super::fault::{Fault, damaged};
use super::matching;
use super::properties::{check_short, decode_table};

/// The longest time to live, as RabbitMQ's: what a 32-bit number of milliseconds holds, 49 days.
pub(super) const TTL_MS_MAX: i64 = u32::MAX as i64;

/// A queue's settings, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueSettings {
    /// Milliseconds that a message may wait.
    pub ttl_ms: Option<i64>,
    /// Messages that may wait.
    pub max_length: Option<u64>,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// The exchange for what was rejected, expired or dropped.
    pub dead_letter_exchange: Option<String>,
    /// The routing key for that; the message's own where there is none.
    pub dead_letter_routing_key: Option<String>,
    /// Arguments without a meaning to the broker.
    pub arguments: Headers,
}

impl QueueSettings {
    /// Checks what is written about a queue.
    ///
    /// # Errors
    /// An argument that is unknown, of a wrong type, or at odds with a key.
    pub fn of(name: &str, config: &QueueConfig) -> Result<QueueSettings, Failure> {
        let fault = |code, detail: String| {
            Failure::new(FailureKind::Invalid, code, format!("declare queue `{name}`")).detail(detail)
        };
        check_name("queue", name)?;
        let mut settings = QueueSettings {
            ttl_ms: config.ttl.map(|span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)),
            max_length: config.max_length,
            overflow: config.overflow.unwrap_or_default(),
            dead_letter_exchange: config.dead_letter_exchange.clone(),
            dead_letter_routing_key: config.dead_letter_routing_key.clone(),
            arguments: Headers::default(),
        };
        for (key, Argument(value)) in &config.arguments {
            let wrong = |expected: &str| {
                fault(codes::INVALID_VALUE, format!("argument `{key}` is {value:?}, expected {expected}"))
            };
            let whole = || {
                let number = matching::whole(value).filter(|number| *number >= 0);
                number
                    .and_then(|number| i64::try_from(number).ok())
                    .ok_or_else(|| wrong("a whole number, 0 or more"))
            };
            let text = || match value {
                HeaderValue::Text(text) => Ok(text.clone()),
                _ => Err(wrong("a text")),
            };
            let twice = |given: bool, other: &str| {
                if given {
                    let detail = format!("`{other}` and the argument `{key}` say the same thing: keep one");
                    return Err(fault(codes::CONFLICTING_KEYS, detail));
                }
                Ok(())
            };
            match key.as_str() {
                "x-message-ttl" => {
                    twice(config.ttl.is_some(), "ttl")?;
                    settings.ttl_ms = Some(whole()?);
                }
                "x-max-length" => {
                    twice(config.max_length.is_some(), "max_length")?;
                    settings.max_length = Some(whole()? as u64);
                }
                "x-overflow" => {
                    twice(config.overflow.is_some(), "overflow")?;
                    settings.overflow = overflow(&text()?)
                        .ok_or_else(|| wrong("drop-head, reject-publish or reject-publish-dlx"))?;
                }
                "x-dead-letter-exchange" => {
                    twice(config.dead_letter_exchange.is_some(), "dead_letter_exchange")?;
                    settings.dead_letter_exchange = Some(text()?);
                }
                "x-dead-letter-routing-key" => {
                    twice(config.dead_letter_routing_key.is_some(), "dead_letter_routing_key")?;
                    settings.dead_letter_routing_key = Some(text()?);
                }
                "x-queue-type" if text()? == "classic" => {}
                _ if key.starts_with("x-") => {
                    return Err(fault(
                        codes::INVALID_VALUE,
                        format!("the embedded broker does not know the argument `{key}` = {value:?}"),
                    )
                    .remedy("take it out, or use RabbitMQ, which obeys it"));
                }
                _ => {
                    check_short("the argument name", key)?;
                    settings.arguments.set(key.clone(), value.clone());
                }
            }
        }
        settings.check().map_err(|detail| fault(codes::INVALID_VALUE, detail))?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        if self.ttl_ms.is_some_and(|ttl| ttl > TTL_MS_MAX) {
            return Err(format!("the time to live is longer than {TTL_MS_MAX} ms (49 days)"));
        }
        if self.dead_letter_routing_key.is_some() && self.dead_letter_exchange.is_none() {
            return Err(
                "`dead_letter_routing_key` needs `dead_letter_exchange` (empty for the default exchange)"
                    .into(),
            );
        }
        let names = [&self.dead_letter_exchange, &self.dead_letter_routing_key];
        if names.into_iter().flatten().any(|name| name.len() > super::properties::SHORT_BYTES_MAX) {
            return Err("a dead-letter exchange or routing key is longer than 255 bytes".into());
        }
        Ok(())
    }
}

/// Fails for a name that no queue or exchange may have.
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), Failure> {
    let what = format!("declare {kind}");
    if name.is_empty() {
        return Err(
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what).detail("its name is empty")
        );
    }
    check_short(kind, name).map_err(|failure| Failure { what: format!("declare {kind}"), ..failure })?;
    if name.starts_with("amq.") {
        return Err(Failure::new(FailureKind::Refused, codes::NOT_ALLOWED, format!("{what} `{name}`"))
            .detail("names that begin with `amq.` belong to the broker"));
    }
    Ok(())
}

pub(super) fn overflow(text: &str) -> Option<Overflow> {
    match text {
        "reject-publish" => Some(Overflow::RejectPublish),
        "reject-publish-dlx" => Some(Overflow::RejectPublishDlx),
        "drop-head" => Some(Overflow::DropHead),
        _ => None,
    }
}

pub(super) fn overflow_text(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::RejectPublish => "reject-publish",
        Overflow::RejectPublishDlx => "reject-publish-dlx",
        Overflow::DropHead => "drop-head",
    }
}

pub(super) fn kind_text(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Topic => "topic",
        ExchangeKind::Headers => "headers",
    }
}

pub(super) fn kind(text: &str) -> Option<ExchangeKind> {
    match text {
        "direct" => Some(ExchangeKind::Direct),
        "fanout" => Some(ExchangeKind::Fanout),
        "topic" => Some(ExchangeKind::Topic),
        "headers" => Some(ExchangeKind::Headers),
        _ => None,
    }
}

/// A queue's number in its file. Never used again after the queue is deleted.
pub(super) type QueueId = i64;

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub id: QueueId,
    pub name: String,
    pub settings: QueueSettings,
}

/// An exchange with its bindings, in the order they were made.
#[derive(Debug)]
pub(super) struct Exchange {
    pub kind: ExchangeKind,
    pub bindings: Vec<Binding>,
    /// The queues by routing key; for direct exchanges, where bindings may be many.
    direct: HashMap<String, Vec<QueueId>>,
}

/// A queue that an exchange may choose.
#[derive(Debug)]
pub(super) struct Binding {
    pub queue: QueueId,
    pub routing_key: String,
    pub arguments: Headers,
}

/// All of a file's queues, exchanges and bindings.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// The declaration count of the file when this was read; 0 if it was never read.
    pub version: i64,
    names: HashMap<String, QueueId>,
    queues: BTreeMap<QueueId, Arc<Queue>>,
    pub exchanges: BTreeMap<String, Exchange>,
}

impl Topology {
    /// Reads it, inside a transaction.
    pub(super) fn load(conn: &Connection, version: i64) -> Result<Topology, Fault> {
        let mut topology = Topology { version, ..Topology::default() };
        let mut queues = conn.prepare_cached(
            "SELECT id, name, ttl_ms, max_length, overflow, dead_letter_exchange, dead_letter_routing_key, arguments
             FROM queue",
        )?;
        let mut rows = queues.query([])?;
        while let Some(row) = rows.next()? {
            let queue = Queue {
                id: row.get(0)?,
                name: row.get(1)?,
                settings: QueueSettings {
                    ttl_ms: row.get(2)?,
                    max_length: row.get::<_, Option<i64>>(3)?.map(|length| length.max(0) as u64),
                    overflow: overflow(row.get_ref(4)?.as_str().map_err(|_| unreadable())?)
                        .ok_or_else(unreadable)?,
                    dead_letter_exchange: row.get(5)?,
                    dead_letter_routing_key: row.get(6)?,
                    arguments: decode_table(&row.get::<_, Vec<u8>>(7)?).ok_or_else(unreadable)?,
                },
            };
            topology.names.insert(queue.name.clone(), queue.id);
            topology.queues.insert(queue.id, Arc::new(queue));
        }
        let mut exchanges = conn.prepare_cached("SELECT name, kind FROM exchange")?;
        let mut rows = exchanges.query([])?;
        while let Some(row) = rows.next()? {
            let kind = kind(&row.get::<_, String>(1)?).ok_or_else(unreadable)?;
            let exchange = Exchange { kind, bindings: Vec::new(), direct: HashMap::new() };
            topology.exchanges.insert(row.get(0)?, exchange);
        }
        let mut bindings =
            conn.prepare_cached("SELECT exchange, queue, routing_key, arguments FROM binding ORDER BY id")?;
        let mut rows = bindings.query([])?;
        while let Some(row) = rows.next()? {
            let Some(exchange) =
                topology.exchanges.get_mut(row.get_ref(0)?.as_str().map_err(|_| unreadable())?)
            else {
                return Err(unreadable().into());
            };
            let binding = Binding {
                queue: row.get(1)?,
                routing_key: row.get(2)?,
                arguments: decode_table(&row.get::<_, Vec<u8>>(3)?).ok_or_else(unreadable)?,
            };
            exchange.direct.entry(binding.routing_key.clone()).or_default().push(binding.queue);
            exchange.bindings.push(binding);
        }
        Ok(topology)
    }

    pub(super) fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(self.names.get(name)?)
    }

    pub(super) fn queue_by_id(&self, id: QueueId) -> Option<&Arc<Queue>> {
        self.queues.get(&id)
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values()
    }

    /// The queues for a message, each once, in the order of their bindings; `None` where there is no such exchange.
    pub(super) fn route(&self, exchange: &str, routing_key: &str, headers: &Headers) -> Option<Vec<QueueId>> {
        if exchange.is_empty() {
            return Some(self.names.get(routing_key).copied().into_iter().collect());
        }
        let exchange = self.exchanges.get(exchange)?;
        let chosen = |matches: &dyn Fn(&Binding) -> bool| {
            exchange.bindings.iter().filter(|binding| matches(binding)).map(|binding| binding.queue).collect()
        };
        let mut queues: Vec<QueueId> = match exchange.kind {
            ExchangeKind::Direct => exchange.direct.get(routing_key).cloned().unwrap_or_default(),
            ExchangeKind::Fanout => chosen(&|_| true),
            ExchangeKind::Topic => chosen(&|binding| matching::topic(&binding.routing_key, routing_key)),
            ExchangeKind::Headers => chosen(&|binding| matching::headers(&binding.arguments, headers)),
        };
        // Bindings to one queue are few; a set would cost more than it saves.
        let mut at = 0;
        while at < queues.len() {
            if queues[..at].contains(&queues[at]) {
                queues.remove(at);
            } else {
                at += 1;
            }
        }
        Some(queues)
    }
}

fn unreadable() -> Failure {
    damaged("read the broker's queues and exchanges", "a value is not what this program writes")
}

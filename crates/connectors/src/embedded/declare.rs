//! Declaring, binding, purging and deleting, with RabbitMQ's rules: to declare again what is there is nothing; to declare
//! it otherwise is an error.

use rusqlite::{OptionalExtension, params};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::Headers;

use super::config::{Argument, Config, ExchangeKind};
use super::deposit::{no_such_exchange, no_such_queue};
use super::fault::Fault;
use super::ledger::Ledger;
use super::matching;
use super::properties::{check_short, encode_table};
use super::topology::{QueueId, QueueSettings, check_name, kind_text, overflow_text};

/// A queue that an exchange may choose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The routing key, or the pattern of a topic exchange.
    pub routing_key: String,
    /// What a headers exchange looks for.
    pub arguments: Headers,
}

impl Ledger<'_> {
    /// Declares all that a configuration names.
    pub(super) fn declare_all(&mut self, config: &Config) -> Result<(), Fault> {
        let mut changed = false;
        for (name, queue) in &config.queues {
            changed |= self.declare_queue(name, &QueueSettings::of(name, queue)?)?;
        }
        for (name, exchange) in &config.exchanges {
            changed |= self.declare_exchange(name, exchange.kind)?;
        }
        if changed {
            self.redeclared()?;
        }
        let mut bound = false;
        for (name, exchange) in &config.exchanges {
            for binding in &exchange.bindings {
                bound |= self.bind(&Binding {
                    exchange: name.clone(),
                    queue: binding.queue.clone(),
                    routing_key: binding.routing_key.clone(),
                    arguments: table(&binding.arguments),
                })?;
            }
        }
        if bound { self.redeclared() } else { Ok(()) }
    }

    /// Makes a queue; false if it is there already. The caller calls [`Ledger::redeclared`].
    pub(super) fn declare_queue(&mut self, name: &str, settings: &QueueSettings) -> Result<bool, Fault> {
        check_name("queue", name)?;
        if let Some(queue) = self.topology.queue(name) {
            if queue.settings == *settings {
                return Ok(false);
            }
            return Err(Failure::new(
                FailureKind::Refused,
                codes::CONFLICTING_KEYS,
                format!("declare queue `{name}`"),
            )
            .detail(format!("it is there with other settings: {}", differences(&queue.settings, settings)))
            .remedy(
                "give it the settings it has, or delete the queue (with its messages) and declare it again",
            )
            .into());
        }
        self.conn.execute(
            "INSERT INTO queue (name, ttl_ms, max_length, overflow, dead_letter_exchange, dead_letter_routing_key,
             arguments) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                name,
                settings.ttl_ms,
                settings.max_length.map(|length| i64::try_from(length).unwrap_or(i64::MAX)),
                overflow_text(settings.overflow),
                settings.dead_letter_exchange,
                settings.dead_letter_routing_key,
                encode_table(&settings.arguments)?,
            ],
        )?;
        let id = self.conn.last_insert_rowid();
        self.conn.execute("INSERT INTO depth VALUES (?1, 0, 0)", [id])?;
        Ok(true)
    }

    /// Makes an exchange; false if it is there already. The caller calls [`Ledger::redeclared`].
    pub(super) fn declare_exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<bool, Fault> {
        match self.topology.exchanges.get(name) {
            Some(exchange) if exchange.kind == kind => return Ok(false),
            Some(exchange) => {
                let what = format!("declare exchange `{name}`");
                return Err(Failure::new(FailureKind::Refused, codes::CONFLICTING_KEYS, what)
                    .detail(format!(
                        "it is there with another type: {}, not {}",
                        kind_text(exchange.kind),
                        kind_text(kind)
                    ))
                    .remedy("give it the type it has, or delete the exchange and declare it again")
                    .into());
            }
            None => {}
        }
        check_name("exchange", name)?;
        self.conn.execute("INSERT INTO exchange VALUES (?1, ?2)", [name, kind_text(kind)])?;
        Ok(true)
    }

    /// Binds a queue to an exchange; false if it is bound so already. The caller calls [`Ledger::redeclared`].
    pub(super) fn bind(&mut self, binding: &Binding) -> Result<bool, Fault> {
        let what = format!("bind queue `{}` to exchange `{}`", binding.queue, binding.exchange);
        let (queue, arguments) = self.both_ends(binding, &what)?;
        check_short("routing_key", &binding.routing_key)
            .map_err(|failure| Failure { what: what.clone(), ..failure })?;
        matching::headers_match(&binding.arguments).map_err(|detail| {
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what).detail(detail)
        })?;
        let made = self.conn.execute(
            "INSERT OR IGNORE INTO binding (exchange, queue, routing_key, arguments) VALUES (?1, ?2, ?3, ?4)",
            params![binding.exchange, queue, binding.routing_key, arguments],
        )?;
        Ok(made > 0)
    }

    /// Takes a binding away; false if there is none like it.
    pub(super) fn unbind(&mut self, binding: &Binding) -> Result<bool, Fault> {
        let what = format!("unbind queue `{}` from exchange `{}`", binding.queue, binding.exchange);
        let (queue, arguments) = self.both_ends(binding, &what)?;
        let gone = self.conn.execute(
            "DELETE FROM binding WHERE exchange = ?1 AND queue = ?2 AND routing_key = ?3 AND arguments = ?4",
            params![binding.exchange, queue, binding.routing_key, arguments],
        )?;
        if gone > 0 {
            self.redeclared()?;
        }
        Ok(gone > 0)
    }

    fn both_ends(&self, binding: &Binding, what: &str) -> Result<(QueueId, Vec<u8>), Fault> {
        let named = |failure: Failure| Failure { what: what.to_owned(), ..failure };
        if binding.exchange.is_empty() {
            return Err(named(
                Failure::new(FailureKind::Refused, codes::NOT_ALLOWED, "")
                    .detail("every queue is bound to the default exchange by its name, and by nothing else"),
            )
            .into());
        }
        if !self.topology.exchanges.contains_key(&binding.exchange) {
            return Err(named(no_such_exchange(&binding.exchange)).into());
        }
        let Some(queue) = self.topology.queue(&binding.queue) else {
            return Err(no_such_queue(what.to_owned()).into());
        };
        // Sorted, so that the same arguments are the same binding in whatever order they were written.
        let mut arguments: Vec<_> =
            binding.arguments.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        arguments.sort_by(|left, right| left.0.cmp(&right.0));
        Ok((queue.id, encode_table(&arguments.into_iter().collect())?))
    }

    /// Deletes the messages of a queue that wait; those that consumers hold stay. Returns how many.
    pub(super) fn purge(&mut self, name: &str) -> Result<u64, Fault> {
        let Some(id) = self.topology.queue(name).map(|queue| queue.id) else {
            return Err(no_such_queue(format!("purge queue `{name}`")).into());
        };
        self.conn.execute("DELETE FROM message WHERE id IN (SELECT id FROM ready WHERE queue = ?1)", [id])?;
        let gone = self.conn.execute("DELETE FROM ready WHERE queue = ?1", [id])?;
        self.depth(id)?.ready = 0;
        Ok(gone as u64)
    }

    /// Deletes a queue with its bindings and all of its messages, also those that consumers hold. Returns how many.
    pub(super) fn delete_queue(&mut self, name: &str) -> Result<u64, Fault> {
        let Some(id) = self.topology.queue(name).map(|queue| queue.id) else {
            return Err(no_such_queue(format!("delete queue `{name}`")).into());
        };
        let waited = self.purge(name)?;
        self.conn.execute("DELETE FROM message WHERE id IN (SELECT id FROM taken WHERE queue = ?1)", [id])?;
        let held = self.conn.execute("DELETE FROM taken WHERE queue = ?1", [id])?;
        for statement in [
            "DELETE FROM binding WHERE queue = ?1",
            "DELETE FROM consumer WHERE queue = ?1",
            "DELETE FROM depth WHERE queue = ?1",
            "DELETE FROM queue WHERE id = ?1",
        ] {
            self.conn.execute(statement, [id])?;
        }
        self.forget_depth(id);
        self.redeclared()?;
        Ok(waited + held as u64)
    }

    /// Deletes an exchange with its bindings.
    pub(super) fn delete_exchange(&mut self, name: &str) -> Result<(), Fault> {
        if !self.topology.exchanges.contains_key(name) {
            let what = format!("delete exchange `{name}`");
            return Err(Failure { what, ..no_such_exchange(name) }.into());
        }
        check_name("exchange", name)?;
        self.conn.execute("DELETE FROM binding WHERE exchange = ?1", [name])?;
        self.conn.execute("DELETE FROM exchange WHERE name = ?1", [name])?;
        self.redeclared()
    }

    /// Enters a consumer of a queue.
    pub(super) fn add_consumer(&mut self, queue: &str, consumer: i64) -> Result<QueueId, Fault> {
        let Some(id) = self.topology.queue(queue).map(|queue| queue.id) else {
            return Err(no_such_queue(format!("consume queue `{queue}`")).into());
        };
        self.conn.execute("INSERT INTO consumer VALUES (?1, ?2, ?3)", [self.holder, consumer, id])?;
        Ok(id)
    }

    /// Takes a consumer out.
    pub(super) fn remove_consumer(&mut self, consumer: i64) -> Result<(), Fault> {
        self.conn.execute("DELETE FROM consumer WHERE holder = ?1 AND id = ?2", [self.holder, consumer])?;
        Ok(())
    }

    /// Enters this process; see [`super::holder`].
    pub(super) fn add_holder(&mut self, lock: &str) -> Result<i64, Fault> {
        self.conn.execute(
            "INSERT INTO holder (lock, process) VALUES (?1, ?2)",
            params![lock, i64::from(std::process::id())],
        )?;
        Ok(self.conn.last_insert_rowid())
    }

    /// The lock file of a process, if it is still entered.
    pub(super) fn lock_of(&self, holder: i64) -> Result<Option<String>, Fault> {
        Ok(self
            .conn
            .query_row("SELECT lock FROM holder WHERE id = ?1", [holder], |row| row.get(0))
            .optional()?)
    }
}

/// Arguments as headers.
pub(super) fn table<'a>(arguments: impl IntoIterator<Item = (&'a String, &'a Argument)>) -> Headers {
    arguments.into_iter().map(|(name, Argument(value))| (name.clone(), value.clone())).collect()
}

fn differences(has: &QueueSettings, wants: &QueueSettings) -> String {
    let mut differences = Vec::new();
    let mut compare = |name: &str, has: String, wants: String| {
        if has != wants {
            differences.push(format!("{name} is {has}, not {wants}"));
        }
    };
    let number = |number: Option<u64>| number.map_or("none".to_owned(), |number| number.to_string());
    let text = |text: &Option<String>| text.as_ref().map_or("none".to_owned(), |text| format!("`{text}`"));
    let milliseconds = |ttl: Option<i64>| ttl.map_or("none".to_owned(), |ttl| format!("{ttl} ms"));
    compare("ttl", milliseconds(has.ttl_ms), milliseconds(wants.ttl_ms));
    compare("max_length", number(has.max_length), number(wants.max_length));
    compare("overflow", overflow_text(has.overflow).into(), overflow_text(wants.overflow).into());
    compare("dead_letter_exchange", text(&has.dead_letter_exchange), text(&wants.dead_letter_exchange));
    compare(
        "dead_letter_routing_key",
        text(&has.dead_letter_routing_key),
        text(&wants.dead_letter_routing_key),
    );
    if has.arguments != wants.arguments {
        differences.push("its own arguments differ".into());
    }
    differences.join("; ")
}

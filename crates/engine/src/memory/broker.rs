//! A broker in memory that can be told to fail, to be away, and to hold back its answers. What it does for consumers is
//! in `consumer`.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::codes;
use crate::consume::retry::DelayQueue;
use crate::failure::{Failure, FailureKind};
use crate::finding::Finding;
use crate::message::{Answer, Message, Outbound, Receipt, Route};
use crate::ports::{Broker, Consumer, MessageLimits, QueueInfo};
use crate::sqs::{DEDUPLICATION_ID, is_fifo, ordered_group};

use super::consumer::{Event, MemoryConsumer, Queues};

/// How long it takes to find out that it is away.
const CONNECT: Duration = Duration::from_secs(1);

/// The largest body, unless it is set.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// The most that properties and headers take, unless it is set.
const HEADER_BYTES_MAX: u64 = 128 << 10;

/// What happens to one message of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The broker refuses it for now (a nack).
    Nack,
    /// The connection is lost before it is written.
    NotWritten,
    /// The broker has it, and the confirm is lost.
    LostConfirm,
    /// The connection is lost with it, and the broker does not have it; nobody knows.
    LostMessage,
    /// The broker has it, and says nothing in the time that it is given.
    Silence,
}

/// Queues in memory; those whose name ends in `.fifo` keep the order of groups and take no message twice, as SQS does. Publishing to a queue that does not exist is refused, as RabbitMQ does with `mandatory`.
#[derive(Debug)]
pub struct MemoryBroker {
    inner: Arc<Mutex<Inner>>,
    /// Told when something may have come to a queue.
    came: Arc<tokio::sync::Notify>,
    /// Batches go one after another, in the order in which their calls began.
    turn: tokio::sync::Mutex<()>,
    held: watch::Sender<bool>,
}

impl Default for MemoryBroker {
    /// A broker without queues.
    fn default() -> Self {
        let (inner, came, turn) = (Arc::default(), Arc::default(), tokio::sync::Mutex::default());
        MemoryBroker { inner, came, turn, held: watch::Sender::new(false) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) queues: Queues,
    /// Whether Warren may make queues.
    closed_topology: bool,
    script: VecDeque<Option<Fault>>,
    published: u64,
    pub(super) away: bool,
    body_bytes_max: Option<u64>,
    header_bytes_max: Option<u64>,
}

impl MemoryBroker {
    /// A broker with these queues, all empty.
    pub fn with_queues<'q>(queues: impl IntoIterator<Item = &'q str>) -> MemoryBroker {
        let broker = MemoryBroker::default();
        queues.into_iter().for_each(|queue| broker.declare(queue));
        broker
    }

    /// What happens to the next messages, one by one; `None` is no fault. Once the script is over there are none.
    pub fn script(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.lock().script.extend(faults);
    }

    /// No more faults, whatever of the script is left.
    pub fn script_is_over(&self) {
        self.lock().script.clear();
    }

    /// Whether it cannot be reached. Each call then fails after a second.
    pub fn away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Whether it takes messages and holds back its answers to them.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Adds a queue.
    pub fn declare(&self, queue: &str) {
        self.lock().queues.declare(queue);
    }

    /// Adds a queue that counts deliveries, as quorum queues do.
    pub fn declare_counting(&self, queue: &str) {
        self.lock().queues.declare_counting(queue);
    }

    /// Whether there is a queue of that name.
    pub fn has(&self, queue: &str) -> bool {
        self.lock().queues.has(queue)
    }

    /// What an exchange leads to a queue.
    pub(super) fn route_through(&self, queue: &str, through: (String, String), message: &Message) -> Receipt {
        let mut inner = self.lock();
        let fault = if inner.away { Some(Fault::NotWritten) } else { inner.script.pop_front().flatten() };
        if fault.is_none() && inner.queues.deposit_through(queue, through, message) {
            drop(inner);
            self.came.notify_waiters();
            return Receipt::Accepted(Answer("confirmed".into()));
        }
        Receipt::Refused(Failure::new(
            FailureKind::Disconnected,
            codes::BROKER_UNREACHABLE,
            format!("publish to queue `{queue}`"),
        ))
    }

    /// Takes a queue away; its consumers hear of it.
    pub fn delete(&self, queue: &str) {
        self.lock().queues.delete(queue);
        self.came.notify_waiters();
    }

    /// Whether Warren is refused to make queues.
    pub fn refuses_to_declare(&self, refuses: bool) {
        self.lock().closed_topology = refuses;
    }

    /// Whether it can delay a delivery itself, as SQS does.
    pub fn can_delay(&self, can: bool) {
        self.lock().queues.can_delay = can;
    }

    /// Loses the connections of all consumers: what they hold goes back to its queue.
    pub fn disconnect(&self) {
        self.lock().queues.disconnect();
        self.came.notify_waiters();
    }

    /// What was confirmed and what was settled, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lock().queues.events.clone()
    }

    /// How many messages consumers hold.
    pub fn unsettled(&self) -> usize {
        self.lock().queues.unsettled()
    }

    /// The largest body it takes; 16 MiB unless set.
    pub fn body_bytes_max(&self, bytes: u64) {
        self.lock().body_bytes_max = Some(bytes);
    }

    /// The most that properties and headers take; 128 KiB unless set.
    pub fn header_bytes_max(&self, bytes: u64) {
        self.lock().header_bytes_max = Some(bytes);
    }

    /// What a queue holds, in order of arrival.
    pub fn messages(&self, queue: &str) -> Vec<Message> {
        self.lock().queues.messages(queue)
    }

    /// How many messages were published, whatever became of them.
    pub fn published(&self) -> u64 {
        self.lock().published
    }

    /// Tries to reach it; returns whether it is away.
    async fn reach(&self) -> bool {
        let away = self.lock().away;
        if away {
            tokio::time::sleep(CONNECT).await;
        }
        away
    }

    fn may_declare(&self, queue: &str) -> Result<(), Failure> {
        let what = format!("declare queue `{queue}`");
        let inner = self.lock();
        if inner.away {
            return Err(Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, what));
        }
        if inner.closed_topology {
            return Err(Failure::new(FailureKind::Refused, codes::ACCESS_REFUSED, what));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn publish(&mut self, outbound: &Outbound) -> Receipt {
        self.published += 1;
        let lost = || Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "wait for the confirm");
        let fault = if self.away { Some(Fault::NotWritten) } else { self.script.pop_front().flatten() };
        match fault {
            Some(Fault::Nack) => Receipt::Refused(Failure::new(
                FailureKind::Throttled,
                codes::BROKER_REFUSED_MESSAGE,
                format!("publish to {}", outbound.route),
            )),
            Some(Fault::NotWritten) => Receipt::Refused(Failure::new(
                FailureKind::Disconnected,
                codes::BROKER_UNREACHABLE,
                format!("publish to {}", outbound.route),
            )),
            Some(Fault::LostMessage) => Receipt::Unknown(lost()),
            Some(Fault::LostConfirm) => match self.route(outbound) {
                Receipt::Accepted(_) => Receipt::Unknown(lost()),
                refused => refused,
            },
            Some(Fault::Silence) => match self.route(outbound) {
                Receipt::Accepted(_) => Receipt::Unknown(Failure::new(
                    FailureKind::Timeout,
                    codes::PUBLISH_TIMEOUT,
                    format!("publish to {}", outbound.route),
                )),
                refused => refused,
            },
            None => self.route(outbound),
        }
    }

    fn route(&mut self, outbound: &Outbound) -> Receipt {
        if crate::sync::limits::header_bytes(outbound) > self.header_bytes_max.unwrap_or(HEADER_BYTES_MAX) {
            let what = format!("publish to {}", outbound.route);
            return Receipt::Refused(Failure::new(FailureKind::Invalid, codes::HEADERS_TOO_LARGE, what));
        }
        if outbound.message.body.len() as u64 > self.body_bytes_max.unwrap_or(BODY_BYTES_MAX) {
            let what = format!("publish to {}", outbound.route);
            return Receipt::Refused(Failure::new(FailureKind::Invalid, codes::MESSAGE_TOO_LARGE, what));
        }
        let queue = match &outbound.route {
            Route::Queue(queue) => queue,
            Route::Exchange { exchange, .. } => {
                let what = format!("publish to exchange `{exchange}`");
                return Receipt::Refused(Failure::new(FailureKind::NotFound, codes::NO_SUCH_EXCHANGE, what));
            }
        };
        let id = outbound.message.properties.headers.get(DEDUPLICATION_ID);
        let same = |message: &Message| message.properties.headers.get(DEDUPLICATION_ID) == id;
        if is_fifo(queue) && id.is_some() && self.queues.messages(queue).iter().any(same) {
            return Receipt::Accepted(Answer("confirmed".into()));
        }
        if self.queues.deposit(queue, &outbound.message) {
            return Receipt::Accepted(Answer("confirmed".into()));
        }
        let what = format!("publish to queue `{queue}`");
        Receipt::Refused(Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, what))
    }
}

/// What stands behind a message of its group that was not accepted is not taken.
fn held(outbound: &Outbound) -> Failure {
    Failure::new(FailureKind::Throttled, codes::HELD, format!("publish to {}", outbound.route))
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let turn = self.turn.lock().await;
        self.reach().await;
        let mut receipts = Vec::with_capacity(batch.len());
        let mut behind_failed = HashSet::new();
        for outbound in batch {
            // Whoever is dropped here has sent a part of the batch, as a process that dies.
            tokio::task::yield_now().await;
            let stopped = ordered_group(outbound).is_some_and(|group| behind_failed.contains(&group));
            let receipt =
                if stopped { Receipt::Refused(held(outbound)) } else { self.lock().publish(outbound) };
            if !matches!(receipt, Receipt::Accepted(_)) {
                behind_failed.extend(ordered_group(outbound));
            }
            receipts.push(receipt);
        }
        self.came.notify_waiters();
        drop(turn);
        // The sender lives as long as `self`, so the wait only ends when the answers are let go.
        self.held.subscribe().wait_for(|held| !held).await.ok();
        receipts
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        if self.reach().await {
            let what = "connect to the broker in memory";
            return Err(Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, what));
        }
        let inner = self.lock();
        Ok(MessageLimits {
            body_bytes_max: inner.body_bytes_max.unwrap_or(BODY_BYTES_MAX),
            header_bytes_max: Some(inner.header_bytes_max.unwrap_or(HEADER_BYTES_MAX)),
            short_bytes_max: Some(255),
        })
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        let inner = self.lock();
        let missing = routes.iter().filter_map(|route| match route {
            Route::Queue(queue) if !inner.queues.has(queue) => {
                Some(Finding::error(codes::NO_SUCH_QUEUE, "", format!("queue `{queue}` does not exist")))
            }
            Route::Queue(_) => None,
            Route::Exchange { exchange, .. } => Some(Finding::error(
                codes::NO_SUCH_EXCHANGE,
                "",
                format!("exchange `{exchange}` does not exist"),
            )),
        });
        missing.collect()
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        let inner = self.lock();
        let info = |(name, messages): (String, usize)| QueueInfo {
            name,
            kind: "memory".into(),
            messages: Some(messages as u64),
            consumers: None,
            durable: false,
        };
        Ok(inner.queues.depths().map(info).collect())
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let what = format!("consume from queue `{queue}`");
        if self.reach().await {
            return Err(Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, what));
        }
        if !self.lock().queues.has(queue) {
            let failure = Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, what);
            return Err(failure.remedy("declare the queue"));
        }
        let (inner, came) = (self.inner.clone(), self.came.clone());
        Ok(Box::new(MemoryConsumer::open(inner, came, queue, prefetch)))
    }

    async fn declare_delay_queue(&self, queue: &DelayQueue) -> Result<(), Failure> {
        self.may_declare(&queue.name)?;
        if self.lock().queues.declare_delay(queue) {
            return Ok(());
        }
        let what = format!("declare queue `{}`", queue.name);
        Err(Failure::new(FailureKind::Refused, codes::CONFLICTING_KEYS, what)
            .detail("it is there with other settings"))
    }

    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        if !self.lock().queues.has(queue) {
            self.may_declare(queue)?;
            self.declare(queue);
        }
        Ok(())
    }

    async fn close(&self) {}
}

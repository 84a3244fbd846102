//! A broker in memory that can be told to fail, to be away, and to hold back its answers.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::finding::Finding;
use crate::message::{Answer, Message, Outbound, Receipt, Route};
use crate::ports::{Broker, Consumer, MessageLimits, QueueInfo};
use crate::sqs::{DEDUPLICATION_ID, is_fifo, ordered_group};

/// How long it takes to find out that it is away.
const CONNECT: Duration = Duration::from_secs(1);

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
}

/// Queues in memory; those whose name ends in `.fifo` keep the order of groups and take no message twice, as SQS does. Publishing to a queue that does not exist is refused, as RabbitMQ does with `mandatory`.
#[derive(Debug)]
pub struct MemoryBroker {
    inner: Mutex<Inner>,
    /// Batches go one after another, in the order in which their calls began.
    turn: tokio::sync::Mutex<()>,
    held: watch::Sender<bool>,
}

impl Default for MemoryBroker {
    /// A broker without queues.
    fn default() -> Self {
        let (inner, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        MemoryBroker { inner, turn, held: watch::Sender::new(false) }
    }
}

#[derive(Debug, Default)]
struct Inner {
    queues: BTreeMap<String, Vec<Message>>,
    script: VecDeque<Option<Fault>>,
    published: u64,
    away: bool,
    body_bytes_max: Option<u64>,
}

impl MemoryBroker {
    /// A broker with these queues, all empty.
    pub fn with_queues<'q>(queues: impl IntoIterator<Item = &'q str>) -> MemoryBroker {
        let broker = MemoryBroker::default();
        broker.lock().queues.extend(queues.into_iter().map(|queue| (queue.to_owned(), Vec::new())));
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
        self.lock().queues.entry(queue.to_owned()).or_default();
    }

    /// The largest body it takes; 16 MiB unless set.
    pub fn body_bytes_max(&self, bytes: u64) {
        self.lock().body_bytes_max = Some(bytes);
    }

    /// What a queue holds, in order of arrival.
    pub fn messages(&self, queue: &str) -> Vec<Message> {
        self.lock().queues.get(queue).cloned().unwrap_or_default()
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
            None => self.route(outbound),
        }
    }

    fn route(&mut self, outbound: &Outbound) -> Receipt {
        let queue = match &outbound.route {
            Route::Queue(queue) => queue,
            Route::Exchange { exchange, .. } => {
                let what = format!("publish to exchange `{exchange}`");
                return Receipt::Refused(Failure::new(FailureKind::NotFound, codes::NO_SUCH_EXCHANGE, what));
            }
        };
        match self.queues.get_mut(queue) {
            Some(messages) => {
                let id = outbound.message.properties.headers.get(DEDUPLICATION_ID);
                let same = |message: &Message| message.properties.headers.get(DEDUPLICATION_ID) == id;
                if !(is_fifo(queue) && id.is_some() && messages.iter().any(same)) {
                    messages.push(outbound.message.clone());
                }
                Receipt::Accepted(Answer("confirmed".into()))
            }
            None => Receipt::Refused(Failure::new(
                FailureKind::NotFound,
                codes::NO_SUCH_QUEUE,
                format!("publish to queue `{queue}`"),
            )),
        }
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
        let body_bytes_max = self.lock().body_bytes_max;
        Ok(MessageLimits {
            body_bytes_max: body_bytes_max.unwrap_or(16 << 20),
            header_bytes_max: Some(128 << 10),
            short_bytes_max: Some(255),
        })
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        let inner = self.lock();
        let missing = routes.iter().filter_map(|route| match route {
            Route::Queue(queue) if !inner.queues.contains_key(queue) => {
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
        let info = |(name, messages): (&String, &Vec<Message>)| QueueInfo {
            name: name.clone(),
            kind: "memory".into(),
            messages: Some(messages.len() as u64),
            consumers: None,
            durable: false,
        };
        Ok(inner.queues.iter().map(info).collect())
    }

    async fn consume(&self, queue: &str, _: u16) -> Result<Box<dyn Consumer>, Failure> {
        let what = format!("consume from queue `{queue}`: the broker in memory is for publishing");
        Err(Failure::new(FailureKind::Refused, codes::ACCESS_REFUSED, what))
    }

    async fn close(&self) {}
}

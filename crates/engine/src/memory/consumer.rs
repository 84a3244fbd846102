//! Queues in memory as a consumer sees them: prefetch, redelivery, times to live that lead back, connections that are lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::broker::Inner;
use crate::codes;
use crate::consume::copies::RECEIVE_COUNT;
use crate::consume::retry::DelayQueue;
use crate::delivery::{Delivery, Envelope, Job, Settle, Settlement};
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Headers, Message};
use crate::ports::Consumer;

/// Something that a broker in memory was told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has a message now: queue and body.
    Confirmed(String, String),
    /// A delivery was settled: queue, body and how.
    Settled(String, String, Settlement),
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_name: BTreeMap<String, Queue>,
    /// Deliveries that are not settled, by number.
    unsettled: BTreeMap<u64, (String, u64, Entry)>,
    deliveries: u64,
    /// Counts connections: what an earlier one delivered cannot be settled.
    connections: u64,
    pub can_delay: bool,
    pub events: Vec<Event>,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Entry>,
    /// Delayed by the broker itself.
    delayed: Vec<(Instant, Entry)>,
    counts: bool,
    delay: Option<DelayQueue>,
}

#[derive(Debug, Clone)]
struct Entry {
    message: Message,
    redelivered: bool,
    deliveries: u64,
    expires: Option<Instant>,
    /// The exchange and routing key it was published with, where not straight to the queue.
    through: Option<(String, String)>,
}

impl Queues {
    pub fn declare(&mut self, queue: &str) {
        self.by_name.entry(queue.to_owned()).or_default();
    }

    pub fn declare_counting(&mut self, queue: &str) {
        self.by_name.entry(queue.to_owned()).or_default().counts = true;
    }

    /// `false`: one of that name and other settings is there.
    pub fn declare_delay(&mut self, queue: &DelayQueue) -> bool {
        let delay = Some(queue.clone());
        self.by_name
            .entry(queue.name.clone())
            .or_insert_with(|| Queue { delay: delay.clone(), ..Queue::default() })
            .delay
            == delay
    }

    pub fn delete(&mut self, queue: &str) {
        self.by_name.remove(queue);
        self.unsettled.retain(|_, (of, ..)| of != queue);
    }

    pub fn has(&self, queue: &str) -> bool {
        self.by_name.contains_key(queue)
    }

    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    pub fn depths(&self) -> impl Iterator<Item = (String, usize)> {
        self.by_name.iter().map(|(name, queue)| (name.clone(), queue.ready.len()))
    }

    pub fn messages(&mut self, queue: &str) -> Vec<Message> {
        self.expire();
        let ready = self.by_name.get(queue).map(|queue| &queue.ready);
        ready.into_iter().flatten().map(|entry| entry.message.clone()).collect()
    }

    pub fn deposit(&mut self, queue: &str, message: &Message) -> bool {
        if !self.has(queue) {
            return false;
        }
        self.events.push(Event::Confirmed(queue.to_owned(), shown(message)));
        self.put(queue, message.clone(), None);
        true
    }

    /// What an exchange leads to a queue.
    pub fn deposit_through(&mut self, queue: &str, through: (String, String), message: &Message) -> bool {
        if !self.has(queue) {
            return false;
        }
        self.events.push(Event::Confirmed(queue.to_owned(), shown(message)));
        self.put(queue, message.clone(), Some(through));
        true
    }

    fn put(&mut self, name: &str, message: Message, through: Option<(String, String)>) {
        let Some(queue) = self.by_name.get_mut(name) else { return };
        let own = message.properties.expiration.as_ref().and_then(|text| text.parse().ok());
        let own = own.map(Duration::from_millis);
        let longest = queue.delay.as_ref().map(|delay| delay.longest);
        let ttl = own.into_iter().chain(longest).min();
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        queue.ready.push_back(Entry { message, redelivered: false, deliveries: 0, expires, through });
    }

    /// Moves on what has expired at the head of a queue, or is delayed no longer; yields when the next does.
    fn expire(&mut self) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let mut moved = Vec::new();
            for (name, queue) in &mut self.by_name {
                let (over, still): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut queue.delayed).into_iter().partition(|(at, _)| *at <= now);
                queue.delayed = still;
                queue.ready.extend(over.into_iter().map(|(_, entry)| entry));
                while queue.ready.front().is_some_and(|entry| entry.expires.is_some_and(|at| at <= now)) {
                    let (Some(entry), Some(delay)) = (queue.ready.pop_front(), &queue.delay) else {
                        continue;
                    };
                    moved.push((delay.back_to.clone(), died(entry.message, name)));
                }
            }
            if moved.is_empty() {
                break;
            }
            for (queue, message) in moved {
                self.put(&queue, message, None);
            }
        }
        let queues = self.by_name.values();
        queues
            .flat_map(|queue| {
                let head = queue.ready.front().and_then(|entry| entry.expires);
                head.into_iter().chain(queue.delayed.iter().map(|(at, _)| *at))
            })
            .min()
    }

    pub fn disconnect(&mut self) {
        self.connections += 1;
        let held: Vec<u64> = self.unsettled.keys().rev().copied().collect();
        for number in held {
            self.back(number, true);
        }
    }

    /// Back to the head of its queue.
    fn back(&mut self, number: u64, counted: bool) {
        let Some((queue, _, mut entry)) = self.unsettled.remove(&number) else { return };
        if let Some(queue) = self.by_name.get_mut(&queue) {
            entry.redelivered = true;
            entry.deliveries += u64::from(counted);
            queue.ready.push_front(entry);
        }
    }
}

/// What RabbitMQ makes of a message that expired.
fn died(mut message: Message, queue: &str) -> Message {
    message.properties.expiration = None;
    let death: Headers = [
        ("count".to_owned(), HeaderValue::I64(1)),
        ("reason".to_owned(), HeaderValue::Text("expired".into())),
        ("queue".to_owned(), HeaderValue::Text(queue.to_owned())),
    ]
    .into_iter()
    .collect();
    message.properties.headers.set("x-death", HeaderValue::Array(vec![HeaderValue::Table(death)]));
    message
}

fn shown(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

pub(super) struct MemoryConsumer {
    inner: Arc<Mutex<Inner>>,
    came: Arc<Notify>,
    queue: String,
    prefetch: usize,
    connection: u64,
    mine: Vec<u64>,
    cancelled: bool,
    /// Given up with the consumer: what it delivered cannot be settled afterwards.
    open: Arc<std::sync::atomic::AtomicBool>,
}

impl MemoryConsumer {
    pub(super) fn open(inner: Arc<Mutex<Inner>>, came: Arc<Notify>, queue: &str, prefetch: u16) -> Self {
        let connection = lock(&inner).queues.connections;
        let open = Arc::new(true.into());
        let (queue, prefetch) = (queue.to_owned(), prefetch.into());
        MemoryConsumer { inner, came, queue, prefetch, connection, mine: Vec::new(), cancelled: false, open }
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        let what = || format!("consume from queue `{}`", self.queue);
        loop {
            // Registered before it is looked, so that nothing that comes in between is missed.
            let came = self.came.clone();
            let mut came = std::pin::pin!(came.notified());
            came.as_mut().enable();
            let next = {
                let mut inner = lock(&self.inner);
                let away = inner.away;
                let queues = &mut inner.queues;
                if away || queues.connections != self.connection {
                    return Err(Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what()));
                }
                if !queues.has(&self.queue) {
                    return Err(Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, what()));
                }
                if self.cancelled {
                    return Ok(None);
                }
                let next = queues.expire();
                self.mine.retain(|number| queues.unsettled.contains_key(number));
                let room = self.mine.len() < self.prefetch;
                let queue = queues.by_name.get_mut(&self.queue).filter(|_| room);
                if let Some((entry, counts)) =
                    queue.and_then(|queue| Some((queue.ready.pop_front()?, queue.counts)))
                {
                    queues.deliveries += 1;
                    let number = queues.deliveries;
                    let count = (RECEIVE_COUNT.to_owned(), (entry.deliveries + 1).to_string());
                    let system = queues.can_delay.then_some(count).into_iter().collect();
                    let (exchange, routing_key) =
                        entry.through.clone().unwrap_or_else(|| (String::new(), self.queue.clone()));
                    let envelope = Envelope {
                        queue: self.queue.clone(),
                        exchange,
                        routing_key,
                        redelivered: entry.redelivered,
                        delivery_count: (counts && entry.deliveries > 0).then_some(entry.deliveries),
                        delivery_tag: number,
                        consumer_tag: "memory".into(),
                        system,
                    };
                    let job = Job { message: entry.message.clone(), envelope };
                    queues.unsettled.insert(number, (self.queue.clone(), self.connection, entry));
                    self.mine.push(number);
                    let settle = MemorySettle {
                        inner: self.inner.clone(),
                        came: self.came.clone(),
                        number,
                        connection: self.connection,
                        open: self.open.clone(),
                    };
                    return Ok(Some(Delivery::new(job, Box::new(settle))));
                }
                next
            };
            let expiry = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Both only wait: nothing is taken by whichever is dropped.
            tokio::select! {
                () = came => {}
                () = expiry => {}
            }
        }
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.open.store(false, std::sync::atomic::Ordering::SeqCst);
        let mut inner = lock(&self.inner);
        if inner.queues.connections == self.connection {
            for number in self.mine.iter().rev() {
                inner.queues.back(*number, true);
            }
        }
        drop(inner);
        self.came.notify_waiters();
    }
}

struct MemorySettle {
    inner: Arc<Mutex<Inner>>,
    came: Arc<Notify>,
    number: u64,
    connection: u64,
    open: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Settle for MemorySettle {
    fn can_delay(&self, _: Duration) -> bool {
        lock(&self.inner).queues.can_delay
    }

    fn alive(&self) -> bool {
        let inner = lock(&self.inner);
        !inner.away
            && inner.queues.connections == self.connection
            && self.open.load(std::sync::atomic::Ordering::SeqCst)
    }

    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure> {
        if !self.alive() {
            let what = "settle a delivery";
            return Err(Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what));
        }
        {
            let mut inner = lock(&self.inner);
            let queues = &mut inner.queues;
            let Some((queue, _, entry)) = queues.unsettled.get(&self.number).cloned() else {
                return Err(Failure::internal("settle a delivery").detail("it is settled already"));
            };
            queues.events.push(Event::Settled(queue.clone(), shown(&entry.message), how));
            match how {
                Settlement::Ack | Settlement::Reject => drop(queues.unsettled.remove(&self.number)),
                Settlement::Requeue => queues.back(self.number, true),
                Settlement::Delay(by) => {
                    queues.unsettled.remove(&self.number);
                    let entry = Entry { redelivered: true, deliveries: entry.deliveries + 1, ..entry };
                    if let Some(queue) = queues.by_name.get_mut(&queue) {
                        queue.delayed.push((Instant::now() + by, entry));
                    }
                }
            }
        }
        self.came.notify_waiters();
        Ok(())
    }
}

//! The broker: opening and closing its file, and the port.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use tokio::sync::{mpsc as channel, oneshot};
use warren_engine::codes;
use warren_engine::consume::retry::DelayQueue;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::message::{Headers, Outbound, Receipt, Route};
use warren_engine::ports::{Broker, Consumer, MessageLimits, QueueInfo, Wanted};

use super::config::Config;
use super::consumer::{CHANNEL_ITEMS_MAX, Flow, QueueConsumer, closed};
use super::deposit::Parcel;
use super::fault::Fault;
use super::ledger::Ledger;
use super::look::Look;
use super::properties::{HEADER_BYTES_MAX, SHORT_BYTES_MAX, check_short, encode};
use super::shared::{Shared, WAITING_BYTES_MAX, on_blocking_thread};
use super::topology::{QueueSettings, TTL_MS_MAX};
use super::writer::{Command, Enter};

/// An embedded broker with its file open. Cheap to clone; the file is closed when the last clone and the last consumer are
/// dropped, or by [`Broker::close`], after which the next use opens it again.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

impl Embedded {
    /// Opens the broker's file, makes it if it is not there, and declares what the configuration names. Blocks for some
    /// milliseconds.
    ///
    /// # Errors
    /// The file cannot be written or is damaged; a declaration is at odds with the file.
    pub fn open(name: &str, config: &Config, folder: &Path) -> Result<Embedded, Failure> {
        let path = match &config.path {
            Some(path) => folder.join(path),
            None if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') => {
                return Err(Failure::new(
                    FailureKind::Invalid,
                    codes::INVALID_VALUE,
                    format!("open the embedded broker `{name}`"),
                )
                .detail("its name cannot be a file's name")
                .remedy("set the broker's `path`"));
            }
            None => folder.join(format!("{name}.broker")),
        };
        let embedded = Embedded { shared: Arc::new(Shared::new(name, path, config)) };
        embedded.shared.commands()?;
        Ok(embedded)
    }

    /// Where the broker's file is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    pub(super) async fn act(
        &self,
        act: impl Fn(&mut Ledger<'_>) -> Result<u64, Fault> + Send + 'static,
    ) -> Result<u64, Failure> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Act { act: Box::new(act), reply };
        self.ask(command, answer).await?
    }

    /// Sends a command to the writer, opening the file if need be, and waits for the answer.
    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
        let lost = || closed("ask the embedded broker");
        self.commands().await?.send(command).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }

    /// The way to the writer. The file is open unless the broker was closed; then it is opened, off the runtime's threads.
    async fn commands(&self) -> Result<mpsc::Sender<Command>, Failure> {
        if let Some(commands) = self.shared.open_commands() {
            return Ok(commands);
        }
        let shared = Arc::clone(&self.shared);
        on_blocking_thread(move || shared.commands()).await
    }

    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Look<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = Arc::clone(&self.shared);
        on_blocking_thread(move || shared.look(look)).await
    }

    /// A message as the writer takes it, or why no broker could.
    fn parcel(&self, outbound: &Outbound) -> Result<Parcel, Failure> {
        let (to_queue, exchange, routing_key) = match &outbound.route {
            Route::Queue(queue) => (true, "", queue),
            Route::Exchange { exchange, routing_key } => (false, exchange.as_str(), routing_key),
        };
        check_short("the exchange", exchange)?;
        check_short(if to_queue { "the queue" } else { "the routing key" }, routing_key)?;
        let message = &outbound.message;
        let max = self.shared.config.max_message_size.0;
        if message.body.len() as u64 > max.0 {
            return Err(Failure::new(
                FailureKind::Invalid,
                codes::MESSAGE_TOO_LARGE,
                format!("publish to {}", outbound.route),
            )
            .detail(format!("the body has {} bytes, the broker takes {max}", message.body.len()))
            .remedy("send less, or raise the broker's `max_message_size`"));
        }
        let ttl_ms = message.properties.expiration.as_deref().map(expiration).transpose()?;
        Ok(Parcel {
            to_queue,
            exchange: exchange.to_owned(),
            routing_key: routing_key.clone(),
            headers: if to_queue { Headers::default() } else { message.properties.headers.clone() },
            properties: encode(&message.properties)?,
            ttl_ms,
            body: message.body.clone(),
        })
    }

    async fn publish_parcels(&self, parcels: Vec<Parcel>) -> Vec<Receipt> {
        let count = parcels.len();
        let all = |receipt: &dyn Fn() -> Receipt| (0..count).map(|_| receipt()).collect::<Vec<_>>();
        let bytes = parcels.iter().map(|parcel| parcel.body.len() + parcel.properties.len()).sum();
        let Some(_waiting) = self.shared.wait_with(bytes) else {
            let failure = Failure::new(FailureKind::Throttled, codes::BROKER_BLOCKED, "publish")
                .detail("more than 512 MiB wait for the embedded broker's file already")
                .remedy("publish fewer or smaller messages at once; look whether the disk is slow");
            return all(&|| Receipt::Refused(failure.clone()));
        };
        let commands = match self.commands().await {
            Ok(commands) => commands,
            Err(failure) => return all(&|| Receipt::Refused(failure.clone())),
        };
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::Publish { parcels, reply }).is_err() {
            return all(&|| Receipt::Refused(closed("publish")));
        }
        let timeout = self.shared.config.publish_timeout.0;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(receipts)) => receipts,
            Ok(Err(_)) => all(&|| Receipt::Unknown(closed("publish"))),
            Err(_) => all(&|| {
                let failure = Failure::new(FailureKind::Timeout, codes::PUBLISH_TIMEOUT, "publish")
                    .detail(format!("no answer from the embedded broker's file in {timeout:?}"))
                    .at(self.shared.path.display().to_string());
                Receipt::Unknown(failure)
            }),
        }
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let mut receipts: Vec<Option<Receipt>> = Vec::with_capacity(batch.len());
        let mut parcels = Vec::with_capacity(batch.len());
        for outbound in batch {
            match self.parcel(outbound) {
                Ok(parcel) => {
                    parcels.push(parcel);
                    receipts.push(None);
                }
                Err(failure) => receipts.push(Some(Receipt::Refused(failure))),
            }
        }
        let answered = if parcels.is_empty() { Vec::new() } else { self.publish_parcels(parcels).await };
        let mut answered = answered.into_iter();
        receipts
            .into_iter()
            .map(|receipt| {
                receipt.or_else(|| answered.next()).unwrap_or_else(|| {
                    Receipt::Unknown(Failure::internal("the embedded broker answered too few messages"))
                })
            })
            .collect()
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        Ok(MessageLimits {
            body_bytes_max: self.shared.config.max_message_size.0.0,
            header_bytes_max: Some(HEADER_BYTES_MAX as u64),
            short_bytes_max: Some(SHORT_BYTES_MAX),
        })
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        let subject = self.shared.name.clone();
        let routes = routes.to_vec();
        let found = {
            let subject = subject.clone();
            self.look(move |look| Ok(look.check(&subject, &routes))).await
        };
        found.unwrap_or_else(|failure| vec![Finding::from_failure(subject, &failure)])
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        let mut queues: Vec<QueueInfo> = self
            .queue_states()
            .await?
            .into_iter()
            .map(|queue| QueueInfo {
                name: queue.name,
                kind: "classic".to_owned(), // what RabbitMQ calls a queue with these rules
                messages: Some(queue.ready + queue.unsettled),
                consumers: Some(queue.consumers),
                durable: true,
            })
            .collect();
        queues.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(queues)
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let commands = self.commands().await?;
        let consumer = self.shared.next_consumer.fetch_add(1, Ordering::Relaxed);
        let (outgoing, incoming) = channel::channel(CHANNEL_ITEMS_MAX);
        let flow = Arc::new(Flow::default());
        let (reply, answer) = oneshot::channel();
        let enter =
            Enter { consumer, queue: queue.to_owned(), prefetch, outgoing, flow: Arc::clone(&flow), reply };
        // Made before it is entered: if this future is dropped while it waits, dropping the consumer takes it out again.
        let consumer = QueueConsumer {
            id: consumer,
            queue: queue.into(),
            tag: format!("warren-{}-{consumer}", std::process::id()),
            next_tag: 1,
            incoming,
            flow,
            commands: commands.clone(),
            cancelled: false,
            _broker: Arc::clone(&self.shared),
        };
        let lost = || closed(&format!("consume queue `{queue}`"));
        commands.send(Command::Consume(enter)).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())??;
        Ok(Box::new(consumer))
    }

    async fn declare_delay_queue(&self, queue: &DelayQueue) -> Result<(), Failure> {
        let longest = i64::try_from(queue.longest.as_millis()).unwrap_or(TTL_MS_MAX);
        let settings = QueueSettings {
            ttl_ms: Some(longest.min(TTL_MS_MAX)),
            dead_letter_exchange: Some(String::new()), // the default exchange: straight to the queue
            dead_letter_routing_key: Some(queue.back_to.clone()),
            ..QueueSettings::default()
        };
        self.declare_queue(&queue.name, &settings).await.map(|_| ())
    }

    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        match self.queue_state(queue).await {
            Err(failure) if failure.kind == FailureKind::NotFound => {
                self.declare_queue(queue, &QueueSettings::default()).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    async fn check_consumer(&self, wanted: &Wanted) -> Vec<Finding> {
        let subject = format!("queue `{}`", wanted.queue);
        match self.queue_state(&wanted.queue).await {
            Err(failure) => vec![Finding::from_failure(subject, &failure)],
            Ok(state) if wanted.dead_letters_by_broker && state.settings.dead_letter_exchange.is_none() => {
                let what = format!("queue `{}` has no dead-letter exchange", wanted.queue);
                vec![
                    Finding::error(codes::QUEUE_MISFIT, subject, what)
                        .detail("`dead_letter: broker` rejects what is given up, and this queue then drops it")
                        .remedy("give the queue a `dead_letter_exchange`, or the trigger `dead_letter: {queue: NAME}`"),
                ]
            }
            Ok(_) => Vec::new(),
        }
    }

    fn blocked(&self) -> Option<String> {
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
        (waiting >= WAITING_BYTES_MAX).then(|| "more waits for its file than it writes".to_owned())
    }

    async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Its own thread's end is waited for; a runtime that shuts down meanwhile leaves that to `Drop`.
        on_blocking_thread(move || {
            shared.close();
            Ok(())
        })
        .await
        .ok();
    }
}

/// A message's own time to live, as RabbitMQ reads it.
fn expiration(text: &str) -> Result<i64, Failure> {
    match text.parse::<i64>() {
        Ok(ttl) if (0..=TTL_MS_MAX).contains(&ttl) && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(ttl)
        }
        _ => {
            let shown: String = text.chars().take(40).collect();
            Err(Failure::new(FailureKind::Invalid, codes::INVALID_PROPERTY, "publish a message").detail(format!(
                "expiration `{shown}` is not a number of milliseconds in decimal digits, at most {TTL_MS_MAX}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warren_engine::delivery::Settlement;
    use warren_engine::message::{Message, Properties};

    use super::*;

    // The file's size is held back instead of the disk's; SQLite says the same of both.
    #[tokio::test]
    async fn a_full_disk_refuses_messages_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = serde_json::from_str(r#"{"queues": {"q": {}}}"#).unwrap();
        let broker = Embedded::open("test", &config, folder.path()).unwrap();
        let pages_max = |pages: i64| {
            broker.act(move |ledger| {
                let mut statement = ledger.conn.prepare(&format!("PRAGMA max_page_count = {pages}"))?;
                Ok(statement.query_row([], |row| row.get::<_, i64>(0))? as u64)
            })
        };
        let body = Bytes::from(vec![b'x'; 50_000]);
        let outbound = Outbound {
            route: Route::Queue("q".into()),
            message: Message { body, properties: Properties::default() },
        };
        pages_max(100).await.unwrap();
        // 1. Until it is full. 2. Refused, to be tried again. 3. What was accepted is settled. 4. Room again.
        let mut accepted = 0;
        let failure = loop {
            match broker.publish(std::slice::from_ref(&outbound)).await.pop() {
                Some(Receipt::Accepted(_)) => accepted += 1,
                Some(Receipt::Refused(failure)) => break failure,
                other => panic!("1: {other:?}"),
            }
        };
        assert!((1..20).contains(&accepted), "1: {accepted}");
        assert_eq!((failure.kind, failure.code), (FailureKind::Throttled, codes::STATE_UNWRITABLE), "2");
        assert!(failure.place.is_some() && failure.remedy.is_some(), "2: {failure:?}");
        let mut consumer = broker.consume("q", 10).await.unwrap();
        for _ in 0..accepted {
            let (_, unsettled) = consumer.next().await.unwrap().unwrap().split();
            unsettled.settle(Settlement::Ack).await.unwrap();
        }
        pages_max(100_000).await.unwrap();
        assert!(matches!(broker.publish(&[outbound]).await[..], [Receipt::Accepted(_)]), "4");
    }
}

//! The RabbitMQ broker, over a thin AMQP 0-9-1 client of our own (`docs/adr/0001-amqp-client.md`).
//!
//! What comes in: batches of messages to publish, queues to consume from. What goes out: a receipt for each message by
//! what the broker said of that very message, and deliveries with the means to settle them. It does not retry, record, log
//! errors or dead-letter; it opens a connection when one is used and none is there.
//!
//! | | |
//! |---|---|
//! | [`config`] | settings |
//! | `wire` | bytes |
//! | `connection` | one connection: greeting, channels, reading and writing |
//! | `publisher` | batches, confirms, returns, whose fault a closed channel is |
//! | `consumer` | deliveries, coalesced acknowledgements |
//! | `topology` | declaring, binding, passive checks, getting one message |
//! | `queues`, `losses` | the queues of a trigger: made where they may be, and checked; how a queue loses messages |
//! | `estate`, `users` | all vhosts and the broker's users, for a hub |
//! | `management`, `check` | the management API; looking before doing |

pub mod config;

mod check;
mod connection;
mod consumer;
mod estate;
mod failures;
mod lines;
mod losses;
mod management;
mod publisher;
mod queues;
mod rights;
mod topology;
mod users;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use warren_engine::consume::retry::DelayQueue;
use warren_engine::failure::Failure;
use warren_engine::finding::Finding;
use warren_engine::message::{Outbound, Receipt, Route};
use warren_engine::ports::{Broker, Consumer, MessageLimits, QueueInfo, Wanted};

pub use self::config::Config;
use self::config::Target;
use self::connection::Connection;
use self::connection::slot::Slot;
pub use self::estate::estate;
use self::lines::Lines;
use self::publisher::Publisher;
pub use self::topology::{QueueState, Taken};
pub use self::users::{check_hub, user_ids, users};
pub use self::wire::method::{Binding, ExchangeSpec, QueueSpec};
use crate::kit::tls::TlsSettings;

/// A RabbitMQ broker. It has one connection to publish and one for all else, so that a broker that holds publishers back still
/// delivers. Another one is opened for the first direct reply, one for messages over which the broker might close the connection, and more
/// where one has not enough channels for all consumers.
pub struct Rabbit {
    name: String,
    target: Arc<Target>,
    tls: TlsSettings,
    publisher: Publisher,
    /// For direct replies. RabbitMQ before 4.0 closes the connection over a token of a node that it does not know, and who
    /// made the token is a stranger.
    replies: Publisher,
    /// For questions and declarations, and the first consumers.
    side: Arc<Slot>,
    /// For consumers.
    lines: Lines,
}

/// A broker of that name, as the port. Connects when it is first used.
///
/// # Errors
/// A setting is wrong.
pub fn broker(name: &str, config: &Config) -> Result<Arc<dyn Broker>, Failure> {
    Rabbit::new(name, config).map(|rabbit| Arc::new(rabbit) as Arc<dyn Broker>)
}

impl Rabbit {
    /// A broker of that name. Connects when it is first used.
    ///
    /// # Errors
    /// A setting is wrong.
    pub fn new(name: &str, config: &Config) -> Result<Rabbit, Failure> {
        Ok(Rabbit::to(name, Arc::new(config.target()?), config.tls.clone().unwrap_or_default()))
    }

    fn to(name: &str, target: Arc<Target>, tls: TlsSettings) -> Rabbit {
        let slot = |purpose: &str| Slot::new(target.clone(), tls.clone(), format!("warren {name} {purpose}"));
        let side = Arc::new(slot("consuming"));
        let lines = Lines::new(target.clone(), tls.clone(), format!("warren {name} consuming"), side.clone());
        Rabbit {
            name: name.to_owned(),
            publisher: Publisher::new(slot("publishing"), slot("publishing apart"), target.clone()),
            replies: Publisher::new(slot("replying"), slot("replying apart"), target.clone()),
            side,
            lines,
            target,
            tls,
        }
    }

    /// The connection for all but publishing.
    async fn side(&self) -> Result<Arc<Connection>, Failure> {
        self.side.get().await
    }
}

fn is_direct_reply(outbound: &Outbound) -> bool {
    let (exchange, key) = wire::publish::address(&outbound.route);
    wire::publish::is_direct_reply(exchange, key)
}

#[async_trait]
impl Broker for Rabbit {
    /// What is promised of order: see [`publisher`].
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        if !batch.iter().any(is_direct_reply) {
            return self.publisher.publish(batch).await;
        }
        let mut receipts = Vec::with_capacity(batch.len());
        for run in batch.chunk_by(|one, next| is_direct_reply(one) == is_direct_reply(next)) {
            let replies = run.first().is_some_and(is_direct_reply);
            let publisher = if replies { &self.replies } else { &self.publisher };
            receipts.extend(publisher.publish(run).await);
        }
        receipts
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        let (connection, body_bytes_max) = self.publisher.connection().await?;
        Ok(MessageLimits {
            body_bytes_max,
            header_bytes_max: Some(wire::publish::header_bytes_max(connection.shared.agreed.frame_max) as u64),
            short_bytes_max: Some(255),
        })
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        check::check(self, routes).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        management::Api::new(&self.target, &self.tls)?.queues().await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        self.lines.consume(queue, prefetch).await
    }

    async fn declare_delay_queue(&self, queue: &DelayQueue) -> Result<(), Failure> {
        queues::declare_delay(self, queue).await
    }

    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        queues::ensure(self, queue).await
    }

    async fn check_consumer(&self, wanted: &Wanted) -> Vec<Finding> {
        queues::check(self, wanted).await
    }

    fn blocked(&self) -> Option<String> {
        self.publisher.blocked()
    }

    async fn close(&self) {
        self.publisher.close().await;
        self.replies.close().await;
        self.lines.close().await;
    }
}

/// Reads bytes as a broker's frames, and writes what they hold: the entry point of the fuzz target `amqp`.
///
/// # Panics
/// What was read is written as other bytes than what it reads as again.
#[cfg(fuzzing)]
pub fn fuzz_wire(mut bytes: &[u8]) {
    use wire::{content, frame, method};

    while let Ok(Some((frame, length))) = frame::first(bytes, 1 << 20) {
        match frame.kind {
            frame::METHOD => drop(method::method(frame.payload)),
            frame::HEADER => {
                content::message_id(frame.payload).ok();
                if let Ok((size, properties)) = content::header(frame.payload) {
                    let mut written = Vec::new();
                    if content::put_header(&mut written, &properties, size).is_ok() {
                        let (again, same) = content::header(&written).expect("what we write can be read");
                        let mut rewritten = Vec::new();
                        content::put_header(&mut rewritten, &same, again)
                            .expect("what was read can be written");
                        assert_eq!(written, rewritten);
                    }
                }
            }
            _ => {}
        }
        bytes = &bytes[length..];
    }
}

//! Amazon SQS, over AWS's own client with its HTTP and TLS replaced by ours (hyper, rustls with ring).
//!
//! What comes in: batches of messages to publish, queues to consume from. What goes out: a receipt for each message by what SQS
//! said of that very message, and deliveries with the means to settle them. It does not retry, record, log errors or dead-letter;
//! AWS's client is told not to retry either. Consumed messages are kept hidden for as long as they are unsettled.
//!
//! | | |
//! |---|---|
//! | [`config`] | settings |
//! | `connection` | credentials, region, time limits |
//! | `queues` | queues by name, URL or ARN, and what they take |
//! | `publisher` | requests packed, window, order of groups, answers |
//! | `consumer` | long polling, visibility, settling |
//! | `check` | looking before doing; the list of queues |
//! | `failures` | what SQS's errors mean |

pub mod config;

mod check;
mod connection;
mod consumer;
mod failures;
mod publisher;
mod queues;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use warren_engine::failure::Failure;
use warren_engine::finding::Finding;
use warren_engine::message::{Outbound, Receipt, Route};
use warren_engine::ports::{Broker, Consumer, MessageLimits, QueueInfo};
use warren_engine::sqs::MESSAGE_BYTES_MAX;

pub use self::config::Config;
use self::connection::Link;
use self::publisher::Publisher;
use self::queues::Queues;

/// SQS in one region, as one identity.
pub struct Sqs {
    name: String,
    link: Arc<Link>,
    queues: Arc<Queues>,
    publisher: Publisher,
    /// What consumers leave behind when they are dropped: handing back what was not settled.
    tasks: TaskTracker,
}

/// A broker of that name, as the port. Asks AWS for nothing before it is first used.
///
/// # Errors
/// A setting is wrong.
pub fn broker(name: &str, config: &Config) -> Result<Arc<dyn Broker>, Failure> {
    Sqs::new(name, config).map(|sqs| Arc::new(sqs) as Arc<dyn Broker>)
}

impl Sqs {
    /// A broker of that name. Asks AWS for nothing before it is first used.
    ///
    /// # Errors
    /// A setting is wrong.
    pub fn new(name: &str, config: &Config) -> Result<Sqs, Failure> {
        let link = Arc::new(Link::new(config.target()?));
        let queues = Arc::new(Queues::default());
        let publisher = Publisher::new(link.clone(), queues.clone());
        Ok(Sqs { name: name.to_owned(), link, queues, publisher, tasks: TaskTracker::new() })
    }
}

#[async_trait]
impl Broker for Sqs {
    /// What is promised of order: see `publisher`.
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        self.publisher.publish(batch).await
    }

    /// The largest body of any queue; each queue's own is known when it is published to.
    async fn limits(&self) -> Result<MessageLimits, Failure> {
        check::reach(self).await?;
        Ok(MessageLimits { body_bytes_max: MESSAGE_BYTES_MAX, header_bytes_max: None, short_bytes_max: None })
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        check::check(self, routes).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        check::list(self).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let consumer = consumer::consume(&self.link, &self.queues, queue, prefetch, &self.tasks).await?;
        Ok(Box::new(consumer))
    }

    fn blocked(&self) -> Option<String> {
        let (now, max) = self.publisher.narrowed()?;
        Some(format!("SQS throttles: {now} of {max} requests at once"))
    }

    /// Waits for dropped consumers to hand back what they had.
    async fn close(&self) {
        self.tasks.close();
        // Each of their requests has a time limit of its own.
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

//! The embedded broker.

mod broken;
mod conformance;
mod dead_letters;
mod declaring;
mod model;
mod processes;
mod publishing;
mod settling;
mod speed;

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use warren_connectors::embedded::{Config, Embedded};
use warren_engine::codes::Code;
use warren_engine::delivery::{Job, Settlement, Unsettled};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::{Broker, Consumer};

/// A broker in a folder of its own.
pub struct World {
    pub folder: TempDir,
    pub config: Config,
    pub broker: Embedded,
}

impl World {
    /// With what a configuration (as JSON) declares.
    pub fn new(config: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = serde_json::from_str(config).unwrap();
        let broker = Embedded::open("test", &config, folder.path()).unwrap();
        World { folder, config, broker }
    }

    /// The same file opened once more, as another process would.
    pub fn another(&self) -> Embedded {
        Embedded::open("test", &self.config, self.folder.path()).unwrap()
    }

    /// Publishes and insists that it is accepted.
    pub async fn send(&self, route: Route, body: &str) {
        self.send_message(Outbound { route, message: message(body) }).await;
    }

    pub async fn send_message(&self, outbound: Outbound) {
        let receipts = self.broker.publish(std::slice::from_ref(&outbound)).await;
        assert!(matches!(receipts[..], [Receipt::Accepted(_)]), "{outbound:?}: {receipts:?}");
    }

    /// The code a publish is refused with.
    pub async fn refusal(&self, outbound: Outbound) -> Code {
        match &self.broker.publish(&[outbound]).await[..] {
            [Receipt::Refused(failure)] => failure.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The bodies in a queue, without taking them.
    pub async fn bodies(&self, queue: &str) -> Vec<String> {
        bodies(&self.broker, queue).await
    }
}

pub async fn bodies(broker: &Embedded, queue: &str) -> Vec<String> {
    let messages = broker.peek(queue, 0, usize::MAX).await.unwrap();
    messages.iter().map(|peeked| text(&peeked.message.body)).collect()
}

pub fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

pub fn message(body: &str) -> Message {
    Message { body: Bytes::copy_from_slice(body.as_bytes()), properties: Properties::default() }
}

pub fn queue(name: &str) -> Route {
    Route::Queue(name.into())
}

pub fn exchange(exchange: &str, routing_key: &str) -> Route {
    Route::Exchange { exchange: exchange.into(), routing_key: routing_key.into() }
}

/// How long anything may take before a test calls it missing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The next delivery, which is there or comes soon.
pub async fn next(consumer: &mut Box<dyn Consumer>) -> (Job, Unsettled) {
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a delivery in time");
    delivery.unwrap().expect("a delivery").split()
}

/// The next delivery's body, acked.
pub async fn receive(consumer: &mut Box<dyn Consumer>) -> Job {
    let (job, unsettled) = next(consumer).await;
    unsettled.settle(Settlement::Ack).await.unwrap();
    job
}

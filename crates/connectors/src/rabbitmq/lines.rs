//! Connections to consume on. A connection has a bounded number of channels, and each consumer takes one: so there are as many connections as it
//! takes. The first of them also serves questions and declarations, for which it keeps channels free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use warren_engine::delivery::Delivery;
use warren_engine::failure::Failure;
use warren_engine::ports::Consumer;

use super::config::Target;
use super::connection::slot::Slot;
use super::consumer::{self, RabbitConsumer};
use super::failures::CallFault;
use crate::kit::tls::TlsSettings;

/// So many consumers share a connection at most.
const CONSUMERS_MAX: usize = 1500;
/// So many connections there are at most.
const LINES_MAX: usize = 32;

pub(super) struct Lines {
    target: Arc<Target>,
    tls: TlsSettings,
    name: String,
    open: Mutex<Vec<Arc<Line>>>,
}

struct Line {
    slot: Arc<Slot>,
    consumers: AtomicUsize,
}

impl Lines {
    /// The first connection, and more when they are needed.
    pub fn new(target: Arc<Target>, tls: TlsSettings, name: String, first: Arc<Slot>) -> Lines {
        let first = Arc::new(Line { slot: first, consumers: AtomicUsize::new(0) });
        Lines { target, tls, name, open: Mutex::new(vec![first]) }
    }

    /// Consumes on the first connection with room.
    ///
    /// # Errors
    /// As consuming, or all connections are full.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let what = || format!("consume from queue `{queue}`");
        for at in 0..LINES_MAX {
            let line = self.line(at);
            let connection = line.slot.get().await?;
            // A quarter of the channels is left for questions.
            let room = usize::from(connection.shared.agreed.channel_max) / 4 * 3;
            let Some(place) = Place::take(&line, room.clamp(1, CONSUMERS_MAX)) else { continue };
            // Another connection helps where this one has no channel left, and against no other refusal: each would only be refused there too.
            let channel = match connection.channel().await {
                Err(CallFault::NoChannel) => continue,
                opened => opened.map_err(|fault| fault.failure(what()))?,
            };
            let consumer = consumer::consume(connection, channel, queue, prefetch).await?;
            return Ok(Box::new(Placed { consumer, _place: place }));
        }
        Err(CallFault::NoChannel.failure(what()))
    }

    fn line(&self, at: usize) -> Arc<Line> {
        let mut lines = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() <= at {
            let name = format!("{} {}", self.name, lines.len() + 1);
            let slot = Arc::new(Slot::new(self.target.clone(), self.tls.clone(), name));
            lines.push(Arc::new(Line { slot, consumers: AtomicUsize::new(0) }));
        }
        lines[at].clone()
    }

    /// Closes all connections for good, the first included.
    pub async fn close(&self) {
        let lines = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for line in lines {
            line.slot.close().await;
        }
    }
}

/// Room on a connection, while it is taken.
struct Place(Arc<Line>);

impl Place {
    fn take(line: &Arc<Line>, room: usize) -> Option<Place> {
        let taken = line
            .consumers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < room).then_some(taken + 1));
        taken.is_ok().then(|| Place(line.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.consumers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A consumer with its room.
struct Placed {
    consumer: RabbitConsumer,
    _place: Place,
}

#[async_trait]
impl Consumer for Placed {
    async fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        self.consumer.next().await
    }

    fn next_that_is_there(&mut self) -> Option<Result<Option<Delivery>, Failure>> {
        self.consumer.next_that_is_there()
    }

    async fn cancel(&mut self) {
        self.consumer.cancel().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_consumer_is_gone() {
        let config: super::super::Config =
            serde_json::from_value(serde_json::json!({ "url": "amqp://h/" })).unwrap();
        let target = Arc::new(config.target().unwrap());
        let slot = Arc::new(Slot::new(target, TlsSettings::default(), "test".into()));
        let line = Arc::new(Line { slot, consumers: AtomicUsize::new(0) });
        let one = Place::take(&line, 2).unwrap();
        let _other = Place::take(&line, 2).unwrap();
        assert!(Place::take(&line, 2).is_none());
        drop(one);
        assert!(Place::take(&line, 2).is_some());
    }
}

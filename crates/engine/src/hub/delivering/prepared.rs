//! The broker of a subscription: as its virtual host's, but the subscription's own queue is made and bound before it is consumed. So a
//! queue that was deleted comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::consume::retry::DelayQueue;
use crate::failure::Failure;
use crate::finding::Finding;
use crate::hub::registry::Hub;
use crate::hub::subscription::SubscriptionId;
use crate::message::{Outbound, Receipt, Route};
use crate::ports::{Broker, Consumer, MessageLimits, QueueInfo, Wanted};

pub(super) struct Prepared {
    broker: Arc<dyn Broker>,
    hub: Arc<Hub>,
    id: SubscriptionId,
    /// Whether it was consumed before.
    opened: AtomicBool,
}

impl Prepared {
    pub fn new(broker: Arc<dyn Broker>, hub: Arc<Hub>, id: SubscriptionId) -> Prepared {
        Prepared { broker, hub, id, opened: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Broker for Prepared {
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        self.broker.publish(batch).await
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        self.broker.limits().await
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        self.broker.check(routes).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        self.broker.queues().await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let again = self.opened.swap(true, Ordering::Relaxed);
        if let Some(pause) = self.hub.settings().wait_for_consumer_restart.filter(|_| again) {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hub.stopping() => {}
            }
        }
        self.hub.prepare_again(self.id).await?;
        self.broker.consume(queue, prefetch).await
    }

    async fn declare_delay_queue(&self, queue: &DelayQueue) -> Result<(), Failure> {
        self.broker.declare_delay_queue(queue).await
    }

    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        self.broker.ensure_queue(queue).await
    }

    fn headers_max(&self) -> Option<usize> {
        self.broker.headers_max()
    }

    async fn check_consumer(&self, wanted: &Wanted) -> Vec<Finding> {
        self.broker.check_consumer(wanted).await
    }

    fn blocked(&self) -> Option<String> {
        self.broker.blocked()
    }

    async fn close(&self) {
        self.broker.close().await;
    }
}

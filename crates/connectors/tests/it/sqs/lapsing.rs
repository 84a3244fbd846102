//! Messages whose time was up while they are worked on: received again, and worked on once.

use std::time::Duration;

use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::{Config, Sqs};
use warren_engine::delivery::{Delivery, Settlement};
use warren_engine::message::Outbound;
use warren_engine::ports::{Broker as _, Consumer};
use warren_testkit::sqs::Endpoint;
use warren_testkit::wait_until;

use super::{SOON, all_accepted, at, grouped, outbound, sqs};

/// A standard queue tells nobody that a handle is an older one, a FIFO queue refuses it.
const QUEUES: [&str; 2] = ["q", "q.fifo"];

struct World {
    endpoint: Endpoint,
    broker: Sqs,
    consumer: Box<dyn Consumer>,
    queue: &'static str,
}

fn message(queue: &str, body: &str) -> Outbound {
    if queue == "q" { outbound(queue, body.to_owned()) } else { grouped(queue, body, body) }
}

impl World {
    /// A consumer with room for two, and its first message, `m`.
    async fn new(queue: &'static str, visibility: u64) -> (World, Delivery) {
        let endpoint = Endpoint::start().await;
        endpoint.queue(queue);
        let span = |seconds| Some(Span(Duration::from_secs(seconds)));
        let broker =
            sqs(&Config { visibility_timeout: span(visibility), wait_time: span(1), ..at(&endpoint) });
        let consumer = broker.consume(queue, 2).await.unwrap();
        let mut world = World { endpoint, broker, consumer, queue };
        let first = world.next_after("m").await;
        (world, first)
    }

    /// Publishes a message, which is the next to come: nothing else came before.
    async fn next_after(&mut self, body: &str) -> Delivery {
        all_accepted(&self.broker.publish(&[message(self.queue, body)]).await);
        let delivery = self.next().await;
        assert_eq!(delivery.job().message.body, body.as_bytes());
        delivery
    }

    async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(SOON, self.consumer.next()).await.expect("a delivery comes soon");
        next.expect("the consumer goes on").expect("it was not cancelled")
    }

    fn received(&self, receipts: u64) {
        let (endpoint, queue) = (&self.endpoint, self.queue);
        tokio::task::block_in_place(|| {
            wait_until("it is received again", SOON, || endpoint.receipts(queue) >= receipts);
        });
    }

    fn left(&self, count: usize) {
        let (endpoint, queue) = (&self.endpoint, self.queue);
        tokio::task::block_in_place(|| {
            wait_until("they are deleted", SOON, || endpoint.left(queue) == count)
        });
    }
}

async fn settle(delivery: Delivery, how: Settlement) {
    delivery.split().1.settle(how).await.expect("SQS hears of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_was_up_is_worked_on_once_and_deleted() {
    for queue in QUEUES {
        let (mut world, first) = World::new(queue, 60).await;
        for receipts in 2..5 {
            world.endpoint.lapse(queue);
            world.received(receipts);
        }
        let other = world.next_after("other").await;
        settle(first, Settlement::Ack).await;
        assert_eq!(world.endpoint.left(queue), 1);
        settle(other, Settlement::Ack).await;
        assert_eq!(world.endpoint.left(queue), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_back_by_its_newest_handle_comes_again_once() {
    for queue in QUEUES {
        let (mut world, first) = World::new(queue, 60).await;
        world.endpoint.lapse(queue);
        world.received(2);
        settle(world.next_after("other").await, Settlement::Ack).await;
        settle(first, Settlement::Delay(Duration::from_secs(1))).await;
        let again = world.next().await;
        assert_eq!(again.job().envelope.delivery_count, Some(2));
        settle(again, Settlement::Ack).await;
        assert_eq!(world.endpoint.left(queue), 0);
    }
}

/// The request that brings it again was under way when it was deleted, by a handle that was the newest we had.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_after_it_was_deleted_is_deleted_for_good() {
    let (mut world, first) = World::new("q", 60).await;
    world.endpoint.hold_receipts(true);
    world.endpoint.lapse("q");
    world.received(2);
    settle(first, Settlement::Ack).await;
    assert_eq!(world.endpoint.left("q"), 1);
    world.endpoint.hold_receipts(false);
    world.left(0);
    settle(world.next_after("other").await, Settlement::Ack).await;
    assert_eq!(world.endpoint.receipts("q"), 3);
}

/// A FIFO queue refuses the older handle: the message is not done, and comes again as one that was delivered before.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_fifo_queue_would_not_delete_comes_again() {
    let (mut world, first) = World::new("q.fifo", 60).await;
    world.endpoint.hold_receipts(true);
    world.endpoint.lapse("q.fifo");
    world.received(2);
    assert!(first.split().1.settle(Settlement::Ack).await.is_err());
    world.endpoint.hold_receipts(false);
    let again = world.next().await;
    assert_eq!(again.job().envelope.delivery_count, Some(1));
    settle(again, Settlement::Ack).await;
    assert_eq!(world.endpoint.left("q.fifo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_extended_is_worked_on_once() {
    let (mut world, first) = World::new("q", 2).await;
    world.endpoint.throttle("ChangeMessageVisibilityBatch");
    world.received(3);
    settle(world.next_after("other").await, Settlement::Ack).await;
    settle(first, Settlement::Ack).await;
    assert_eq!(world.endpoint.left("q"), 0);
}

/// The consumer that delivered it is closed: a copy of it made now would be one too many.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_closed_consumer_delivered_is_not_alive() {
    let (world, first) = World::new("q", 60).await;
    let (_, unsettled) = first.split();
    assert!(unsettled.alive());
    drop(world.consumer);
    assert!(!unsettled.alive());
    assert!(unsettled.settle(Settlement::Ack).await.is_err());
}

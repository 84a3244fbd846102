//! Consuming: prefetch, ack, reject, requeue, cancel, and what comes again.

use std::time::Duration;

use warren_engine::codes;
use warren_engine::delivery::Settlement;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Broker;

use super::{World, next, queue, receive, text};

async fn with_messages(count: usize) -> World {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    for number in 1..=count {
        world.send(queue("q"), &number.to_string()).await;
    }
    world
}

#[tokio::test]
async fn no_more_is_delivered_than_the_prefetch() {
    let world = with_messages(4).await;
    let mut consumer = world.broker.consume("q", 2).await.unwrap();
    let (first, first_unsettled) = next(&mut consumer).await;
    let _second = next(&mut consumer).await;
    assert_eq!(text(&first.message.body), "1");
    let state = world.broker.queue_state("q").await.unwrap();
    assert_eq!((state.ready, state.unsettled, state.consumers), (2, 2, 1));
    // 1. Nothing comes while two are unsettled. 2. One settled, one comes.
    let nothing = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(nothing.is_err(), "1: {nothing:?}");
    first_unsettled.settle(Settlement::Ack).await.unwrap();
    assert_eq!(text(&next(&mut consumer).await.0.message.body), "3", "2");
}

#[tokio::test]
async fn an_acked_message_is_gone_and_a_requeued_one_comes_again_in_its_place() {
    let world = with_messages(3).await;
    let mut consumer = world.broker.consume("q", 2).await.unwrap();
    let (_, first) = next(&mut consumer).await;
    let (_, second) = next(&mut consumer).await;
    first.settle(Settlement::Requeue).await.unwrap();
    second.settle(Settlement::Ack).await.unwrap();
    let (job, unsettled) = next(&mut consumer).await;
    assert_eq!((text(&job.message.body).as_str(), job.envelope.redelivered), ("1", true));
    assert_eq!(job.envelope.delivery_count, Some(1));
    unsettled.settle(Settlement::Ack).await.unwrap();
    let job = receive(&mut consumer).await;
    assert_eq!((text(&job.message.body).as_str(), job.envelope.redelivered), ("3", false));
    drop(consumer);
    assert_eq!(world.bodies("q").await, Vec::<String>::new());
    assert_eq!(world.broker.queue_state("q").await.unwrap().unsettled, 0);
}

#[tokio::test]
async fn a_dropped_consumer_hands_back_what_it_held() {
    let world = with_messages(3).await;
    let mut consumer = world.broker.consume("q", 3).await.unwrap();
    let (_, unsettled) = next(&mut consumer).await;
    drop(next(&mut consumer).await); // dropped unsettled: still the consumer's
    drop(consumer);
    let failure = unsettled.settle(Settlement::Ack).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Disconnected);
    let mut consumer = world.broker.consume("q", 3).await.unwrap();
    for (body, redelivered) in [("1", true), ("2", true), ("3", false)] {
        let job = receive(&mut consumer).await;
        assert_eq!((text(&job.message.body).as_str(), job.envelope.redelivered), (body, redelivered));
    }
}

#[tokio::test]
async fn a_cancelled_consumer_yields_what_is_on_its_way_and_ends() {
    let world = with_messages(3).await;
    let mut consumer = world.broker.consume("q", 2).await.unwrap();
    let (_, first) = next(&mut consumer).await;
    consumer.cancel().await;
    let mut yielded = 1;
    while let Some(delivery) = consumer.next().await.unwrap() {
        delivery.split().1.settle(Settlement::Ack).await.unwrap();
        yielded += 1;
    }
    first.settle(Settlement::Ack).await.unwrap();
    drop(consumer);
    let left = world.bodies("q").await.len();
    assert_eq!(yielded + left, 3);
    assert!(left >= 1, "nothing new is taken after the cancel");
}

#[tokio::test]
async fn a_waiting_consumer_hears_of_new_messages() {
    let world = with_messages(0).await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let (job, ()) = tokio::join!(receive(&mut consumer), world.send(queue("q"), "new"));
    assert_eq!(text(&job.message.body), "new");
}

#[tokio::test]
async fn two_consumers_share_a_queue() {
    let world = with_messages(0).await;
    let mut one = world.broker.consume("q", 10).await.unwrap();
    let mut two = world.broker.consume("q", 10).await.unwrap();
    for _ in 0..10 {
        world.send(queue("q"), "m").await;
        world.send(queue("q"), "m").await;
    }
    for _ in 0..10 {
        let _held = (next(&mut one).await, next(&mut two).await);
    }
    assert_eq!(world.broker.queue_state("q").await.unwrap().unsettled, 20);
}

#[tokio::test]
async fn a_large_prefetch_does_not_stall() {
    let world = with_messages(0).await;
    let batch: Vec<_> = (0..5000)
        .map(|number: u32| warren_engine::message::Outbound {
            route: queue("q"),
            message: super::message(&number.to_string()),
        })
        .collect();
    assert_eq!(world.broker.publish(&batch).await.len(), 5000);
    let mut consumer = world.broker.consume("q", u16::MAX).await.unwrap();
    let mut held = Vec::new();
    for number in 0..5000 {
        let (job, unsettled) = next(&mut consumer).await;
        assert_eq!(text(&job.message.body), number.to_string());
        held.push(unsettled);
    }
    for unsettled in held {
        unsettled.settle(Settlement::Ack).await.unwrap();
    }
    assert_eq!(world.broker.queue_state("q").await.unwrap().unsettled, 0);
}

#[tokio::test]
async fn the_queue_must_exist_and_stay() {
    let world = with_messages(1).await;
    let failure = world.broker.consume("absent", 1).await.err().unwrap();
    assert_eq!((failure.kind, failure.code), (FailureKind::NotFound, codes::NO_SUCH_QUEUE));
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let (_, unsettled) = next(&mut consumer).await;
    assert_eq!(world.broker.delete_queue("q").await.unwrap(), 1);
    assert_eq!(consumer.next().await.unwrap_err().code, codes::NO_SUCH_QUEUE);
    assert!(unsettled.settle(Settlement::Ack).await.is_err());
}

#[tokio::test]
async fn a_delay_is_refused_and_the_message_stays_held() {
    let world = with_messages(1).await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let (_, unsettled) = next(&mut consumer).await;
    let span = Duration::from_secs(1);
    assert!(!unsettled.can_delay(span));
    assert!(unsettled.settle(Settlement::Delay(span)).await.is_err());
    drop(consumer);
    assert_eq!(world.bodies("q").await, ["1"]);
}

#[tokio::test]
async fn closing_hands_back_and_the_next_use_opens_again() {
    let world = with_messages(2).await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let (_, unsettled) = next(&mut consumer).await;
    world.broker.close().await;
    assert!(unsettled.settle(Settlement::Ack).await.is_err());
    assert_eq!(consumer.next().await.unwrap_err().kind, FailureKind::Disconnected);
    world.send(queue("q"), "3").await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let job = receive(&mut consumer).await;
    assert_eq!((text(&job.message.body).as_str(), job.envelope.redelivered), ("1", true));
}

//! Deliveries and what becomes of them.

use warren_engine::codes;
use warren_engine::delivery::{Delivery, Settlement};
use warren_engine::failure::FailureKind;

use super::{Fixture, SOON, body, consume, drain, fill, headers, is, next, nothing, settle};

async fn filled(fixture: &dyn Fixture, name: &str, count: usize) {
    fixture.queue(name, headers(&[])).await;
    fill(fixture, name, (0..count).map(|at| at.to_string())).await;
}

pub(super) async fn prefetch_is_kept(fixture: &dyn Fixture) {
    filled(fixture, "q", 10).await;
    let mut consumer = consume(fixture, "q", 3).await;
    let mut held = Vec::new();
    for at in 0..3 {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(body(&delivery), at.to_string());
        held.push(delivery);
    }
    nothing(consumer.as_mut()).await;
    settle(held.remove(1), Settlement::Ack).await;
    let delivery = next(consumer.as_mut()).await;
    assert_eq!(body(&delivery), "3");
    nothing(consumer.as_mut()).await;
}

pub(super) async fn acknowledged_is_gone(fixture: &dyn Fixture) {
    filled(fixture, "q", 100).await;
    let mut consumer = consume(fixture, "q", 7).await;
    for at in 0..90 {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(body(&delivery), at.to_string());
        settle(delivery, Settlement::Ack).await;
    }
    drop(consumer);
    fixture.handed_back().await;
    let expected: Vec<String> = (90..100).map(|at| at.to_string()).collect();
    assert_eq!(drain(fixture, "q").await, expected);
}

pub(super) async fn out_of_order_is_exact(fixture: &dyn Fixture) {
    filled(fixture, "q", 200).await;
    let mut consumer = consume(fixture, "q", 200).await;
    let mut held: Vec<Option<Delivery>> = Vec::new();
    for _ in 0..200 {
        held.push(Some(next(consumer.as_mut()).await));
    }
    // From the last to the first, and every seventh not at all.
    for at in (0..200).rev().filter(|at| at % 7 != 0) {
        settle(held[at].take().expect("each is settled once"), Settlement::Ack).await;
    }
    drop(held);
    drop(consumer);
    fixture.handed_back().await;
    let expected: Vec<String> = (0..200).filter(|at| at % 7 == 0).map(|at| at.to_string()).collect();
    assert_eq!(drain(fixture, "q").await, expected);
}

pub(super) async fn rejected_is_gone(fixture: &dyn Fixture) {
    filled(fixture, "q", 4).await;
    let mut consumer = consume(fixture, "q", 2).await;
    for at in 0..4 {
        let how = if at % 2 == 0 { Settlement::Reject } else { Settlement::Ack };
        settle(next(consumer.as_mut()).await, how).await;
    }
    nothing(consumer.as_mut()).await;
    drop(consumer);
    assert_eq!(drain(fixture, "q").await, Vec::<String>::new());
}

pub(super) async fn requeued_comes_again(fixture: &dyn Fixture) {
    filled(fixture, "q", 2).await;
    let mut consumer = consume(fixture, "q", 1).await;
    let first = next(consumer.as_mut()).await;
    let requeued = body(&first);
    assert!(!first.job().envelope.redelivered);
    settle(first, Settlement::Requeue).await;
    // Where in the queue it comes again is the broker's own.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(delivery.job().envelope.redelivered, body(&delivery) == requeued);
        seen.push(body(&delivery));
        settle(delivery, Settlement::Ack).await;
    }
    seen.sort_unstable();
    assert_eq!(seen, ["0", "1"]);
}

pub(super) async fn dropping_hands_back(fixture: &dyn Fixture) {
    filled(fixture, "q", 5).await;
    let mut consumer = consume(fixture, "q", 3).await;
    let held = next(consumer.as_mut()).await;
    settle(next(consumer.as_mut()).await, Settlement::Ack).await;
    drop(consumer);
    let mut other = consume(fixture, "q", 10).await;
    let mut came = Vec::new();
    for _ in 0..4 {
        let delivery = next(other.as_mut()).await;
        came.push((body(&delivery), delivery.job().envelope.redelivered));
        settle(delivery, Settlement::Ack).await;
    }
    came.sort();
    let bodies: Vec<&str> = came.iter().map(|(body, _)| &**body).collect();
    assert_eq!(bodies, ["0", "2", "3", "4"]);
    assert!(came[0].1, "what a handler had is marked as redelivered");
    drop(held);
}

pub(super) async fn settling_late_says_so(fixture: &dyn Fixture) {
    filled(fixture, "q", 1).await;
    let mut consumer = consume(fixture, "q", 1).await;
    let (_, unsettled) = next(consumer.as_mut()).await.split();
    drop(consumer);
    fixture.handed_back().await;
    let failure = unsettled.settle(Settlement::Ack).await.expect_err("its consumer is gone");
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure:?}");
    assert_eq!(drain(fixture, "q").await, ["0"]);
}

pub(super) async fn cancelling_drains(fixture: &dyn Fixture) {
    filled(fixture, "q", 10).await;
    let mut consumer = consume(fixture, "q", 4).await;
    let first = next(consumer.as_mut()).await;
    consumer.cancel().await;
    let mut came = vec![body(&first)];
    settle(first, Settlement::Ack).await;
    while let Some(delivery) = consumer.next().await.expect("a cancelled consumer ends in good order") {
        came.push(body(&delivery));
        settle(delivery, Settlement::Ack).await;
    }
    assert!(came.len() <= 4, "no more than the prefetch was on its way: {came:?}");
    drop(consumer);
    let mut all = came;
    all.extend(drain(fixture, "q").await);
    let expected: Vec<String> = (0..10).map(|at| at.to_string()).collect();
    assert_eq!(all, expected);
}

pub(super) async fn a_missing_queue_is_refused(fixture: &dyn Fixture) {
    let consumed = fixture.broker().consume("nowhere", 1).await;
    let failure = consumed.err().expect("the queue is not there");
    is(&failure, FailureKind::NotFound, codes::NO_SUCH_QUEUE);
    assert!(failure.remedy.is_some(), "{failure:?}");
}

pub(super) async fn a_deleted_queue_is_heard_of(fixture: &dyn Fixture) {
    filled(fixture, "q", 1).await;
    let mut consumer = consume(fixture, "q", 1).await;
    let held = next(consumer.as_mut()).await;
    fixture.delete_queue("q").await;
    let next = tokio::time::timeout(SOON, consumer.next()).await.expect("it is heard of soon");
    let failure = next.expect_err("the queue is gone");
    is(&failure, FailureKind::NotFound, codes::NO_SUCH_QUEUE);
    drop(held);
}

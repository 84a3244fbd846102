//! Each outcome and what is told to whom, in which order.

use std::time::Duration;

use bytes::Bytes;
use warren_engine::consume::plan::DeadLetter;
use warren_engine::consume::record::MessageStatus;
use warren_engine::delivery::Settlement;
use warren_engine::memory::Event;
use warren_engine::message::{HeaderValue, Message, Properties};

use super::world::{Act, World, passes};

#[tokio::test(start_paused = true)]
async fn each_outcome_is_settled_as_the_table_says() {
    let mut world = World::new().with(|plan| plan.retry.delays.clear()).acts([
        ("drop", Act::Drop),
        ("reject", Act::Reject),
        ("busy", Act::Busy(None)),
        ("panic", Act::Panics),
        ("hang", Act::Hangs),
    ]);
    world.publish(["ok", "drop", "reject", "busy", "panic", "hang"]).await;
    world.start();
    world.until_settled().await;
    for body in ["ok", "drop", "reject", "busy", "panic", "hang"] {
        assert_eq!(world.settled(body), [Settlement::Ack], "{body}");
    }
    let mut classes: Vec<(String, String)> =
        world.dead().into_iter().map(|(body, class, _)| (body, class)).collect();
    classes.sort();
    let expected =
        [("busy", "exhausted"), ("hang", "exhausted"), ("panic", "exhausted"), ("reject", "rejected")];
    assert_eq!(classes, expected.map(|(body, class)| (body.to_owned(), class.to_owned())));
    assert_eq!(world.statuses("ok"), [MessageStatus::Ok]);
    assert_eq!(world.statuses("drop"), [MessageStatus::Dropped]);
    assert_eq!(world.statuses("reject"), [MessageStatus::DeadLettered]);
    let hung = &world.runs("hang")[0];
    assert!(hung.ended_at - hung.started_at >= 300_000, "the deadline is that of the plan");
    assert_eq!(hung.error.as_ref().unwrap().code, "deadline-passed");
    assert_eq!(hung.steps.len(), 1, "the steps of a handler that was dropped are on record");
    assert_eq!(world.dropped(), 2, "the one that hung, and the one that panicked");
    assert!(world.in_flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_message_breaks_is_its_own() {
    let mut world = World::new().acts([("bad", Act::Panics)]).with(|plan| plan.concurrency = 1);
    world.publish(["bad", "one", "two"]).await;
    world.start();
    world.until("the others", |world| world.calls_of("two") == 1).await;
    assert_eq!((world.calls_of("bad"), world.is("consuming")), (1, true), "the others do not wait for it");
    world.until_settled().await;
    assert_eq!((world.calls_of("bad"), world.dead()[0].1.as_str()), (9, "exhausted"));
    assert_eq!(world.status.reconnects.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_copy_is_confirmed_before_the_original_is_acked() {
    let mut world = World::new().acts([("bad", Act::Reject)]);
    world.publish(["bad"]).await;
    world.start();
    world.until_settled().await;
    let expected = [
        Event::Confirmed("in".into(), "bad".into()),
        Event::Confirmed("dead".into(), "bad".into()),
        Event::Settled("in".into(), "bad".into(), Settlement::Ack),
    ];
    assert_eq!(world.broker.events(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_broker_keeps_the_dead_letters_where_it_is_told_to() {
    let mut world =
        World::new().with(|plan| plan.dead_letter = DeadLetter::Broker).acts([("bad", Act::Reject)]);
    world.publish(["bad"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.settled("bad"), [Settlement::Reject]);
    assert_eq!(world.statuses("bad"), [MessageStatus::Rejected]);
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_dropped_is_acked_and_on_record() {
    let mut world =
        World::new().with(|plan| plan.dead_letter = DeadLetter::Drop).acts([("bad", Act::Reject)]);
    world.publish(["bad"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!((world.settled("bad"), world.depth("dead")), (vec![Settlement::Ack], 0));
    let run = &world.runs("bad")[0];
    assert_eq!((run.status, run.class), (MessageStatus::Dropped, Some("rejected")));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_never_read_into_a_pipeline() {
    let mut world = World::new().with(|plan| plan.message_bytes_max = 5);
    world.publish(["12345", "123456"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.bodies(), ["12345"]);
    assert_eq!(world.dead(), [("123456".into(), "rejected".into(), "too large".into())]);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_text_only_where_they_are() {
    let bytes = || Message { body: Bytes::from_static(b"\xff\xfe"), properties: Properties::default() };
    for binary in [false, true] {
        let mut world = World::new().with(|plan| plan.binary = binary);
        world.publish_message(bytes()).await;
        world.start();
        world.until_settled().await;
        assert_eq!(world.calls().len(), usize::from(binary));
        let dead = world.broker.messages("dead");
        assert_eq!(dead.len(), usize::from(!binary));
        if let [dead] = &dead[..] {
            assert_eq!(dead.body, bytes().body, "byte for byte");
            assert_eq!(
                dead.properties.headers.get("x-warren-reason"),
                Some(&HeaderValue::Text("not text".into()))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn auto_ack_acks_first_and_loses_what_fails() {
    let mut world = World::new().with(|plan| plan.auto_ack = true).acts([
        ("bad", Act::Reject),
        ("busy", Act::Busy(None)),
        ("wait", Act::Waits),
    ]);
    world.publish(["bad", "busy", "ok", "wait"]).await;
    world.start();
    world.until("the last", |world| world.calls_of("wait") == 1).await;
    assert_eq!(world.settled("wait"), [Settlement::Ack], "before its handler ended");
    world.release(1);
    world.until("all on record", |world| world.records.all().len() == 4).await;
    for (body, status) in
        [("bad", MessageStatus::Failed), ("busy", MessageStatus::Failed), ("ok", MessageStatus::Ok)]
    {
        assert_eq!(
            (world.settled(body), world.statuses(body)),
            (vec![Settlement::Ack], vec![status]),
            "{body}"
        );
        assert!(world.runs(body)[0].with_body, "so that it can be replayed");
    }
    assert_eq!(world.depth("dead") + world.delayed(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_worked_on_at_once_than_it_may() {
    let mut world = World::new().with(|plan| plan.concurrency = 3);
    world.otherwise(Act::Waits);
    world.publish((0..10).map(|at| at.to_string())).await;
    world.start();
    world.until("three", |world| world.running() == 3).await;
    passes(Duration::from_secs(5)).await;
    assert_eq!((world.running(), world.broker.unsettled(), world.depth("in")), (3, 3, 7));
    world.release(10);
    world.until_settled().await;
    assert_eq!((world.most(), world.calls().len()), (3, 10));
}

#[tokio::test(start_paused = true)]
async fn connection_errors_are_tried_again_in_place_and_count_once() {
    let mut world = World::new().acts([("in place", Act::Unreachable)]).with(|plan| {
        plan.retry.delays = vec![Duration::from_secs(10)];
    });
    world.publish(["in place"]).await;
    world.start();
    world.until_settled().await;
    // Three tries in each of two attempts.
    let tries: Vec<u32> = world.calls().into_iter().map(|(_, attempt)| attempt).collect();
    assert_eq!(tries, [1, 1, 1, 2, 2, 2]);
    assert_eq!(world.statuses("in place"), [MessageStatus::Retried, MessageStatus::DeadLettered]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_is_not_tried_again_in_place_and_is_told_with_the_dead_letter() {
    let mut world = World::new().acts([("m", Act::Answers503)]).with(|plan| plan.retry.delays.clear());
    world.publish(["m"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 1);
    let dead = world.broker.messages("dead").pop().unwrap();
    let headers = &dead.properties.headers;
    assert_eq!(headers.get("x-warren-status"), Some(&HeaderValue::I64(503)));
    assert_eq!(headers.get("x-warren-answer"), Some(&HeaderValue::Text("come back later".into())));
    let error = world.runs("m")[0].error.clone().unwrap();
    assert_eq!((error.status, error.answer.as_deref()), (Some(503), Some("come back later")));
}

#[tokio::test(start_paused = true)]
async fn tries_in_place_end_with_the_deadline() {
    let mut world = World::new().acts([("m", Act::Unreachable)]).with(|plan| {
        plan.max_timeout = Duration::from_millis(900);
        plan.retry.delays.clear();
    });
    world.publish(["m"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 2, "the try after 250 ms and not the one after another second");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_says_all_that_is_known() {
    let mut world = World::new().with(|plan| plan.retry.delays = vec![Duration::from_secs(10)]);
    world.otherwise(Act::Busy(None));
    let mut properties =
        Properties { message_id: Some("m1".into()), persistent: false, ..Properties::default() };
    properties.headers.set("tenant", HeaderValue::U16(7));
    world.publish_as("m", properties).await;
    world.start();
    world.until_settled().await;
    let dead = world.broker.messages("dead").pop().unwrap();
    assert_eq!((dead.properties.message_id.as_deref(), dead.properties.persistent), (Some("m1"), true));
    let headers = &dead.properties.headers;
    let number = |name: &str| match headers.get(name) {
        Some(HeaderValue::I64(number)) => *number,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(number("x-warren-attempts"), 2);
    assert!(number("x-warren-last-at") - number("x-warren-first-at") >= 10_000);
    assert_eq!(headers.get("x-warren-queue"), Some(&HeaderValue::Text("in".into())));
    assert_eq!(headers.get("x-warren-routing-key"), Some(&HeaderValue::Text("in".into())));
    assert_eq!(headers.get("x-warren-code"), Some(&HeaderValue::Text("broker-unreachable".into())));
    assert_eq!(headers.get("tenant"), Some(&HeaderValue::U16(7)));
    assert!(headers.get("x-death").is_none(), "what our own delay queue wrote is gone");
}

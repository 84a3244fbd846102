//! Copies that are not confirmed, records that cannot be written, channels that are gone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use warren_engine::consume::plan::Ordering;
use warren_engine::consume::policy::Class;
use warren_engine::consume::record::MessageStatus;
use warren_engine::consume::status::State;
use warren_engine::delivery::Settlement;
use warren_engine::memory::{Event, Fault};
use warren_engine::message::{HeaderValue, Headers, Properties};

use super::world::{Act, World, passes};

#[tokio::test(start_paused = true)]
async fn no_confirm_no_ack() {
    for fault in [Fault::Nack, Fault::NotWritten, Fault::LostConfirm, Fault::LostMessage] {
        let mut world = World::new().acts([("bad", Act::Reject)]);
        world.publish(["bad"]).await;
        world.broker.script([Some(fault); 5]);
        world.start();
        world.until("two tries", |world| world.broker.published() >= 3).await;
        assert_eq!(world.settled("bad"), [], "{fault:?}");
        assert_eq!(world.broker.unsettled(), 1, "its place is taken");
        assert!(world.status.trouble().is_some(), "and it shows");
        world.until_settled().await;
        assert_eq!(world.settled("bad"), [Settlement::Ack]);
        assert!(world.depth("dead") >= 1);
        assert!(world.status.trouble().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_queue_that_is_missing_is_made_or_waited_for() {
    let mut world = World::new().acts([("bad", Act::Reject)]);
    world.broker.delete("dead");
    world.broker.refuses_to_declare(true);
    world.publish(["bad", "good"]).await;
    world.start();
    world.until("trouble", |world| world.broker.published() >= 4).await;
    assert_eq!((world.settled("bad"), world.settled("good")), (vec![], vec![Settlement::Ack]));
    world.broker.refuses_to_declare(false);
    world.until_settled().await;
    assert_eq!(world.depth("dead"), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_settled_before_it_is_on_record() {
    let mut world = World::new();
    world.publish(["m"]).await;
    world.records.full(true);
    world.start();
    world.until("the call", |world| world.calls_of("m") == 1).await;
    passes(Duration::from_secs(300)).await;
    assert_eq!((world.settled("m"), world.calls_of("m")), (vec![], 1));
    world.records.full(false);
    world.until_settled().await;
    assert_eq!((world.settled("m"), world.calls_of("m")), (vec![Settlement::Ack], 1));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_late_is_recorded_and_settled_nowhere_else() {
    for act in [Act::Waits, Act::Hangs] {
        let fails = matches!(act, Act::Hangs);
        let mut world = World::new().acts([("m", act)]).with(|plan| {
            plan.max_timeout = Duration::from_secs(20);
        });
        world.publish(["m"]).await;
        world.start();
        world.until("the call", |world| world.running() == 1).await;
        // The connection goes; the message comes again while its first handler still runs.
        world.broker.disconnect();
        world.act("m", Act::Ok);
        world.until("the second call", |world| world.calls_of("m") == 2).await;
        world.release(1);
        world.until_settled().await;
        world.until("both on record", |world| world.runs("m").len() == 2).await;
        let mut statuses: Vec<&str> = world.statuses("m").into_iter().map(MessageStatus::as_str).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, ["late", "ok"]);
        assert_eq!(world.settled("m"), [Settlement::Ack], "once, on the second channel");
        assert_eq!((world.depth("dead"), world.delayed()), (0, 0), "no copy of it; fails: {fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_while_a_copy_waits_makes_no_second_copy() {
    let mut world = World::new().acts([("bad", Act::Reject)]);
    world.publish(["bad"]).await;
    world.broker.script(std::iter::repeat_n(Some(Fault::Nack), 3));
    world.start();
    world.until("a refused copy", |world| world.broker.published() == 2).await;
    world.broker.disconnect();
    world.until_settled().await;
    let copies = world
        .broker
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::Confirmed(queue, _) if queue == "dead"));
    assert_eq!(copies.count(), 1);
    assert_eq!(world.statuses("bad").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_parking_lot_holds_the_message() {
    use warren_engine::consume::plan::RetryMode;
    let mut world =
        World::new().acts([("m", Act::FailsTimes(1))]).with(|plan| plan.retry.mode = RetryMode::Parking);
    world.parking.full(true);
    world.publish(["m"]).await;
    world.start();
    world.until("trouble", |world| world.status.trouble().is_some()).await;
    assert_eq!((world.settled("m"), world.broker.unsettled()), (vec![], 1));
    world.parking.full(false);
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_a_state_and_no_end() {
    let mut world = World::new();
    world.broker.delete("in");
    world.start();
    world.until("waiting", |world| world.is("waiting")).await;
    assert_eq!(world.waits_for().unwrap().code.as_str(), "no-such-queue");
    passes(Duration::from_secs(3600)).await;
    assert!(world.is("waiting"));
    world.broker.declare("in");
    world.publish(["m"]).await;
    world.until_settled().await;
    assert!(world.is("consuming"));
    // Deleted under way, and made again.
    world.broker.delete("in");
    world.until("waiting", |world| world.is("waiting")).await;
    world.broker.declare("in");
    world.publish(["n"]).await;
    world.until_settled().await;
    assert_eq!(world.bodies(), ["m", "n"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_waited_for() {
    let mut world = World::new();
    world.publish(["m"]).await;
    world.broker.away(true);
    world.start();
    world.until("waiting", |world| world.is("waiting")).await;
    world.broker.away(false);
    world.until_settled().await;
    world.broker.disconnect();
    world.publish(["n"]).await;
    world.until_settled().await;
    assert_eq!(world.bodies(), ["m", "n"]);
}

/// Properties with a header of that size, and a history of a kilobyte that the broker wrote.
fn wide(bytes: usize) -> Properties {
    let death: Headers =
        [("reason".to_owned(), HeaderValue::Text("expired".repeat(150)))].into_iter().collect();
    let headers = [
        ("h".to_owned(), HeaderValue::Text("x".repeat(bytes))),
        ("x-death".to_owned(), HeaderValue::Array(vec![HeaderValue::Table(death)])),
    ];
    Properties { headers: headers.into_iter().collect(), ..Properties::default() }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_with_large_headers_goes_without_its_reason() {
    let mut world = World::new().acts([("bad", Act::Reject)]);
    world.publish_as("bad", wide(4_000)).await;
    world.publish(["good"]).await;
    world.broker.header_bytes_max(4_100);
    world.start();
    world.until_settled().await;
    assert_eq!((world.settled("bad"), world.settled("good")), (vec![Settlement::Ack], vec![Settlement::Ack]));
    let dead = world.broker.messages("dead");
    let names: Vec<&str> = dead[0].properties.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["h"]);
    assert!(world.status.trouble().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_fits_in_no_copy_is_parked_until_it_fits_and_not_run_again() {
    for ordering in [Ordering::None, Ordering::Key(Arc::new(super::again::Same))] {
        let mut world = World::new().acts([("bad", Act::Reject)]).with(|plan| plan.ordering = ordering);
        world.publish_as("bad", wide(5_000)).await;
        world.publish(["good", "better"]).await;
        world.broker.header_bytes_max(4_100);
        world.start();
        world.until("all settled", |world| world.broker.unsettled() == 0 && world.depth("in") == 0).await;
        for message in ["bad", "good", "better"] {
            assert_eq!(world.settled(message), [Settlement::Ack], "{message}");
        }
        // Three for the queue, and each copy once: it is not tried again soon.
        assert_eq!((world.broker.published(), world.depth("dead")), (3 + 2, 0));
        let parked = world.parking.all();
        assert_eq!(parked[0].parked.dead_lettered.as_ref().unwrap().class, Class::Rejected);
        assert_eq!((parked.len(), world.status.parked.load(Relaxed)), (1, 1));

        passes(Duration::from_secs(25 * 60 * 60)).await;
        assert_eq!(
            (world.parking.all().len(), world.calls_of("bad")),
            (1, 1),
            "still too large, and not run"
        );
        world.broker.header_bytes_max(1_000_000);
        passes(Duration::from_secs(25 * 60 * 60)).await;
        world.until("it is dead-lettered", |world| world.depth("dead") == 1).await;
        world.until("it is parked no more", |world| world.parking.all().is_empty()).await;
        let dead = world.broker.messages("dead").pop().unwrap();
        let class = dead.properties.headers.get("x-warren-class").cloned();
        assert_eq!(class, Some(HeaderValue::Text("rejected".into())));
        assert_eq!((world.calls_of("bad"), world.status.parked.load(Relaxed)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_of_a_copy_ends_when_the_broker_is_back() {
    let mut world = World::new().acts([("bad", Act::Reject)]).with(|plan| plan.concurrency = 1);
    world.publish(["bad", "good"]).await;
    world.broker.script([Some(Fault::Nack); 8]);
    world.start();
    // The pauses double from 1 s: the next is 60 s long.
    world.until("seven refused copies", |world| world.broker.published() == 2 + 7).await;
    let before = tokio::time::Instant::now();
    world.broker.disconnect();
    world.until_settled().await;
    assert_eq!((world.settled("good"), world.depth("dead")), (vec![Settlement::Ack], 1));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn consuming_resumes_within_seconds_of_a_long_outage() {
    let mut world = World::new();
    world.start();
    world.until("a consumer", |world| matches!(world.status.state(), State::Consuming)).await;
    world.broker.away(true);
    passes(Duration::from_secs(300)).await;
    world.broker.away(false);
    let back = tokio::time::Instant::now();
    world.publish(["m"]).await;
    world.until_settled().await;
    assert_eq!(world.settled("m"), [Settlement::Ack]);
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
}

/// The retry's copy goes without history, and where that is not enough the message is parked; the next one uses the delay queue.
#[tokio::test(start_paused = true)]
async fn a_retry_whose_copy_does_not_fit_is_parked() {
    for (bytes, mechanism) in [(3_500, 0), (4_050, 1)] {
        let mut world = World::new();
        world.otherwise(Act::FailsTimes(1));
        world.publish_as("wide", wide(bytes)).await;
        world.broker.header_bytes_max(4_100);
        world.start();
        world.until("the first try", |world| world.calls_of("wide") == 1).await;
        world.until("it waits", |world| world.delayed() + world.parking.all().len() == 1).await;
        assert_eq!(world.parking.all().len(), mechanism, "{bytes}");
        world.publish(["slim"]).await;
        world.until_settled().await;
        assert_eq!((world.calls_of("wide"), world.calls_of("slim"), world.depth("dead")), (2, 2, 0));
        assert_eq!(world.status.mechanism().unwrap().as_str(), "delay_queues");
    }
}

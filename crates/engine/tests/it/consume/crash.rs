//! The process dies, at each point of a message's way.

use std::time::Duration;

use warren_engine::consume::record::MessageStatus;
use warren_engine::memory::Fault;

use super::world::{Act, World, passes};

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_the_process_three_times_is_dead_lettered_and_the_queue_goes_on() {
    let mut world = World::new().acts([("poison", Act::Hangs)]);
    world.publish(["good0", "poison", "good1"]).await;
    for death in 1..=3 {
        world.start();
        world.until("it runs", |world| world.running() == 1 && world.calls_of("poison") == death).await;
        world.kill().await;
    }
    world.publish(["good2"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("poison"), 3);
    let (body, class, reason) = world.dead().pop().unwrap();
    assert_eq!((body.as_str(), class.as_str()), ("poison", "crashed"));
    assert!(reason.contains("3 times"), "{reason}");
    assert_eq!(world.statuses("good2"), [MessageStatus::Ok]);
    assert_eq!(world.statuses("good1"), [MessageStatus::Ok]);
}

#[tokio::test(start_paused = true)]
async fn suspects_run_alone() {
    let mut world = World::new();
    world.otherwise(Act::Waits);
    world.publish(["a", "b", "c"]).await;
    world.start();
    world.until("three", |world| world.running() == 3).await;
    world.kill().await;
    world.publish(["d", "e"]).await;
    world.start();
    for before in 3..6 {
        world.until("one", |world| world.calls().len() == before + 1 && world.running() == 1).await;
        passes(Duration::from_secs(5)).await;
        assert_eq!((world.running(), world.calls().len()), (1, before + 1));
        world.release(1);
    }
    world.until("the others beside each other", |world| world.running() == 2).await;
    world.release(2);
    world.until_settled().await;
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_may_run_twice_a_crash_is_the_end_of_what_ran_and_of_nothing_else() {
    let mut world = World::new().acts([("ran", Act::Hangs)]).with(|plan| {
        plan.allow_redelivery = false;
        plan.concurrency = 1;
    });
    world.publish(["ran", "not"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    world.kill().await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("ran"), 1);
    assert_eq!(world.dead()[0].1, "crashed");
    assert_eq!(world.calls_of("not"), 1);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_may_run_twice_an_unknown_outcome_is_dead_lettered() {
    let mut world = World::new().acts([("m", Act::Waits)]).with(|plan| plan.allow_redelivery = false);
    world.publish(["m"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    world.broker.disconnect();
    world.until("dead", |world| world.depth("dead") == 1).await;
    world.release(1);
    world.until_settled().await;
    assert_eq!((world.calls_of("m"), world.dead()[0].1.as_str()), (1, "unknown"));
}

/// What a process may be in the midst of when it dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Point {
    BeforeHandler,
    InHandler,
    BeforeRecord,
    CopyNotPublished,
    CopyPublishedNotConfirmed,
    BeforeAck,
}

/// The outcome × crash-point table: whatever dies when, the message ends acked, retried or dead-lettered with the right reason.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whatever_dies_when() {
    let points = [
        Point::BeforeHandler,
        Point::InHandler,
        Point::BeforeRecord,
        Point::CopyNotPublished,
        Point::CopyPublishedNotConfirmed,
        Point::BeforeAck,
    ];
    for act in [Act::Ok, Act::Drop, Act::Reject, Act::FailsTimes(1)] {
        for (parking, point) in points.into_iter().flat_map(|point| [(false, point), (true, point)]) {
            let copies = match act {
                Act::Reject => true,
                Act::FailsTimes(_) => !parking,
                _ => false,
            };
            dies(&act, parking, point, copies).await;
        }
    }
}

async fn dies(act: &Act, parking: bool, point: Point, copies: bool) {
    let mut world = World::new();
    world.broker.refuses_to_declare(parking);
    world.publish(["m"]).await;
    // Held up at the point ...
    match point {
        Point::BeforeHandler => {}
        Point::InHandler => world.act("m", Act::Hangs),
        Point::BeforeRecord => world.records.full(true),
        Point::CopyNotPublished => world.broker.script([Some(Fault::NotWritten)]),
        Point::CopyPublishedNotConfirmed | Point::BeforeAck => world.broker.hold(true),
    }
    if point != Point::InHandler {
        world.act("m", act.clone());
    }
    if point == Point::BeforeHandler {
        // Received, and the process dies before anything else.
        let mut consumer = warren_engine::ports::Broker::consume(&*world.broker, "in", 1).await.unwrap();
        drop(consumer.next().await.unwrap());
        world.broker.disconnect();
        drop(consumer);
    } else {
        world.start();
        world
            .until("the point", |world| match point {
                Point::BeforeHandler => true,
                Point::InHandler => world.running() == 1,
                Point::BeforeRecord => world.calls_of("m") > 0 && world.status.trouble().is_some(),
                Point::CopyNotPublished => {
                    world.broker.published() == 2 || (!copies && !world.records.all().is_empty())
                }
                Point::CopyPublishedNotConfirmed | Point::BeforeAck => {
                    if copies {
                        world.broker.published() == 2
                    } else {
                        !world.records.all().is_empty()
                    }
                }
            })
            .await;
        // ... and dead.
        world.kill().await;
    }
    world.broker.script_is_over();
    world.broker.hold(false);
    world.records.full(false);
    world.act("m", act.clone());
    world.start();
    world.until_settled().await;
    world.until("a record", |world| !world.runs("m").is_empty()).await;
    let shown = format!("{point:?}, parking {parking}: {:?}", world.statuses("m"));
    let last = *world.statuses("m").last().unwrap();
    let dead = world.depth("dead");
    match act {
        Act::Ok => assert_eq!((last, dead), (MessageStatus::Ok, 0), "{shown}"),
        Act::Drop => assert_eq!((last, dead), (MessageStatus::Dropped, 0), "{shown}"),
        // At least once: a copy whose confirm nobody lived to see is there, and another.
        Act::Reject => {
            assert!(last == MessageStatus::DeadLettered && (1..=2).contains(&dead), "{shown}");
            assert!(world.dead().iter().all(|(_, class, _)| class == "rejected"), "{shown}");
        }
        _ => assert_eq!((last, dead), (MessageStatus::Ok, 0), "{shown}"),
    }
    world.stop().await;
}

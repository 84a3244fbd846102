//! The schedule, by each mechanism.

use std::time::Duration;

use warren_engine::consume::plan::RetryMode;
use warren_engine::consume::record::MessageStatus;
use warren_engine::delivery::Settlement;
use warren_engine::memory::Fault;

use super::world::{Act, World};

/// The attempts of one message, and the whole seconds between their starts.
fn pauses(world: &World, body: &str) -> Vec<u64> {
    let starts: Vec<i64> = world.runs(body).iter().map(|run| run.started_at).collect();
    starts.windows(2).map(|pair| ((pair[1] - pair[0]) as u64 + 500) / 1000).collect()
}

const SCHEDULE: [u64; 8] = [10, 30, 120, 600, 1800, 3600, 7200, 14400];

async fn walks_the_schedule(world: &mut World) {
    world.otherwise(Act::FailsTimes(100));
    world.publish(["m"]).await;
    world.start();
    world.until("the dead letter", |world| world.depth("dead") == 1).await;
    world.until_settled().await;
    assert_eq!(pauses(world, "m"), SCHEDULE);
    let attempts: Vec<u32> = world.calls().into_iter().map(|(_, attempt)| attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let (_, class, reason) = &world.dead()[0];
    assert_eq!((class.as_str(), reason.starts_with("failed 9 times")), ("exhausted", true), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn by_delay_queues_where_they_may_be_made() {
    let mut world = World::new();
    walks_the_schedule(&mut world).await;
    assert_eq!(world.status.mechanism().unwrap().as_str(), "delay_queues");
    assert!(world.settled("m").iter().all(|how| *how == Settlement::Ack));
}

#[tokio::test(start_paused = true)]
async fn by_the_parking_lot_where_they_may_not() {
    let mut world = World::new();
    world.broker.refuses_to_declare(true);
    walks_the_schedule(&mut world).await;
    let mechanism = world.status.mechanism().unwrap();
    assert_eq!(mechanism.as_str(), "parking");
    assert!(format!("{mechanism:?}").contains("access-refused"), "and it says why");
    assert_eq!(world.settled("m"), [Settlement::Ack]);
}

/// A delay queue that takes copies and never confirms one must not hold a trigger for ever. What it has may come as well.
#[tokio::test(start_paused = true)]
async fn by_the_parking_lot_where_a_delay_queue_falls_silent() {
    let mut world = World::new();
    world.otherwise(Act::FailsTimes(1));
    world.publish(["m"]).await;
    world.broker.script([Some(Fault::Silence); 2]);
    world.start();
    world.until("a success", |world| world.calls().len() >= 2).await;
    world.until_settled().await;
    let mechanism = world.status.mechanism().unwrap();
    assert_eq!(mechanism.as_str(), "parking");
    assert!(format!("{mechanism:?}").contains("publish-timeout"), "and it says why");
    assert_eq!(world.settled("m").last(), Some(&Settlement::Ack));
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn where_delay_queues_are_asked_for_a_silent_one_is_waited_for() {
    let mut world = World::new().with(|plan| plan.retry.mode = RetryMode::DelayQueues);
    world.otherwise(Act::FailsTimes(1));
    world.publish(["m"]).await;
    world.broker.script([Some(Fault::Silence); 3]);
    world.start();
    world.until("a success", |world| world.calls().len() >= 2).await;
    world.until_settled().await;
    assert_eq!(world.status.mechanism().unwrap().as_str(), "delay_queues");
}

#[tokio::test(start_paused = true)]
async fn by_the_broker_where_it_can_delay() {
    let mut world = World::new();
    world.broker.can_delay(true);
    // It counts, as SQS does.
    world.broker.delete("in");
    world.broker.declare_counting("in");
    walks_the_schedule(&mut world).await;
    assert_eq!(world.status.mechanism().unwrap().as_str(), "visibility");
}

#[tokio::test(start_paused = true)]
async fn by_the_parking_lot_where_that_is_asked_for() {
    let mut world = World::new().with(|plan| plan.retry.mode = RetryMode::Parking);
    walks_the_schedule(&mut world).await;
    assert_eq!(world.settled("m"), [Settlement::Ack]);
}

#[tokio::test(start_paused = true)]
async fn by_the_brokers_own_behaviour_where_that_is_asked_for() {
    let mut world = World::new().with(|plan| plan.retry.mode = RetryMode::Requeue);
    world.otherwise(Act::FailsTimes(3));
    world.publish(["m"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(
        world.settled("m"),
        [Settlement::Requeue, Settlement::Requeue, Settlement::Requeue, Settlement::Ack]
    );
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_to_by_each_mechanism() {
    for parking in [false, true] {
        let mut world = World::new().acts([("m", Act::Busy(Some(95)))]).with(|plan| {
            plan.retry.delays = vec![Duration::from_secs(10), Duration::from_secs(600)];
        });
        world.broker.refuses_to_declare(parking);
        world.publish(["m"]).await;
        world.start();
        world.until_settled().await;
        assert_eq!(pauses(&world, "m"), [95, 600]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_works_in_the_end_is_acked_and_nothing_is_left_of_it() {
    for parking in [false, true] {
        let mut world = World::new().acts([("m", Act::FailsTimes(2))]);
        world.broker.refuses_to_declare(parking);
        world.publish(["m", "other"]).await;
        world.start();
        world.until("three attempts", |world| world.calls_of("m") == 3).await;
        world.until_settled().await;
        assert_eq!(world.statuses("m"), [MessageStatus::Retried, MessageStatus::Retried, MessageStatus::Ok]);
        assert!(world.runs("m")[0].next_at.is_some());
        assert_eq!(world.depth("dead"), 0);
        assert!(world.runs("m")[2].started_at - world.runs("other")[0].ended_at >= 40_000, "others go on");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_outlives_the_process() {
    let mut world = World::new().acts([("m", Act::FailsTimes(1))]).with(|plan| {
        plan.retry.mode = RetryMode::Parking;
    });
    world.publish(["m"]).await;
    world.start();
    world.until("parked", |world| world.parking.all().len() == 1).await;
    world.stop().await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls(), [("m".to_owned(), 1), ("m".to_owned(), 2)]);
    assert_eq!(pauses(&world, "m"), [10]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_message_that_is_given_up_goes_through_the_brokers_dead_letters() {
    use warren_engine::consume::plan::DeadLetter;
    let mut world = World::new().with(|plan| {
        plan.retry.mode = RetryMode::Parking;
        plan.retry.delays = vec![Duration::from_secs(10)];
        plan.dead_letter = DeadLetter::Broker;
    });
    world.otherwise(Act::FailsTimes(9));
    world.publish(["m"]).await;
    world.start();
    world.until("rejected", |world| world.settled("m").contains(&Settlement::Reject)).await;
    world.until_settled().await;
    assert_eq!(world.calls().len(), 2, "it was not handled once more for that");
}

#[tokio::test(start_paused = true)]
async fn without_redelivery_an_error_is_the_end() {
    let mut world = World::new().acts([("m", Act::Unreachable)]).with(|plan| plan.allow_redelivery = false);
    world.publish(["m"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 1, "not even in place");
    assert_eq!(world.dead()[0].1, "error");
}

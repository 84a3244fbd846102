//! Stopping in good order.

use warren_engine::consume::record::MessageStatus;
use warren_engine::delivery::Settlement;

use super::world::{Act, World};

#[tokio::test(start_paused = true)]
async fn what_runs_is_finished_and_the_rest_stays_in_the_queue() {
    let mut world = World::new().with(|plan| plan.concurrency = 2);
    world.otherwise(Act::Waits);
    world.publish(["a", "b", "c", "d"]).await;
    world.start();
    world.until("two", |world| world.running() == 2).await;
    world.ask_to_stop();
    world.until("draining", |world| world.is("draining")).await;
    world.release(2);
    world.stop().await;
    assert_eq!((world.settled("a"), world.settled("b")), (vec![Settlement::Ack], vec![Settlement::Ack]));
    assert_eq!((world.bodies().len(), world.depth("in"), world.broker.unsettled()), (2, 2, 0));
    assert!(world.is("stopped") && world.in_flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_dropped_and_handed_back() {
    let mut world = World::new().acts([("slow", Act::Hangs)]);
    world.publish(["slow"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    let before = world.seconds();
    world.stop().await;
    assert_eq!(world.seconds() - before, 30, "the grace");
    assert_eq!(
        (world.settled("slow"), world.depth("in"), world.dropped()),
        (vec![Settlement::Requeue], 1, 1)
    );
    assert_eq!(world.status.ended(MessageStatus::HandedBack), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nobody_confirms_does_not_hold_up_the_end() {
    let mut world = World::new().acts([("bad", Act::Reject)]);
    world.publish(["bad"]).await;
    world.broker.delete("dead");
    world.broker.refuses_to_declare(true);
    world.start();
    world.until("trouble", |world| world.broker.published() >= 2).await;
    world.stop().await;
    assert_eq!((world.settled("bad"), world.depth("in")), (vec![Settlement::Requeue], 1));
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_makes_nothing_suspect() {
    let mut world = World::new().acts([("slow", Act::Hangs)]).with(|plan| plan.concurrency = 2);
    world.publish(["slow"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    world.stop().await;
    world.in_flight.crash();
    world.act("slow", Act::Ok);
    world.publish(["other"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!(world.calls_of("slow"), 2);
    assert_eq!(world.statuses("slow"), [MessageStatus::Ok]);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_started_may_run_even_where_nothing_may_run_twice() {
    use warren_engine::consume::plan::Ordering;
    let mut world = World::new().acts([("a", Act::Waits)]).with(|plan| {
        plan.allow_redelivery = false;
        plan.ordering = Ordering::Queue;
    });
    world.publish(["a", "b"]).await;
    world.start();
    world.until("both are here", |world| world.running() == 1 && world.broker.unsettled() == 2).await;
    world.ask_to_stop();
    world.until("draining", |world| world.is("draining")).await;
    world.release(1);
    world.stop().await;
    world.start();
    world.until_settled().await;
    assert_eq!((world.bodies(), world.depth("dead")), (vec!["a".to_owned(), "b".into()], 0));
}

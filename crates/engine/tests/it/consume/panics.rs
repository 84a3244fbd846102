//! Bugs of our own: a task that panics outside its handler frees all it held.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::consume::plan::{KeyOf, Ordering, RetryMode};
use warren_engine::delivery::Job;
use warren_engine::failure::Failure;

use super::world::{Act, World, passes};

/// One lane for all.
struct Same;

#[async_trait]
impl KeyOf for Same {
    async fn key(&self, _: &Job, _: i64) -> Result<String, Failure> {
        Ok("same".to_owned())
    }
}

fn orderings() -> [Ordering; 3] {
    [Ordering::None, Ordering::Queue, Ordering::Key(Arc::new(Same))]
}

/// Where the task of `m` panics.
#[derive(Debug, Clone, Copy)]
enum Where {
    BeforeTheDecision,
    WhileRecording,
    WhileParking,
}

impl Where {
    fn panics(self, world: &World, times: u32) {
        match self {
            Where::BeforeTheDecision => world.dice_panics.store(times as usize, SeqCst),
            Where::WhileRecording => world.records.panics(times),
            Where::WhileParking => world.parking.panics(times),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_frees_its_lane_and_its_message_is_tried_again() {
    for place in [Where::BeforeTheDecision, Where::WhileRecording, Where::WhileParking] {
        for ordering in orderings() {
            for times in [1, 2, 3] {
                let mut world = World::new().acts([("m", Act::FailsTimes(1))]).with(|plan| {
                    plan.ordering = ordering.clone();
                    plan.concurrency = 1;
                    plan.retry.mode = RetryMode::Parking;
                });
                world.publish(["m", "n"]).await;
                place.panics(&world, times);
                world.start();
                world.until("the other", |world| world.calls_of("n") > 0).await;
                world.until_settled().await;
                let shown = format!("{place:?} {ordering:?} {times}");
                assert!(world.calls_of("m") >= 1 && world.in_flight.is_empty(), "{shown}");
                assert_eq!(world.depth("dead"), 0, "{shown}");
                world.stop().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_message_whose_task_panics_stays_parked_and_is_tried_again() {
    for times in [1, 2, 3] {
        let mut world = World::new().acts([("m", Act::FailsTimes(1))]).with(|plan| {
            plan.ordering = Ordering::Key(Arc::new(Same));
        });
        world.publish(["m", "n"]).await;
        world.start();
        world.until("both are parked", |world| world.parking.all().len() == 2).await;
        world.records.panics(times);
        world.until("the other", |world| world.calls_of("n") == 1).await;
        world.until_settled().await;
        assert!(world.in_flight.is_empty());
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_task_panics_is_followed_by_another() {
    let mut world = World::new();
    world.otherwise(Act::Busy(None));
    world.publish((0..30).map(|at| at.to_string())).await;
    world.start();
    world.until("the pause", |world| world.is("paused")).await;
    let before = world.calls().len();
    world.dice_panics.store(2, SeqCst);
    passes(Duration::from_secs(60)).await;
    assert!(world.calls().len() >= before + 4, "{:?}", world.calls());
    world.otherwise(Act::Ok);
    world.until_settled().await;
    assert!(world.is("consuming") && world.in_flight.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_whose_task_panics_does_not_stop_the_others() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    world.kill().await;
    world.act("m", Act::Ok);
    world.dice_panics.store(1, SeqCst);
    world.publish(["n"]).await;
    world.start();
    world.until("the other", |world| world.calls_of("n") == 1).await;
    world.until_settled().await;
    world.stop().await;
}

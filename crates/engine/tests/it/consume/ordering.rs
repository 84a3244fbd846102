//! Lanes, and what waits for what.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::consume::plan::{KeyOf, Ordering, RetryMode};
use warren_engine::consume::worker::LANE_PARKED_MAX;
use warren_engine::delivery::Job;
use warren_engine::failure::{Failure, FailureKind};

use super::world::{Act, World, passes};

/// The key is what stands before the dash.
struct BeforeDash;

#[async_trait]
impl KeyOf for BeforeDash {
    async fn key(&self, job: &Job, _: i64) -> Result<String, Failure> {
        let body = String::from_utf8_lossy(&job.message.body).into_owned();
        let no_key = || Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, "find the key");
        body.split_once('-').map(|(key, _)| key.to_owned()).ok_or_else(no_key)
    }
}

fn by_key() -> Ordering {
    Ordering::Key(Arc::new(BeforeDash))
}

fn of(world: &World, key: &str) -> Vec<String> {
    world.bodies().into_iter().filter(|body| body.starts_with(key)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_queue_in_order_is_worked_on_one_by_one() {
    let mut world = World::new().with(|plan| plan.ordering = Ordering::Queue);
    let bodies: Vec<String> = (0..30).map(|at| at.to_string()).collect();
    world.publish(bodies.clone()).await;
    world.start();
    world.until_settled().await;
    assert_eq!((world.bodies(), world.most()), (bodies, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_holds_up_its_queue_and_nothing_overtakes_it() {
    let mut world =
        World::new().with(|plan| plan.ordering = Ordering::Queue).acts([("1", Act::FailsTimes(2))]);
    world.publish(["0", "1", "2", "3"]).await;
    world.start();
    world.until("parked", |world| world.parking.all().len() == 1).await;
    world.until("all", |world| world.calls_of("3") == 1).await;
    world.until_settled().await;
    assert_eq!(world.bodies(), ["0", "1", "1", "1", "2", "3"]);
    assert_eq!(world.delayed(), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_go_beside_each_other_and_each_in_order() {
    let mut world = World::new().with(|plan| plan.ordering = by_key()).acts([("a-1", Act::Waits)]);
    world.publish(["a-1", "a-2", "b-1", "b-2", "c-1"]).await;
    world.start();
    world.until("the others", |world| world.calls_of("b-2") == 1 && world.calls_of("c-1") == 1).await;
    assert_eq!(of(&world, "a"), ["a-1"]);
    world.release(1);
    world.until_settled().await;
    assert_eq!(
        (of(&world, "a"), of(&world, "b")),
        (vec!["a-1".to_owned(), "a-2".into()], vec!["b-1".to_owned(), "b-2".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_parks_its_lane_and_no_other() {
    // More than the prefetch behind the one that fails: they must not take the others' places.
    let mut world = World::new().acts([("a-0", Act::FailsTimes(3))]).with(|plan| {
        plan.ordering = by_key();
        plan.concurrency = 2;
    });
    let bodies: Vec<String> =
        (0..8).map(|at| format!("a-{at}")).chain(["b-0".to_owned(), "b-1".to_owned()]).collect();
    world.publish(bodies.clone()).await;
    world.start();
    world.until("the other key", |world| world.calls_of("b-1") == 1).await;
    assert!(world.calls_of("a-0") < 4, "while the first one waits");
    assert_eq!(world.calls_of("a-1"), 0);
    // The process ends meanwhile; what is parked keeps its order.
    world.stop().await;
    world.publish(["a-8"]).await;
    world.start();
    world.until("the last", |world| world.calls_of("a-8") == 1).await;
    world.until_settled().await;
    let expected: Vec<String> =
        ["a-0"; 3].into_iter().map(str::to_owned).chain((0..9).map(|at| format!("a-{at}"))).collect();
    assert_eq!(of(&world, "a"), expected);
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_key_is_rejected() {
    let mut world = World::new().with(|plan| plan.ordering = by_key());
    world.publish(["nokey", "a-1"]).await;
    world.start();
    world.until_settled().await;
    assert_eq!((world.bodies(), world.dead()[0].1.as_str()), (vec!["a-1".to_owned()], "rejected"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_too_long_is_dead_lettered_and_not_run() {
    let mut world = World::new().acts([("a-1", Act::Waits), ("a-2", Act::Waits)]).with(|plan| {
        plan.ordering = by_key();
        plan.expiration = Some(Duration::from_secs(60));
        plan.max_timeout = Duration::from_secs(1000);
    });
    world.publish(["a-1", "a-2"]).await;
    world.start();
    world.until("the first", |world| world.running() == 1).await;
    passes(Duration::from_secs(61)).await;
    world.release(1);
    world.until_settled().await;
    assert_eq!(world.bodies(), ["a-1"]);
    assert_eq!(world.dead()[0].1, "expired");
}

#[tokio::test(start_paused = true)]
async fn without_an_expiration_it_waits_for_ever() {
    let mut world = World::new().acts([("a-1", Act::Waits)]).with(|plan| {
        plan.ordering = by_key();
        plan.expiration = None;
        plan.max_timeout = Duration::from_secs(100_000);
    });
    world.publish(["a-1", "a-2"]).await;
    world.start();
    world.until("the first", |world| world.running() == 1).await;
    passes(Duration::from_secs(90_000)).await;
    world.release(1);
    world.until_settled().await;
    assert_eq!(world.bodies(), ["a-1", "a-2"]);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_trigger_makes_no_delay_queues() {
    let mut world = World::new().acts([("a-1", Act::FailsTimes(1))]).with(|plan| plan.ordering = by_key());
    world.publish(["a-1", "a-2"]).await;
    world.start();
    world.until_settled().await;
    world.until("all", |world| world.calls_of("a-2") == 1).await;
    assert_eq!((world.bodies(), world.delayed()), (vec!["a-1".to_owned(), "a-1".into(), "a-2".into()], 0));
    assert!(!RetryMode::Auto.makes_queues(&Ordering::Queue));
}

/// A key that fails, with more of its messages than may be parked behind it, and others.
async fn flooded(concurrency: u16, beyond: usize) -> World {
    let mut world = World::new().acts([("a-0", Act::Busy(None))]).with(|plan| {
        plan.ordering = by_key();
        plan.concurrency = concurrency;
        // Once a day, so that it fails for as long as a test wants it to.
        plan.retry.delays = vec![Duration::from_secs(86_400); 3];
    });
    world.publish((0..LANE_PARKED_MAX as usize + beyond).map(|at| format!("a-{at}"))).await;
    world.start();
    world.until("the bound", |world| world.status.full_lanes.load(Relaxed) == 1).await;
    world
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_of_one_key_has_a_bound_and_others_go_on() {
    let mut world = flooded(4, 3).await;
    assert_eq!(
        (world.parking.all().len() as u64, world.status.parked.load(Relaxed)),
        (LANE_PARKED_MAX, 1000)
    );
    world.until("the rest is held", |world| world.broker.unsettled() == 3).await;
    assert_eq!(world.status.trouble().unwrap().code, codes::KEY_BACKLOG);
    // One place is left for the others.
    world.publish((0..50).map(|at| format!("b-{at}"))).await;
    world.until("the others", |world| world.calls_of("b-49") == 1).await;
    assert!(world.is("consuming"));
    assert_eq!((world.parking.all().len() as u64, world.calls_of("a-1")), (LANE_PARKED_MAX, 0));
    // It is mended, and all of them go through in order.
    world.act("a-0", Act::Ok);
    world.until("the last", |world| world.calls_of("a-1002") == 1).await;
    world.until_settled().await;
    let expected: Vec<String> =
        std::iter::once("a-0".to_owned()).chain((0..1003).map(|at| format!("a-{at}"))).collect();
    assert_eq!(of(&world, "a"), expected);
    assert_eq!((world.status.full_lanes.load(Relaxed), world.status.parked.load(Relaxed)), (0, 0));
    assert!(world.status.trouble().is_none());
    assert_eq!(world.depth("dead"), 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_beyond_the_bound_goes_back_before_the_broker_takes_it() {
    let world = flooded(4, 10).await;
    world.until("the prefetch is full", |world| world.broker.unsettled() == 4).await;
    passes(Duration::from_secs(9 * 60)).await;
    assert_eq!((world.broker.unsettled(), world.is("consuming")), (4, true));
    world.until("it rests", |world| world.is("waiting")).await;
    assert_eq!(world.waits_for().unwrap().code, codes::KEY_BACKLOG);
    assert_eq!((world.broker.unsettled(), world.depth("in")), (0, 10));
    // For hours, without taking and giving back.
    let received = world.status.received.load(Relaxed);
    passes(Duration::from_secs(6 * 3600)).await;
    assert_eq!((world.status.received.load(Relaxed), world.is("waiting")), (received, true));
    // The lane is worked on all the same, and at half of the bound there is room again.
    world.act("a-0", Act::Ok);
    world.until("the half", |world| world.calls_of("a-499") == 1).await;
    world.until("the last", |world| world.calls_of("a-1009") == 1).await;
    world.until_settled().await;
    let expected: Vec<String> =
        std::iter::once("a-0".to_owned()).chain((0..1010).map(|at| format!("a-{at}"))).collect();
    assert_eq!(of(&world, "a"), expected);
    assert_eq!((world.is("consuming"), world.depth("dead")), (true, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_key_is_full_after_a_restart_too() {
    let mut world = flooded(4, 3).await;
    world.until("the rest is held", |world| world.broker.unsettled() == 3).await;
    world.stop().await;
    assert_eq!((world.parking.all().len() as u64, world.depth("in")), (LANE_PARKED_MAX, 3));
    world.start();
    world.until("the rest is held", |world| world.broker.unsettled() == 3).await;
    assert_eq!(world.parking.all().len() as u64, LANE_PARKED_MAX);
    world.broker.disconnect();
    world.until("consuming", |world| world.is("consuming") && world.broker.unsettled() == 3).await;
    world.act("a-0", Act::Ok);
    world.until("the last", |world| world.calls_of("a-1002") == 1).await;
    world.until_settled().await;
    let expected: Vec<String> =
        std::iter::once("a-0".to_owned()).chain((0..1003).map(|at| format!("a-{at}"))).collect();
    assert_eq!(of(&world, "a"), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_unread_is_not_parked_behind_its_key() {
    let mut world = World::new().acts([("a-0", Act::FailsTimes(2))]).with(|plan| {
        plan.ordering = by_key();
        plan.message_bytes_max = 100;
    });
    let large = format!("a-{}", "x".repeat(200));
    world.publish(["a-0".to_owned(), large.clone(), "a-1".to_owned()]).await;
    world.start();
    world.until("the dead letter", |world| world.depth("dead") == 1).await;
    assert_eq!(world.calls_of("a-1"), 0, "its key still waits");
    world.until_settled().await;
    world.until("the last", |world| world.calls_of("a-1") == 1).await;
    assert_eq!((world.calls_of(&large), world.dead()[0].2.as_str()), (0, "too large"));
}

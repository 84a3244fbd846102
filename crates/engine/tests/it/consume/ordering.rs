//! Lanes, and what waits for what.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::consume::plan::{KeyOf, Ordering, RetryMode};
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

const PARKED_MAX: u64 = 50;

/// A key that fails, with more of its messages than may be parked behind it.
async fn flooded(concurrency: u16, beyond: usize) -> World {
    let mut world = World::new().acts([("a-0", Act::Busy(None))]).with(|plan| {
        plan.ordering = by_key();
        plan.concurrency = concurrency;
        plan.parking.messages = PARKED_MAX;
        // Once a day, so that it fails for as long as a test wants it to.
        plan.retry.delays = vec![Duration::from_secs(86_400); 3];
    });
    world.publish((0..PARKED_MAX as usize + beyond).map(|at| format!("a-{at}"))).await;
    world.start();
    world.until("the overflow", |world| world.depth("dead") == beyond).await;
    world
}

fn overflow(beyond: usize) -> Vec<String> {
    (0..beyond).map(|at| format!("a-{}", PARKED_MAX as usize + at)).collect()
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_a_key_is_dead_lettered_in_order_and_others_flow() {
    for concurrency in [1, 4] {
        let mut world = flooded(concurrency, 30).await;
        let dead: Vec<String> = world.dead().into_iter().map(|(body, ..)| body).collect();
        assert_eq!(dead, overflow(30), "in order");
        assert!(world.dead().iter().all(|(_, class, _)| class == "backlog"));
        assert_eq!((world.parking.all().len() as u64, world.broker.unsettled()), (PARKED_MAX, 0));
        assert_eq!(world.status.full_lanes.load(Relaxed), 1);
        assert_eq!(world.status.trouble().unwrap().code, codes::KEY_BACKLOG);
        // For hours, with more of the bad key all the time.
        for hour in 0..6 {
            let (one, other) = (hour * 20, hour * 20 + 20);
            world.publish((one..other).flat_map(|at| [format!("b-{at}"), format!("a-x{at}")])).await;
            let before = world.seconds();
            world.until("the other key", |world| world.calls_of(&format!("b-{}", other - 1)) == 1).await;
            assert!(world.seconds() - before < 2, "it waits for nobody");
            passes(Duration::from_secs(3600)).await;
            assert!(world.is("consuming") && world.broker.unsettled() == 0);
        }
        let expected: Vec<String> = (0..120).map(|at| format!("b-{at}")).collect();
        assert_eq!(of(&world, "b"), expected);
        // It works again, and what is parked goes through in order.
        world.act("a-0", Act::Ok);
        world.until("the last", |world| world.calls_of("a-49") == 1).await;
        world.until_settled().await;
        let parked = (0..PARKED_MAX).map(|at| format!("a-{at}"));
        let expected: Vec<String> = std::iter::once("a-0".to_owned()).chain(parked).collect();
        assert_eq!(of(&world, "a"), expected);
        assert_eq!((world.status.full_lanes.load(Relaxed), world.status.parked.load(Relaxed)), (0, 0));
        assert!(world.status.trouble().is_none());
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_that_is_full_takes_nothing_from_another_that_fails() {
    let mut world = World::new().acts([("a-0", Act::Busy(None)), ("c-0", Act::FailsTimes(1))]).with(|plan| {
        plan.ordering = by_key();
        plan.concurrency = 2;
        plan.parking.messages = 5;
        plan.retry.delays = vec![Duration::from_secs(3600); 3];
    });
    world.publish((0..20).map(|at| format!("a-{at}"))).await;
    world.publish((0..4).map(|at| format!("c-{at}"))).await;
    world.start();
    world.until("the overflow", |world| world.depth("dead") == 15).await;
    world.until("the other key", |world| world.calls_of("c-3") == 1).await;
    assert_eq!(of(&world, "c"), ["c-0", "c-0", "c-1", "c-2", "c-3"]);
    assert!(world.dead().iter().all(|(body, ..)| body.starts_with('a')));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_of_a_key_is_bounded_in_bytes_too() {
    let mut world = World::new().acts([("a-0", Act::Busy(None))]).with(|plan| {
        plan.ordering = by_key();
        plan.parking.bytes = 10_000;
        plan.retry.delays = vec![Duration::from_secs(3600); 3];
    });
    let large = |at: usize| format!("a-{at}-{}", "x".repeat(3000));
    world.publish([String::from("a-0")].into_iter().chain((1..5).map(large))).await;
    world.start();
    world.until("the overflow", |world| world.depth("dead") == 2).await;
    assert_eq!(world.parking.all().len(), 3);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_key_is_full_after_a_restart_too() {
    let mut world = flooded(4, 3).await;
    world.stop().await;
    assert_eq!((world.parking.all().len() as u64, world.depth("in")), (PARKED_MAX, 0));
    world.publish(["a-53", "b-0", "a-54"]).await;
    world.start();
    world.until("the other key", |world| world.calls_of("b-0") == 1).await;
    world.until("the overflow", |world| world.depth("dead") == 5).await;
    world.broker.disconnect();
    world.publish(["a-55", "b-1"]).await;
    world.until("the other key", |world| world.calls_of("b-1") == 1).await;
    world.until("the overflow", |world| world.depth("dead") == 6).await;
    let dead: Vec<String> = world.dead().into_iter().map(|(body, ..)| body).collect();
    assert_eq!(dead, overflow(6));
    world.act("a-0", Act::Ok);
    world.until("the last", |world| world.calls_of("a-49") == 1).await;
    world.until_settled().await;
    assert_eq!(of(&world, "a").len() as u64, PARKED_MAX + 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_loses_nothing_of_what_is_to_be_parked() {
    let mut world = World::new().acts([("a-0", Act::FailsTimes(1))]).with(|plan| plan.ordering = by_key());
    world.publish((0..5).map(|at| format!("a-{at}"))).await;
    world.start();
    world.until("parked", |world| world.parking.all().len() == 5).await;
    world.parking.full(true);
    world.publish((5..8).map(|at| format!("a-{at}"))).await;
    world.until("trouble", |world| world.status.needs_operator().is_some()).await;
    world.publish(["b-0"]).await;
    world.until("the other key", |world| world.calls_of("b-0") == 1).await;
    world.parking.full(false);
    world.until("the last", |world| world.calls_of("a-7") == 1).await;
    world.until_settled().await;
    let expected: Vec<String> =
        std::iter::once("a-0".to_owned()).chain((0..8).map(|at| format!("a-{at}"))).collect();
    assert_eq!(of(&world, "a"), expected);
    assert!(world.status.needs_operator().is_none());
    world.stop().await;
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

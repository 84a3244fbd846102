//! A destination that is down as a whole.

use std::time::Duration;

use warren_engine::consume::plan::{Ordering, RetryMode};
use warren_engine::consume::record::MessageStatus;

use super::world::{Act, World, passes};

async fn down(count: usize) -> World {
    let mut world = World::new();
    world.otherwise(Act::Busy(None));
    world.publish((0..count).map(|at| at.to_string())).await;
    world.start();
    world.until("the pause", |world| world.is("paused")).await;
    world
}

#[tokio::test(start_paused = true)]
async fn consuming_pauses_and_one_message_probes() {
    let mut world = down(100).await;
    let before = world.calls().len();
    assert!((10..=19).contains(&before), "{before}");
    passes(Duration::from_secs(200)).await;
    let probes = world.calls().len() - before;
    // After 1, 2, 4, 8, 16, 32, 60, 60 s.
    assert!((6..=9).contains(&probes), "{probes} probes in 200 s");
    world.otherwise(Act::Ok);
    world.until("going on", |world| world.is("consuming")).await;
    world.until_settled().await;
    world.stop().await;
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_not_spent_while_it_is_down() {
    let mut world = down(30).await;
    passes(Duration::from_secs(500)).await;
    world.otherwise(Act::Ok);
    world.until_settled().await;
    world.stop().await;
    for at in 0..30 {
        let body = at.to_string();
        let spent =
            world.statuses(&body).into_iter().filter(|status| *status == MessageStatus::Retried).count();
        // Only those that failed before it was known.
        assert!(spent <= 1, "{body}: {:?}", world.statuses(&body));
        assert_eq!(world.statuses(&body).last(), Some(&MessageStatus::Ok), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_not_held_for_longer_than_brokers_wait() {
    let world = down(40).await;
    let (mut longest, mut held_since) = (Duration::ZERO, None);
    // Two hours of being down: whatever is unsettled is so for less than what RabbitMQ allows.
    for _ in 0..720 {
        passes(Duration::from_secs(10)).await;
        match (world.broker.unsettled(), held_since) {
            (0, Some(since)) => {
                longest = longest.max(tokio::time::Instant::now() - since);
                held_since = None;
            }
            (0, None) => {}
            (_, None) => held_since = Some(tokio::time::Instant::now()),
            (_, Some(_)) => {}
        }
        assert!(world.is("paused"));
    }
    assert!(longest > Duration::ZERO && longest < Duration::from_secs(20 * 60), "{longest:?}");
    assert!(world.broker.unsettled() <= 1, "one message is enough to probe with");
    world.otherwise(Act::Ok);
    world.until_settled().await;
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn rejections_alone_do_not_stop_the_others() {
    let mut world = World::new();
    for at in 0..5 {
        world.act(&format!("bad{at}"), Act::Reject);
    }
    let bodies = (0..50).map(|at| if at % 10 == 0 { format!("bad{}", at / 10) } else { format!("good{at}") });
    world.publish(bodies).await;
    world.start();
    world.until_settled().await;
    assert!(world.is("consuming"));
    assert_eq!(world.depth("dead"), 5);
}

/// Messages that fail by their own content, as if the destination were down, and good ones behind them.
#[tokio::test(start_paused = true)]
async fn poison_alone_does_not_stop_the_others() {
    for act in [Act::Answers503, Act::Hangs, Act::Unreachable, Act::Busy(None)] {
        for (concurrency, bad) in [(1, 10), (1, 12), (20, 10), (20, 20), (20, 25)] {
            for mode in [RetryMode::Auto, RetryMode::Parking] {
                let mut world = World::new().with(|plan| {
                    plan.concurrency = concurrency;
                    plan.max_timeout = Duration::from_secs(5);
                    plan.retry.mode = mode;
                });
                for at in 0..bad {
                    world.act(&format!("bad{at}"), act.clone());
                }
                world.publish((0..bad).map(|at| format!("bad{at}"))).await;
                world.publish((0..30).map(|at| format!("good{at}"))).await;
                world.start();
                let all_good = |world: &World| (0..30).all(|at| world.calls_of(&format!("good{at}")) > 0);
                world.until("the good ones", all_good).await;
                // Each poison beyond those in flight may cost one wait for a probe, of up to a minute. One that hangs takes its five
                // seconds in each of its first tries, too.
                let beyond = (bad - i32::from(concurrency)).max(0);
                let most = if matches!(act, Act::Hangs) { 1000 } else { 180 + 60 * beyond as u64 };
                assert!(world.seconds() < most, "{} s, {concurrency}, {bad}, {mode:?}", world.seconds());
                // They stay poison and are given up in the end, while others go on.
                world.publish(["last"]).await;
                world.until("the last", |world| world.calls_of("last") == 1).await;
                world.stop().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_a_message_that_has_not_failed() {
    let mut world = World::new().with(|plan| plan.concurrency = 1);
    world.otherwise(Act::Busy(None));
    world.publish((0..40).map(|at| at.to_string())).await;
    world.start();
    world.until("the pause", |world| world.is("paused")).await;
    let before = world.calls().len();
    passes(Duration::from_secs(8)).await;
    let probes: Vec<String> = world.bodies()[before..].to_vec();
    assert!(probes.len() >= 3, "{probes:?}");
    let new = probes.iter().filter(|body| !world.bodies()[..before].contains(body)).count();
    assert_eq!(new, probes.len(), "{probes:?}");
}

#[tokio::test(start_paused = true)]
async fn where_all_have_failed_they_probe_in_turns() {
    let mut world = down(12).await;
    let before = world.calls().len();
    passes(Duration::from_secs(40)).await;
    let probes: Vec<String> = world.bodies()[before..].to_vec();
    assert!(probes.len() >= 4, "{probes:?}");
    assert!(probes.windows(2).all(|pair| pair[0] != pair[1]), "{probes:?}");
    // One works, and all are tried again at once.
    world.otherwise(Act::Ok);
    world.until_settled().await;
    world.stop().await;
    assert_eq!(world.depth("dead"), 0);
}

/// An outage of 25 minutes, longer than messages are held, spends no attempt of a message that comes while it lasts: by each
/// mechanism, with no, one and many later tries.
#[tokio::test(start_paused = true)]
async fn an_outage_spends_no_attempts() {
    let modes = [RetryMode::Auto, RetryMode::Parking, RetryMode::Visibility, RetryMode::Requeue];
    for mode in modes {
        for ordering in [Ordering::None, Ordering::Queue] {
            for delays in [&[][..], &[1], &[10, 30, 120]] {
                let mut world = World::new().with(|plan| {
                    plan.retry.delays = delays.iter().map(|delay| Duration::from_secs(*delay)).collect();
                    plan.retry.mode = mode;
                    plan.ordering = ordering.clone();
                });
                world.broker.can_delay(mode == RetryMode::Visibility);
                world.broker.delete("in");
                world.broker.declare_counting("in");
                world.otherwise(Act::Answers503);
                world.publish((0..10).map(|at| format!("opener{at}"))).await;
                world.start();
                world.until("the pause", |world| world.is("paused")).await;
                world.publish((0..4).map(|at| format!("m{at}"))).await;
                passes(Duration::from_secs(25 * 60)).await;
                let shown = format!("{mode:?}, {ordering:?}, {delays:?}");
                assert!(world.is("paused"), "{shown}");
                let dead = world.dead();
                world.otherwise(Act::Ok);
                world.until_settled().await;
                world.until("all", |world| (0..4).all(|at| world.calls_of(&format!("m{at}")) > 0)).await;
                world.until_settled().await;
                world.stop().await;
                assert_eq!(world.dead(), dead, "{shown}: nothing was dead-lettered after the pause began");
                let of_m: Vec<(String, u32)> =
                    world.calls().into_iter().filter(|(body, _)| body.starts_with('m')).collect();
                assert!(of_m.iter().all(|(_, attempt)| *attempt == 1), "{shown}: {of_m:?}");
            }
        }
    }
}

/// The attempt that is spent before the outage counts, the last one is not spent by it.
#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_not_spent_by_an_outage() {
    for mode in [RetryMode::Auto, RetryMode::Parking, RetryMode::Visibility] {
        let mut world = World::new().acts([("m", Act::FailsTimes(1))]).with(|plan| {
            plan.retry.delays = vec![Duration::from_secs(100)];
            plan.retry.mode = mode;
        });
        world.broker.can_delay(mode == RetryMode::Visibility);
        world.publish(["m"]).await;
        world.start();
        world.until("the first attempt", |world| world.calls_of("m") == 1).await;
        world.otherwise(Act::Unreachable);
        world.act("m", Act::Unreachable);
        world.publish((0..10).map(|at| format!("opener{at}"))).await;
        world.until("the pause", |world| world.is("paused")).await;
        world.until("the last attempt", |world| world.calls_of("m") >= 2).await;
        passes(Duration::from_secs(25 * 60)).await;
        world.otherwise(Act::Ok);
        world.act("m", Act::Ok);
        world.until_settled().await;
        world.stop().await;
        assert_eq!(world.statuses("m").last(), Some(&MessageStatus::Ok), "{mode:?}");
        assert!(world.calls().iter().filter(|(body, _)| body == "m").all(|(_, attempt)| *attempt <= 2));
        assert_eq!(world.depth("dead"), 0, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_messages_are_worked_on_beside_each_other_again() {
    let mut world = down(40).await;
    passes(Duration::from_secs(30 * 60)).await;
    world.otherwise(Act::Ok);
    world.until_settled().await;
    world.otherwise(Act::Waits);
    world.publish((0..10).map(|at| format!("w{at}"))).await;
    world.until("ten at once", |world| world.running() == 10).await;
    world.release(10);
    world.until_settled().await;
    world.stop().await;
}

/// Whatever returns a message without a failed attempt is not counted.
#[tokio::test(start_paused = true)]
async fn deliveries_that_were_no_attempt_are_not_counted() {
    let mut world = World::new().acts([("m", Act::Waits)]).with(|plan| {
        plan.retry.delays = vec![Duration::from_secs(1)];
        plan.max_timeout = Duration::from_secs(1000);
    });
    world.broker.delete("in");
    world.broker.declare_counting("in");
    world.publish(["m"]).await;
    world.start();
    for round in 1..=5 {
        world.until("it runs", |world| world.calls_of("m") == round).await;
        // The process stops in good order, and it does not end in time.
        world.stop().await;
        world.start();
    }
    world.until("it runs", |world| world.calls_of("m") == 6).await;
    assert!(world.calls().iter().all(|(_, attempt)| *attempt == 1), "{:?}", world.calls());
    world.release(1);
    world.until_settled().await;
    assert_eq!(world.depth("dead"), 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_hands_back_what_is_held() {
    let mut world = down(15).await;
    world.stop().await;
    assert_eq!(world.broker.unsettled(), 0);
    assert_eq!(world.depth("in") + world.delayed(), 15);
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_probes_where_nothing_else_is_left() {
    for ordering in [Ordering::None, Ordering::Queue] {
        let mut world = World::new().with(|plan| {
            plan.ordering = ordering;
            plan.retry.forever = true;
        });
        world.broker.refuses_to_declare(true);
        world.otherwise(Act::Unreachable);
        world.publish((0..15).map(|at| at.to_string())).await;
        world.start();
        // Long enough for all that is held to be settled, and so parked.
        passes(Duration::from_secs(86_400)).await;
        assert!(!world.parking.all().is_empty());
        world.otherwise(Act::Ok);
        world.until_settled().await;
        let done = world.calls().len();
        assert!(world.is("consuming") && world.depth("dead") == 0);
        world.publish(["next"]).await;
        world.until("the next", |world| world.calls().len() > done).await;
        world.stop().await;
    }
}

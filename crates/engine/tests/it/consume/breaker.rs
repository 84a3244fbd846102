//! A destination that is down as a whole.

use std::time::Duration;

use warren_engine::consume::plan::Ordering;
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
async fn poison_alone_does_not_stop_the_others() {
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

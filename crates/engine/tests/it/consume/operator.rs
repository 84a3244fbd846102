//! Failures that only an operator can do something about.

use std::time::Duration;

use warren_engine::codes;
use warren_engine::consume::plan::RetryMode;
use warren_engine::consume::record::MessageStatus;

use super::world::{Act, World, passes};

#[tokio::test(start_paused = true)]
async fn a_refused_login_pauses_the_trigger_spends_no_attempts_and_it_resumes_by_itself() {
    for mode in [RetryMode::Auto, RetryMode::Parking] {
        let mut world = World::new().with(|plan| {
            plan.retry.delays = Vec::new();
            plan.retry.mode = mode;
        });
        world.otherwise(Act::LoginRefused);
        world.publish((0..50).map(|at| at.to_string())).await;
        world.start();
        world.until("blocked", |world| world.is("blocked")).await;
        passes(Duration::from_secs(3600)).await;
        assert!(world.is("blocked"));
        assert_eq!(world.status.needs_operator().unwrap().code, codes::BROKER_REFUSED_LOGIN);
        // About one probe a minute, and those that failed before every half minute.
        assert!(world.calls().len() < 400, "{}", world.calls().len());
        world.otherwise(Act::Ok);
        world.until_settled().await;
        assert!(world.is("consuming"));
        passes(Duration::from_secs(120)).await;
        assert!(world.status.needs_operator().is_none());
        assert!(world.calls().iter().all(|(_, attempt)| *attempt == 1));
        assert_eq!((world.depth("dead"), world.status.ended(MessageStatus::Ok)), (0, 50));
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_not_affected_are_not_paused() {
    let mut world = World::new();
    for at in 0..10 {
        world.act(&format!("bad{at}"), Act::LoginRefused);
    }
    for at in 0..100 {
        let body = if at % 10 == 5 { format!("bad{}", at / 10) } else { format!("good{at}") };
        world.publish([body]).await;
    }
    world.start();
    let good = |world: &World| world.status.ended(MessageStatus::Ok) == 90;
    world.until("the good ones", good).await;
    assert!(world.seconds() < 5 && world.is("consuming"), "{}", world.seconds());
    // For a while: the others are tried again every half minute, ten of them at once.
    for at in 0..60 {
        world.publish([format!("more{at}")]).await;
        passes(Duration::from_secs(10)).await;
        assert_eq!((world.calls_of(&format!("more{at}")), world.is("consuming")), (1, true), "{at}");
    }
    assert!(world.calls_of("bad0") > 10);
    assert!(world.status.needs_operator().is_some());
    for at in 0..10 {
        world.act(&format!("bad{at}"), Act::Ok);
    }
    world.until_settled().await;
    assert_eq!((world.depth("dead"), world.status.ended(MessageStatus::Ok)), (0, 160));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_and_a_full_disk_are_seen() {
    let mut world = World::new();
    world.broker.delete("in");
    world.start();
    world.until("waiting", |world| world.is("waiting")).await;
    assert_eq!(world.status.needs_operator().unwrap().code, codes::NO_SUCH_QUEUE);
    world.broker.declare("in");
    world.publish(["m"]).await;
    world.until_settled().await;
    assert!(world.status.needs_operator().is_none());
    world.records.full(true);
    world.publish(["n"]).await;
    world.until("trouble", |world| world.status.trouble().is_some()).await;
    assert_eq!(world.status.needs_operator().unwrap().code, codes::STATE_UNWRITABLE);
    world.records.full(false);
    world.until_settled().await;
    assert!(world.status.needs_operator().is_none());
    world.stop().await;
}

//! Messages that the broker gives out again while they are still worked on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::consume::plan::{KeyOf, Ordering};
use warren_engine::consume::record::MessageStatus;
use warren_engine::delivery::{Job, Settlement};
use warren_engine::failure::Failure;
use warren_engine::message::Properties;

use super::world::{Act, World, passes};

fn with_id(id: &str) -> Properties {
    Properties { message_id: Some(id.to_owned()), ..Properties::default() }
}

/// The connection is lost and open again, and everything that was unsettled came once more.
async fn reconnected(world: &World, received: u64) {
    world.broker.disconnect();
    world
        .until("it came again", |world| {
            world.status.received.load(std::sync::atomic::Ordering::Relaxed) == received
                && world.is("consuming")
        })
        .await;
    passes(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_again_waits_for_itself() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m", "other"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1 && world.calls_of("other") == 1).await;
    reconnected(&world, 3).await;
    assert_eq!((world.calls_of("m"), world.running()), (1, 1));
    // What is new does not wait.
    world.publish(["new"]).await;
    world.until("another", |world| world.calls_of("new") == 1).await;
    world.release(1);
    world.until("it runs again", |world| world.calls_of("m") == 2).await;
    assert_eq!(world.statuses("m"), [MessageStatus::Late]);
    world.release(1);
    world.until_settled().await;
    assert_eq!(world.statuses("m"), [MessageStatus::Late, MessageStatus::Ok]);
    assert_eq!((world.settled("m"), world.most()), (vec![Settlement::Ack], 2));
}

#[tokio::test(start_paused = true)]
async fn however_often_the_connection_is_lost_it_runs_once_at_a_time() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    for again in 0..5 {
        reconnected(&world, again + 2).await;
        assert_eq!((world.calls_of("m"), world.broker.unsettled()), (1, 1));
    }
    world.release(2);
    world.until_settled().await;
    assert_eq!((world.calls_of("m"), world.most()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn equal_messages_do_not_wait_for_each_other() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m", "m", "m"]).await;
    world.start();
    world.until("all run", |world| world.running() == 3).await;
    // They come again, of which none can be told from the others: all of the first must have ended.
    reconnected(&world, 6).await;
    assert_eq!(world.running(), 3);
    world.publish(["m"]).await;
    world.until("a new one runs", |world| world.running() == 4).await;
    world.release(2);
    world.until("two ended", |world| world.running() == 2).await;
    passes(Duration::from_secs(10)).await;
    assert_eq!(world.calls_of("m"), 4);
    world.release(2);
    world.until("they run again", |world| world.calls_of("m") == 7).await;
    world.release(3);
    world.until_settled().await;
    assert_eq!((world.calls_of("m"), world.most()), (7, 4));
}

#[tokio::test(start_paused = true)]
async fn equal_messages_that_were_handed_back_do_not_wait_for_each_other() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m", "m", "m"]).await;
    world.start();
    world.until("all run", |world| world.running() == 3).await;
    // Its grace passes, and they go back.
    world.stop().await;
    assert_eq!((world.running(), world.depth("in")), (0, 3));
    world.start();
    world.until("all run", |world| world.running() == 3).await;
    world.release(3);
    world.until_settled().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_body_under_another_id_is_another_message() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish_as("m", with_id("1")).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    world.broker.disconnect();
    world.publish_as("m", with_id("2")).await;
    world.until("the other runs", |world| world.running() == 2).await;
    passes(Duration::from_secs(10)).await;
    assert_eq!(world.calls_of("m"), 2);
    world.release(3);
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 3);
}

#[tokio::test(start_paused = true)]
async fn one_whose_handler_panicked_is_not_waited_for() {
    let mut world = World::new().acts([("m", Act::Panics)]);
    world.publish(["m"]).await;
    world.start();
    world.until("it panicked", |world| world.delayed() == 1).await;
    world.act("m", Act::Waits);
    world.until("it runs", |world| world.running() == 1).await;
    reconnected(&world, 3).await;
    world.release(2);
    world.until_settled().await;
    assert_eq!(world.calls_of("m"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_itself_does_not_count_as_waiting_to_be_started() {
    let mut world = World::new().acts([("m", Act::Waits)]).with(|plan| {
        plan.expiration = Some(Duration::from_secs(5));
        plan.max_timeout = Duration::from_secs(1000);
    });
    world.publish(["m"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    reconnected(&world, 2).await;
    passes(Duration::from_secs(60)).await;
    world.release(2);
    world.until_settled().await;
    assert_eq!((world.calls_of("m"), world.depth("dead")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_itself_is_handed_back_at_the_end() {
    let mut world = World::new().acts([("m", Act::Waits)]);
    world.publish(["m"]).await;
    world.start();
    world.until("it runs", |world| world.running() == 1).await;
    reconnected(&world, 2).await;
    world.ask_to_stop();
    world.until("it is back", |world| world.depth("in") == 1).await;
    world.release(1);
    world.stop().await;
    assert_eq!((world.calls_of("m"), world.statuses("m")), (1, vec![MessageStatus::Late]));
}

/// One lane for all.
pub struct Same;

#[async_trait]
impl KeyOf for Same {
    async fn key(&self, _: &Job, _: i64) -> Result<String, Failure> {
        Ok("same".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_lane_nothing_overtakes_what_waits_for_itself() {
    for ordering in [Ordering::Queue, Ordering::Key(Arc::new(Same))] {
        let mut world = World::new().acts([("1", Act::Waits)]).with(|plan| plan.ordering = ordering);
        world.publish(["1", "2", "3"]).await;
        world.start();
        world.until("it runs", |world| world.running() == 1).await;
        world.broker.disconnect();
        passes(Duration::from_secs(60)).await;
        assert_eq!(world.bodies(), ["1"]);
        world.release(2);
        world.until_settled().await;
        assert_eq!((world.bodies(), world.most()), (["1", "1", "2", "3"].map(str::to_owned).to_vec(), 1));
    }
}

//! Subscribing that breaks off between the queue and the store: no bound queue is left that nobody empties, and none goes that somebody
//! else has.

use std::sync::Arc;
use std::time::Duration;

use warren_engine::hub::request::{Change, ImportEntry, Refusal, SubscribeRequest};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::subscription::{SubscriptionState, WhyInactive};
use warren_engine::hub::topology;

use super::world::{World, passes, to, unsubscribe};

fn request() -> SubscribeRequest {
    to(Resource::exchange("/", "x"), "#", "http://good/")
}

fn queue() -> String {
    topology::queue_name(request().key.id())
}

/// Subscribes up to the moment in which the queue is made and bound and nothing is stored, and then breaks off: the one who asked hung up.
async fn breaks_off(world: &World) {
    world.store.stuck(true);
    let hub = world.hub.clone();
    tokio::select! {
        biased;
        ended = hub.subscribe(request()) => panic!("it must not end: {ended:?}"),
        () = world.until("the binding", || !world.host().bindings().is_empty()) => {}
    }
    assert!(world.host().queues.has(&queue()));
}

#[tokio::test(start_paused = true)]
async fn a_queue_whose_process_died_before_it_was_stored_goes_at_the_next_start() {
    let mut world = World::new().await;
    breaks_off(&world).await;
    world.store.stuck(false);
    world.restart().await;
    world.until("that it is gone", || !world.host().queues.has(&queue())).await;
    world.until("that all is done", || world.hub.chores() == 0).await;
    assert!(world.host().bindings().is_empty() && world.hub.all().is_empty());
    // Whoever comes again is served.
    world.subscribe(request()).await;
    passes(Duration::from_secs(60)).await;
    assert!(world.host().queues.has(&queue()) && world.host().bindings().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_one_who_hung_up_before_it_was_stored_goes_at_once() {
    let world = World::new().await;
    breaks_off(&world).await;
    world.store.stuck(false);
    world.until("that it is gone", || !world.host().queues.has(&queue())).await;
    world.until("that all is done", || world.hub.chores() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn one_who_asks_again_in_time_keeps_the_queue() {
    let mut world = World::new().await;
    breaks_off(&world).await;
    world.store.stuck(false);
    // The process is gone, and the next one has not come to its chores when the same is asked again.
    world.restart().await;
    world.hub.subscribe(request()).await.unwrap();
    passes(Duration::from_secs(3600)).await;
    assert!(world.host().queues.has(&queue()) && world.host().bindings().len() == 1);
    assert_eq!(world.hub.chores(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_leaves_no_queue() {
    let world = World::new().await;
    // With a full disk nothing is made at all, since nothing could be noted.
    world.store.full(true);
    assert!(matches!(world.hub.subscribe(request()).await.unwrap_err(), Refusal::Failed(_)));
    assert!(!world.host().queues.has(&queue()));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_there_before_stays_with_what_it_holds() {
    let mut world = World::new().await;
    world.host().queues.declare(&queue()); // of a state folder that is lost
    world.publish(&queue(), ["kept"]).await;
    breaks_off(&world).await;
    world.store.stuck(false);
    world.restart().await;
    passes(Duration::from_secs(3600)).await;
    assert_eq!(world.depth(&queue()), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_known_and_inactive_is_as_it_was() {
    // Imported as inactive, it has no queue yet; unsubscribed, it has one, unbound, which keeps what it holds.
    let mut world = World::new().await;
    let inactive = SubscriptionState::Inactive(WhyInactive::Imported);
    world.hub.import(ImportEntry { request: request(), state: inactive.clone() }).await.unwrap();
    breaks_off(&world).await;
    world.store.stuck(false);
    world.restart().await;
    world.until("that it is gone", || !world.host().queues.has(&queue())).await;
    assert_eq!(world.hub.get(&request().key).unwrap().state, inactive);

    world.subscribe(request()).await;
    world.hub.subscribe(unsubscribe(&request())).await.unwrap();
    world.until("that nothing is bound", || world.host().bindings().is_empty()).await;
    world.publish(&queue(), ["kept"]).await;
    breaks_off(&world).await;
    world.store.stuck(false);
    world.restart().await;
    world.until("that nothing is bound", || world.host().bindings().is_empty()).await;
    world.until("that all is done", || world.hub.chores() == 0).await;
    assert_eq!(world.depth(&queue()), 1);
}

#[tokio::test(start_paused = true)]
async fn activated_by_an_operator_it_is_the_same() {
    let mut world = World::new().await;
    let inactive = SubscriptionState::Inactive(WhyInactive::Imported);
    world.hub.import(ImportEntry { request: request(), state: inactive }).await.unwrap();
    world.store.stuck(true);
    let hub = Arc::clone(&world.hub);
    let key = request().key;
    tokio::select! {
        biased;
        ended = hub.change(&key, Change::state(SubscriptionState::Active)) => panic!("it must not end: {ended:?}"),
        () = world.until("the binding", || !world.host().bindings().is_empty()) => {}
    }
    world.store.stuck(false);
    world.restart().await;
    world.until("that it is gone", || !world.host().queues.has(&queue())).await;
    world.hub.change(&key, Change::state(SubscriptionState::Active)).await.unwrap().unwrap();
    world.until("the consumer", || world.consumer(&key) == "consuming").await;
    assert_eq!(world.hub.chores(), 0);
}

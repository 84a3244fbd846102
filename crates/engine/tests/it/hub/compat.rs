//! RabbitHub's table of error management, end to end: limits × requeue × unsubscribe × kind of error, in the reading that a transport
//! failure loses no message and no consumer is stuck.

use std::time::Duration;

use warren_engine::delivery::Settlement;
use warren_engine::hub::request::{SubscribeRequest, Verify};
use warren_engine::hub::settings::HubSettings;
use warren_engine::hub::subscription::{SubscriptionState, WhyInactive};
use warren_engine::memory::Event;

use super::world::{Act, World, passes, to_queue};

fn settings(limits: Option<(u64, u64)>, requeue: bool, unsubscribe: bool) -> HubSettings {
    let mut settings = HubSettings::new(true);
    settings.requeue_on_http_post_error = requeue;
    settings.unsubscribe_on_http_post_error = unsubscribe;
    settings.unsubscribe_on_http_post_error_limit = limits.map(|(limit, _)| limit);
    settings.unsubscribe_on_http_post_error_timeout = limits.map(|(_, seconds)| Duration::from_secs(seconds));
    settings
}

fn rejected(world: &World) -> usize {
    let events = world.host().queues.events();
    let rejected = |event: &&Event| matches!(event, Event::Settled(_, _, Settlement::Reject));
    events.iter().filter(rejected).count()
}

#[allow(clippy::fn_params_excessive_bools, reason = "a row of a table")]
/// One row and one kind of failure: what becomes of the first of three messages, and of the subscription.
async fn row(
    limits: Option<(u64, u64)>,
    requeue: bool,
    unsubscribe: bool,
    act: Act,
    rejects: bool,
    ends: bool,
) {
    let shown = format!("{limits:?} requeue {requeue} unsubscribe {unsubscribe} {act:?}");
    let world = World::with(settings(limits, requeue, unsubscribe)).await;
    let request = to_queue("http://bad/");
    world.web.posted("bad", act);
    world.subscribe(request.clone()).await;
    world.publish("q", ["1", "2", "3"]).await;
    let held = || world.hub.get(&request.key).unwrap();
    if ends {
        world.until(&shown, || !held().is_active()).await;
        assert_eq!(held().state, SubscriptionState::Inactive(WhyInactive::Failed), "{shown}");
        world.until(&shown, || world.consumer(&request.key) == "none").await;
    } else {
        world.until(&shown, || held().errors.count > 0).await;
        passes(Duration::from_secs(120)).await;
        assert!(held().is_active(), "{shown}");
    }
    if rejects {
        assert!(rejected(&world) > 0, "{shown}");
    } else {
        assert_eq!(rejected(&world), 0, "{shown}");
    }
    // Whatever was not rejected comes, once the receiver is back and subscribed.
    world.web.posted("bad", Act::Well);
    world.subscribe(request.clone()).await;
    world.until(&shown, || world.web.taken("bad").len() + rejected(&world) == 3).await;
    if !rejects {
        assert_eq!(world.web.taken("bad"), ["1", "2", "3"], "in order: {shown}");
    }
}

const STATUS: Act = Act::Status(500);

#[tokio::test(start_paused = true)]
async fn without_limits_requeue_and_unsubscribe() {
    row(None, true, true, STATUS, false, true).await;
    row(None, true, true, Act::Down, false, true).await; // RabbitHub: lost
}

#[tokio::test(start_paused = true)]
async fn without_limits_requeue_and_no_unsubscribe() {
    row(None, true, false, STATUS, false, false).await; // RabbitHub: stuck for ever
    row(None, true, false, Act::Down, false, false).await; // RabbitHub: lost
}

#[tokio::test(start_paused = true)]
async fn without_limits_no_requeue_and_unsubscribe() {
    row(None, false, true, STATUS, true, true).await;
    row(None, false, true, Act::Down, false, true).await;
}

#[tokio::test(start_paused = true)]
async fn without_limits_no_requeue_and_no_unsubscribe() {
    row(None, false, false, STATUS, true, false).await;
    row(None, false, false, Act::Down, false, false).await;
}

#[tokio::test(start_paused = true)]
async fn above_the_limit_the_subscription_ends_whatever_unsubscribe_says() {
    for unsubscribe in [true, false] {
        row(Some((5, 60)), true, unsubscribe, STATUS, false, true).await;
        row(Some((5, 60)), true, unsubscribe, Act::Down, false, true).await;
        row(Some((1, 60)), false, unsubscribe, STATUS, true, true).await;
        row(Some((5, 60)), false, unsubscribe, Act::Down, false, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn within_the_limit_it_does_not() {
    for unsubscribe in [true, false] {
        row(Some((1_000_000, 60)), true, unsubscribe, STATUS, false, false).await;
        row(Some((1_000_000, 60)), true, unsubscribe, Act::Down, false, false).await;
        row(Some((1_000_000, 60)), false, unsubscribe, STATUS, true, false).await;
        row(Some((1_000_000, 60)), false, unsubscribe, Act::Down, false, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixth_error_ends_it_where_five_are_borne() {
    let world = World::with(settings(Some((5, 60)), true, true)).await;
    let request = to_queue("http://bad/");
    world.web.posted("bad", STATUS);
    world.subscribe(request.clone()).await;
    world.publish("q", ["1"]).await;
    let held = || world.hub.get(&request.key).unwrap();
    world.until("its end", || !held().is_active()).await;
    assert_eq!((held().errors.count, world.web.requests("POST", "bad").len()), (6, 6));
    assert!(
        held().errors.last_message.contains("500")
            && held().errors.last_message.contains("says the receiver")
    );
    // Subscribing again clears the count.
    world.web.posted("bad", Act::Well);
    assert_eq!(world.subscribe(request).await.errors.count, 0);
}

#[tokio::test(start_paused = true)]
async fn errors_count_within_their_window_alone_and_outlive_the_process() {
    let mut world = World::with(settings(Some((3, 60)), true, true)).await;
    let request = to_queue("http://bad/");
    world.subscribe(request.clone()).await;
    let held = |world: &World| world.hub.get(&request.key).unwrap();
    for round in 0..5 {
        world.web.posted("bad", STATUS);
        world.publish("q", [round.to_string()]).await;
        world.until("two errors", || held(&world).errors.count >= 2).await;
        world.web.posted("bad", Act::Well);
        world.until_taken("bad", round + 1).await;
        passes(Duration::from_secs(61)).await; // the next begins another window
    }
    assert!(held(&world).is_active());
    let count = held(&world).errors.count;
    assert!((2..=3).contains(&count), "{count}");
    world.restart().await;
    assert_eq!(held(&world).errors.count, count);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_for_a_day_gets_all_in_order() {
    let mut world = World::with(settings(None, true, false)).await;
    let request = to_queue("http://bad/");
    world.web.posted("bad", Act::Down);
    world.subscribe(request.clone()).await;
    let bodies: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    world.publish("q", bodies.clone()).await;
    passes(Duration::from_secs(12 * 3600)).await;
    world.restart().await;
    passes(Duration::from_secs(12 * 3600)).await;
    world.web.posted("bad", Act::Well);
    world.until_taken("bad", 10).await;
    assert_eq!((world.web.taken("bad"), rejected(&world)), (bodies, 0));
}

#[tokio::test(start_paused = true)]
async fn one_message_is_in_flight_unless_more_are_asked_for() {
    let world = World::compat().await;
    world.web.posted("slow", Act::Hangs);
    world.subscribe(to_queue("http://slow/")).await;
    world.publish("q", ["1", "2", "3"]).await;
    passes(Duration::from_secs(5)).await;
    assert_eq!(world.web.requests("POST", "slow").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_are_stored_once_a_second_and_hold_up_nothing_else() {
    let world = World::with(settings(Some((1_000_000, 60)), true, false)).await;
    let request = to_queue("http://bad/");
    world.web.posted("bad", STATUS);
    world.subscribe(request.clone()).await;
    world.publish("q", ["1"]).await;
    let before = world.store.puts();
    passes(Duration::from_secs(60)).await;
    let (posts, puts) = (world.web.requests("POST", "bad").len(), world.store.puts() - before);
    assert!(posts > 500 && (55..=61).contains(&puts), "{posts} posts, {puts} stored");
    // While they cannot be stored, chores are done.
    world.store.stuck(true);
    passes(Duration::from_secs(5)).await;
    let other = SubscribeRequest { verify: Verify::Async, ..to_queue("http://other/") };
    world.hub.subscribe(other).await.unwrap();
    passes(Duration::from_secs(1)).await;
    assert_eq!(world.web.requests("GET", "other").len(), 1, "it is asked");
}

//! SIGKILL at random moments while messages are published and delivered, and subscriptions made, again and again; and receivers that are
//! down for long.

use std::time::{Duration, Instant};

use fastrand::Rng;
use warren_testkit::wait::{pause, wait_until};
use warren_testkit::{rabbit, soak};

use super::world::{Publishers, Receiver, SOON, World};

/// How long a receiver is down.
fn down_for() -> Duration {
    Duration::from_secs(if soak() { 600 } else { 3 })
}

/// What a message that failed may have to wait once its receiver is back: its next try, or the next probe.
const NEXT_TRY_MAX: Duration = Duration::from_secs(20 * 60);

/// A receiver that is down for ten minutes while it is published to, and comes back. Two subscriptions beside are not down.
fn down(world: &World, vhost: &str) {
    let (mut receiver, other) = (Receiver::start(), Receiver::start());
    let hub = world.start();
    for path in ["q/down", "q/up", "x/events?amqp.exchange_type=fanout"] {
        let made = hub.ask("PUT", &format!("/{vhost}/endpoint/{path}"), "text/plain", "").unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    }
    assert_eq!(hub.subscribe(vhost, "q/down", "a", &receiver.callback("queue")), Some(204));
    assert_eq!(hub.subscribe(vhost, "x/events", "b", &receiver.callback("exchange")), Some(204));
    assert_eq!(hub.subscribe(vhost, "q/up", "c", &other.callback("up")), Some(204));
    let path = |name: &str| format!("/{vhost}/endpoint/{name}?hub.persistmsg=1");
    let (down, up) = ([path("q/down"), path("x/events")], [path("q/up")]);
    receiver.down();
    let publishers = Publishers::slow(&hub, "down", &down);
    let others = Publishers::slow(&hub, "up", &up);
    let began = Instant::now();
    while began.elapsed() < down_for() {
        pause("the receiver is down", Duration::from_millis(500));
        assert_eq!(receiver.count(), 0);
    }
    let (accepted, beside) = (publishers.stop(), others.stop());
    assert!(accepted.len() > 10 && beside.len() > 10, "{} and {}", accepted.len(), beside.len());
    other.wait_for_all(&beside);
    receiver.up();
    let back = Instant::now();
    receiver.wait_for_all_within(&accepted, NEXT_TRY_MAX);
    let took = back.elapsed();
    let known = hub.subscriptions();
    assert!(known.len() == 3 && known.values().all(|status| status == "active"), "{known:?}");
    let received: u32 = receiver.received.lock().unwrap().values().sum();
    println!(
        "down for {:?}: {} accepted meanwhile, lost 0, {received} received {:.0} s after it was back; beside it {} of {}",
        down_for(),
        accepted.len(),
        took.as_secs_f64(),
        other.count(),
        beside.len()
    );
}

#[test]
fn a_receiver_that_is_down_for_ten_minutes_loses_nothing() {
    let vhost = rabbit::vhost();
    down(&World::rabbit(&vhost.url(), vhost.name(), ""), vhost.name());
}

#[test]
fn a_receiver_that_is_down_for_ten_minutes_loses_nothing_as_rabbithub_promised() {
    let keys = "compat: rabbithub\nunsubscribe_on_http_post_error: false";
    let vhost = rabbit::vhost();
    down(&World::rabbit(&vhost.url(), vhost.name(), keys), vhost.name());
}

#[test]
fn a_receiver_that_is_down_for_ten_minutes_loses_nothing_with_the_embedded_broker() {
    down(&World::embedded(""), "%2F");
}

fn killed_again_and_again(world: &World, vhost: &str) {
    let kills = if soak() { 20 } else { 3 };
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let receiver = Receiver::start();
    let mut hub = world.start();
    for path in ["q/first", "q/second", "x/events?amqp.exchange_type=topic"] {
        let made = hub.ask("PUT", &format!("/{vhost}/endpoint/{path}"), "text/plain", "").unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    }
    let mut subscribed = Vec::new();
    for (resource, topic) in [("q/first", "a"), ("q/second", "b"), ("x/events", "made.#")] {
        let callback = receiver.callback(topic.split('.').next().unwrap());
        let topic_form = topic.replace('#', "%23");
        assert_eq!(hub.subscribe(vhost, resource, &topic_form, &callback), Some(204), "{resource}");
        subscribed.push((callback, topic.to_owned()));
    }
    let paths = ["q/first", "q/second", "x/events?hub.topic=made.now"]
        .map(|path| format!("/{vhost}/endpoint/{path}"));
    let mut accepted = Vec::new();
    for round in 0..kills {
        let publishers = Publishers::start(&hub, 3, &format!("round {round}"), &paths);
        wait_until("something was accepted", SOON, || publishers.count() > 20);
        // One more subscriber in each round; whoever was told so is subscribed.
        let (callback, topic) = (receiver.callback(&format!("late/{round}")), format!("late-{round}"));
        if hub.subscribe(vhost, "q/first", &topic, &callback) == Some(204) {
            subscribed.push((callback, topic));
        }
        pause("a kill at a random moment", Duration::from_millis(random.u64(0..700)));
        hub.running.kill();
        accepted.extend(publishers.stop());
        hub = world.start();
    }
    assert!(accepted.len() > 20 * kills, "{}", accepted.len());
    receiver.wait_for_all(&accepted);
    let known = hub.subscriptions();
    for subscription in subscribed {
        assert_eq!(
            known.get(&subscription).map(String::as_str),
            Some("active"),
            "{subscription:?} in {known:?}"
        );
    }
    hub.running.signal("TERM");
    let ended = hub.running.end_within(SOON);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    println!("{kills} kills, {} messages accepted, {} received", accepted.len(), receiver.count());
}

#[test]
fn kill_nine_loses_nothing_and_forgets_no_subscription_with_rabbitmq() {
    let vhost = rabbit::vhost();
    let world = World::rabbit(&vhost.url(), vhost.name(), "");
    killed_again_and_again(&world, vhost.name());
}

#[test]
fn kill_nine_loses_nothing_and_forgets_no_subscription_with_the_embedded_broker() {
    killed_again_and_again(&World::embedded(""), "%2F");
}

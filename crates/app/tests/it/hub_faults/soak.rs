//! SIGKILL at random moments while messages are published and delivered, and subscriptions made, again and again.

use std::time::Duration;

use fastrand::Rng;
use warren_testkit::wait::{pause, wait_until};
use warren_testkit::{rabbit, soak};

use super::world::{Publishers, Receiver, SOON, World};

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

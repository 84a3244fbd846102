//! What is away comes back: a receiver, a queue.

use warren_testkit::rabbit;
use warren_testkit::wait::wait_until;

use super::world::{Hub, Publishers, Receiver, SOON, World};

fn published(hub: &Hub, path: &str, name: &str, count: usize) -> Vec<String> {
    let publishers = Publishers::start(hub, 1, name, &[path.to_owned()]);
    wait_until("so many are accepted", SOON, || publishers.count() >= count);
    publishers.stop()
}

fn receiver_down(world: &World, vhost: &str) {
    let mut receiver = Receiver::start();
    let hub = world.start();
    let endpoint = format!("/{vhost}/endpoint/q/orders");
    assert_eq!(hub.ask("PUT", &endpoint, "text/plain", "").unwrap().status, 201);
    let callback = receiver.callback("hook");
    assert_eq!(hub.subscribe(vhost, "q/orders", "orders", &callback), Some(204));
    let before = published(&hub, &endpoint, "before", 5);
    receiver.wait_for_all(&before);
    receiver.down();
    let during = published(&hub, &endpoint, "during", 20);
    // It was tried, and noticed.
    let errors = || {
        hub.ask("GET", "/subscriptions/errors", "text/plain", "")
            .is_some_and(|answer| answer.body.contains("hook"))
    };
    wait_until("an error is on record", SOON, errors);
    receiver.up();
    receiver.wait_for_all(&during);
    let known = hub.subscriptions();
    assert_eq!(known.values().collect::<Vec<_>>(), ["active"], "{known:?}");
}

#[test]
fn a_receiver_that_was_down_hears_everything() {
    let vhost = rabbit::vhost();
    receiver_down(&World::rabbit(&vhost.url(), vhost.name(), ""), vhost.name());
}

#[test]
fn a_receiver_that_was_down_hears_everything_as_rabbithub_promised() {
    let world = World::embedded("compat: rabbithub\nunsubscribe_on_http_post_error: false");
    receiver_down(&world, "%2F");
}

#[test]
fn a_queue_that_is_deleted_and_made_again_is_delivered_again() {
    let vhost = rabbit::vhost();
    let world = World::rabbit(&vhost.url(), vhost.name(), "");
    let receiver = Receiver::start();
    let hub = world.start();
    vhost.queue("orders");
    let endpoint = format!("/{}/endpoint/q/orders", vhost.name());
    assert_eq!(hub.subscribe(vhost.name(), "q/orders", "orders", &receiver.callback("hook")), Some(204));
    let before = published(&hub, &endpoint, "before", 5);
    receiver.wait_for_all(&before);
    vhost.delete_queue("orders");
    let consuming = || hub.readiness().and_then(|ready| ready["hub"]["consuming"].as_u64());
    wait_until("the consumer is lost", SOON, || consuming() == Some(0));
    wait_until("the subscription waits", SOON, || hub.subscriptions().values().eq(["waiting"]));
    assert_eq!(hub.ask("POST", &endpoint, "text/plain", "lost").unwrap().status, 404);
    vhost.queue("orders");
    let after = published(&hub, &endpoint, "after", 5);
    receiver.wait_for_all(&after);
    wait_until("the subscription is active", SOON, || hub.subscriptions().values().eq(["active"]));
}

//! The process dies when the queue of a subscription is made and bound, and the subscription not yet stored.

use warren_engine::hub::resource::Resource;
use warren_engine::hub::subscription::SubscriptionKey;
use warren_engine::hub::topology;
use warren_testkit::rabbit::{self, Gate, Point};
use warren_testkit::wait::wait_until;

use super::world::{Receiver, SOON, World, subscribe};

#[test]
fn killed_between_the_queue_and_the_store_it_leaves_no_queue_that_nobody_empties() {
    let vhost = rabbit::vhost();
    let gate = Gate::before(&vhost.url());
    let world = World::rabbit(&gate.url(&vhost.url()), vhost.name(), "");
    let receiver = Receiver::start();
    vhost.exchange("events", "fanout");
    let callback = receiver.callback("hook");
    let key = SubscriptionKey {
        resource: Resource::exchange(vhost.name(), "events"),
        topic: "any".to_owned(),
        callback: callback.clone(),
    };
    let queue = topology::queue_name(key.id());

    let mut hub = world.start();
    gate.close_at(Point::Bound);
    let (address, name, asked) = (hub.address.clone(), vhost.name().to_owned(), callback.clone());
    let asking = std::thread::spawn(move || subscribe(&address, &name, "x/events", "any", &asked));
    gate.wait(SOON);
    assert!(vhost.look(&queue).is_some(), "it is made, and bound");
    hub.running.kill();
    assert_eq!(asking.join().unwrap(), None, "nobody was told that it is subscribed");
    gate.open();

    let hub = world.start();
    wait_until("the queue is gone", SOON, || vhost.look(&queue).is_none());
    assert!(hub.subscriptions().is_empty());
    // Whoever asks again is subscribed, and hears what is published.
    assert_eq!(hub.subscribe(vhost.name(), "x/events", "any", &callback), Some(204));
    assert!(vhost.publish("events", "", b"heard", &serde_json::json!({})));
    receiver.wait_for_all(&["heard".to_owned()]);
}

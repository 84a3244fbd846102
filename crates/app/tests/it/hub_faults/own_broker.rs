//! The broker goes away in the middle.

use warren_testkit::rabbit::Broker;
use warren_testkit::wait::wait_until;

use super::world::{Publishers, Receiver, SOON, World};

#[test]
fn a_restarted_rabbitmq_is_connected_to_again_and_nothing_is_lost() {
    let broker = Broker::start();
    let vhost = broker.vhost();
    let world = World::rabbit(&vhost.url(), vhost.name(), "");
    let receiver = Receiver::start();
    let hub = world.start();
    let name = vhost.name();
    vhost.queue("orders");
    vhost.exchange("events", "fanout");
    assert_eq!(hub.subscribe(name, "q/orders", "orders", &receiver.callback("queue")), Some(204));
    assert_eq!(hub.subscribe(name, "x/events", "any", &receiver.callback("exchange")), Some(204));
    let paths = [
        format!("/{name}/endpoint/q/orders?hub.persistmsg=1"),
        format!("/{name}/endpoint/x/events?hub.persistmsg=1"),
    ];
    let publishers = Publishers::start(&hub, 2, "message", &paths);
    wait_until("some are accepted", SOON, || publishers.count() > 50);
    broker.stop();
    // Without an answer of the broker's none is accepted. One that was under way may still be told.
    let stopped = publishers.count();
    broker.start_again();
    wait_until("publishing goes on", SOON, || publishers.count() > stopped + 50);
    let accepted = publishers.stop();
    receiver.wait_for_all(&accepted);
    let known = hub.subscriptions();
    assert!(known.len() == 2 && known.values().all(|status| status == "active"), "{known:?}");
}

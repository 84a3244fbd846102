//! A broker of one's own survives what is done to it.

use serde_json::json;
use warren_testkit::python;
use warren_testkit::rabbit::Broker;

#[test]
fn a_durable_message_survives_stop_and_kill_on_the_same_ports() {
    let broker = Broker::start();
    let vhost = broker.vhost();
    vhost.queue("kept");
    python::publish(&vhost.url(), "", "kept", b"still here", &json!({"delivery_mode": 2}));

    broker.stop();
    broker.start_again();
    assert_eq!(vhost.peek("kept", 9).len(), 1);

    broker.kill();
    broker.start_again();
    let seen = python::drain(&vhost.url(), "kept");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].text(), "still here");
}

#[test]
fn the_memory_alarm_comes_and_goes() {
    let broker = Broker::start();
    let alarm = || broker.ctl(&["eval", "rabbit_alarm:get_alarms()."]);
    broker.block_publishers();
    warren_testkit::wait_until("the alarm is raised", std::time::Duration::from_secs(10), || {
        alarm().contains("memory")
    });
    broker.unblock_publishers();
    warren_testkit::wait_until("the alarm is cleared", std::time::Duration::from_secs(10), || {
        !alarm().contains("memory")
    });
}

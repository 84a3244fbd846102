//! The process and the broker die.

use std::time::Duration;

use serde_json::json;
use warren_testkit::rabbit::{self, Broker};
use warren_testkit::wait_until;

use super::served::{SOON, Served};

/// Three deaths with the same message in hand, and the queue goes on.
fn poison(kind: &serde_json::Value) {
    let vhost = rabbit::vhost();
    vhost.queue_with("in", kind);
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "");
    for death in 1..=3 {
        let mut serving = served.consume();
        if death == 1 {
            assert!(vhost.publish("", "in", b"slow poison", &json!({"message_id": "p"})));
        }
        serving.wait_for_number("warren_messages_in_flight{trigger=\"orders\"}", 1.0);
        serving.running.kill();
    }
    let _serving = served.consume();
    assert!(vhost.publish("", "in", b"good", &json!({})));
    vhost.wait_for_depth("dead", 1, SOON);
    vhost.wait_for_depth("out", 1, SOON);
    vhost.wait_for_depth("in", 0, SOON);
    let dead = vhost.take("dead", 1);
    let headers = &dead[0].properties["headers"];
    assert_eq!(
        (dead[0].body.as_slice(), &headers["x-warren-class"]),
        (b"slow poison".as_slice(), &json!("crashed"))
    );
    assert!(headers["x-warren-reason"].as_str().unwrap().contains("3 times"), "{headers}");
}

#[test]
fn a_message_that_kills_the_process_three_times_leaves_a_classic_queue() {
    poison(&json!({}));
}

#[test]
fn a_message_that_kills_the_process_three_times_leaves_a_quorum_queue() {
    poison(&json!({"x-queue-type": "quorum"}));
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let rounds = if warren_testkit::soak() { 30 } else { 4 };
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let vhost = rabbit::vhost();
    vhost.queue_with("in", &json!({}));
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "retry: {delays: [500ms, 500ms]}");
    let mut expected = std::collections::BTreeSet::new();
    for round in 0..rounds {
        let mut serving = served.consume();
        for at in 0..40 {
            let kind = ["good", "bad", "again"][random.usize(..3)];
            let body = format!("{kind} {round}.{at}");
            assert!(vhost.publish(
                "",
                "in",
                body.as_bytes(),
                &json!({"message_id": body, "delivery_mode": 2})
            ));
            expected.insert(body);
        }
        warren_testkit::wait::pause("a moment at random", Duration::from_millis(random.u64(0..700)));
        serving.running.kill();
    }
    let serving = served.consume();
    let mut ended = std::collections::BTreeSet::new();
    wait_until("every message ended", Duration::from_secs(120), || {
        for message in vhost.take("out", 1000) {
            let document: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            ended.insert(document["body"].as_str().unwrap().to_owned());
        }
        ended.extend(vhost.take("dead", 1000).into_iter().map(|dead| String::from_utf8(dead.body).unwrap()));
        ended.len() >= expected.len()
    });
    assert_eq!(ended, expected);
    assert_eq!(serving.stop().code, Some(0));
}

#[test]
fn a_broker_that_restarts_is_consumed_again() {
    let broker = Broker::start();
    let vhost = broker.vhost();
    vhost.queue_with("in", &json!({}));
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "");
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"good 1", &json!({"delivery_mode": 2})));
    vhost.wait_for_depth("out", 1, SOON);
    broker.kill();
    serving.wait_for_state("waiting");
    broker.start_again();
    serving.wait_for_state("consuming");
    assert!(vhost.publish("", "in", b"good 2", &json!({"delivery_mode": 2})));
    wait_until("both are there", SOON, || vhost.depth("out") == 2);
    assert_eq!(serving.stop().code, Some(0));
}

#[test]
fn what_does_not_end_within_the_grace_goes_back() {
    let vhost = rabbit::vhost();
    vhost.queue_with("in", &json!({}));
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "concurrency: 1");
    let serving = served.consume();
    for body in ["slow", "good"] {
        assert!(vhost.publish("", "in", body.as_bytes(), &json!({})));
    }
    serving.wait_for_number("warren_messages_in_flight{trigger=\"orders\"}", 1.0);
    let ended = serving.stop();
    assert_eq!(ended.code, Some(5), "{ended:#?}");
    vhost.wait_for_depth("in", 2, SOON);
}

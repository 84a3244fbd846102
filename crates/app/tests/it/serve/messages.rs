//! Messages through a trigger: done, rejected, tried again, given up.

use serde_json::json;
use warren_testkit::{python, rabbit};

use super::served::{SOON, Served};

const QUORUM: &str = r#"{"x-queue-type": "quorum"}"#;

fn queues(vhost: &rabbit::Vhost, kind: &str) {
    vhost.queue_with("in", &serde_json::from_str(kind).unwrap());
    vhost.queue("out");
}

/// 1. Done. 2. Rejected, byte for byte. 3. Tried twice more, and given up. All of it on record.
fn goes_where_it_belongs(kind: &str) {
    let vhost = rabbit::vhost();
    queues(&vhost, kind);
    vhost.exchange("events", "topic");
    vhost.bind("events", "in", "order.#");
    let served = Served::rabbit(&vhost, "retry: {delays: [500ms, 1s]}");
    let serving = served.consume();
    let properties = json!({
        "message_id": "m1", "content_type": "text/plain", "priority": 3, "delivery_mode": 2, "app_id": "shop",
        "expiration": "600000", "headers": {"tenant": "7", "nested": {"list": [1, true]}},
    });
    for body in ["good", "bad", "again"] {
        assert!(vhost.publish("events", "order.made", body.as_bytes(), &properties));
    }
    vhost.wait_for_depth("out", 1, SOON);
    vhost.wait_for_depth("dead", 2, SOON);
    vhost.wait_for_depth("in", 0, SOON);

    let out: serde_json::Value = serde_json::from_slice(&vhost.take("out", 1)[0].body).unwrap();
    assert_eq!(out["body"], "good"); // 1.
    assert_eq!(
        (&out["attempt"], &out["exchange"], &out["key"]),
        (&json!(1), &json!("events"), &json!("order.made"))
    );
    assert_eq!(out["headers"], json!({"tenant": "7", "nested": {"list": [1, true]}}));
    for dead in vhost.take("dead", 2) {
        let mut headers = dead.properties["headers"].as_object().unwrap().clone();
        let ours: serde_json::Map<_, _> = headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-warren-"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        headers.retain(|name, _| !name.starts_with("x-warren-"));
        assert_eq!(json!(headers), properties["headers"], "what our own queues wrote is gone");
        for name in ["message_id", "content_type", "priority", "delivery_mode", "app_id"] {
            assert_eq!(dead.properties[name], properties[name], "{name}");
        }
        assert_eq!(dead.properties["expiration"], json!(null), "it must not vanish");
        assert_eq!(ours["x-warren-origin"]["expiration"], "600000");
        assert_eq!((&ours["x-warren-queue"], &ours["x-warren-exchange"]), (&json!("in"), &json!("events")));
        assert_eq!(ours["x-warren-routing-key"], "order.made");
        match dead.body.as_slice() {
            b"bad" => {
                assert_eq!(
                    (&ours["x-warren-class"], &ours["x-warren-attempts"]),
                    (&json!("rejected"), &json!(1))
                );
            } // 2.
            b"again" => {
                assert_eq!(
                    (&ours["x-warren-class"], &ours["x-warren-attempts"]),
                    (&json!("exhausted"), &json!(3))
                );
            } // 3.
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(served.statuses("again"), ["retried", "retried", "dead_lettered"]);
    assert_eq!(serving.trigger()["retries_by"], "delay_queues");
    serving.wait_for_number("warren_attempts_total{trigger=\"orders\",status=\"ok\"}", 1.0);
    serving.wait_for_number("warren_messages_received_total{trigger=\"orders\"}", 5.0);
    serving.wait_for_number("warren_failures_total{trigger=\"orders\",kind=\"refused\"}", 4.0);
    let ended = serving.stop();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
}

#[test]
fn from_a_classic_queue_everything_goes_where_it_belongs() {
    goes_where_it_belongs("{}");
}

#[test]
fn from_a_quorum_queue_everything_goes_where_it_belongs() {
    goes_where_it_belongs(QUORUM);
}

/// What nobody who declares it without could consume.
#[test]
fn from_a_queue_with_settings_of_its_own_everything_goes_where_it_belongs() {
    goes_where_it_belongs(
        r#"{"x-message-ttl": 3600000, "x-max-length": 1000, "x-max-priority": 5, "x-queue-mode": "lazy"}"#,
    );
}

#[test]
fn where_no_queue_may_be_made_messages_wait_in_the_parking_lot() {
    let vhost = rabbit::vhost();
    queues(&vhost, "{}");
    vhost.queue("dead");
    let user = vhost.user("^$", ".*", ".*");
    let broker =
        format!("{{type: rabbitmq, url: \"{}\", management_url: \"{}\"}}", user.url, user.management_url);
    let served = Served::with(&broker, "retry: {delays: [500ms, 1s]}");
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"again", &json!({"headers": {"a": "b"}})));
    vhost.wait_for_depth("dead", 1, SOON);
    assert_eq!(serving.trigger()["retries_by"], "parking");
    let dead = vhost.take("dead", 1);
    assert_eq!(dead[0].properties["headers"]["x-warren-attempts"], 3);
    assert_eq!(dead[0].properties["headers"]["a"], "b");
    assert_eq!(served.statuses("again"), ["retried", "retried", "dead_lettered"]);
}

#[test]
fn the_embedded_broker_is_consumed_as_well() {
    let served = Served::embedded("retry: {delays: [300ms]}");
    let serving = served.consume();
    // The program itself is the way in: a pipeline of another trigger would be one more thing to go wrong.
    drop(serving);
    let folder = served.program.config().parent().unwrap().join("state");
    let broker = {
        use warren_connectors::embedded::{Config, Embedded};
        let config: Config = serde_json::from_str("{}").unwrap();
        Embedded::open("mq", &config, &folder).unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let message = |body: &str| warren_engine::message::Outbound {
        route: warren_engine::message::Route::Queue("in".into()),
        message: warren_engine::message::Message {
            body: body.to_owned().into_bytes().into(),
            properties: warren_engine::message::Properties::default(),
        },
    };
    let batch: Vec<_> = ["good", "bad", "again"].into_iter().map(message).collect();
    let receipts = runtime.block_on(warren_engine::ports::Broker::publish(&broker, &batch));
    assert_eq!(receipts.len(), 3);
    let serving = served.consume();
    let depth = |queue: &str| runtime.block_on(broker.queue_state(queue)).unwrap().ready;
    warren_testkit::wait_until("all are done", SOON, || {
        depth("out") == 1 && depth("dead") == 2 && depth("in") == 0
    });
    assert_eq!(served.statuses("again"), ["retried", "dead_lettered"]);
    let ended = serving.stop();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
}

#[test]
fn what_happened_to_a_message_can_be_explained_and_done_again() {
    let vhost = rabbit::vhost();
    queues(&vhost, "{}");
    let served = Served::rabbit(&vhost, "");
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"bad", &json!({"message_id": "m-17"})));
    vhost.wait_for_depth("dead", 1, SOON);
    let told = served.program.run(&["explain", "m-17"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    for part in ["orders message m-17: attempt 1, dead_lettered, rejected", "it is bad", "body       bad"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let document = served.program.documents(&["explain", "m-17"], 0).pop().unwrap();
    let attempt = document["run"].as_str().unwrap().to_owned();
    assert_eq!(served.program.documents(&["runs", &attempt], 0)[0]["message"], "m-17");
    // By its id; then all that was given up.
    let replayed = served.program.run(&["replay", "--message", "m-17"]);
    assert!(replayed.stdout.contains("1 message went back"), "{replayed:#?}");
    vhost.wait_for_depth("dead", 2, SOON);
    let replayed = served.program.run(&["replay", "--trigger", "orders"]);
    assert!(replayed.stdout.contains("2 messages went back"), "{replayed:#?}");
    vhost.wait_for_depth("dead", 4, SOON);
    drop(serving);
}

/// Requests and replies with `pika`, to which RabbitMQ delivers directly.
#[test]
fn a_direct_reply_reaches_its_requester_and_the_steps_behind_it_run() {
    let vhost = rabbit::vhost();
    queues(&vhost, "{}");
    vhost.queue("dead");
    let pipeline = r"
pipelines:
  work:
    - map: '{answer: .body}'
    - reply: {timeout: 20s}
    - publish: {to: mq, queue: out, body: '.answer'}
";
    let broker = format!("{{type: rabbitmq, url: \"{}\"}}", vhost.url());
    let served = Served::with_pipeline(&broker, "retry: {delays: [500ms]}", pipeline);
    // A requester that has gone loses its reply and nothing else.
    python::request_and_go(&vhost.url(), "in", "gone");
    let serving = served.consume();
    vhost.wait_for_depth("out", 1, SOON);
    for body in ["one", "two"] {
        let reply: serde_json::Value =
            serde_json::from_str(&python::request(&vhost.url(), "in", body)).unwrap();
        assert_eq!(reply, json!({ "answer": body }));
    }
    vhost.wait_for_depth("out", 3, SOON);
    // A reply queue that does not exist, and a token that would make RabbitMQ close the connection, reject their message only.
    for reply_to in ["no-such-queue", "amq.rabbitmq.reply-to.AAAA.x"] {
        assert!(vhost.publish("", "in", b"nowhere", &json!({ "reply_to": reply_to })));
    }
    vhost.wait_for_depth("dead", 2, SOON);
    vhost.wait_for_depth("out", 3, SOON);
    assert_eq!(served.statuses("gone"), ["ok"]);
    let ended = serving.stop();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
}

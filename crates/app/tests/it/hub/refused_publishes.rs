//! Publishes that RabbitMQ refuses each time, on every route (F39): the answer says who can act, and a good one is accepted beside them.

use serde_json::{Value, json};
use warren_testkit::rabbit;
use warren_testkit::wait::wait_until_async;

use super::client::{Ask, PATIENCE, Reply};
use super::real::{Hub, Setup, add_user};

/// The hub's own login may write to these exchanges, and to no queue.
const OWN: [&str; 3] = ["", r"^(good|internal|amq\.rabbitmq\.trace)$", ""];

/// The requests that publish to an exchange or a queue.
fn publishes(vhost: &str, kind: &str, name: &str) -> [Ask; 2] {
    let facet = if kind == "queue" { "q" } else { "x" };
    let json = json!({"vhost": vhost, kind: name, "body": "x"});
    [
        Ask::new("POST", &format!("/{vhost}/endpoint/{facet}/{name}")).body("", "x"),
        Ask::new("POST", "/api/v1/publish").json(&json),
    ]
}

fn is_refused(reply: &Reply, status: u16, code: &str, hub: &Hub) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("retry-after"), None, "{reply:?}");
    let text = reply.text();
    assert!(text.contains(code), "{text}");
    assert_eq!(text.contains("an operator of this hub must act"), status == 502, "{text}");
    assert!(!text.contains(&hub.own.as_ref().unwrap().name), "{text}");
    if reply.header("content-type") == Some("application/problem+json") {
        assert_eq!((&reply.json()["code"], &reply.json()["status"]), (&json!(code), &json!(status)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_refused_each_time_says_who_can_act() {
    for compat in [false, true] {
        refused(compat).await;
    }
}

async fn refused(compat: bool) {
    let hub = Hub::with(Setup { compat, own: Some(OWN), ..Setup::default() }).await;
    let vhost = &hub.vhost;
    vhost.queue("q");
    for exchange in ["good", "secret"] {
        vhost.exchange(exchange, "fanout");
        vhost.bind(exchange, "q", "");
    }
    let internal = json!({"type": "fanout", "internal": true});
    vhost.management().request("PUT", &format!("/api/exchanges/{}/internal", vhost.name()), &internal);
    // Where the user may publish, and the hub's login cannot enter.
    let closed = rabbit::vhost();
    closed.queue("q");
    add_user(&closed, &hub.user, "administrator,rabbithub_admin", [".*"; 3]);
    let mut accepted = 0;
    for (vhost_name, kind, name, status, code) in [
        (vhost.name(), "exchange", "internal", 403, "not-allowed"),
        (vhost.name(), "exchange", "amq.rabbitmq.trace", 403, "not-allowed"),
        (vhost.name(), "exchange", "secret", 502, "access-refused"),
        (vhost.name(), "queue", "q", 502, "access-refused"),
        (closed.name(), "queue", "q", 502, "unknown-vhost"),
        (closed.name(), "exchange", "amq.fanout", 502, "unknown-vhost"),
    ] {
        for ask in publishes(vhost_name, kind, name) {
            let [good, other] = publishes(vhost.name(), "exchange", "good");
            let (refused, good, other) = tokio::join!(hub.boss(ask), hub.boss(good), hub.boss(other));
            is_refused(&refused, status, code, &hub);
            assert_eq!((good.status, other.status), (202, 202), "{good:?} {other:?}");
            accepted += 2;
        }
    }
    vhost.wait_for_depth("q", accepted, PATIENCE);
    // The hub's login is taken away.
    let own = hub.own.as_ref().unwrap();
    vhost.management().request("DELETE", &format!("/api/users/{}", own.name), &Value::Null);
    for ask in publishes(vhost.name(), "exchange", "good") {
        let mut reply = None;
        wait_until_async("the login is refused", PATIENCE, async || {
            let answered = ask.clone().login(&hub.user, "secret").send(hub.address).await;
            let refused = !matches!(answered.status, 202 | 503);
            reply = Some(answered);
            refused
        })
        .await;
        is_refused(&reply.unwrap(), 502, "broker-refused-login", &hub);
    }
}

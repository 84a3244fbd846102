//! Messages that make the broker close the channel: the one that did it is refused, and nothing else is blamed.

use serde_json::json;
use warren_connectors::kit::setting::Size;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes::{self, Code};
use warren_engine::failure::FailureKind;
use warren_engine::message::{HeaderValue, Outbound, Receipt};
use warren_engine::ports::Broker;
use warren_engine::size::ByteSize;
use warren_testkit::rabbit::{Vhost, vhost};

use super::{SOON, assert_accepted, assert_refused, config, exchange, named, outbound, queue, rabbit, tally};

/// Publishes until no receipt is unknown or retried, as the engine does; yields the last receipts and how often a message
/// was sent again.
async fn until_known(rabbit: &Rabbit, batch: &[Outbound]) -> (Vec<Receipt>, usize) {
    let mut receipts = rabbit.publish(batch).await;
    let mut again = 0;
    for _ in 0..20 {
        let open: Vec<usize> = (0..batch.len())
            .filter(|at| match &receipts[*at] {
                Receipt::Accepted(_) => false,
                Receipt::Refused(failure) => failure.kind == FailureKind::Disconnected,
                Receipt::Unknown(_) => true,
            })
            .collect();
        if open.is_empty() {
            return (receipts, again);
        }
        again += open.len();
        let retry: Vec<Outbound> = open.iter().map(|at| batch[*at].clone()).collect();
        for (at, receipt) in open.into_iter().zip(rabbit.publish(&retry).await) {
            receipts[at] = receipt;
        }
    }
    panic!("after twenty tries: {:?}", tally(&receipts));
}

/// One bad message among good ones: it is refused with that code, the others arrive.
async fn one_bad(vhost: &Vhost, rabbit: &Rabbit, bad: Outbound, kind: FailureKind, code: Code) {
    let mut batch: Vec<_> = (0..100).map(|at| named(queue("q"), &format!("good {at}"))).collect();
    batch[50] = bad;
    let (receipts, _) = until_known(rabbit, &batch).await;
    for (at, receipt) in receipts.iter().enumerate() {
        if at == 50 {
            assert_refused(receipt, kind, code);
        } else {
            assert!(matches!(receipt, Receipt::Accepted(_)), "message {at}: {receipt:?}");
        }
    }
    // It is refused again, in place, and no channel is closed for it.
    let (again, resent) = until_known(rabbit, &batch[49..52]).await;
    assert_refused(&again[1], kind, code);
    assert_eq!(resent, 0, "{:?}", tally(&again));
    assert!(vhost.look("q").is_some());
    rabbit.close().await;
}

#[tokio::test]
async fn a_foreign_user_id() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    let mut bad = named(queue("q"), "bad");
    bad.message.properties.user_id = Some("somebody".into());
    one_bad(&vhost, &rabbit, bad, FailureKind::Invalid, codes::INVALID_PROPERTY).await;
}

#[tokio::test]
async fn a_user_id_is_taken_if_it_is_our_own_empty_or_the_login_may_impersonate() {
    let vhost = vhost();
    vhost.queue("q");
    let of = |user_id: &str| {
        let mut outbound = named(queue("q"), user_id);
        outbound.message.properties.user_id = Some(user_id.to_owned());
        outbound
    };
    let user = vhost.user(".*", ".*", ".*");
    let (own, other) = (rabbit(&user.url), [of(&user.name), of(""), of("somebody")]);
    assert_accepted(&own.publish(&other[..2]).await);
    let receipts = own.publish(&other[2..]).await;
    assert_refused(&receipts[0], FailureKind::Invalid, codes::INVALID_PROPERTY);
    let text = format!("{:?}", super::refused(&receipts[0]));
    assert!(!text.contains(&user.name) && text.contains("impersonator"), "{text}");
    own.close().await;
    let tags = serde_json::json!({"password": user.password, "tags": "impersonator"});
    vhost.management().request("PUT", &format!("/api/users/{}", user.name), &tags);
    let impersonator = rabbit(&user.url);
    assert_accepted(&impersonator.publish(&other).await);
    impersonator.close().await;
}

#[tokio::test]
async fn a_message_larger_than_the_broker_takes() {
    let vhost = vhost();
    vhost.queue("q");
    // Told wrongly that the broker takes more than its 128 MiB.
    let config = Config { max_message_size: Some(Size(ByteSize(200 << 20))), ..config(&vhost.url()) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    assert_eq!(rabbit.limits().await.unwrap().body_bytes_max, 200 << 20);
    let bad = outbound(queue("q"), vec![0; 130 << 20]);
    one_bad(&vhost, &rabbit, bad, FailureKind::Invalid, codes::MESSAGE_TOO_LARGE).await;
}

#[tokio::test]
async fn an_exchange_that_may_not_be_written_to() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.exchange("secret", "fanout");
    let user = vhost.user(".*", "^amq.default$", ".*");
    let rabbit = rabbit(&user.url);
    let bad = named(exchange("secret", ""), "bad");
    one_bad(&vhost, &rabbit, bad, FailureKind::Refused, codes::ACCESS_REFUSED).await;
}

/// A reason for which the broker closes the channel over one message, and the code that the message is refused with.
type Reason = (&'static str, fn(&mut Outbound), Code);

const REASONS: [Reason; 7] = [
    ("user_id", |bad| bad.message.properties.user_id = Some("mallory".into()), codes::INVALID_PROPERTY),
    ("expiration", |bad| bad.message.properties.expiration = Some("1 s".into()), codes::INVALID_PROPERTY),
    (
        "CC",
        |bad| bad.message.properties.headers.set("CC", HeaderValue::Text("q".into())),
        codes::INVALID_PROPERTY,
    ),
    ("BCC", |bad| bad.message.properties.headers.set("BCC", HeaderValue::Void), codes::INVALID_PROPERTY),
    (
        "reply_to",
        |bad| bad.message.properties.reply_to = Some("amq.rabbitmq.reply-to".into()),
        codes::INVALID_PROPERTY,
    ),
    ("missing exchange", |bad| bad.route = exchange("missing", ""), codes::NO_SUCH_EXCHANGE),
    ("internal exchange", |bad| bad.route = exchange("internal", ""), codes::NOT_ALLOWED),
];

/// Two bad messages of different reasons, at each place, among good ones that carry the login's own `user_id`: each is refused for its own reason,
/// the others are accepted at once and once, in the first run and in the second.
#[tokio::test]
async fn two_bad_messages_are_refused_and_each_other_is_accepted_once() {
    for channels in [1, 4] {
        let vhost = vhost();
        vhost.queue("q");
        vhost.management().request(
            "PUT",
            &format!("/api/exchanges/{}/internal", vhost.name()),
            &json!({"type": "fanout", "internal": true}),
        );
        let config = Config { channels: Some(channels), ..config(&vhost.url()) };
        let rabbit = Rabbit::new("rabbit", &config).unwrap();
        let mut expected = 0;
        for (index, (name, spoil, code)) in REASONS.iter().enumerate() {
            let (other, spoil_other, other_code) = REASONS[(index + 1) % REASONS.len()];
            for (first, second) in [(0, 1), (0, 59), (30, 31), (58, 59)] {
                let mut batch: Vec<_> = (0..60).map(|at| named(queue("q"), &format!("{at}"))).collect();
                for outbound in &mut batch {
                    outbound.message.properties.user_id = Some("guest".into());
                }
                spoil(&mut batch[first]);
                spoil_other(&mut batch[second]);
                for run in 1..=2 {
                    let receipts = rabbit.publish(&batch).await;
                    assert_eq!(super::refused(&receipts[first]).code, *code, "{name}, run {run}");
                    assert_eq!(super::refused(&receipts[second]).code, other_code, "{other}, run {run}");
                    let accepted = tally(&receipts)["accepted"];
                    assert_eq!(accepted, 58, "{name} and {other}, run {run}: {:?}", tally(&receipts));
                    expected += 58;
                }
            }
        }
        vhost.wait_for_depth("q", expected, SOON);
        rabbit.close().await;
    }
}

/// Publishers that share the channels, one of which sends what closes one, each time with another name: the others get their own answers.
#[tokio::test]
async fn neighbours_of_a_bad_message_get_their_own_answers() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = Rabbit::new("rabbit", &Config { channels: Some(1), ..config(&vhost.url()) }).unwrap();
    let bad = async {
        for round in 0..40 {
            let mut bad = named(queue("q"), "bad");
            bad.message.properties.user_id = Some(format!("mallory {round}"));
            let receipts = rabbit.publish(&[bad]).await;
            assert_refused(&receipts[0], FailureKind::Invalid, codes::INVALID_PROPERTY);
            let missing = named(exchange(&format!("missing {round}"), ""), "bad");
            let receipts = rabbit.publish(&[missing]).await;
            assert_refused(&receipts[0], FailureKind::NotFound, codes::NO_SUCH_EXCHANGE);
        }
    };
    let good = async |publisher: usize| {
        for round in 0..100 {
            let batch = [named(queue("q"), &format!("{publisher}.{round}"))];
            super::assert_accepted(&rabbit.publish(&batch).await);
        }
    };
    tokio::join!(bad, good(1), good(2), good(3));
    vhost.wait_for_depth("q", 300, SOON);
    rabbit.close().await;
}

/// A login that may use some routing keys of a topic exchange only.
#[tokio::test]
async fn a_routing_key_that_may_not_be_used_refuses_its_own_messages() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.exchange("topic", "topic");
    vhost.bind("topic", "q", "#");
    let user = vhost.user(".*", ".*", ".*");
    vhost.management().request(
        "PUT",
        &format!("/api/topic-permissions/{}/{}", vhost.name(), user.name),
        &json!({"exchange": "topic", "write": "^good", "read": ".*"}),
    );
    let rabbit = rabbit(&user.url);
    let key = |at: usize| if at.is_multiple_of(10) { "bad.key" } else { "good.key" };
    let batch: Vec<_> = (1..50).map(|at| named(exchange("topic", key(at)), &at.to_string())).collect();
    let (receipts, _) = until_known(&rabbit, &batch).await;
    for (outbound, receipt) in batch.iter().zip(&receipts) {
        match &outbound.route {
            route if *route == exchange("topic", "bad.key") => {
                assert_refused(receipt, FailureKind::Refused, codes::ACCESS_REFUSED);
            }
            _ => super::assert_accepted(std::slice::from_ref(receipt)),
        }
    }
    rabbit.close().await;
}

/// RabbitMQ closes the connection over what it cannot read, and over a decimal that goes to a stream. The first is not sent, the second is sent
/// over a connection of its own.
#[tokio::test]
async fn what_closes_the_connection_closes_none_that_others_publish_over() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.queue_with("stream", &json!({"x-queue-type": "stream"}));
    let rabbit = rabbit(&vhost.url());
    let with = |route, value: HeaderValue| {
        let mut outbound = named(route, "bad");
        outbound.message.properties.headers.set("h", value);
        outbound
    };
    let bad = async {
        for wide in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let nested = [("in".to_owned(), HeaderValue::F64(wide))].into_iter().collect();
            for value in [
                HeaderValue::F32(wide as f32),
                HeaderValue::F64(wide),
                HeaderValue::Array(vec![HeaderValue::F64(wide)]),
                HeaderValue::Table(nested),
            ] {
                let receipts = rabbit.publish(&[with(queue("q"), value)]).await;
                assert_refused(&receipts[0], FailureKind::Invalid, codes::INVALID_PROPERTY);
            }
        }
        let decimal = HeaderValue::Decimal { scale: 2, value: -5 };
        let (receipts, _) = until_known(&rabbit, &[with(queue("stream"), decimal.clone())]).await;
        assert_refused(&receipts[0], FailureKind::Invalid, codes::BROKER_REFUSED_MESSAGE);
        super::assert_accepted(&rabbit.publish(&[with(queue("q"), decimal)]).await);
    };
    let good = async |publisher: usize| {
        for round in 0..100 {
            let batch = [named(queue("q"), &format!("{publisher}.{round}"))];
            super::assert_accepted(&rabbit.publish(&batch).await);
        }
    };
    tokio::join!(bad, good(1), good(2), good(3));
    vhost.wait_for_depth("q", 301, SOON);
    rabbit.close().await;
}

#[tokio::test]
async fn an_exchange_deleted_while_it_is_published_to() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.exchange("fan", "fanout");
    vhost.bind("fan", "q", "");
    let rabbit = rabbit(&vhost.url());
    let batch: Vec<_> = (0..50).map(|at| named(exchange("fan", ""), &at.to_string())).collect();
    super::assert_accepted(&rabbit.publish(&batch).await);
    vhost.delete_exchange("fan");
    let mixed: Vec<_> = (0..50)
        .map(|at| {
            let route = if at % 2 == 0 { exchange("fan", "") } else { queue("q") };
            named(route, &at.to_string())
        })
        .collect();
    let (receipts, _) = until_known(&rabbit, &mixed).await;
    for (at, receipt) in receipts.iter().enumerate() {
        if at % 2 == 0 {
            assert_refused(receipt, FailureKind::NotFound, codes::NO_SUCH_EXCHANGE);
        } else {
            assert!(matches!(receipt, Receipt::Accepted(_)), "message {at}: {receipt:?}");
        }
    }
    rabbit.close().await;
}

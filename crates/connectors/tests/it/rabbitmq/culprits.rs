//! Messages that make the broker close the channel: the one that did it is refused, and nothing else is blamed.

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

#[tokio::test]
async fn a_headers_table_that_the_broker_objects_to() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    let mut bad = named(queue("q"), "bad");
    // CC must be a list; the broker's words name no message.
    bad.message.properties.headers.set("CC", HeaderValue::Text("q".into()));
    one_bad_unclear(&rabbit, bad).await;
    vhost.wait_for_depth("q", 99, SOON);
}

/// The broker does not say which message: it is found by sending them one at a time.
async fn one_bad_unclear(rabbit: &Rabbit, bad: Outbound) {
    let mut batch: Vec<_> = (0..100).map(|at| named(queue("q"), &format!("good {at}"))).collect();
    batch[50] = bad;
    let first = rabbit.publish(&batch).await;
    let (receipts, _) = until_known(rabbit, &batch).await;
    assert_refused(&receipts[50], FailureKind::Invalid, codes::BROKER_REFUSED_MESSAGE);
    assert_eq!(tally(&receipts)["accepted"], 99, "{:?}", tally(&receipts));
    assert!(first.iter().any(|receipt| matches!(receipt, Receipt::Unknown(_))), "{:?}", tally(&first));
    rabbit.purge_queue("q").await.unwrap();
    let good: Vec<_> =
        batch.iter().filter(|outbound| outbound.message.properties.headers.is_empty()).cloned().collect();
    super::assert_accepted(&rabbit.publish(&good).await);
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

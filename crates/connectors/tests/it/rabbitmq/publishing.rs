//! Receipts: each message its own.

use serde_json::json;
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::message::Receipt;
use warren_engine::ports::Broker;
use warren_testkit::python;
use warren_testkit::rabbit::vhost;

use super::{SOON, assert_accepted, assert_refused, exchange, named, outbound, queue, rabbit, tally};

#[tokio::test]
async fn a_batch_is_accepted_in_order() {
    let vhost = vhost();
    vhost.queue("orders");
    let rabbit = rabbit(&vhost.url());
    let batch: Vec<_> = (0..2_000).map(|at| named(queue("orders"), &format!("m{at}"))).collect();
    assert_accepted(&rabbit.publish(&batch).await);
    for sent in &batch {
        let taken = rabbit.take_one("orders").await.unwrap().unwrap();
        assert_eq!(taken.message, sent.message);
    }
    assert_eq!(rabbit.take_one("orders").await.unwrap(), None);
    rabbit.close().await;
}

#[tokio::test]
async fn messages_for_queues_that_are_not_there_are_refused_and_no_others() {
    let vhost = vhost();
    vhost.queue("a");
    vhost.queue("b");
    let rabbit = rabbit(&vhost.url());
    // Every third one goes nowhere; ids and bodies repeat, so nothing but the match can tell them apart.
    let names = ["a", "nowhere", "b"];
    let batch: Vec<_> = (0..3_000).map(|at| named(queue(names[at % 3]), &format!("m{}", at / 6))).collect();
    let receipts = rabbit.publish(&batch).await;
    for (at, receipt) in receipts.iter().enumerate() {
        match at % 3 {
            1 => assert_refused(receipt, FailureKind::NotFound, codes::NO_SUCH_QUEUE),
            _ => assert!(matches!(receipt, Receipt::Accepted(_)), "message {at}: {receipt:?}"),
        }
    }
    let failure = super::refused(&receipts[1]);
    assert_eq!(failure.what, "publish to queue `nowhere`");
    assert_eq!(failure.detail.as_deref(), Some("the broker gave the message back: 312 NO_ROUTE"));
    vhost.wait_for_depth("a", 1_000, SOON);
    vhost.wait_for_depth("b", 1_000, SOON);
    rabbit.close().await;
}

#[tokio::test]
async fn an_unroutable_key_and_a_missing_exchange_refuse_only_their_own() {
    let vhost = vhost();
    vhost.queue("q");
    vhost.exchange("topic", "topic");
    vhost.bind("topic", "q", "good.*");
    let rabbit = rabbit(&vhost.url());
    let batch = vec![
        named(exchange("topic", "good.1"), "0"),
        named(exchange("topic", "bad.1"), "1"),
        named(exchange("missing", "good.1"), "2"),
        named(queue("q"), "3"),
        named(exchange("topic", "good.2"), "4"),
    ];
    for round in 1..=2 {
        let receipts = rabbit.publish(&batch).await;
        assert_accepted(&[receipts[0].clone(), receipts[3].clone(), receipts[4].clone()]);
        assert_refused(&receipts[1], FailureKind::Unroutable, codes::UNROUTABLE);
        assert_refused(&receipts[2], FailureKind::NotFound, codes::NO_SUCH_EXCHANGE);
        vhost.wait_for_depth("q", 3 * round, SOON);
    }
    rabbit.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_may_be_tried_again() {
    let vhost = vhost();
    vhost.queue_with("small", &json!({"x-max-length": 3, "x-overflow": "reject-publish"}));
    let rabbit = rabbit(&vhost.url());
    let batch: Vec<_> = (0..10).map(|at| named(queue("small"), &at.to_string())).collect();
    let receipts = rabbit.publish(&batch).await;
    assert_accepted(&receipts[..3]);
    for receipt in &receipts[3..] {
        assert_refused(receipt, FailureKind::Throttled, codes::BROKER_REFUSED_MESSAGE);
    }
    rabbit.purge_queue("small").await.unwrap();
    assert_accepted(&rabbit.publish(&batch[3..6]).await);
    rabbit.close().await;
}

#[tokio::test]
async fn many_publishers_at_once_each_get_their_own_answers() {
    let vhost = vhost();
    vhost.queue("shared");
    let rabbit = rabbit(&vhost.url());
    let publish = async |publisher: usize| {
        let mut refused = 0;
        for round in 0..20 {
            let batch: Vec<_> = (0..50)
                .map(|at| {
                    let name = if (publisher + at).is_multiple_of(7) { "nowhere" } else { "shared" };
                    outbound(queue(name), "the same body in each of them")
                })
                .collect();
            for (outbound, receipt) in batch.iter().zip(rabbit.publish(&batch).await) {
                match &outbound.route {
                    route if *route == queue("nowhere") => {
                        assert_refused(&receipt, FailureKind::NotFound, codes::NO_SUCH_QUEUE);
                        refused += 1;
                    }
                    _ => assert_accepted(&[receipt]),
                }
            }
            assert!(refused > round, "each batch has some that go nowhere");
        }
        refused
    };
    let refused: Vec<usize> = futures_util::future::join_all((0..16).map(publish)).await;
    let refused: usize = refused.iter().sum();
    vhost.wait_for_depth("shared", (16 * 20 * 50 - refused) as u64, SOON);
    rabbit.close().await;
}

#[tokio::test]
async fn bodies_of_all_sizes_arrive_whole() {
    let vhost = vhost();
    vhost.queue("sizes");
    let rabbit = rabbit(&vhost.url());
    let frame = 131_072 - 8;
    let sizes = [0, 1, frame - 1, frame, frame + 1, 2 * frame, 1 << 20, 5_000_000];
    let batch: Vec<_> = sizes
        .iter()
        .map(|size| outbound(queue("sizes"), (0..*size).map(|at| (at % 251) as u8).collect::<Vec<_>>()))
        .collect();
    let receipts = rabbit.publish(&batch).await;
    assert_accepted(&receipts);
    for outbound in &batch {
        let taken = rabbit.take_one("sizes").await.unwrap().unwrap();
        assert!(taken.message == outbound.message, "{} bytes", outbound.message.body.len());
    }
    rabbit.close().await;
}

#[tokio::test]
async fn what_the_protocol_cannot_say_is_refused_without_being_sent() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    let mut batch: Vec<_> = (0..6).map(|at| named(queue("q"), &at.to_string())).collect();
    batch[1].route = queue(&"ü".repeat(200));
    batch[2].message.properties.correlation_id = Some("x".repeat(256));
    batch[3]
        .message
        .properties
        .headers
        .set("wide", warren_engine::message::HeaderValue::Text("x".repeat(140_000)));
    batch[4].message.properties.expiration = Some("tomorrow".into());
    let receipts = rabbit.publish(&batch).await;
    assert_accepted(&[receipts[0].clone(), receipts[5].clone()]);
    assert_refused(&receipts[1], FailureKind::Invalid, codes::VALUE_TOO_LONG);
    assert_refused(&receipts[2], FailureKind::Invalid, codes::VALUE_TOO_LONG);
    assert_refused(&receipts[3], FailureKind::Invalid, codes::HEADERS_TOO_LARGE);
    assert_refused(&receipts[4], FailureKind::Invalid, codes::INVALID_PROPERTY);
    vhost.wait_for_depth("q", 2, SOON);
    assert_eq!(tally(&receipts)["accepted"], 2);
    rabbit.close().await;
}

#[tokio::test]
async fn headers_that_just_fit_a_frame_are_taken() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    let limits = rabbit.limits().await.unwrap();
    let most = usize::try_from(limits.header_bytes_max.unwrap()).unwrap();
    // Beside the text: length of the table, length and name, type, length of the text, and the delivery mode.
    let mut fits = outbound(queue("q"), "");
    fits.message
        .properties
        .headers
        .set("h", warren_engine::message::HeaderValue::Text("x".repeat(most - 12)));
    let mut wider = outbound(queue("q"), "");
    wider
        .message
        .properties
        .headers
        .set("h", warren_engine::message::HeaderValue::Text("x".repeat(most - 11)));
    let receipts = rabbit.publish(&[fits.clone(), wider]).await;
    assert_accepted(&receipts[..1]);
    assert_refused(&receipts[1], FailureKind::Invalid, codes::HEADERS_TOO_LARGE);
    assert_eq!(rabbit.take_one("q").await.unwrap().unwrap().message, fits.message);
    rabbit.close().await;
}

#[tokio::test]
async fn direct_replies_arrive_and_are_accepted() {
    let vhost = vhost();
    vhost.queue("requests");
    let rabbit = rabbit(&vhost.url());
    let url = vhost.url();
    let requester = tokio::task::spawn_blocking(move || python::request(&url, "requests", "ask"));
    let mut consumer = rabbit.consume("requests", 1).await.unwrap();
    let request = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
    let reply_to = request.job().message.properties.reply_to.clone().unwrap();
    assert!(reply_to.starts_with("amq.rabbitmq.reply-to."), "{reply_to}");
    // Next to it: an ordinary reply queue, and one that does not exist.
    let batch = vec![
        named(queue("requests"), "neighbour"),
        outbound(queue(&reply_to), "answer"),
        named(queue("no-such-reply-queue"), "nowhere"),
        named(queue("requests"), "neighbour 2"),
    ];
    let receipts = rabbit.publish(&batch).await;
    assert_accepted(&[receipts[0].clone(), receipts[1].clone(), receipts[3].clone()]);
    assert_refused(&receipts[2], FailureKind::NotFound, codes::NO_SUCH_QUEUE);
    assert_eq!(requester.await.unwrap(), "answer");
    // The requester has gone. RabbitMQ drops the reply, and confirms it.
    let late = [outbound(queue(&reply_to), "late"), outbound(queue("amq.rabbitmq.reply-to"), "nobody's")];
    assert_accepted(&rabbit.publish(&late).await);
    rabbit.close().await;
}

/// RabbitMQ closes the connection over a token that it cannot decode. Whoever sends a request chooses it.
#[tokio::test]
async fn a_reply_token_that_closes_the_connection_hurts_no_other_message() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    for round in 1..=3 {
        let mut batch: Vec<_> = (0..30).map(|at| named(queue("q"), &at.to_string())).collect();
        for (at, token) in [(7, "AAAA.x"), (15, "g1h2AA==.x"), (16, "not base64.x")] {
            batch[at] = outbound(queue(&format!("amq.rabbitmq.reply-to.{token}")), "bad");
        }
        // Well formed, of a node that this broker does not know.
        let foreign =
            "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA4NDcyOTU0MAAABqwAAAAAaw32Iw==.GpTz1EMQC++HLpdjqMnpRQ==";
        batch[20] = outbound(queue(foreign), "foreign");
        let receipts = rabbit.publish(&batch).await;
        for (at, receipt) in receipts.iter().enumerate() {
            match at {
                7 | 15 | 16 => assert_refused(receipt, FailureKind::NotFound, codes::NO_SUCH_QUEUE),
                20 => {} // by the broker's version
                _ => assert!(matches!(receipt, Receipt::Accepted(_)), "{at}: {receipt:?}"),
            }
        }
        vhost.wait_for_depth("q", 26 * round, SOON);
    }
    rabbit.close().await;
}

#[tokio::test]
async fn a_request_for_direct_replies_that_nothing_consumes_is_refused_before_it_is_sent() {
    let vhost = vhost();
    vhost.queue("q");
    let rabbit = rabbit(&vhost.url());
    let mut batch: Vec<_> = (0..20).map(|at| named(queue("q"), &at.to_string())).collect();
    batch[7].message.properties.reply_to = Some("amq.rabbitmq.reply-to".to_owned());
    let mut receipts = rabbit.publish(&batch).await;
    assert_refused(&receipts.remove(7), FailureKind::Invalid, codes::INVALID_PROPERTY);
    assert_accepted(&receipts);
    vhost.wait_for_depth("q", 19, SOON);
    rabbit.close().await;
}

//! Receipts and bodies.

use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Receipt};

use super::{
    Fixture, accepted, body, consume, drain, exchange, headers, message, next, outbound, queue, refused,
    settle, text,
};
use warren_engine::delivery::Settlement;

pub(super) async fn all_properties_come_back(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    let mut full = outbound(queue("q"), "full");
    full.message.properties = Properties {
        content_type: Some("application/json".into()),
        content_encoding: Some("gzip".into()),
        persistent: true,
        priority: Some(3),
        correlation_id: Some("çorrelation".into()),
        reply_to: Some("answers".into()),
        expiration: Some("600000".into()),
        message_id: Some("message 1".into()),
        timestamp: Some(1_700_000_000),
        kind: Some("order.created".into()),
        user_id: None, // only the login's own name is allowed
        app_id: Some("conformance".into()),
        headers: every_header(),
    };
    let mut bare = outbound(queue("q"), "bare");
    bare.message.properties = Properties { persistent: false, ..Properties::default() };
    accepted(&fixture.broker().publish(&[full.clone(), bare.clone()]).await);
    let mut consumer = consume(fixture, "q", 10).await;
    for sent in [full, bare] {
        let delivery = next(consumer.as_mut()).await;
        let job = delivery.job();
        assert_eq!(by_name(job.message.clone()), by_name(sent.message));
        assert_eq!(
            (&*job.envelope.queue, &*job.envelope.exchange, &*job.envelope.routing_key),
            ("q", "", "q")
        );
        assert!(!job.envelope.redelivered);
        settle(delivery, Settlement::Ack).await;
    }
}

/// A message with its headers sorted by name, those in tables too: AMQP 0-9-1 (4.2.5.5) promises no order of a table's fields, and
/// RabbitMQ 4 sorts them.
pub(super) fn by_name(mut message: Message) -> Message {
    message.properties.headers = sorted(&message.properties.headers);
    message
}

fn sorted(headers: &Headers) -> Headers {
    let mut fields: Vec<_> = headers.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields.into_iter().map(|(name, value)| (name.to_owned(), sorted_value(value))).collect()
}

fn sorted_value(value: &HeaderValue) -> HeaderValue {
    match value {
        HeaderValue::Table(fields) => HeaderValue::Table(sorted(fields)),
        HeaderValue::Array(values) => HeaderValue::Array(values.iter().map(sorted_value).collect()),
        other => other.clone(),
    }
}

fn every_header() -> Headers {
    let array = vec![HeaderValue::Array(vec![text("a"), HeaderValue::I64(-1)]), HeaderValue::Void];
    headers(&[
        ("zulu first, as headers keep their order", HeaderValue::Void),
        ("bool", HeaderValue::Bool(true)),
        ("i8", HeaderValue::I8(-5)),
        ("u8", HeaderValue::U8(250)),
        ("i16", HeaderValue::I16(-30_000)),
        ("u16", HeaderValue::U16(60_000)),
        ("i32", HeaderValue::I32(i32::MIN)),
        ("u32", HeaderValue::U32(u32::MAX)),
        ("i64", HeaderValue::I64(i64::MIN)),
        ("f32", HeaderValue::F32(1.5)),
        ("f64", HeaderValue::F64(-2.25e100)),
        ("decimal", HeaderValue::Decimal { scale: 2, value: 12_345 }),
        ("negative", HeaderValue::Decimal { scale: 2, value: -5 }),
        ("least", HeaderValue::Decimal { scale: 255, value: i32::MIN }),
        ("text", text("grüße, 世界")),
        ("bytes", HeaderValue::Bytes(vec![0, 255, 254])),
        ("timestamp", HeaderValue::Timestamp(1_700_000_000)),
        ("array", HeaderValue::Array(array)),
        (
            "table",
            HeaderValue::Table(headers(&[("inner", HeaderValue::Table(headers(&[("deep", text("x"))])))])),
        ),
    ])
}

pub(super) async fn a_batch_is_consumed_in_order(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    let broker = fixture.broker();
    for call in 0..5 {
        let batch: Vec<_> = (0..500).map(|at| outbound(queue("q"), format!("{}", call * 500 + at))).collect();
        accepted(&broker.publish(&batch).await);
    }
    let mut consumer = consume(fixture, "q", 50).await;
    for at in 0..2_500 {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(body(&delivery), at.to_string());
        settle(delivery, Settlement::Ack).await;
    }
}

pub(super) async fn each_message_has_its_own_receipt(fixture: &dyn Fixture) {
    fixture.queue("here", headers(&[])).await;
    // Some messages are the same but for their queue; three ids in a row are the same.
    let batch: Vec<_> = (0..600)
        .map(|at| outbound(queue(if at % 5 == 2 { "nowhere" } else { "here" }), format!("{}", at / 3)))
        .collect();
    let receipts = fixture.broker().publish(&batch).await;
    assert_eq!(receipts.len(), batch.len());
    let mut expected = Vec::new();
    for (at, (receipt, outbound)) in receipts.iter().zip(&batch).enumerate() {
        if at % 5 == 2 {
            refused(receipt, FailureKind::NotFound, codes::NO_SUCH_QUEUE);
        } else {
            assert!(matches!(receipt, Receipt::Accepted(_)), "message {at}: {receipt:?}");
            expected.push(String::from_utf8_lossy(&outbound.message.body).into_owned());
        }
    }
    assert_eq!(drain(fixture, "here").await, expected);
}

pub(super) async fn only_their_own_are_refused(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    fixture.exchange("direct", "direct").await;
    fixture.bind("direct", "q", "known", headers(&[])).await;
    let batch = [
        outbound(exchange("direct", "known"), "0"),
        outbound(exchange("direct", "unknown"), "1"),
        outbound(exchange("missing", "known"), "2"),
        outbound(exchange("direct", "known"), "3"),
        outbound(queue("q"), "4"),
    ];
    let receipts = fixture.broker().publish(&batch).await;
    accepted(&[receipts[0].clone(), receipts[3].clone(), receipts[4].clone()]);
    refused(&receipts[1], FailureKind::Unroutable, codes::UNROUTABLE);
    refused(&receipts[2], FailureKind::NotFound, codes::NO_SUCH_EXCHANGE);
    assert_eq!(drain(fixture, "q").await, ["0", "3", "4"]);
}

pub(super) async fn bodies_arrive_whole(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    let batch: Vec<Outbound> = [0, 1, 131_064, 131_065, 1 << 20, 3_000_001]
        .into_iter()
        .map(|size: usize| {
            let mut outbound = outbound(queue("q"), size.to_string());
            outbound.message.body = (0..size).map(|at| (at % 253) as u8).collect::<Vec<_>>().into();
            outbound
        })
        .collect();
    accepted(&fixture.broker().publish(&batch).await);
    let mut consumer = consume(fixture, "q", 3).await;
    for sent in batch {
        let delivery = next(consumer.as_mut()).await;
        let came = &delivery.job().message;
        assert!(*came == sent.message, "{} bytes came of {}", came.body.len(), sent.message.body.len());
        settle(delivery, Settlement::Ack).await;
    }
}

pub(super) async fn too_large_is_refused_alone(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    let broker = fixture.broker();
    let limits = broker.limits().await.expect("the broker tells its limits");
    assert!(limits.body_bytes_max <= 16 << 20, "the fixture sets a limit: {limits:?}");
    let mut batch = [outbound(queue("q"), "0"), outbound(queue("q"), "1"), outbound(queue("q"), "2")];
    batch[1].message.body = vec![b'x'; 20 << 20].into();
    let receipts = broker.publish(&batch).await;
    accepted(&[receipts[0].clone(), receipts[2].clone()]);
    refused(&receipts[1], FailureKind::Invalid, codes::MESSAGE_TOO_LARGE);
    assert_eq!(drain(fixture, "q").await, ["0", "2"]);
}

pub(super) async fn too_long_is_refused_alone(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    let mut batch = [outbound(queue("q"), "0"), outbound(queue("q"), "1"), outbound(queue("q"), "2")];
    batch[1].message.properties.correlation_id = Some("x".repeat(256));
    let receipts = fixture.broker().publish(&batch).await;
    accepted(&[receipts[0].clone(), receipts[2].clone()]);
    refused(&receipts[1], FailureKind::Invalid, codes::VALUE_TOO_LONG);
    assert_eq!(drain(fixture, "q").await, ["0", "2"]);
}

pub(super) async fn a_full_queue_refuses(fixture: &dyn Fixture) {
    let arguments = headers(&[("x-max-length", HeaderValue::I64(2)), ("x-overflow", text("reject-publish"))]);
    fixture.queue("small", arguments).await;
    let batch: Vec<_> = (0..5).map(|at| outbound(queue("small"), at.to_string())).collect();
    let receipts = fixture.broker().publish(&batch).await;
    accepted(&receipts[..2]);
    for receipt in &receipts[2..] {
        refused(receipt, FailureKind::Throttled, codes::BROKER_REFUSED_MESSAGE);
    }
}

pub(super) async fn an_empty_batch_has_no_receipts(fixture: &dyn Fixture) {
    assert!(fixture.broker().publish(&[]).await.is_empty());
}

pub(super) async fn many_publishers_at_once(fixture: &dyn Fixture) {
    fixture.queue("shared", headers(&[])).await;
    let broker = fixture.broker();
    let publish = async |publisher: usize| {
        for round in 0..10 {
            let batch: Vec<_> = (0..20)
                .map(|at| {
                    let to = if (publisher + round + at).is_multiple_of(4) { "nowhere" } else { "shared" };
                    Outbound { route: queue(to), message: message("the same in all of them") }
                })
                .collect();
            for (outbound, receipt) in batch.iter().zip(broker.publish(&batch).await) {
                if outbound.route == queue("nowhere") {
                    refused(&receipt, FailureKind::NotFound, codes::NO_SUCH_QUEUE);
                } else {
                    accepted(&[receipt]);
                }
            }
        }
    };
    futures_util::future::join_all((0..12).map(publish)).await;
    assert_eq!(drain(fixture, "shared").await.len(), 12 * 10 * 15);
}

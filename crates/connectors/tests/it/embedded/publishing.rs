//! Where messages go, and which are refused.

use bytes::Bytes;
use tokio::task::JoinSet;
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::finding::Severity;
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Receipt};
use warren_engine::ports::Broker;

use super::{World, exchange, message, queue, receive};

const ALL_KINDS: &str = r##"{
  "queues": {"a": {}, "b": {}, "c": {}},
  "exchanges": {
    "direct": {"type": "direct", "bindings": [
      {"queue": "a", "routing_key": "one"}, {"queue": "b", "routing_key": "one"}, {"queue": "c", "routing_key": "two"}]},
    "fan": {"type": "fanout", "bindings": [{"queue": "a"}, {"queue": "b", "routing_key": "ignored"}]},
    "topic": {"type": "topic", "bindings": [
      {"queue": "a", "routing_key": "order.*.paid"}, {"queue": "b", "routing_key": "order.#"},
      {"queue": "b", "routing_key": "#.paid"}]},
    "headers": {"type": "headers", "bindings": [
      {"queue": "a", "arguments": {"kind": "order", "size": 3}},
      {"queue": "b", "arguments": {"x-match": "any", "kind": "order", "size": 3}},
      {"queue": "c", "arguments": {"x-match": "any-with-x", "x-team": "blue"}}]},
    "empty": {"type": "fanout"}}}"##;

#[tokio::test]
async fn a_message_comes_as_it_was_sent() {
    let world = World::new(r#"{"queues": {"work": {}}}"#);
    let headers: Headers = [
        ("text".to_owned(), HeaderValue::Text("ü".into())),
        (
            "table".to_owned(),
            HeaderValue::Table([("n".to_owned(), HeaderValue::I8(-1))].into_iter().collect()),
        ),
    ]
    .into_iter()
    .collect();
    let sent = Message {
        body: Bytes::from_static(&[0, 255, 10]),
        properties: Properties {
            content_type: Some("application/octet-stream".into()),
            persistent: false,
            priority: Some(3),
            message_id: Some("id-1".into()),
            timestamp: Some(1_700_000_000),
            user_id: Some("anyone".into()),
            headers,
            ..Properties::default()
        },
    };
    world.send_message(Outbound { route: queue("work"), message: sent.clone() }).await;
    let mut consumer = world.broker.consume("work", 1).await.unwrap();
    let job = receive(&mut consumer).await;
    assert_eq!(job.message, sent);
    let envelope = &job.envelope;
    assert_eq!((envelope.queue.as_str(), envelope.exchange.as_str()), ("work", ""));
    assert_eq!((envelope.routing_key.as_str(), envelope.redelivered), ("work", false));
    assert_eq!((envelope.delivery_count, envelope.delivery_tag), (Some(0), 1));
}

#[tokio::test]
async fn exchanges_choose_queues_by_their_kind() {
    let world = World::new(ALL_KINDS);
    world.send(exchange("", "a"), "default").await;
    world.send(exchange("direct", "one"), "direct").await;
    world.send(exchange("fan", "whatever"), "fan").await;
    world.send(exchange("topic", "order.7.paid"), "topic both").await; // b matches twice and gets one copy
    world.send(exchange("topic", "order.7"), "topic b").await;
    let with = |entries: &[(&str, HeaderValue)], body: &str| {
        let mut message = message(body);
        message.properties.headers =
            entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Outbound { route: exchange("headers", ""), message }
    };
    let order = || HeaderValue::Text("order".into());
    world.send_message(with(&[("kind", order()), ("size", HeaderValue::I32(3))], "headers ab")).await;
    world.send_message(with(&[("kind", order()), ("size", HeaderValue::I32(4))], "headers b")).await;
    world.send_message(with(&[("x-team", HeaderValue::Text("blue".into()))], "headers c")).await;
    assert_eq!(world.bodies("a").await, ["default", "direct", "fan", "topic both", "headers ab"]);
    assert_eq!(
        world.bodies("b").await,
        ["direct", "fan", "topic both", "topic b", "headers ab", "headers b"]
    );
    assert_eq!(world.bodies("c").await, ["headers c"]);
}

#[tokio::test]
async fn each_refusal_is_its_own_messages_alone() {
    let world = World::new(ALL_KINDS);
    let mut long = message("long id");
    long.properties.message_id = Some("x".repeat(256));
    let mut forever = message("bad expiration");
    forever.properties.expiration = Some("1h".into());
    let batch: Vec<Outbound> = [
        (queue("a"), message("first")),
        (queue("absent"), message("no queue")),
        (exchange("absent", "a"), message("no exchange")),
        (exchange("direct", "three"), message("unroutable")),
        (exchange("empty", ""), message("unroutable too")),
        (queue("a"), long),
        (queue("a"), forever),
        (exchange("direct", &"k".repeat(256)), message("long key")),
        (queue("a"), message("last")),
    ]
    .into_iter()
    .map(|(route, message)| Outbound { route, message })
    .collect();
    let codes: Vec<_> = world
        .broker
        .publish(&batch)
        .await
        .into_iter()
        .map(|receipt| match receipt {
            Receipt::Accepted(_) => "accepted".to_owned(),
            Receipt::Refused(failure) => failure.code.to_string(),
            Receipt::Unknown(failure) => format!("unknown: {failure}"),
        })
        .collect();
    assert_eq!(
        codes,
        [
            "accepted",
            "no-such-queue",
            "no-such-exchange",
            "unroutable",
            "unroutable",
            "value-too-long",
            "invalid-property",
            "value-too-long",
            "accepted"
        ]
    );
    assert_eq!(world.bodies("a").await, ["first", "last"]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let world = World::new(r#"{"queues": {"a": {}}, "max_message_size": "1kB"}"#);
    assert_eq!(world.broker.limits().await.unwrap().body_bytes_max, 1000);
    world.send(queue("a"), &"x".repeat(1000)).await;
    let outbound = Outbound { route: queue("a"), message: message(&"x".repeat(1001)) };
    assert_eq!(world.refusal(outbound).await, codes::MESSAGE_TOO_LARGE);
}

#[tokio::test]
async fn a_full_queue_refuses_or_drops_its_head() {
    let world = World::new(
        r#"{"queues": {
          "refuses": {"max_length": 2}, "drops": {"max_length": 2, "overflow": "drop-head"},
          "both": {"max_length": 1, "overflow": "reject-publish-dlx",
                   "dead_letter_exchange": "", "dead_letter_routing_key": "dead"}, "dead": {}},
          "exchanges": {"fan": {"type": "fanout", "bindings": [{"queue": "drops"}, {"queue": "refuses"}]}}}"#,
    );
    for body in ["1", "2"] {
        world.send(queue("refuses"), body).await;
    }
    let one_more = || Outbound { route: queue("refuses"), message: message("3") };
    let receipts = world.broker.publish(&[one_more()]).await;
    let [Receipt::Refused(failure)] = &receipts[..] else { panic!("{receipts:?}") };
    // Later it will do: the engine tries again.
    assert_eq!((failure.code, failure.kind), (codes::BROKER_REFUSED_MESSAGE, FailureKind::Throttled));
    // Refused means that nobody has it, also where one of several queues had room.
    let fan = Outbound { route: exchange("fan", ""), message: message("fan") };
    assert_eq!(world.refusal(fan).await, codes::BROKER_REFUSED_MESSAGE);
    assert_eq!(world.bodies("drops").await, Vec::<String>::new());

    for body in ["1", "2", "3", "4"] {
        world.send(queue("drops"), body).await;
    }
    assert_eq!(world.bodies("drops").await, ["3", "4"]);

    world.send(queue("both"), "kept").await;
    let refused = Outbound { route: queue("both"), message: message("refused") };
    assert_eq!(world.refusal(refused).await, codes::BROKER_REFUSED_MESSAGE);
    assert_eq!(
        (world.bodies("both").await, world.bodies("dead").await),
        (vec!["kept".into()], vec!["refused".into()])
    );

    // Messages that a consumer holds do not count.
    let mut consumer = world.broker.consume("refuses", 1).await.unwrap();
    let _held = super::next(&mut consumer).await;
    world.send_message(one_more()).await;
}

#[tokio::test]
async fn a_check_names_what_is_missing() {
    let world = World::new(ALL_KINDS);
    let findings = world
        .broker
        .check(&[
            queue("a"),
            queue("absent"),
            exchange("absent", "k"),
            exchange("direct", "three"),
            exchange("headers", "three"),
        ])
        .await;
    let found: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.code)).collect();
    assert_eq!(
        found,
        [
            (Severity::Error, codes::NO_SUCH_QUEUE),
            (Severity::Error, codes::NO_SUCH_EXCHANGE),
            (Severity::Warning, codes::UNROUTABLE)
        ]
    );
    assert!(findings.iter().all(|finding| finding.remedy.is_some()));
    assert_eq!(findings[0].subject, "queue `absent`");
}

#[tokio::test]
async fn publishes_of_many_callers_keep_each_callers_order() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let broker = world.broker.clone();
        callers.spawn(async move {
            for number in 0..25 {
                let batch: Vec<Outbound> = (0..4)
                    .map(|part| Outbound {
                        route: queue("q"),
                        message: message(&format!("{caller} {:03}", number * 4 + part)),
                    })
                    .collect();
                let receipts = broker.publish(&batch).await;
                assert!(receipts.iter().all(|receipt| matches!(receipt, Receipt::Accepted(_))));
            }
        });
    }
    callers.join_all().await;
    let bodies = world.bodies("q").await;
    assert_eq!(bodies.len(), 800);
    for caller in 0..8 {
        let own: Vec<_> = bodies.iter().filter(|body| body.starts_with(&format!("{caller} "))).collect();
        assert!(own.is_sorted() && own.len() == 100, "caller {caller}");
    }
}

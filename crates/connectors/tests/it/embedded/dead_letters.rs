//! Expiry and dead-lettering.

use warren_engine::delivery::Settlement;
use warren_engine::message::{HeaderValue, Headers, Outbound};
use warren_engine::ports::Broker;

use super::{World, exchange, message, next, queue, receive, text};

fn expiring(route: warren_engine::message::Route, body: &str, ttl: &str) -> Outbound {
    let mut message = message(body);
    message.properties.expiration = Some(ttl.into());
    Outbound { route, message }
}

/// The deaths a message tells of, as (queue, reason, count), latest first.
fn deaths(headers: &Headers) -> Vec<(String, String, i64)> {
    let Some(HeaderValue::Array(deaths)) = headers.get("x-death") else { return Vec::new() };
    deaths
        .iter()
        .map(|death| {
            let HeaderValue::Table(death) = death else { panic!("{death:?}") };
            let text = |name: &str| match death.get(name) {
                Some(HeaderValue::Text(text)) => text.clone(),
                other => panic!("{name}: {other:?}"),
            };
            let Some(HeaderValue::I64(count)) = death.get("count") else { panic!("{death:?}") };
            (text("queue"), text("reason"), *count)
        })
        .collect()
}

fn death(queue: &str, reason: &str, count: i64) -> (String, String, i64) {
    (queue.into(), reason.into(), count)
}

#[tokio::test]
async fn a_rejected_message_tells_how_it_died() {
    let world = World::new(
        r#"{"queues": {"work": {"dead_letter_exchange": "dlx"}, "dead": {}},
            "exchanges": {"in": {"type": "direct", "bindings": [{"queue": "work", "routing_key": "k"}]},
                          "dlx": {"type": "topic", "bindings": [{"queue": "dead", "routing_key": "k"}]}}}"#,
    );
    world.send_message(expiring(exchange("in", "k"), "bad", "60000")).await;
    let mut consumer = world.broker.consume("work", 1).await.unwrap();
    next(&mut consumer).await.1.settle(Settlement::Reject).await.unwrap();
    let mut dead = world.broker.consume("dead", 1).await.unwrap();
    let job = receive(&mut dead).await;
    assert_eq!(text(&job.message.body), "bad");
    assert_eq!((job.envelope.exchange.as_str(), job.envelope.routing_key.as_str()), ("dlx", "k"));
    assert!(!job.envelope.redelivered);
    // As RabbitMQ: the expiration is taken off, or the message would expire again at once.
    assert_eq!(job.message.properties.expiration, None);
    let headers = &job.message.properties.headers;
    let text = |text: &str| Some(HeaderValue::Text(text.to_owned()));
    for (name, value) in [
        ("x-first-death-queue", "work"),
        ("x-first-death-reason", "rejected"),
        ("x-first-death-exchange", "in"),
        ("x-last-death-queue", "work"),
        ("x-last-death-reason", "rejected"),
        ("x-last-death-exchange", "in"),
    ] {
        assert_eq!(headers.get(name).cloned(), text(value), "{name}");
    }
    let Some(HeaderValue::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
    let [HeaderValue::Table(death)] = &deaths[..] else { panic!("{deaths:?}") };
    assert_eq!(death.get("count"), Some(&HeaderValue::I64(1)));
    assert_eq!(death.get("exchange").cloned(), text("in"));
    assert_eq!(death.get("original-expiration").cloned(), text("60000"));
    assert_eq!(death.get("routing-keys"), Some(&HeaderValue::Array(vec![HeaderValue::Text("k".into())])));
    assert!(matches!(death.get("time"), Some(HeaderValue::Timestamp(seconds)) if *seconds > 1_700_000_000));
}

#[tokio::test]
async fn what_is_rejected_without_a_dead_letter_exchange_is_gone() {
    let world = World::new(r#"{"queues": {"work": {}}}"#);
    world.send(queue("work"), "bad").await;
    let mut consumer = world.broker.consume("work", 1).await.unwrap();
    next(&mut consumer).await.1.settle(Settlement::Reject).await.unwrap();
    assert_eq!(world.bodies("work").await, Vec::<String>::new());
}

#[tokio::test]
async fn expired_messages_are_dead_lettered_in_order_with_no_consumer_about() {
    let world = World::new(
        r#"{"queues": {"wait": {"ttl": "30ms", "dead_letter_exchange": "", "dead_letter_routing_key": "dead"}, "dead": {}}}"#,
    );
    let mut dead = world.broker.consume("dead", 10).await.unwrap();
    for body in ["1", "2", "3"] {
        world.send(queue("wait"), body).await;
    }
    for body in ["1", "2", "3"] {
        let job = receive(&mut dead).await;
        assert_eq!(text(&job.message.body), body);
        assert_eq!(deaths(&job.message.properties.headers), [death("wait", "expired", 1)]);
    }
}

#[tokio::test]
async fn a_messages_own_time_counts_from_the_head_of_the_queue() {
    let world = World::new(
        r#"{"queues": {"wait": {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}, "dead": {}}}"#,
    );
    let mut dead = world.broker.consume("dead", 10).await.unwrap();
    // The second is due first and waits behind the first, as on RabbitMQ.
    world.send_message(expiring(queue("wait"), "slow", "120")).await;
    world.send_message(expiring(queue("wait"), "quick", "1")).await;
    assert_eq!(text(&receive(&mut dead).await.message.body), "slow");
    assert_eq!(text(&receive(&mut dead).await.message.body), "quick");
}

#[tokio::test]
async fn an_expired_message_is_never_delivered() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    for number in 0..20 {
        world.send_message(expiring(queue("q"), &number.to_string(), "0")).await;
    }
    world.send(queue("q"), "lasting").await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    assert_eq!(text(&receive(&mut consumer).await.message.body), "lasting");
}

#[tokio::test]
async fn the_shorter_of_the_two_times_counts() {
    let world = World::new(
        r#"{"queues": {"q": {"ttl": "1h", "dead_letter_exchange": "", "dead_letter_routing_key": "dead"}, "dead": {}}}"#,
    );
    world.send_message(expiring(queue("q"), "own", "1")).await;
    world.send_message(expiring(queue("q"), "queue's", "3600001")).await;
    let mut dead = world.broker.consume("dead", 10).await.unwrap();
    assert_eq!(text(&receive(&mut dead).await.message.body), "own");
    let left = &world.broker.peek("q", 0, 10).await.unwrap()[0];
    assert_eq!(left.expires_ms, Some(left.published_ms + 3_600_000));
}

#[tokio::test]
async fn the_head_of_a_full_queue_is_dead_lettered() {
    let world = World::new(
        r#"{"queues": {"q": {"max_length": 1, "overflow": "drop-head", "dead_letter_exchange": "",
             "dead_letter_routing_key": "dead"}, "dead": {}}}"#,
    );
    for body in ["1", "2", "3"] {
        world.send(queue("q"), body).await;
    }
    assert_eq!(
        (world.bodies("q").await, world.bodies("dead").await),
        (vec!["3".into()], vec!["1".into(), "2".into()])
    );
    let dead = world.broker.peek("dead", 0, 1).await.unwrap();
    assert_eq!(deaths(&dead[0].message.properties.headers), [death("q", "maxlen", 1)]);
}

// The shape of every retry by delay queue: rejected, waits, comes again, and the deaths are counted.
#[tokio::test]
async fn a_retry_loop_counts_its_rounds() {
    let world = World::new(
        r#"{"queues": {"work": {"dead_letter_exchange": "", "dead_letter_routing_key": "delay"},
                       "delay": {"ttl": "5ms", "dead_letter_exchange": "", "dead_letter_routing_key": "work"}}}"#,
    );
    world.send(queue("work"), "again").await;
    let mut consumer = world.broker.consume("work", 1).await.unwrap();
    for round in 0..3 {
        let (job, unsettled) = next(&mut consumer).await;
        let expected: &[_] = match round {
            0 => &[],
            _ => &[death("delay", "expired", round), death("work", "rejected", round)],
        };
        assert_eq!(deaths(&job.message.properties.headers), expected, "round {round}");
        unsettled.settle(Settlement::Reject).await.unwrap();
    }
}

#[tokio::test]
async fn a_circle_without_a_rejection_ends() {
    let world = World::new(
        r#"{"queues": {"a": {"ttl": "1ms", "dead_letter_exchange": "", "dead_letter_routing_key": "b"},
                       "b": {"ttl": "1ms", "dead_letter_exchange": "fan"}, "witness": {}},
            "exchanges": {"fan": {"type": "fanout", "bindings": [{"queue": "a"}, {"queue": "witness"}]}}}"#,
    );
    world.send(queue("a"), "round").await;
    let mut witness = world.broker.consume("witness", 1).await.unwrap();
    let job = receive(&mut witness).await;
    assert_eq!(deaths(&job.message.properties.headers), [death("b", "expired", 1), death("a", "expired", 1)]);
    // The copy for `a` was dropped in the transaction that brought the witness its own.
    assert_eq!(world.bodies("a").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_check_warns_of_dead_letters_that_lead_nowhere() {
    let world = World::new(
        r#"{"queues": {"q": {"dead_letter_exchange": "absent"},
                       "r": {"dead_letter_exchange": "", "dead_letter_routing_key": "absent"}}}"#,
    );
    let findings = world.broker.check(&[]).await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    world.send(queue("q"), "lost").await;
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    next(&mut consumer).await.1.settle(Settlement::Reject).await.unwrap();
    assert_eq!(world.bodies("q").await, Vec::<String>::new());
}

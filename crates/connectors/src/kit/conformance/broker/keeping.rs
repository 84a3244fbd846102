//! Dead letters and restarts.

use std::time::Duration;

use warren_engine::delivery::Settlement;
use warren_engine::message::HeaderValue;

use super::{
    Fixture, SOON, accepted, body, consume, drain, fill, headers, next, outbound, queue, settle, text,
};

async fn with_dead_letters(fixture: &dyn Fixture, further: &[(&str, HeaderValue)]) {
    fixture.queue("dead", headers(&[])).await;
    let mut arguments = headers(further);
    arguments.set("x-dead-letter-exchange", text(""));
    arguments.set("x-dead-letter-routing-key", text("dead"));
    fixture.queue("q", arguments).await;
}

pub(super) async fn rejected_is_dead_lettered(fixture: &dyn Fixture) {
    with_dead_letters(fixture, &[]).await;
    let mut sent = outbound(queue("q"), "bad");
    sent.message.properties.content_type = Some("text/plain".into());
    sent.message.properties.headers = headers(&[("mine", HeaderValue::I64(7))]);
    accepted(&fixture.broker().publish(std::slice::from_ref(&sent)).await);
    let mut consumer = consume(fixture, "q", 1).await;
    settle(next(consumer.as_mut()).await, Settlement::Reject).await;
    let mut dead = consume(fixture, "dead", 1).await;
    let delivery = next(dead.as_mut()).await;
    let job = delivery.job();
    assert_eq!(job.message.body, sent.message.body);
    assert_eq!(job.message.properties.content_type, sent.message.properties.content_type);
    assert_eq!(job.message.properties.message_id, sent.message.properties.message_id);
    assert_eq!(job.message.properties.headers.get("mine"), Some(&HeaderValue::I64(7)));
    assert_eq!(job.message.properties.headers.get("x-first-death-reason"), Some(&text("rejected")));
    assert_eq!(job.message.properties.headers.get("x-first-death-queue"), Some(&text("q")));
    assert!(matches!(job.message.properties.headers.get("x-death"), Some(HeaderValue::Array(_))));
    assert_eq!((&*job.envelope.queue, &*job.envelope.routing_key), ("dead", "dead"));
    settle(delivery, Settlement::Ack).await;
}

pub(super) async fn expired_is_dead_lettered(fixture: &dyn Fixture) {
    with_dead_letters(fixture, &[("x-message-ttl", HeaderValue::I64(100))]).await;
    fixture
        .queue("patient", {
            let mut arguments = headers(&[("x-dead-letter-exchange", text(""))]);
            arguments.set("x-dead-letter-routing-key", text("dead"));
            arguments
        })
        .await;
    let mut own = outbound(queue("patient"), "by its own");
    own.message.properties.expiration = Some("50".into());
    let receipts = fixture.broker().publish(&[outbound(queue("q"), "by its queue"), own]).await;
    accepted(&receipts);
    let mut dead = consume(fixture, "dead", 10).await;
    let mut came = Vec::new();
    for _ in 0..2 {
        let delivery = next(dead.as_mut()).await;
        assert_eq!(
            delivery.job().message.properties.headers.get("x-first-death-reason"),
            Some(&text("expired"))
        );
        came.push(body(&delivery));
        settle(delivery, Settlement::Ack).await;
    }
    came.sort();
    assert_eq!(came, ["by its own", "by its queue"]);
}

pub(super) async fn persistent_messages_survive(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    fill(fixture, "q", (0..500).map(|at| at.to_string())).await;
    fixture.restart().await;
    let expected: Vec<String> = (0..500).map(|at| at.to_string()).collect();
    assert_eq!(drain(fixture, "q").await, expected);
}

pub(super) async fn unsettled_messages_survive(fixture: &dyn Fixture) {
    fixture.queue("q", headers(&[])).await;
    fill(fixture, "q", (0..20).map(|at| at.to_string())).await;
    let mut consumer = consume(fixture, "q", 10).await;
    let mut held = Vec::new();
    for at in 0..10 {
        let delivery = next(consumer.as_mut()).await;
        if at % 2 == 0 {
            settle(delivery, Settlement::Ack).await;
        } else {
            held.push(delivery);
        }
    }
    // Until the broker has heard of the acknowledgements, which it shows by sending more.
    for _ in 0..5 {
        held.push(next(consumer.as_mut()).await);
    }
    fixture.restart().await;
    let ended =
        tokio::time::timeout(SOON, async { while consumer.next().await.is_ok_and(|more| more.is_some()) {} });
    ended.await.expect("the old consumer ends");
    for delivery in held {
        let (_, unsettled) = delivery.split();
        assert!(unsettled.settle(Settlement::Ack).await.is_err(), "what delivered it is gone");
    }
    drop(consumer);
    let mut left = drain(fixture, "q").await;
    left.sort_by_key(|body| body.parse::<u32>().ok());
    let expected: Vec<String> =
        (0..20).filter(|at| *at >= 10 || at % 2 == 1).map(|at| at.to_string()).collect();
    assert_eq!(left, expected);
    tokio::time::timeout(Duration::from_secs(60), fixture.broker().close()).await.expect("it closes");
}

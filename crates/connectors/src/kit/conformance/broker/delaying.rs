//! Queues that keep a message for a time and lead it back.

use std::time::{Duration, Instant};

use warren_engine::consume::copies::WRITTEN_BY_BROKERS;
use warren_engine::consume::retry::DelayQueue;
use warren_engine::delivery::Settlement;
use warren_engine::failure::FailureKind;
use warren_engine::message::{HeaderValue, Message, Outbound, Properties};

use super::publishing::by_name;
use super::{Fixture, SOON, accepted, body, consume, headers, next, nothing, outbound, queue, settle, text};

/// The longest stay in most of these.
const STAY: Duration = Duration::from_millis(700);
/// Brokers count whole milliseconds, and not from the same tick as we do.
const TICK: Duration = Duration::from_millis(2);
/// A stay that nobody waits for.
const LONG: Duration = Duration::from_secs(600);

fn delay(longest: Duration) -> DelayQueue {
    DelayQueue { name: format!("warren.delay.q.{}", longest.as_millis()), back_to: "q".to_owned(), longest }
}

async fn declare(fixture: &dyn Fixture, delay: &DelayQueue) {
    let declared = fixture.broker().declare_delay_queue(delay).await;
    declared.unwrap_or_else(|failure| panic!("declare {}: {failure:?}", delay.name));
}

async fn with_delay(fixture: &dyn Fixture, longest: Duration) -> DelayQueue {
    fixture.queue("q", headers(&[])).await;
    let delay = delay(longest);
    declare(fixture, &delay).await;
    delay
}

/// Without what the broker added, and with headers in an order of our own: on their way brokers may sort them.
fn as_sent(mut message: Message) -> Message {
    let headers = std::mem::take(&mut message.properties.headers);
    let kept = headers.iter().filter(|(name, _)| !WRITTEN_BY_BROKERS.contains(name));
    message.properties.headers = kept.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    by_name(message)
}

fn full() -> Message {
    let properties = Properties {
        content_type: Some("application/json".into()),
        content_encoding: Some("identity".into()),
        persistent: true,
        priority: Some(3),
        correlation_id: Some("order 7".into()),
        reply_to: Some("answers".into()),
        message_id: Some("message 1".into()),
        timestamp: Some(1_700_000_000),
        kind: Some("order.created".into()),
        app_id: Some("conformance".into()),
        headers: headers(&[
            ("x-warren-attempt", HeaderValue::I64(2)),
            ("x-warren-origin", HeaderValue::Table(headers(&[("exchange", text("events"))]))),
            ("mine", HeaderValue::Bytes(vec![0, 255])),
        ]),
        ..Properties::default()
    };
    Message { body: vec![0, 1, 2, 255, 10].into(), properties }
}

pub(super) async fn it_comes_back_as_it_was(fixture: &dyn Fixture) {
    let delay = with_delay(fixture, STAY).await;
    let mut consumer = consume(fixture, "q", 10).await;
    let sent = Outbound { route: queue(&delay.name), message: full() };
    let began = Instant::now();
    accepted(&fixture.broker().publish(std::slice::from_ref(&sent)).await);
    let confirmed = began.elapsed();
    let delivery = next(consumer.as_mut()).await;
    let took = began.elapsed();
    assert!(took + TICK >= STAY, "it came after {took:?}");
    assert!(took < confirmed + STAY + SOON / 2, "it came after {took:?}");
    let job = delivery.job();
    assert_eq!(as_sent(job.message.clone()), as_sent(sent.message));
    assert_eq!(job.envelope.queue, "q");
    settle(delivery, Settlement::Ack).await;
    nothing(consumer.as_mut()).await;
}

pub(super) async fn its_own_time_counts_where_it_is_shorter(fixture: &dyn Fixture) {
    let delay = with_delay(fixture, LONG).await;
    let mut consumer = consume(fixture, "q", 10).await;
    let mut sent = Outbound { route: queue(&delay.name), message: full() };
    sent.message.properties.expiration = Some("400".into());
    let began = Instant::now();
    accepted(&fixture.broker().publish(std::slice::from_ref(&sent)).await);
    let delivery = next(consumer.as_mut()).await;
    assert!(began.elapsed() + TICK >= Duration::from_millis(400), "it came after {:?}", began.elapsed());
    // It does not expire once more in the queue it came back to.
    sent.message.properties.expiration = None;
    assert_eq!(as_sent(delivery.job().message.clone()), as_sent(sent.message));
    settle(delivery, Settlement::Ack).await;
}

pub(super) async fn twice_declared_is_one(fixture: &dyn Fixture) {
    let delay = with_delay(fixture, STAY).await;
    accepted(&fixture.broker().publish(&[outbound(queue(&delay.name), "before")]).await);
    declare(fixture, &delay).await;
    accepted(&fixture.broker().publish(&[outbound(queue(&delay.name), "after")]).await);
    let mut consumer = consume(fixture, "q", 10).await;
    for expected in ["before", "after"] {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(body(&delivery), expected);
        settle(delivery, Settlement::Ack).await;
    }
    nothing(consumer.as_mut()).await;
}

pub(super) async fn one_of_other_settings_is_refused(fixture: &dyn Fixture) {
    let delay = with_delay(fixture, STAY).await;
    fixture.queue("other", headers(&[])).await;
    fixture.queue("plain", headers(&[])).await;
    let conflicting = [
        DelayQueue { longest: LONG, ..delay.clone() },
        DelayQueue { back_to: "other".into(), ..delay.clone() },
        // It leads nowhere: what waits in it would wait for ever.
        DelayQueue { name: "plain".into(), ..delay.clone() },
    ];
    for conflicting in conflicting {
        let declared = fixture.broker().declare_delay_queue(&conflicting).await;
        let failure = declared.expect_err("one of that name and other settings is there");
        assert!(matches!(failure.kind, FailureKind::Refused | FailureKind::Invalid), "{failure:?}");
    }
    // The first is as it was.
    declare(fixture, &delay).await;
    accepted(&fixture.broker().publish(&[outbound(queue(&delay.name), "m")]).await);
    let mut consumer = consume(fixture, "q", 10).await;
    let delivery = next(consumer.as_mut()).await;
    assert_eq!(body(&delivery), "m");
    settle(delivery, Settlement::Ack).await;
}

pub(super) async fn order_is_kept_within_one(fixture: &dyn Fixture) {
    let delay = with_delay(fixture, STAY).await;
    for part in 0..3 {
        let batch: Vec<_> =
            (0..40).map(|at| outbound(queue(&delay.name), (part * 40 + at).to_string())).collect();
        accepted(&fixture.broker().publish(&batch).await);
    }
    let mut consumer = consume(fixture, "q", 10).await;
    for at in 0..120 {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(body(&delivery), at.to_string());
        settle(delivery, Settlement::Ack).await;
    }
    nothing(consumer.as_mut()).await;
}

pub(super) async fn what_waits_survives(fixture: &dyn Fixture) {
    let short = with_delay(fixture, STAY).await;
    let long = delay(Duration::from_secs(15));
    declare(fixture, &long).await;
    let began = Instant::now();
    let batch = [outbound(queue(&short.name), "due meanwhile"), outbound(queue(&long.name), "due later")];
    accepted(&fixture.broker().publish(&batch).await);
    fixture.restart().await;
    let mut consumer = consume(fixture, "q", 10).await;
    let limit = SOON + long.longest;
    for expected in ["due meanwhile", "due later"] {
        let came = tokio::time::timeout(limit, consumer.next()).await.expect("what waited comes back");
        let delivery = came.expect("the consumer goes on").expect("the consumer was not cancelled");
        assert_eq!(body(&delivery), expected);
        settle(delivery, Settlement::Ack).await;
    }
    assert!(began.elapsed() + TICK >= long.longest, "it came after {:?}", began.elapsed());
    nothing(consumer.as_mut()).await;
}

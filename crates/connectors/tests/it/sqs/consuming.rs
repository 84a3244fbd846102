//! Deliveries: hidden while they are worked on, settled for good, delayed, handed back.

use std::time::Duration;

use serde_json::json;
use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::Config;
use warren_engine::delivery::{Delivery, Settlement};
use warren_engine::message::HeaderValue;
use warren_engine::ports::{Broker as _, Consumer};
use warren_engine::sqs::set_attribute;
use warren_testkit::sqs::account;
use warren_testkit::wait_until;

use super::{SOON, all_accepted, grouped, of, outbound, sqs};

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let next = tokio::time::timeout(SOON, consumer.next()).await.expect("a delivery comes soon");
    next.expect("the consumer goes on").expect("the consumer was not cancelled")
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.job().message.body).into_owned()
}

async fn settle(delivery: Delivery, how: Settlement) {
    delivery.split().1.settle(how).await.expect("SQS hears of it");
}

fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_headers_and_system_attributes_the_envelopes() {
    let account = account();
    account.queue("q.fifo", &[]);
    let broker = sqs(&of(&account));
    let mut message = grouped("q.fifo", "lane", "hello");
    let headers = &mut message.message.properties.headers;
    set_attribute(headers, "count", "Number", HeaderValue::Text("7".into()));
    set_attribute(headers, "kind", "String.label", HeaderValue::Text("x".into()));
    set_attribute(headers, "raw", "Binary", HeaderValue::Bytes(vec![0, 255]));
    all_accepted(&broker.publish(&[message]).await);
    let mut consumer = broker.consume("q.fifo", 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    let job = delivery.job();
    let headers = &job.message.properties.headers;
    assert_eq!(headers.get("count"), Some(&HeaderValue::I64(7)));
    assert_eq!(headers.get("kind"), Some(&HeaderValue::Text("x".into())));
    assert_eq!(headers.get("raw"), Some(&HeaderValue::Bytes(vec![0, 255])));
    assert_eq!(job.envelope.system["MessageGroupId"], "lane");
    assert_eq!(job.envelope.system["MessageDeduplicationId"], "hello");
    assert!(job.envelope.system.contains_key("SentTimestamp"));
    assert_eq!((job.envelope.delivery_count, job.envelope.redelivered), (Some(0), false));
    assert!(job.message.properties.message_id.is_some() && job.message.properties.timestamp.is_some());
    // A copy of it is a message like it, in the same group.
    account.queue("copy.fifo", &[]);
    let mut copy = outbound("copy.fifo", "");
    copy.message = job.message.clone();
    all_accepted(&broker.publish(&[copy]).await);
    settle(delivery, Settlement::Ack).await;
    drop(consumer);
    let copies = account.drain("copy.fifo", 1, SOON);
    assert_eq!(copies[0]["Body"], "hello");
    assert_eq!(copies[0]["Attributes"]["MessageGroupId"], "lane");
    assert_eq!(
        copies[0]["MessageAttributes"]["kind"],
        json!({"StringValue": "x", "DataType": "String.label"})
    );
    assert_eq!(copies[0]["MessageAttributes"]["count"], json!({"StringValue": "7", "DataType": "Number"}));
    assert_eq!(account.depth("q.fifo"), 0);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_stays_hidden_for_as_long_as_it_is_worked_on() {
    let account = account();
    account.queue("q", &[]);
    let broker = sqs(&Config { visibility_timeout: Some(span(4)), ..of(&account) });
    all_accepted(&broker.publish(&[outbound("q", "slow")]).await);
    let mut consumer = broker.consume("q", 1).await.unwrap();
    let slow = next(&mut consumer).await;
    let mut other = sqs(&of(&account)).consume("q", 1).await.unwrap();
    // Three times as long as it is hidden at first.
    let came = tokio::time::timeout(Duration::from_secs(12), other.next()).await;
    assert!(came.is_err(), "it came again while it was worked on: {came:?}");
    settle(slow, Settlement::Ack).await;
    assert_eq!(account.depth("q"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_leaves_its_messages_to_others() {
    let account = account();
    account.queue("q", &[]);
    let config = Config { visibility_timeout: Some(span(3)), ..of(&account) };
    // A runtime of its own, which ends with a message in hand: neither settled nor handed back, and extended no more.
    let dying = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = sqs(&config);
            all_accepted(&broker.publish(&[outbound("q", "x")]).await);
            let mut consumer = broker.consume("q", 1).await.unwrap();
            std::mem::forget(next(&mut consumer).await);
            std::mem::forget(consumer);
        });
        runtime.shutdown_background();
    });
    dying.join().unwrap();
    let mut other = sqs(&of(&account)).consume("q", 1).await.unwrap();
    let again = next(&mut other).await;
    assert_eq!((body(&again), again.job().envelope.redelivered), ("x".to_owned(), true));
    settle(again, Settlement::Ack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_brings_a_message_again_later() {
    let account = account();
    account.queue("q", &[]);
    let broker = sqs(&of(&account));
    all_accepted(&broker.publish(&[outbound("q", "later")]).await);
    let mut consumer = broker.consume("q", 1).await.unwrap();
    let first = next(&mut consumer).await;
    let (_, unsettled) = first.split();
    assert!(unsettled.can_delay(Duration::from_secs(11 * 3600)));
    assert!(!unsettled.can_delay(Duration::from_secs(12 * 3600)));
    let began = std::time::Instant::now();
    unsettled.settle(Settlement::Delay(Duration::from_secs(3))).await.unwrap();
    let again = next(&mut consumer).await;
    assert!(began.elapsed() >= Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!((body(&again), again.job().envelope.delivery_count), ("later".to_owned(), Some(1)));
    settle(again, Settlement::Ack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_left_to_the_redrive_policy() {
    let account = account();
    account.queue("dead", &[]);
    let policy = json!({"deadLetterTargetArn": account.queue_arn("dead"), "maxReceiveCount": "2"});
    account.queue("q", &[("RedrivePolicy", &policy.to_string())]);
    let broker = sqs(&of(&account));
    all_accepted(&broker.publish(&[outbound("q", "bad")]).await);
    let mut consumer = broker.consume("q", 1).await.unwrap();
    for round in 0..2 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.job().envelope.delivery_count, Some(round));
        settle(delivery, Settlement::Reject).await;
    }
    let mut dead = broker.consume("dead", 1).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(body(&delivery), "bad");
    settle(delivery, Settlement::Ack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_and_not_yielded_is_handed_back() {
    let account = account();
    account.queue("q", &[]);
    let broker = sqs(&of(&account));
    let batch: Vec<_> = (0..10).map(|at| outbound("q", at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    let mut consumer = broker.consume("q", 10).await.unwrap();
    settle(next(&mut consumer).await, Settlement::Ack).await;
    drop(consumer);
    tokio::time::timeout(SOON, broker.close()).await.expect("it hands back and closes");
    let visible = || {
        let all = account.ask(
            "GetQueueAttributes",
            &json!({"QueueUrl": account.queue_url("q"), "AttributeNames": ["All"]}),
        );
        all["Attributes"]["ApproximateNumberOfMessages"] == "9"
    };
    wait_until("nine messages can be seen", SOON, visible);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_settled_by_many_at_once() {
    let account = account();
    account.queue("q", &[]);
    let broker = sqs(&of(&account));
    let batch: Vec<_> = (0..200).map(|at| outbound("q", at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    let mut consumer = broker.consume("q", 40).await.unwrap();
    let mut settling = tokio::task::JoinSet::new();
    let mut came = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let delivery = next(&mut consumer).await;
        assert!(came.insert(body(&delivery)), "each comes once");
        settling.spawn(settle(delivery, Settlement::Ack));
    }
    while let Some(settled) = settling.join_next().await {
        settled.unwrap();
    }
    assert_eq!(account.depth("q"), 0);
    consumer.cancel().await;
    let end = tokio::time::timeout(SOON, consumer.next()).await.expect("it ends soon");
    assert!(end.unwrap().is_none());
}

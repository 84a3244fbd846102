//! Batches, and the answer of each message.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::Config;
use warren_engine::failure::{FailureKind, Remedy};
use warren_engine::message::{HeaderValue, Receipt};
use warren_engine::ports::Broker as _;
use warren_engine::sqs::{DELAY_SECONDS, GROUP_ID, set_attribute};
use warren_testkit::sqs::{Endpoint, EntryFault, Fate, QueueSettings, account};

use super::{SOON, all_accepted, at, bodies, codes, grouped, of, outbound, set, sqs};

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_back_what_was_sent() {
    let account = account();
    account.queue("plain", &[]);
    let broker = sqs(&of(&account));
    let mut batch = Vec::new();
    for at in 0..25 {
        let mut message = outbound("plain", format!("{{\"n\": {at}, \"text\": \"grüße, 世界 🎉\"}}"));
        message.message.properties.message_id = Some(format!("row {at}"));
        let headers = &mut message.message.properties.headers;
        set_attribute(headers, "kind", "String", HeaderValue::Text("order".into()));
        set_attribute(headers, "weight", "Number.float", HeaderValue::Text("1.50".into()));
        set_attribute(headers, "raw", "Binary.png", HeaderValue::Bytes(vec![0, 255, at]));
        set(&mut message, GROUP_ID, HeaderValue::Text("tenant-1".into()));
        batch.push(message);
    }
    let receipts = broker.publish(&batch).await;
    all_accepted(&receipts);
    let Receipt::Accepted(answer) = &receipts[3] else { panic!("{receipts:?}") };
    assert!(answer.0.starts_with("row 3 is message ") && answer.0.contains(", MD5 "), "{}", answer.0);
    let mut came = account.drain("plain", 25, SOON);
    came.sort_by_key(|message| {
        let body: serde_json::Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        body["n"].as_u64()
    });
    for (at, message) in came.iter().enumerate() {
        assert_eq!(message["Body"], format!("{{\"n\": {at}, \"text\": \"grüße, 世界 🎉\"}}"));
        let attributes = &message["MessageAttributes"];
        assert_eq!(attributes["kind"], json!({"StringValue": "order", "DataType": "String"}));
        assert_eq!(attributes["weight"], json!({"StringValue": "1.50", "DataType": "Number.float"}));
        let raw = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [0, 255, at as u8]);
        assert_eq!(attributes["raw"], json!({"BinaryValue": {"base64": raw}, "DataType": "Binary.png"}));
        assert_eq!(message["Attributes"]["MessageGroupId"], "tenant-1", "a fair queue's group");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_back_groups_in_order() {
    let account = account();
    account.queue("lanes.fifo", &[]);
    let broker = sqs(&of(&account));
    let batch: Vec<_> =
        (0..60).map(|at| grouped("lanes.fifo", &format!("g{}", at % 7), &format!("{at}"))).collect();
    all_accepted(&broker.publish(&batch).await);
    // The same again: the same deduplication ids, so they are the same messages.
    all_accepted(&broker.publish(&batch).await);
    let came = account.drain("lanes.fifo", 60, SOON);
    assert_eq!(came.len(), 60);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for message in &came {
        let number: u64 = message["Body"].as_str().unwrap().parse().unwrap();
        let group = message["Attributes"]["MessageGroupId"].as_str().unwrap().to_owned();
        assert_eq!(group, format!("g{}", number % 7));
        assert_eq!(message["Attributes"]["MessageDeduplicationId"], number.to_string());
        let before = last.insert(group, number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_may_be_named_by_name_url_or_arn() {
    let account = account();
    account.queue("orders", &[]);
    let broker = sqs(&of(&account));
    let names = ["orders".to_owned(), account.queue_url("orders"), account.queue_arn("orders")];
    let batch: Vec<_> = names.iter().map(|name| outbound(name, name.clone())).collect();
    all_accepted(&broker.publish(&batch).await);
    assert_eq!(account.drain("orders", 3, SOON).len(), 3);
    let receipts = broker.publish(&[outbound("nowhere", "x"), outbound("bad name!", "x")]).await;
    assert_eq!(codes(&receipts), ["no-such-queue", "no-such-queue"], "{receipts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_arrived_is_refused_and_one_without_an_answer_unknown() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    let broker = sqs(&Config { publish_timeout: Some(Span(Duration::from_millis(500))), ..at(&endpoint) });
    let kinds = async |fate: Fate| {
        endpoint.script(move |_| fate.clone());
        let receipts = broker.publish(&[outbound("q", "x")]).await;
        match &receipts[0] {
            Receipt::Refused(failure) => ("refused", failure.kind, failure.code.as_str()),
            Receipt::Unknown(failure) => ("unknown", failure.kind, failure.code.as_str()),
            Receipt::Accepted(_) => panic!("accepted"),
        }
    };
    assert_eq!(kinds(Fate::AnswerLost).await, ("unknown", FailureKind::Disconnected, "connection-lost"));
    assert_eq!(kinds(Fate::Lost).await, ("unknown", FailureKind::Disconnected, "connection-lost"));
    let late = Fate::Late(Duration::from_secs(30));
    assert_eq!(kinds(late).await, ("unknown", FailureKind::Timeout, "publish-timeout"));
    let internal = Fate::Refused(500, "InternalFailure");
    assert_eq!(kinds(internal).await, ("unknown", FailureKind::Unavailable, "protocol-error"));
    let throttled = Fate::Refused(400, "RequestThrottled");
    assert_eq!(kinds(throttled).await, ("refused", FailureKind::Throttled, "broker-throttled"));
    let denied = Fate::Refused(403, "AccessDeniedException");
    assert_eq!(kinds(denied).await, ("refused", FailureKind::Refused, "access-refused"));
    let key = Fate::Refused(403, "InvalidClientTokenId");
    assert_eq!(kinds(key).await, ("refused", FailureKind::Refused, "broker-refused-login"));
    let kms = Fate::Refused(400, "KmsDisabled");
    assert_eq!(kinds(kms).await, ("refused", FailureKind::Refused, "access-refused"));
    drop(endpoint);
    let endpoint = Endpoint::start().await;
    let url = endpoint.url();
    drop(endpoint);
    let broker = sqs(&Config { endpoint_url: Some(url), region: Some("eu-west-1".into()), ..at_nobody() });
    let receipts = broker.publish(&[outbound("q", "x")]).await;
    assert!(
        matches!(&receipts[0], Receipt::Refused(failure) if failure.kind == FailureKind::Disconnected),
        "{receipts:?}"
    );
    assert!(broker.limits().await.is_err());
}

fn at_nobody() -> Config {
    Config { access_key: Some(super::key("test", "secret", None)), ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_differs_and_an_entry_without_an_answer_are_unknown() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.script(|_| Fate::Faults([(0, EntryFault::WrongDigest), (2, EntryFault::Unanswered)].into()));
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> = (0..4).map(|at| outbound("q", at.to_string())).collect();
    let receipts = broker.publish(&batch).await;
    assert_eq!(codes(&receipts), ["digest-mismatch", "accepted", "protocol-error", "accepted"]);
    for place in [0, 2] {
        assert!(
            matches!(&receipts[place], Receipt::Unknown(failure) if failure.kind.for_message() == Remedy::Retry)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_queue_takes_less() {
    let endpoint = Endpoint::start().await;
    endpoint.queue_with("old", QueueSettings { bytes_max: 262_144, ..QueueSettings::default() });
    let batch =
        |sizes: &[usize]| -> Vec<_> { sizes.iter().map(|size| outbound("old", "x".repeat(*size))).collect() };
    // It tells: known before anything is sent.
    let broker = sqs(&at(&endpoint));
    let receipts = broker.publish(&batch(&[100_000, 262_145, 100_000, 100_000])).await;
    assert_eq!(codes(&receipts), ["accepted", "message-too-large", "accepted", "accepted"]);
    // Both requests are under way at once, so either may arrive first.
    let mut entries: Vec<_> = endpoint.calls().iter().map(|call| call.entries.len()).collect();
    entries.sort_unstable();
    assert_eq!(entries, [1, 2]);
    // It does not tell: heard from its refusal, and packed anew when it is tried again.
    endpoint.deny("GetQueueAttributes");
    let broker = sqs(&at(&endpoint));
    let all = batch(&[100_000, 262_145, 100_000, 100_000]);
    let receipts = broker.publish(&all).await;
    assert_eq!(codes(&receipts), ["message-too-large"; 4]);
    let retried: Vec<bool> = receipts
        .iter()
        .map(|receipt| {
            matches!(receipt, Receipt::Refused(failure) if failure.kind.for_message() == Remedy::Retry)
        })
        .collect();
    assert_eq!(retried, [true, false, true, true]);
    let again = [all[0].clone(), all[2].clone(), all[3].clone()];
    all_accepted(&broker.publish(&again).await);
    assert_eq!(bodies(&endpoint, "old").len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_are_under_way_and_fewer_while_throttled() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.delay(Duration::from_millis(100));
    let broker = sqs(&Config { concurrency: Some(8), ..at(&endpoint) });
    let batch: Vec<_> = (0..400).map(|at| outbound("q", at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    assert_eq!(endpoint.under_way_max(), 8);
    assert_eq!(broker.blocked(), None);
    endpoint.script(|_| Fate::Refused(400, "RequestThrottled"));
    let receipts = broker.publish(&batch).await;
    assert_eq!(codes(&receipts), ["broker-throttled"; 400]);
    assert!(broker.blocked().is_some_and(|reason| reason.contains("1 of 8")), "{:?}", broker.blocked());
    // It comes back by itself.
    endpoint.script(|_| Fate::Fine);
    endpoint.delay(Duration::ZERO);
    for _ in 0..5 {
        all_accepted(&broker.publish(&batch).await);
    }
    assert_eq!(broker.blocked(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_goes_to_queues_without_order_only() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.queue("q.fifo");
    let broker = sqs(&at(&endpoint));
    let mut batch = [outbound("q", "a"), grouped("q.fifo", "g", "b"), grouped("q.fifo", "g", "c")];
    set(&mut batch[0], DELAY_SECONDS, HeaderValue::I64(30));
    set(&mut batch[1], DELAY_SECONDS, HeaderValue::I64(0));
    set(&mut batch[2], DELAY_SECONDS, HeaderValue::I64(1));
    let receipts = broker.publish(&batch).await;
    assert_eq!(codes(&receipts), ["accepted", "accepted", "invalid-delay"]);
    assert_eq!(endpoint.stored("q")[0].arrival.delay, Some(30));
    assert_eq!(endpoint.stored("q.fifo")[0].arrival.delay, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_based_queues_need_no_deduplication_id() {
    let endpoint = Endpoint::start().await;
    endpoint.queue_with("content.fifo", QueueSettings { content_based: true, ..QueueSettings::default() });
    endpoint.queue("plain.fifo");
    let broker = sqs(&at(&endpoint));
    let without = |queue: &str| {
        let mut message = outbound(queue, "same");
        set(&mut message, GROUP_ID, HeaderValue::Text("g".into()));
        message
    };
    let batch = [without("content.fifo"), without("content.fifo"), without("plain.fifo")];
    let receipts = broker.publish(&batch).await;
    assert_eq!(codes(&receipts), ["accepted", "accepted", "missing-deduplication-id"]);
    assert_eq!(endpoint.stored("content.fifo").len(), 1);
}

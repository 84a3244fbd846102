//! Checks and lists, and rights that are missing.

use warren_engine::finding::{Finding, Severity};
use warren_engine::message::Route;
use warren_engine::ports::Broker as _;
use warren_testkit::sqs::{Endpoint, account};

use super::{all_accepted, at, of, outbound, sqs};

fn queue(name: &str) -> Route {
    Route::Queue(name.to_owned())
}

fn shown(findings: &[Finding]) -> Vec<(Severity, &str, String)> {
    findings
        .iter()
        .map(|finding| (finding.severity, finding.code.as_str(), finding.message.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_listed_by_name() {
    let account = account();
    for name in ["orders", "lanes.fifo", "empty"] {
        account.queue(name, &[]);
    }
    let broker = sqs(&of(&account));
    all_accepted(&broker.publish(&[outbound("orders", "1"), outbound("orders", "2")]).await);
    let queues = broker.queues().await.unwrap();
    let shown: Vec<_> = queues.iter().map(|queue| (&*queue.name, &*queue.kind, queue.messages)).collect();
    let expected =
        [("empty", "standard", Some(0)), ("lanes.fifo", "fifo", Some(0)), ("orders", "standard", Some(2))];
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_queues_that_are_missing_and_changes_nothing() {
    let account = account();
    account.queue("here", &[]);
    let broker = sqs(&of(&account));
    assert_eq!(shown(&broker.check(&[queue("here")]).await), []);
    assert_eq!(account.depth("here"), 0);
    let exchange = Route::Exchange { exchange: "events".into(), routing_key: String::new() };
    let found = broker.check(&[queue("here"), queue("nowhere"), exchange]).await;
    let errors: Vec<_> = found.iter().map(|finding| (finding.severity, finding.code.as_str())).collect();
    assert_eq!(errors, [(Severity::Error, "no-such-queue"), (Severity::Error, "no-such-exchange")]);
    assert!(found.iter().all(|finding| finding.remedy.is_some()), "{found:?}");
    assert!(found[0].message.contains("`nowhere`") && found[1].message.contains("`events`"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_is_named() {
    for (denied, severity) in [
        ("ListQueues", Severity::Warning),
        ("GetQueueUrl", Severity::Warning),
        ("GetQueueAttributes", Severity::Warning),
        ("SendMessageBatch", Severity::Error),
    ] {
        let endpoint = Endpoint::start().await;
        endpoint.queue("q");
        endpoint.deny(denied);
        let broker = sqs(&at(&endpoint));
        let found = broker.check(&[queue("q")]).await;
        let right = format!("`sqs:{}`", denied.trim_end_matches("Batch"));
        assert_eq!(found.len(), 1, "{denied}: {found:?}");
        assert_eq!((found[0].severity, found[0].code.as_str()), (severity, "access-refused"), "{found:?}");
        assert!(found[0].message.contains(&right), "{found:?}");
        assert!(found[0].remedy.as_deref().is_some_and(|remedy| remedy.contains("allow sqs:")), "{found:?}");
        assert_eq!(endpoint.stored("q").len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_and_listing_are_enough() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.queue("q.fifo");
    endpoint.deny("GetQueueUrl");
    endpoint.deny("GetQueueAttributes");
    let broker = sqs(&at(&endpoint));
    broker.limits().await.unwrap();
    let batch = [outbound("q", "1"), super::grouped("q.fifo", "g", "2"), outbound("nowhere", "3")];
    assert_eq!(super::codes(&broker.publish(&batch).await), ["accepted", "accepted", "no-such-queue"]);
    // Sending alone is enough for a queue by its URL, and by an ARN.
    endpoint.deny("ListQueues");
    let broker = sqs(&at(&endpoint));
    broker.limits().await.unwrap();
    let arn = format!("arn:aws:sqs:{}:123456789012:q", warren_testkit::sqs::REGION);
    let batch = [outbound(&endpoint.queue_url("q"), "1"), outbound(&arn, "2"), outbound("q", "3")];
    let receipts = broker.publish(&batch).await;
    assert_eq!(super::codes(&receipts), ["accepted", "accepted", "access-refused"]);
    let listed = broker.queues().await.unwrap_err();
    assert!(listed.remedy.as_deref().is_some_and(|remedy| remedy.contains("sqs:ListQueues")), "{listed:?}");
}

//! Triggers on SQS: the document with its typed attributes, visibility as the way to wait, dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use warren_testkit::receiver::{Answer, Receiver};
use warren_testkit::sqs::{self, Account, Endpoint, REGION};
use warren_testkit::wait::pause;
use warren_testkit::wait_until;

use super::served::{SOON, Served};

const PIPELINE: &str = r#"
pipelines:
  work:
    - choose:
        - when: '.body | startswith("bad")'
          steps: [{fail: {reason: it is bad, as: reject}}]
        - when: '.body | startswith("again")'
          steps: [{fail: {reason: not now, as: retry}}]
        - when: '(.body | startswith("once")) and .envelope.attempt == 1'
          steps: [{fail: {reason: not now, as: retry}}]
        - otherwise:
            - publish: {to: mq, queue: out, body: .}
"#;

fn served(account: &Account, keys: &str) -> Served {
    let (id, secret, token) = account.key();
    let broker = format!(
        "{{type: sqs, region: {REGION}, endpoint_url: \"{}\", access_key: {{id: \"{id}\", secret: \"{secret}\", session_token: \"{token}\"}}}}",
        sqs::url()
    );
    Served::with_pipeline(&broker, keys, PIPELINE)
}

fn account() -> Account {
    let account = sqs::account();
    for queue in ["in", "out", "dead"] {
        account.queue(queue, &[]);
    }
    account
}

fn send(account: &Account, body: &str, attributes: &Value) -> String {
    let message =
        json!({"QueueUrl": account.queue_url("in"), "MessageBody": body, "MessageAttributes": attributes});
    account.ask("SendMessage", &message)["MessageId"].as_str().unwrap().to_owned()
}

/// Attributes are headers of their type, what SQS says is in the envelope; what fails once waits by visibility, and keeps its
/// count; in the end all is deleted from the queue.
#[test]
fn a_message_of_sqs_is_the_document_with_its_attributes() {
    let account = account();
    let served = served(&account, "retry: {delays: [1s, 1s]}");
    let serving = served.consume();
    let attributes = json!({
        "text": {"DataType": "String", "StringValue": "a"},
        "whole": {"DataType": "Number", "StringValue": "42"},
        "part": {"DataType": "Number", "StringValue": "2.50"},
        "bytes": {"DataType": "Binary", "BinaryValue": "AP8="},
    });
    let id = send(&account, "good", &attributes);
    send(&account, "once", &json!({}));
    let out = account.drain("out", 2, SOON);
    let documents: Vec<Value> =
        out.iter().map(|message| serde_json::from_str(message["Body"].as_str().unwrap()).unwrap()).collect();
    let of = |body: &str| documents.iter().find(|document| document["body"] == body).unwrap();
    let good = of("good"); // 1.
    assert_eq!(
        good["headers"],
        json!({
            "text": "a", "whole": 42, "part": "2.50", "bytes": "AP8=",
            // A number that is not whole keeps its digits, and what it was beside it.
            "AWS.MessageAttributeTypes": {"part": "Number"},
        })
    );
    assert_eq!(good["properties"]["messageId"], json!(id), "{good:#}");
    let envelope = &good["envelope"];
    assert_eq!((&envelope["queue"], &envelope["attempt"]), (&json!("in"), &json!(1)), "{good:#}");
    assert!(envelope["SentTimestamp"].is_string(), "{good:#}");
    assert_eq!(of("once")["envelope"]["attempt"], 2); // 2.
    assert_eq!(served.statuses("once"), ["retried", "ok"]);
    assert_eq!(serving.trigger()["retries_by"], "visibility");
    wait_until("the queue is empty", SOON, || account.depth("in") == 0); // 3.
    assert_eq!(serving.stop().code, Some(0));
}

#[test]
fn what_is_given_up_goes_to_the_dead_letters_with_its_reason() {
    let account = account();
    let served = served(&account, "retry: {delays: [1s]}");
    let serving = served.consume();
    let tenant = json!({"tenant": {"DataType": "Number", "StringValue": "7"}});
    send(&account, "bad", &tenant);
    send(&account, "again", &tenant);
    let dead = account.drain("dead", 2, SOON);
    for (body, class, attempts) in [("bad", "rejected", 1), ("again", "exhausted", 2)] {
        let letter = dead.iter().find(|letter| letter["Body"] == body).unwrap();
        let attributes = &letter["MessageAttributes"];
        let text = |name: &str| attributes[name]["StringValue"].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("x-warren-class"), class, "{letter:#}");
        assert_eq!(text("x-warren-attempts"), attempts.to_string(), "{letter:#}");
        assert_eq!(
            (text("tenant").as_str(), attributes["tenant"]["DataType"].as_str()),
            ("7", Some("Number")),
            "{letter:#}"
        );
    }
    assert_eq!(served.statuses("again"), ["retried", "dead_lettered"]);
    wait_until("the queue is empty", SOON, || account.depth("in") == 0);
    assert_eq!(serving.stop().code, Some(0));
}

/// The queue's own redrive takes what is rejected to the broker: after `maxReceiveCount` receipts it is moved there by SQS.
#[test]
fn dead_letters_of_the_broker_are_its_redrive() {
    let account = sqs::account();
    account.queue("out", &[]);
    account.queue("dead", &[]);
    let redrive =
        json!({"deadLetterTargetArn": account.queue_arn("dead"), "maxReceiveCount": "2"}).to_string();
    account.queue("in", &[("RedrivePolicy", &redrive), ("VisibilityTimeout", "1")]);
    let served = served(&account, "dead_letter: broker\nmax_timeout: 30s");
    let serving = served.consume();
    send(&account, "bad", &json!({}));
    send(&account, "good", &json!({}));
    let dead = account.drain("dead", 1, SOON);
    assert_eq!(dead[0]["Body"], "bad");
    assert_eq!(account.drain("out", 1, SOON).len(), 1);
    assert!(served.statuses("bad").iter().all(|status| status == "rejected"), "{:?}", served.statuses("bad"));
    assert_eq!(serving.stop().code, Some(0));
}

/// The process stands still for longer than its message is hidden, and receives it again while the first request is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_was_up_while_the_process_stood_still_is_done_once() {
    let endpoint = Endpoint::start().await;
    for queue in ["in", "dead"] {
        endpoint.queue(queue);
    }
    let held = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let held = held.clone();
        move |_| {
            while held.load(SeqCst) {
                pause("an answer that is held back", Duration::from_millis(10));
            }
            Answer::ok()
        }
    });
    let pipeline = format!(
        "\npipelines:\n  work:\n    - http: {{url: \"{}/take\", timeout: 60s, body: .body}}\n",
        receiver.url()
    );
    let broker = format!(
        "{{type: sqs, region: {REGION}, endpoint_url: \"{}\", access_key: {{id: test, secret: secret}}, visibility_timeout: 2s, wait_time: 1s}}",
        endpoint.url()
    );
    let served = Served::with_pipeline(&broker, "max_timeout: 100s", &pipeline);
    let serving = served.consume();
    endpoint.put("in", "m");
    wait_until("it is asked", SOON, || receiver.seen() == 1);
    for _ in 0..2 {
        let receipts = endpoint.receipts("in");
        serving.running.signal("STOP");
        wait_until("its time is up", SOON, || endpoint.hidden("in") == 0);
        serving.running.signal("CONT");
        wait_until("it is received again", SOON, || endpoint.receipts("in") > receipts);
    }
    endpoint.put("in", "n");
    wait_until("another does not wait", SOON, || receiver.seen() == 2);
    held.store(false, SeqCst);
    wait_until("the queue is empty", SOON, || endpoint.left("in") == 0);
    assert!((serving.number("warren_messages_received_total{trigger=\"orders\"}") - 2.0).abs() < 0.1);
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!((served.statuses("m"), served.statuses("n")), (vec!["ok".to_owned()], vec!["ok".to_owned()]));
    assert_eq!(receiver.seen(), 2);
}

/// A FIFO queue without `ordering` keeps the order of its groups.
#[test]
fn a_fifo_queue_is_consumed_in_the_order_of_its_groups_also_when_one_is_tried_again() {
    let account = account();
    account.queue("in.fifo", &[("ContentBasedDeduplication", "true")]);
    let served = served(&account, "retry: {delays: [1s]}\nqueue: in.fifo");
    let serving = served.consume();
    for (body, group) in [("once a1", "a"), ("a2", "a"), ("b1", "b")] {
        let queue = account.queue_url("in.fifo");
        let message = json!({"QueueUrl": queue, "MessageBody": body, "MessageGroupId": group});
        account.ask("SendMessage", &message);
    }
    let out = account.drain("out", 3, SOON);
    let found: Vec<(String, String)> = out
        .iter()
        .map(|message| {
            let document: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&document["body"]), text(&document["envelope"]["MessageGroupId"]))
        })
        .collect();
    let of = |group: &str| -> Vec<&str> {
        found.iter().filter(|(_, other)| other == group).map(|(body, _)| body.as_str()).collect()
    };
    assert_eq!((of("a"), of("b")), (vec!["once a1", "a2"], vec!["b1"]));
    wait_until("the queue is empty", SOON, || account.depth("in.fifo") == 0);
    assert_eq!(serving.stop().code, Some(0));
}

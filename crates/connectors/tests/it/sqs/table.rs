//! What other senders to SQS get wrong, each as a test of the connector: one bad entry, a throttled entry's fields, sizes, attributes, a
//! queue that goes away.

use warren_engine::failure::Remedy;
use warren_engine::message::{HeaderValue, Receipt};
use warren_engine::ports::Broker as _;
use warren_engine::sqs::{DELAY_SECONDS, set_attribute};
use warren_testkit::sqs::{Endpoint, EntryFault, Fate};

use super::{all_accepted, at, bodies, codes, outbound, set, sqs};

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_ten_leaves_nine_delivered_once() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.script(|call| {
        let bad = call.entries.iter().position(|entry| entry.body == "4");
        Fate::Faults(bad.map(|at| (at, EntryFault::Sender("InvalidParameterValue"))).into_iter().collect())
    });
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> = (0..10).map(|at| outbound("q", at.to_string())).collect();
    let receipts = broker.publish(&batch).await;
    for (at, receipt) in receipts.iter().enumerate() {
        match receipt {
            Receipt::Accepted(_) => assert_ne!(at, 4),
            Receipt::Refused(failure) => {
                assert_eq!((at, failure.kind.for_message()), (4, Remedy::Reject), "{failure:?}");
            }
            Receipt::Unknown(failure) => panic!("{failure:?}"),
        }
    }
    assert_eq!(bodies(&endpoint, "q"), ["0", "1", "2", "3", "5", "6", "7", "8", "9"]);
    assert_eq!(endpoint.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_entry_keeps_its_fields_when_it_is_sent_again() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    endpoint.script(|call| match call.number {
        0 => Fate::Faults([(1, EntryFault::Server("RequestThrottled"))].into()),
        _ => Fate::Fine,
    });
    let broker = sqs(&at(&endpoint));
    let mut batch = vec![outbound("q", "a"), outbound("q", "b")];
    for message in &mut batch {
        set(message, DELAY_SECONDS, HeaderValue::I64(600));
        set_attribute(&mut message.message.properties.headers, "n", "Number", HeaderValue::Text("1".into()));
    }
    let receipts = broker.publish(&batch).await;
    assert_eq!(codes(&receipts), ["accepted", "broker-throttled"]);
    all_accepted(&broker.publish(&batch[1..]).await);
    let calls = endpoint.calls();
    let (first, again) = (&calls[0].entries[1], &calls[1].entries[0]);
    assert_eq!((&first.body, first.delay, &first.attributes), (&again.body, again.delay, &again.attributes));
    assert_eq!(again.delay, Some(600));
    assert_eq!(again.attributes["n"]["StringValue"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_messages_of_150_kb_are_two_requests() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> = (0..10).map(|_| outbound("q", "x".repeat(150_000))).collect();
    all_accepted(&broker.publish(&batch).await);
    let mut sizes: Vec<usize> = endpoint.calls().iter().map(|call| call.entries.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [4, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eleventh_attribute_is_an_error_of_its_message() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q");
    let broker = sqs(&at(&endpoint));
    let with = |count: usize| {
        let mut message = outbound("q", count.to_string());
        for at in 0..count {
            set(&mut message, &format!("a{at}"), HeaderValue::Text("v".into()));
        }
        message
    };
    let receipts = broker.publish(&[with(10), with(11), with(0)]).await;
    assert_eq!(codes(&receipts), ["accepted", "too-many-attributes", "accepted"]);
    assert_eq!(bodies(&endpoint, "q"), ["10", "0"]);
    assert_eq!(endpoint.stored("q")[0].arrival.attributes.as_object().map(serde_json::Map::len), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_away_refuses_its_messages_only() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("stays");
    endpoint.queue("goes");
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> =
        (0..30).map(|at| outbound(if at % 3 == 0 { "goes" } else { "stays" }, at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    endpoint.delete("goes");
    for _ in 0..2 {
        let receipts = broker.publish(&batch).await;
        for (at, receipt) in receipts.iter().enumerate() {
            let expected = if at % 3 == 0 { "no-such-queue" } else { "accepted" };
            assert_eq!(super::code(receipt), expected, "{receipt:?}");
        }
    }
    assert_eq!(bodies(&endpoint, "stays").len(), 60);
    // It is looked for again after a while, not for every message.
    assert!(endpoint.asked("GetQueueUrl") <= 4, "{}", endpoint.asked("GetQueueUrl"));
}

//! FIFO queues: the order of a group, whatever fails.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::Config;
use warren_engine::message::{Outbound, Receipt};
use warren_engine::ports::Broker as _;
use warren_testkit::sqs::{Endpoint, EntryFault, Fate};

use super::{all_accepted, at, bodies, codes, grouped, sqs};

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_a_failure_is_held() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q.fifo");
    endpoint.script(|call| {
        let bad = call.entries.iter().position(|entry| entry.body == "a1");
        Fate::Faults(bad.map(|at| (at, EntryFault::Server("InternalError"))).into_iter().collect())
    });
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> =
        ["a0", "b0", "a1", "a2", "b1", "a3"].iter().map(|id| grouped("q.fifo", &id[..1], id)).collect();
    let receipts = broker.publish(&batch).await;
    assert_eq!(
        codes(&receipts),
        ["accepted", "accepted", "broker-refused-message", "held", "accepted", "held"]
    );
    let mut stored = bodies(&endpoint, "q.fifo");
    stored.sort();
    assert_eq!(stored, ["a0", "b0", "b1"]);
    // One message of a group a request, filled with other groups.
    assert!(endpoint.calls().iter().all(|call| {
        let mut groups: Vec<_> = call.entries.iter().map(|entry| entry.group.clone()).collect();
        groups.sort();
        groups.dedup();
        groups.len() == call.entries.len()
    }));
    assert_eq!(endpoint.calls()[0].entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_filled_with_other_groups() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q.fifo");
    let broker = sqs(&at(&endpoint));
    let batch: Vec<_> =
        (0..200).map(|at| grouped("q.fifo", &format!("g{}", at % 20), &at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    assert_eq!(endpoint.calls().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_may_travel_together_when_asked_to() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q.fifo");
    let broker = sqs(&Config { group_batch: Some(10), ..at(&endpoint) });
    let batch: Vec<_> = (0..25).map(|at| grouped("q.fifo", "g", &at.to_string())).collect();
    all_accepted(&broker.publish(&batch).await);
    assert_eq!(endpoint.calls().iter().map(|call| call.entries.len()).collect::<Vec<_>>(), [10, 10, 5]);
    let expected: Vec<String> = (0..25).map(|at| at.to_string()).collect();
    assert_eq!(bodies(&endpoint, "q.fifo"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_at_once_keep_the_order_of_their_groups() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("q.fifo");
    let broker = sqs(&at(&endpoint));
    let batches: Vec<Vec<Outbound>> = (0..6)
        .map(|batch| {
            (0..20)
                .map(|at| grouped("q.fifo", &format!("g{}", at % 3), &format!("{}", batch * 20 + at)))
                .collect()
        })
        .collect();
    for receipts in futures_util::future::join_all(batches.iter().map(|batch| broker.publish(batch))).await {
        all_accepted(&receipts);
    }
    in_order(&endpoint);
}

/// Each group's bodies ascend.
#[track_caller]
fn in_order(endpoint: &Endpoint) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for stored in endpoint.stored("q.fifo") {
        let number: u64 = stored.arrival.body.parse().unwrap();
        let before = last.insert(stored.arrival.group.unwrap(), number);
        assert!(before.is_none_or(|before| before < number), "{before:?} was stored before {number}");
    }
}

/// What becomes of a request, by chance.
#[derive(Clone, Debug)]
enum Chance {
    Fine,
    Throttled,
    Internal,
    Lost,
    AnswerLost,
    Entries(Vec<u8>),
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let one = prop_oneof![
        4 => Just(Chance::Fine),
        1 => Just(Chance::Throttled),
        1 => Just(Chance::Internal),
        1 => Just(Chance::Lost),
        2 => Just(Chance::AnswerLost),
        4 => prop::collection::vec(0u8..4, 10).prop_map(Chance::Entries),
    ];
    prop::collection::vec(one, 0..60)
}

fn fate(chance: Chance) -> Fate {
    match chance {
        Chance::Fine => Fate::Fine,
        Chance::Throttled => Fate::Refused(400, "RequestThrottled"),
        Chance::Internal => Fate::Refused(500, "InternalFailure"),
        Chance::Lost => Fate::Lost,
        Chance::AnswerLost => Fate::AnswerLost,
        Chance::Entries(entries) => Fate::Faults(
            entries
                .into_iter()
                .enumerate()
                .filter_map(|(at, fault)| {
                    let fault = match fault {
                        1 => EntryFault::Server("InternalError"),
                        2 => EntryFault::Server("RequestThrottled"),
                        3 => EntryFault::Unanswered,
                        _ => return None,
                    };
                    Some((at, fault))
                })
                .collect(),
        ),
    }
}

/// Whoever publishes sends what was not accepted again, in order, and nothing later of a group before: the order of each group is that
/// of the changes, and nothing is lost.
#[test]
fn order_survives_failures_throttles_and_lost_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases = Cases { cases: 40, failure_persistence: None, ..Cases::default() };
    let groups = prop::collection::vec(0u8..5, 1..80);
    let outcome = TestRunner::new(cases).run(&(groups, chances()), |(groups, chances)| {
        runtime.block_on(async {
            let endpoint = Endpoint::start().await;
            endpoint.queue("q.fifo");
            let mut script: VecDeque<Chance> = chances.into();
            endpoint.script(move |_| script.pop_front().map_or(Fate::Fine, fate));
            let broker =
                sqs(&Config { publish_timeout: Some(Span(Duration::from_secs(10))), ..at(&endpoint) });
            let mut left: Vec<Outbound> = groups
                .iter()
                .enumerate()
                .map(|(at, group)| grouped("q.fifo", &format!("g{group}"), &at.to_string()))
                .collect();
            let count = left.len();
            for _ in 0..500 {
                if left.is_empty() {
                    break;
                }
                let receipts = broker.publish(&left).await;
                let answered = left.into_iter().zip(receipts);
                left = answered
                    .filter(|(_, receipt)| !matches!(receipt, Receipt::Accepted(_)))
                    .map(|(outbound, _)| outbound)
                    .collect();
            }
            prop_assert_eq!(left.len(), 0, "all of it goes in the end");
            prop_assert_eq!(endpoint.stored("q.fifo").len(), count);
            in_order(&endpoint);
            Ok(())
        })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

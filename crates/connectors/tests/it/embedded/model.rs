//! Random operations on a queue, by two openings of its file, against a model of what a queue is.

use std::collections::VecDeque;

use proptest::prelude::*;
use warren_connectors::embedded::Embedded;
use warren_engine::delivery::{Settlement, Unsettled};
use warren_engine::message::{Outbound, Receipt};
use warren_engine::ports::{Broker, Consumer};

use super::{World, message, next, queue, text};

const MAX_LENGTH: usize = 4;
const CONFIG: &str = r#"{"queues": {
  "q": {"max_length": 4, "overflow": "drop-head", "dead_letter_exchange": "", "dead_letter_routing_key": "dead"},
  "dead": {}, "barrier": {}}}"#;

#[derive(Debug, Clone)]
enum Op {
    Publish { by: usize, count: usize },
    Take { by: usize },
    Settle { which: usize, how: Settlement },
    Drop { which: usize },
    Reopen { which: usize },
    Purge { by: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        4 => Just(Settlement::Ack),
        2 => Just(Settlement::Reject),
        3 => Just(Settlement::Requeue),
    ];
    prop_oneof![
        6 => (0..2_usize, 1..4_usize).prop_map(|(by, count)| Op::Publish { by, count }),
        6 => (0..2_usize).prop_map(|by| Op::Take { by }),
        5 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Op::Settle { which: which.index(64), how }),
        2 => (0..64_usize).prop_map(|which| Op::Drop { which }),
        1 => (0..2_usize).prop_map(|which| Op::Reopen { which }),
        1 => (0..2_usize).prop_map(|by| Op::Purge { by }),
    ]
}

/// A message of the model: its number, which is its place, and how often it was delivered.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    number: u64,
    deliveries: u64,
}

#[derive(Debug, Default)]
struct Model {
    ready: VecDeque<Entry>,
    dead: Vec<u64>,
    published: u64,
}

impl Model {
    fn publish(&mut self) -> u64 {
        self.published += 1;
        self.ready.push_back(Entry { number: self.published, deliveries: 0 });
        while self.ready.len() > MAX_LENGTH {
            // More than one where messages came back to a full queue.
            self.dead.extend(self.ready.pop_front().map(|entry| entry.number));
        }
        self.published
    }

    fn put_back(&mut self, entry: Entry) {
        let at = self.ready.partition_point(|other| other.number < entry.number);
        self.ready.insert(at, entry);
    }
}

/// A delivery that the test holds, with its own consumer.
struct Held {
    by: usize,
    entry: Entry,
    consumer: Box<dyn Consumer>,
    unsettled: Unsettled,
}

async fn run(ops: Vec<Op>) {
    let world = World::new(CONFIG);
    let openings: [Embedded; 2] = [world.broker.clone(), world.another()];
    let mut model = Model::default();
    let mut held: Vec<Held> = Vec::new();
    for op in ops {
        match op {
            Op::Publish { by, count } => {
                let batch: Vec<Outbound> = (0..count)
                    .map(|_| Outbound { route: queue("q"), message: message(&model.publish().to_string()) })
                    .collect();
                let receipts = openings[by].publish(&batch).await;
                assert!(receipts.iter().all(|receipt| matches!(receipt, Receipt::Accepted(_))));
            }
            Op::Take { by } => {
                let Some(mut entry) = model.ready.pop_front() else { continue };
                let mut consumer = openings[by].consume("q", 1).await.unwrap();
                let (job, unsettled) = next(&mut consumer).await;
                consumer.cancel().await; // so that it takes no other when this one is settled
                assert_eq!(text(&job.message.body), entry.number.to_string());
                assert_eq!(job.envelope.delivery_count, Some(entry.deliveries));
                assert_eq!(job.envelope.redelivered, entry.deliveries > 0);
                entry.deliveries += 1;
                held.push(Held { by, entry, consumer, unsettled });
            }
            Op::Settle { which, how } => {
                if held.is_empty() {
                    continue;
                }
                let Held { entry, consumer, unsettled, .. } = held.remove(which % held.len());
                unsettled.settle(how).await.unwrap();
                drop(consumer);
                match how {
                    Settlement::Ack | Settlement::Delay(_) => {}
                    Settlement::Reject => model.dead.push(entry.number),
                    Settlement::Requeue => model.put_back(entry),
                }
            }
            Op::Drop { which } => {
                if held.is_empty() {
                    continue;
                }
                let Held { by, entry, consumer, .. } = held.remove(which % held.len());
                drop(consumer);
                model.put_back(entry);
                // Behind the consumer's leave in its opening's order, and in the file before the other opening goes on.
                openings[by].purge("barrier").await.unwrap();
            }
            Op::Reopen { which } => {
                openings[which].close().await;
                let (gone, kept) = held.into_iter().partition(|held| held.by == which);
                held = kept;
                let gone: Vec<Held> = gone;
                for held in gone {
                    model.put_back(held.entry);
                }
            }
            Op::Purge { by } => {
                assert_eq!(openings[by].purge("q").await.unwrap(), model.ready.len() as u64);
                model.ready.clear();
            }
        }
        let state = openings[0].queue_state("q").await.unwrap();
        assert_eq!((state.ready, state.unsettled), (model.ready.len() as u64, held.len() as u64));
    }
    for opening in &openings {
        let messages = opening.peek("q", 0, usize::MAX).await.unwrap();
        let ready: Vec<Entry> = messages
            .iter()
            .filter(|peeked| !peeked.unsettled)
            .map(|peeked| Entry {
                number: text(&peeked.message.body).parse().unwrap(),
                deliveries: peeked.deliveries,
            })
            .collect();
        assert_eq!(ready, Vec::from(model.ready.clone()));
        let dead: Vec<u64> =
            super::bodies(opening, "dead").await.iter().map(|body| body.parse().unwrap()).collect();
        assert_eq!(dead, model.dead);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_what_its_model_says(ops in prop::collection::vec(op(), 1..40)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(ops));
    }
}

//! How fast it is. Run by hand in a release build: `cargo test --release -p warren-connectors -- --ignored speed --nocapture`.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use warren_engine::delivery::Settlement;
use warren_engine::message::{Outbound, Receipt};
use warren_engine::ports::Broker;

use super::{World, message, queue};

const MESSAGES: usize = 500_000;
const BATCH: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a release build on an idle machine"]
async fn speed() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    let body = "x".repeat(200);
    let batch: Vec<Outbound> =
        (0..BATCH).map(|_| Outbound { route: queue("q"), message: message(&body) }).collect();
    for window in [1, 4, 16] {
        world.broker.purge("q").await.unwrap();
        let begun = Instant::now();
        let mut answers = FuturesUnordered::new();
        for _ in 0..MESSAGES / BATCH {
            if answers.len() == window {
                check(answers.next().await);
            }
            answers.push(world.broker.publish(&batch));
        }
        while let Some(receipts) = answers.next().await {
            check(Some(receipts));
        }
        rate(&format!("publish, batches of {BATCH}, window of {window} batches"), MESSAGES, begun);
    }
    let begun = Instant::now();
    for _ in 0..500 {
        check(Some(world.broker.publish(&batch[..1]).await));
    }
    rate("publish one by one", 500, begun);
    for prefetch in [1, 32, 256] {
        let count = if prefetch == 1 { 20_000 } else { 100_000 };
        let mut consumer = world.broker.consume("q", prefetch).await.unwrap();
        let begun = Instant::now();
        let mut acks = FuturesUnordered::new();
        for _ in 0..count {
            if acks.len() == usize::from(prefetch) {
                acks.next().await.transpose().unwrap();
            }
            let delivery = tokio::select! {
                biased;
                delivery = consumer.next() => delivery,
                () = async { while acks.next().await.is_some() {} std::future::pending::<()>().await } => continue,
            };
            acks.push(delivery.unwrap().unwrap().split().1.settle(Settlement::Ack));
        }
        while let Some(ack) = acks.next().await {
            ack.unwrap();
        }
        rate(&format!("consume and ack, prefetch {prefetch}"), count, begun);
    }
}

fn check(receipts: Option<Vec<Receipt>>) {
    assert!(receipts.unwrap().iter().all(|receipt| matches!(receipt, Receipt::Accepted(_))));
}

fn rate(what: &str, count: usize, begun: Instant) {
    println!("{what}: {:.0} messages/s", count as f64 / begun.elapsed().as_secs_f64());
}

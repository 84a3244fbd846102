//! Frames of the broker's that are larger than what was negotiated: they are read, and nothing else on the connection suffers.

use serde_json::json;
use warren_engine::delivery::{Job, Settlement};
use warren_engine::message::{HeaderValue, Outbound, Receipt};
use warren_engine::ports::{Broker, Consumer};
use warren_testkit::rabbit::vhost;

use super::{SOON, named, queue, rabbit};

async fn next(consumer: &mut dyn Consumer) -> Job {
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
    let (job, unsettled) = delivery.split();
    unsettled.settle(Settlement::Ack).await.unwrap();
    job
}

fn with_header(name: &str, bytes: usize) -> Outbound {
    let mut outbound = named(queue(name), "wide");
    outbound.message.properties.headers.set("h", HeaderValue::Bytes(vec![b'x'; bytes]));
    outbound
}

/// Messages whose headers just fill a frame expire into another queue, with what the broker adds.
#[tokio::test]
async fn a_header_that_the_broker_makes_larger_than_a_frame_is_read() {
    for kind in ["classic", "quorum"] {
        let vhost = vhost();
        vhost.queue_with("w.q", &json!({"x-queue-type": kind}));
        vhost.queue("w.other");
        let dead = json!({
            "x-message-ttl": 100,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "w.q",
            "x-queue-type": kind,
        });
        vhost.queue_with("w.hold", &dead);
        let rabbit = rabbit(&vhost.url());
        let most = rabbit.limits().await.unwrap().header_bytes_max.unwrap() as usize;
        let mut consumer = rabbit.consume("w.q", 10).await.unwrap();
        let mut healthy = rabbit.consume("w.other", 10).await.unwrap();
        // The largest header that fits, found from above.
        let mut fits = most;
        while !matches!(rabbit.publish(&[with_header("w.hold", fits)]).await[0], Receipt::Accepted(_)) {
            fits -= 1;
        }
        assert!(most - fits < 50, "a header of {fits} bytes was the first to fit {most}");
        for bytes in [fits, fits - 200, fits - 1] {
            if bytes < fits {
                super::assert_accepted(&rabbit.publish(&[with_header("w.hold", bytes)]).await);
            }
            let job = next(consumer.as_mut()).await;
            let headers = &job.message.properties.headers;
            assert_eq!(headers.get("h"), Some(&HeaderValue::Bytes(vec![b'x'; bytes])));
            assert!(headers.get("x-death").is_some());
            super::assert_accepted(&rabbit.publish(&[named(queue("w.other"), "good")]).await);
            assert!(!next(healthy.as_mut()).await.envelope.redelivered, "on the same connection");
        }
        // As the answer to a question.
        super::assert_accepted(&rabbit.publish(&[with_header("w.hold", fits)]).await);
        drop(consumer);
        // The dropped consumer may have it for a moment.
        let taken = loop {
            if let Some(taken) = rabbit.take_one("w.q").await.unwrap() {
                break taken;
            }
        };
        assert!(taken.message.properties.headers.get("x-death").is_some());
        rabbit.close().await;
    }
}

//! What needs a broker of the test's own: kills, restarts, alarms, pauses, small limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes;
use warren_engine::delivery::Settlement;
use warren_engine::failure::FailureKind;
use warren_engine::message::{Outbound, Receipt};
use warren_engine::ports::Broker;
use warren_testkit::rabbit::Broker as Own;
use warren_testkit::wait::wait_until_async;

use super::{SOON, assert_accepted, assert_refused, config, named, queue, span, tally};

fn connect(url: &str) -> Arc<Rabbit> {
    Arc::new(Rabbit::new("rabbit", &config(url)).unwrap())
}

async fn blocking(act: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(act).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_restarts_as_every_broker_must() {
    super::conformance::restarts(Arc::new(Own::start())).await;
}

/// What of a batch is to be sent again.
fn again(batch: &[Outbound], receipts: &[Receipt], unknown: &AtomicUsize) -> Vec<Outbound> {
    let mut again = Vec::new();
    for (outbound, receipt) in batch.iter().zip(receipts) {
        match receipt {
            Receipt::Accepted(_) => {}
            Receipt::Refused(failure) => {
                assert_eq!(failure.kind, FailureKind::Disconnected, "{failure:?}");
                again.push(outbound.clone());
            }
            Receipt::Unknown(_) => {
                unknown.fetch_add(1, Ordering::Relaxed);
                again.push(outbound.clone());
            }
        }
    }
    again
}

/// 1. Eight publishers send 100,000 messages. 2. The broker is killed twice and started again. 3. What is unknown or was not
/// sent is sent again. 4. Each message is there; no more came twice than were unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing_and_duplicates_are_counted() {
    const MESSAGES: usize = 100_000;
    const BATCH: usize = 250;
    let own = Arc::new(Own::start());
    let vhost = own.vhost();
    vhost.queue("q");
    // RabbitMQ 4.0 that is killed moments after a declaration may have lost the queue for good. Stopped in good order it keeps all.
    blocking({
        let own = own.clone();
        move || {
            own.stop();
            own.start_again();
        }
    })
    .await;
    let rabbit = connect(&vhost.url());
    let (done, unknown) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = AtomicUsize::new(0);
    let publisher = async || {
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed); // 1.
            if first >= MESSAGES {
                return;
            }
            let mut batch: Vec<_> =
                (first..first + BATCH).map(|at| named(queue("q"), &at.to_string())).collect();
            while !batch.is_empty() {
                let receipts = rabbit.publish(&batch).await;
                let open = again(&batch, &receipts, &unknown); // 3.
                if open.len() == batch.len() {
                    // The broker is away; what waits is the engine's to decide, here the next state.
                    wait_until_async("the broker is back", Duration::from_secs(60), async || {
                        rabbit.limits().await.is_ok()
                    })
                    .await;
                }
                batch = open;
            }
            done.fetch_add(BATCH, Ordering::Relaxed);
        }
    };
    let killer = async {
        for part in [1, 2] {
            wait_until_async("a third is done", Duration::from_secs(120), async || {
                done.load(Ordering::Relaxed) >= part * MESSAGES / 3
            })
            .await;
            let own = own.clone();
            blocking(move || {
                own.kill(); // 2.
                own.start_again();
            })
            .await;
        }
    };
    tokio::join!(futures_util::future::join_all((0..8).map(|_| publisher())), killer);

    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    let mut consumer = rabbit.consume("q", 1_000).await.unwrap();
    let last = named(queue("q"), "last");
    assert_accepted(&rabbit.publish(std::slice::from_ref(&last)).await);
    loop {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
        let (job, unsettled) = delivery.split();
        unsettled.settle(Settlement::Ack).await.unwrap();
        if job.message == last.message {
            break;
        }
        *came.entry(String::from_utf8_lossy(&job.message.body).into_owned()).or_default() += 1;
    }
    let unknown = unknown.into_inner();
    let twice: usize = came.values().map(|count| count - 1).sum();
    println!("unknown {unknown}, came twice {twice}");
    assert_eq!(came.len(), MESSAGES, "lost: {}", MESSAGES - came.len()); // 4.
    assert!(twice <= unknown, "{twice} came twice, {unknown} were unknown");
    assert!(unknown > 0, "the kills hit something in flight");
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_and_is_shown_and_ends() {
    let own = Arc::new(Own::start());
    let vhost = own.vhost();
    vhost.queue("q");
    let config = Config { publish_timeout: Some(span(3)), ..config(&vhost.url()) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    let one = [named(queue("q"), "1")];
    assert_accepted(&rabbit.publish(&one).await);
    assert_eq!(rabbit.blocked(), None);
    blocking({
        let own = own.clone();
        move || own.block_publishers()
    })
    .await;
    // The broker blocks a connection once it publishes: the first message may be answered, or be unknown; it was written.
    let first = rabbit.publish(&one).await;
    assert!(!matches!(first[0], Receipt::Refused(_)), "{first:?}");
    wait_until_async("the block is heard of", SOON, async || rabbit.blocked().is_some()).await;
    let receipts = rabbit.publish(&one).await;
    assert_refused(&receipts[0], FailureKind::Throttled, codes::BROKER_BLOCKED);
    // Consuming goes on.
    let mut consumer = rabbit.consume("q", 1).await.unwrap();
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
    delivery.split().1.settle(Settlement::Ack).await.unwrap();
    // What waits goes on when the alarm ends.
    let patient = Rabbit::new("rabbit", &super::config(&vhost.url())).unwrap();
    let (receipts, ()) = tokio::join!(
        patient.publish(&one),
        blocking({
            let own = own.clone();
            move || own.unblock_publishers()
        })
    );
    assert_accepted(&receipts);
    wait_until_async("the block is over", SOON, async || rabbit.blocked().is_none()).await;
    assert_accepted(&rabbit.publish(&one).await);
    rabbit.close().await;
    patient.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_falls_silent_is_given_up_in_time() {
    let own = Own::start();
    let vhost = own.vhost();
    vhost.queue("q");
    let config = Config { heartbeat: Some(span(1)), publish_timeout: Some(span(30)), ..config(&vhost.url()) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    assert_accepted(&rabbit.publish(&[named(queue("q"), "1")]).await);
    let mut consumer = rabbit.consume("q", 1).await.unwrap();
    drop(consumer.next().await);
    own.pause();
    let started = std::time::Instant::now();
    let batch = [named(queue("q"), "2")];
    let (receipts, next) = tokio::join!(rabbit.publish(&batch), consumer.next());
    let took = started.elapsed();
    own.resume();
    let Receipt::Unknown(failure) = &receipts[0] else { panic!("{receipts:?}") };
    assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::CONNECTION_LOST));
    assert_eq!(next.unwrap_err().kind, FailureKind::Disconnected);
    assert!(took < Duration::from_secs(10), "two heartbeats are two seconds; it took {took:?}");
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_does_not_come_is_unknown_after_the_timeout() {
    let own = Own::start();
    let vhost = own.vhost();
    vhost.queue("q");
    let config = Config { publish_timeout: Some(span(1)), heartbeat: Some(span(0)), ..config(&vhost.url()) };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    assert_accepted(&rabbit.publish(&[named(queue("q"), "1")]).await);
    own.pause();
    let receipts = rabbit.publish(&[named(queue("q"), "2"), named(queue("q"), "3")]).await;
    own.resume();
    assert_eq!(tally(&receipts), BTreeMap::from([("unknown publish-timeout".to_owned(), 2)]));
    // Late answers do no harm.
    let batch: Vec<_> = (4..104).map(|at| named(queue("q"), &at.to_string())).collect();
    assert_accepted(&rabbit.publish(&batch).await);
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_own_size_limit_is_learned_from_its_refusal() {
    let own = Own::start_with_configuration("max_message_size = 1000000");
    let vhost = own.vhost();
    vhost.queue("q");
    let rabbit = connect(&vhost.url());
    assert!(rabbit.limits().await.unwrap().body_bytes_max > 1_000_000);
    let mut batch: Vec<_> = (0..20).map(|at| named(queue("q"), &at.to_string())).collect();
    for at in [5, 11] {
        batch[at].message.body = vec![0; 1_000_001].into();
    }
    let receipts = rabbit.publish(&batch).await;
    assert_refused(&receipts[5], FailureKind::Invalid, codes::MESSAGE_TOO_LARGE);
    assert_eq!(rabbit.limits().await.unwrap().body_bytes_max, 1_000_000);
    let receipts = rabbit.publish(&batch).await;
    let bad: BTreeSet<usize> = (0..20).filter(|at| !matches!(receipts[*at], Receipt::Accepted(_))).collect();
    assert_eq!(bad, BTreeSet::from([5, 11]), "{:?}", tally(&receipts));
    // Raised while Warren runs: what was learned belongs to the connection.
    let raise = "application:set_env(rabbit, max_message_size, 2000000), persistent_term:put(max_message_size, 2000000).";
    assert!(
        own.ctl(&["eval", raise]).contains("ok"),
        "3.10 reads the first for each channel, 4.0 the second"
    );
    let big = [batch[5].clone()];
    wait_until_async("the larger one is taken", SOON, async || {
        // The API lists a connection only some time after it was opened.
        vhost.close_connections();
        matches!(rabbit.publish(&big).await[0], Receipt::Accepted(_))
    })
    .await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_where_one_is_demanded() {
    use warren_connectors::kit::setting::Secret;
    use warren_connectors::kit::tls::TlsSettings;
    use warren_testkit::tls;

    let own = Own::start_with_client_certificates();
    let vhost = own.vhost();
    vhost.queue("q");
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let without = Config {
        tls: Some(TlsSettings { ca: Some(path(tls::ca())), ..TlsSettings::default() }),
        ..config(&vhost.tls_url())
    };
    let failure = Rabbit::new("rabbit", &without).unwrap().limits().await.unwrap_err();
    assert!(matches!(failure.code, codes::TLS_FAILED | codes::BROKER_UNREACHABLE), "{failure:?}");
    assert!(failure.remedy.as_deref().unwrap().contains("`tls.cert` and `tls.key`"), "{failure:?}");
    let mut with = without;
    let settings = with.tls.as_mut().unwrap();
    settings.cert = Some(path(tls::client_certificate()));
    settings.key = Some(Secret::new(path(tls::client_key())));
    let rabbit = Rabbit::new("rabbit", &with).unwrap();
    assert_accepted(&rabbit.publish(&[named(queue("q"), "1")]).await);
    rabbit.close().await;
}

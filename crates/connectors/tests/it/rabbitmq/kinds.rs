//! Every kind of queue: consumed whole and in order, or refused with the reason; and what a queue loses by its settings.

use serde_json::{Value, json};
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, QueueSpec, Rabbit, estate};
use warren_engine::codes;
use warren_engine::delivery::Settlement;
use warren_engine::failure::FailureKind;
use warren_engine::finding::{Finding, Severity};
use warren_engine::message::Headers;
use warren_engine::ports::{Broker, Consumer, Wanted};
use warren_testkit::rabbit::{Vhost, vhost};

use super::{SOON, assert_accepted, config, named, queue, rabbit};

fn wanted(queue: &str) -> Wanted {
    Wanted {
        queue: queue.to_owned(),
        attempts_max: 3,
        deadline: std::time::Duration::from_secs(30),
        prefetch: 10,
        ordered: true,
        dead_letters_by_broker: false,
        dead_letter_queue: None,
        delay_queues: Vec::new(),
    }
}

fn managed(vhost: &Vhost) -> Rabbit {
    let management_url = Some(Secret::new(vhost.management().url()));
    Rabbit::new("rabbit", &Config { management_url, ..config(&vhost.url()) }).unwrap()
}

async fn publish(rabbit: &Rabbit, name: &str, ids: std::ops::Range<u32>) {
    let batch: Vec<_> = ids.map(|id| named(queue(name), &id.to_string())).collect();
    assert_accepted(&rabbit.publish(&batch).await);
}

/// Acknowledges the next messages and returns their bodies.
async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
        let (job, unsettled) = delivery.split();
        taken.push(String::from_utf8(job.message.body.to_vec()).unwrap().parse().unwrap());
        unsettled.settle(Settlement::Ack).await.unwrap();
    }
    taken
}

#[tokio::test]
async fn streams_are_refused_with_the_reason_and_not_skipped() {
    let vhost = vhost();
    vhost.queue_with("stream", &json!({"x-queue-type": "stream"}));
    let plain = rabbit(&vhost.url());
    publish(&plain, "stream", 0..5).await;
    let failure = plain.consume("stream", 10).await.err().unwrap();
    assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::QUEUE_MISFIT), "{failure}");
    assert!(failure.to_string().contains("it is a stream"), "{failure}");
    let managed = managed(&vhost);
    for rabbit in [&plain, &managed] {
        let found = rabbit.check_consumer(&wanted("stream")).await;
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.severity, finding.code), (Severity::Error, codes::QUEUE_MISFIT), "{finding:?}");
    }
    // A name that leaves no room for the type in the broker's words.
    let long = "s".repeat(180);
    vhost.queue_with(&long, &json!({"x-queue-type": "stream"}));
    assert_eq!(plain.consume(&long, 10).await.err().unwrap().code, codes::QUEUE_MISFIT);
    // The hub asks before it grants a subscription.
    let estate = estate("rabbit", &config(&vhost.url())).unwrap();
    vhost.queue("queue");
    publish(&plain, "queue", 0..1).await;
    let failure = estate.check_queue(vhost.name(), "stream").await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::QUEUE_MISFIT), "{failure}");
    estate.check_queue(vhost.name(), "queue").await.unwrap();
    // Asking took nothing.
    let taken = plain.take_one("queue").await.unwrap().unwrap();
    assert!(!taken.redelivered);
    estate.close().await;
    managed.close().await;
    plain.close().await;
}

#[tokio::test]
async fn every_other_kind_is_consumed_whole_and_in_order() {
    let vhost = vhost();
    let rabbit = rabbit(&vhost.url());
    let quorum = |more: Value| {
        let mut arguments = json!({"x-queue-type": "quorum"});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    let kinds = [
        json!({}),
        json!({"x-single-active-consumer": true}),
        json!({"x-max-priority": 5}),
        json!({"x-max-length": 1000, "x-overflow": "reject-publish"}),
        json!({"x-message-ttl": 3_600_000, "x-expires": 3_600_000}),
        json!({"x-queue-mode": "lazy"}),
        json!({"x-dead-letter-exchange": "amq.fanout"}),
        quorum(json!({})),
        quorum(json!({"x-single-active-consumer": true})),
        quorum(json!({"x-delivery-limit": 3})),
        quorum(json!({
            "x-dead-letter-exchange": "amq.fanout", "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish", "x-max-length-bytes": 1_000_000,
        })),
    ];
    for (at, arguments) in kinds.into_iter().enumerate() {
        let name = format!("q{at}");
        vhost.queue_with(&name, &arguments);
        publish(&rabbit, &name, 0..100).await;
        let mut consumer = rabbit.consume(&name, 10).await.unwrap();
        let taken = take(&mut *consumer, 100).await;
        assert_eq!(taken, (0..100).collect::<Vec<_>>(), "{arguments}");
        drop(consumer);
        vhost.wait_for_depth(&name, 0, SOON);
    }
    rabbit.close().await;
}

#[tokio::test]
async fn a_single_active_consumer_hands_over_in_order() {
    let vhost = vhost();
    for (name, kind) in [("classic", "classic"), ("quorum", "quorum")] {
        vhost.queue_with(name, &json!({"x-queue-type": kind, "x-single-active-consumer": true}));
        let (one, other) = (rabbit(&vhost.url()), rabbit(&vhost.url()));
        publish(&one, name, 0..20).await;
        let mut active = one.consume(name, 5).await.unwrap();
        let mut standing_by = other.consume(name, 5).await.unwrap();
        assert_eq!(take(&mut *active, 10).await, (0..10).collect::<Vec<_>>());
        assert!(standing_by.next_that_is_there().is_none(), "{name}");
        drop(active);
        one.close().await;
        assert_eq!(take(&mut *standing_by, 10).await, (10..20).collect::<Vec<_>>(), "{name}");
        drop(standing_by);
        other.close().await;
    }
}

#[tokio::test]
async fn a_queue_that_another_connection_has_for_itself_is_refused() {
    let vhost = vhost();
    let owner = rabbit(&vhost.url());
    let exclusive = QueueSpec {
        name: "theirs".to_owned(),
        durable: false,
        exclusive: true,
        auto_delete: false,
        arguments: Headers::default(),
    };
    owner.declare_queue(&exclusive).await.unwrap();
    let managed = managed(&vhost);
    let failure = managed.consume("theirs", 1).await.err().unwrap();
    assert_eq!((failure.kind, failure.code), (FailureKind::Refused, codes::NOT_ALLOWED), "{failure}");
    let found = managed.check_consumer(&wanted("theirs")).await;
    assert!(matches!(&found[..], [finding] if finding.severity == Severity::Error), "{found:?}");
    // It may still be published to.
    let found = managed.check(&[queue("theirs")]).await;
    assert!(found.iter().all(|finding| finding.severity != Severity::Error), "{found:?}");
    managed.close().await;
    owner.close().await;
}

fn messages(found: Vec<Finding>) -> Vec<String> {
    for finding in &found {
        assert_eq!((finding.severity, finding.code), (Severity::Warning, codes::QUEUE_MISFIT), "{finding:?}");
    }
    found.into_iter().map(|finding| finding.message).collect()
}

#[tokio::test]
async fn a_check_names_what_a_queue_loses_whoever_uses_it() {
    let vhost = vhost();
    let rabbit = managed(&vhost);
    vhost.policy("p", "^by policy", &json!({"max-length": 5}));
    for (name, kind) in [("by policy", "classic"), ("by policy, quorum", "quorum")] {
        vhost.queue_with(name, &json!({ "x-queue-type": kind }));
    }
    vhost.queue_with("ttl", &json!({"x-message-ttl": 5000}));
    vhost.queue_with("lost twice", &json!({"x-message-ttl": 5000, "x-dead-letter-exchange": "gone"}));
    vhost.queue_with(
        "lost there",
        &json!({
            "x-max-length": 5, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "gone",
        }),
    );
    vhost.queue_with("kept", &json!({"x-message-ttl": 5000, "x-dead-letter-exchange": "amq.fanout"}));
    vhost.queue_with("refuses", &json!({"x-max-length": 5, "x-overflow": "reject-publish"}));
    let spec = QueueSpec {
        name: "goes".to_owned(),
        durable: true,
        exclusive: false,
        auto_delete: true,
        arguments: Headers::default(),
    };
    rabbit.declare_queue(&spec).await.unwrap();
    let oldest = |name: &str| format!("queue `{name}` drops its oldest message when it is full");
    let waiting = |name: &str| format!("queue `{name}` drops messages that wait in it for 5s");
    let cases = [
        ("by policy", vec![oldest("by policy")]),
        ("by policy, quorum", vec![oldest("by policy, quorum")]),
        ("ttl", vec![waiting("ttl")]),
        ("lost twice", vec![waiting("lost twice")]),
        ("lost there", vec![oldest("lost there")]),
        ("kept", vec![]),
        ("refuses", vec![]),
        ("goes", vec!["queue `goes` is deleted with its messages when its last consumer ends".to_owned()]),
    ];
    for (name, expected) in cases {
        assert_eq!(messages(rabbit.check_consumer(&wanted(name)).await), expected, "consumed");
        assert_eq!(messages(rabbit.check(&[queue(name)]).await), expected, "published to");
    }
    vhost.queue_with("urgent first", &json!({"x-max-priority": 5}));
    let found = messages(rabbit.check_consumer(&wanted("urgent first")).await);
    assert!(matches!(&found[..], [message] if message.contains("higher priority")), "{found:?}");
    let unordered = Wanted { ordered: false, ..wanted("urgent first") };
    assert!(rabbit.check_consumer(&unordered).await.is_empty());
    rabbit.close().await;
}

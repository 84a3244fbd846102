//! Declaring, binding, purging, deleting.

use serde_json::json;
use warren_connectors::embedded::{Binding, Config, Embedded, ExchangeKind, QueueConfig, QueueSettings};
use warren_engine::codes::{self, Code};
use warren_engine::message::{HeaderValue, Headers, Outbound};
use warren_engine::ports::Broker;

use super::{World, exchange, message, queue};

fn open(world: &World, config: serde_json::Value) -> Result<Embedded, warren_engine::failure::Failure> {
    let config: Config = serde_json::from_value(config).unwrap();
    Embedded::open("test", &config, world.folder.path())
}

fn refusal(world: &World, config: serde_json::Value) -> (Code, String) {
    let failure = open(world, config).err().expect("refused");
    (failure.code, failure.to_string())
}

#[tokio::test]
async fn to_declare_again_is_nothing_and_otherwise_an_error() {
    let world = World::new(r#"{"queues": {"q": {"ttl": "5s"}}, "exchanges": {"x": {"type": "topic"}}}"#);
    world.send(queue("q"), "kept").await;
    // The same in RabbitMQ's spelling is the same.
    let same = open(
        &world,
        json!({"queues": {"q": {"arguments": {"x-message-ttl": 5000, "x-queue-type": "classic"}}}}),
    );
    assert_eq!(super::bodies(&same.unwrap(), "q").await, ["kept"]);
    let (code, text) = refusal(&world, json!({"queues": {"q": {"ttl": "6s", "max_length": 1}}}));
    assert_eq!(code, codes::CONFLICTING_KEYS);
    assert_eq!(
        text,
        "declare queue `q`: it is there with other settings: ttl is 5000 ms, not 6000 ms; max_length is none, not 1"
    );
    let (code, _) = refusal(&world, json!({"exchanges": {"x": {"type": "direct"}}}));
    assert_eq!(code, codes::CONFLICTING_KEYS);
}

#[tokio::test]
async fn a_declaration_that_cannot_be_obeyed_is_refused_and_leaves_nothing() {
    let world = World::new("{}");
    for (config, code) in [
        (json!({"queues": {"a": {}, "amq.mine": {}}}), codes::NOT_ALLOWED),
        (json!({"queues": {"a": {}, "": {}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}, "x".repeat(256): {}}}), codes::VALUE_TOO_LONG),
        (json!({"queues": {"a": {}, "q": {"arguments": {"x-max-priority": 10}}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}, "q": {"arguments": {"x-queue-type": "quorum"}}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}, "q": {"arguments": {"x-message-ttl": "5s"}}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}, "q": {"arguments": {"x-message-ttl": -1}}}}), codes::INVALID_VALUE),
        (
            json!({"queues": {"a": {}, "q": {"ttl": "1ms", "arguments": {"x-message-ttl": 1}}}}),
            codes::CONFLICTING_KEYS,
        ),
        (json!({"queues": {"a": {}, "q": {"ttl": "50d"}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}, "q": {"dead_letter_routing_key": "k"}}}), codes::INVALID_VALUE),
        (json!({"queues": {"a": {}}, "exchanges": {"amq.x": {"type": "topic"}}}), codes::NOT_ALLOWED),
        (
            json!({"queues": {"a": {}}, "exchanges": {"x": {"type": "fanout", "bindings": [{"queue": "absent"}]}}}),
            codes::NO_SUCH_QUEUE,
        ),
        (
            json!({"queues": {"a": {}}, "exchanges": {"x": {"type": "headers",
                "bindings": [{"queue": "a", "arguments": {"x-match": "most"}}]}}}),
            codes::INVALID_VALUE,
        ),
    ] {
        assert_eq!(refusal(&world, config.clone()).0, code, "{config}");
    }
    assert_eq!(world.broker.queues().await.unwrap(), []);
}

#[tokio::test]
async fn queues_and_bindings_come_and_go_while_it_runs() {
    let world = World::new("{}");
    let broker = &world.broker;
    let settings =
        QueueSettings::of("q", &QueueConfig { max_length: Some(5), ..QueueConfig::default() }).unwrap();
    assert!(broker.declare_queue("q", &settings).await.unwrap());
    assert!(!broker.declare_queue("q", &settings).await.unwrap());
    assert!(broker.declare_exchange("x", ExchangeKind::Topic).await.unwrap());
    let binding =
        Binding { exchange: "x".into(), queue: "q".into(), routing_key: "a.*".into(), ..Binding::default() };
    assert!(broker.bind(binding.clone()).await.unwrap());
    assert!(!broker.bind(binding.clone()).await.unwrap());
    world.send(exchange("x", "a.b"), "routed").await;
    let states = broker.exchange_states().await.unwrap();
    assert_eq!(
        states.iter().find(|state| state.name == "x").unwrap().bindings,
        std::slice::from_ref(&binding)
    );

    assert!(broker.unbind(binding.clone()).await.unwrap());
    assert!(!broker.unbind(binding).await.unwrap());
    let outbound = || Outbound { route: exchange("x", "a.b"), message: message("m") };
    assert_eq!(world.refusal(outbound()).await, codes::UNROUTABLE);
    broker.delete_exchange("x").await.unwrap();
    assert_eq!(world.refusal(outbound()).await, codes::NO_SUCH_EXCHANGE);
    assert_eq!(broker.delete_exchange("amq.topic").await.unwrap_err().code, codes::NOT_ALLOWED);

    world.send(queue("q"), "second").await;
    assert_eq!(broker.purge("q").await.unwrap(), 2);
    assert_eq!(broker.queue_state("q").await.unwrap().ready, 0);
    world.send(queue("q"), "third").await;
    assert_eq!(broker.delete_queue("q").await.unwrap(), 1);
    assert_eq!(broker.purge("q").await.unwrap_err().code, codes::NO_SUCH_QUEUE);
    // A new queue of that name is a new queue.
    assert!(broker.declare_queue("q", &QueueSettings::default()).await.unwrap());
    assert_eq!(world.bodies("q").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_headers_binding_is_the_same_in_any_order_of_its_arguments() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    let entries = [("a".to_owned(), HeaderValue::I64(1)), ("b".to_owned(), HeaderValue::Void)];
    let binding = |arguments: Headers| Binding {
        exchange: "amq.headers".into(),
        queue: "q".into(),
        routing_key: String::new(),
        arguments,
    };
    assert!(world.broker.bind(binding(entries.iter().cloned().collect())).await.unwrap());
    assert!(!world.broker.bind(binding(entries.iter().rev().cloned().collect())).await.unwrap());
}

#[tokio::test]
async fn peeking_pages_through_a_queue() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    for body in ["1", "2", "3"] {
        world.send(queue("q"), body).await;
    }
    let mut consumer = world.broker.consume("q", 1).await.unwrap();
    let _held = super::next(&mut consumer).await;
    let page = world.broker.peek("q", 0, 2).await.unwrap();
    let seen: Vec<_> = page
        .iter()
        .map(|peeked| (super::text(&peeked.message.body), peeked.unsettled, peeked.deliveries))
        .collect();
    assert_eq!(seen, [("1".into(), true, 1), ("2".into(), false, 0)]);
    let rest = world.broker.peek("q", page[1].id, 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(world.broker.peek("absent", 0, 1).await.unwrap_err().code, codes::NO_SUCH_QUEUE);
}

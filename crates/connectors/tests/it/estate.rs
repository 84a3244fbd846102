//! What every estate must do, on the real RabbitMQ and the embedded broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use warren_connectors::kit::setting::Secret;
use warren_connectors::{embedded, rabbitmq};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::hub::ports::{Estate, HubBinding, Made};
use warren_engine::hub::resource::Resource;
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;
use warren_testkit::rabbit::vhost;

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(30);

#[expect(clippy::unnecessary_wraps, reason = "as the answers have it")]
fn kind(kind: &str) -> Option<String> {
    Some(kind.to_owned())
}

fn binding(vhost: &str, exchange: &str, queue: &str, key: &str) -> HubBinding {
    HubBinding {
        vhost: vhost.to_owned(),
        exchange: exchange.to_owned(),
        queue: queue.to_owned(),
        routing_key: key.to_owned(),
        arguments: Headers::default(),
    }
}

async fn publish(broker: &Arc<dyn Broker>, exchange: &str, key: &str) -> Receipt {
    let route = Route::Exchange { exchange: exchange.to_owned(), routing_key: key.to_owned() };
    let message = Message { body: Bytes::from_static(b"body"), properties: Properties::default() };
    broker.publish(&[Outbound { route, message }]).await.remove(0)
}

async fn conforms(estate: &dyn Estate, vhost: &str, tells_types: bool) {
    queues(estate, vhost).await;
    exchanges(estate, vhost, tells_types).await;
    bindings(estate, vhost).await;
    nowhere(estate).await;
}

async fn queues(estate: &dyn Estate, vhost: &str) {
    let queue = Resource::queue(vhost, "a queue/with ü");
    assert_eq!(estate.look(&queue).await.unwrap(), None);
    assert!(!estate.delete(&queue).await.unwrap());
    assert!(estate.create_queue(vhost, &queue.name).await.unwrap());
    assert!(!estate.create_queue(vhost, &queue.name).await.unwrap());
    assert_eq!(estate.look(&queue).await.unwrap().unwrap().exchange_type, None);
    assert!(estate.delete(&queue).await.unwrap());
    assert!(!estate.delete(&queue).await.unwrap());
    assert_eq!(estate.look(&queue).await.unwrap(), None);
    assert_eq!(estate.look(&Resource::queue(vhost, "")).await.unwrap(), None);
    let reserved = estate.create_queue(vhost, "amq.mine").await.unwrap_err();
    assert_eq!(reserved.kind, FailureKind::Refused, "{reserved}");
}

async fn exchanges(estate: &dyn Estate, vhost: &str, tells_types: bool) {
    for wanted in ["direct", "fanout", "topic", "headers"] {
        let exchange = Resource::exchange(vhost, wanted);
        assert_eq!(estate.look(&exchange).await.unwrap(), None);
        assert_eq!(estate.create_exchange(vhost, wanted, wanted).await.unwrap(), Made::New);
        assert_eq!(estate.create_exchange(vhost, wanted, wanted).await.unwrap(), Made::Same);
        let nature = estate.look(&exchange).await.unwrap().unwrap();
        assert_eq!(nature.exchange_type, if tells_types { kind(wanted) } else { None });
    }
    assert_eq!(estate.create_exchange(vhost, "topic", "fanout").await.unwrap(), Made::Other(kind("topic")));
    // A broker may close the connection over an unknown type; the others are not affected.
    for unknown in ["nosuch", "x-nosuch", "x-delayed-message", "x-with blank", "Topic", "topic ", ""] {
        for name in ["new", "topic"] {
            let made = estate.create_exchange(vhost, name, unknown).await.unwrap();
            assert_eq!(made, Made::UnknownType, "`{unknown}` for {name}");
        }
        assert_eq!(estate.look(&Resource::exchange(vhost, "new")).await.unwrap(), None, "`{unknown}`");
    }
    assert_eq!(estate.create_exchange(vhost, "topic", "topic").await.unwrap(), Made::Same);
    let default = Resource::exchange(vhost, "");
    assert_eq!(estate.look(&default).await.unwrap().unwrap().exchange_type, kind("direct"));
    assert_eq!(estate.delete(&default).await.unwrap_err().kind, FailureKind::Refused);
    assert!(estate.delete(&Resource::exchange(vhost, "headers")).await.unwrap());
    assert!(!estate.delete(&Resource::exchange(vhost, "headers")).await.unwrap());
}

async fn bindings(estate: &dyn Estate, vhost: &str) {
    let broker = estate.broker(vhost).await.unwrap();
    estate.create_queue(vhost, "bound").await.unwrap();
    let receipt = publish(&broker, "topic", "a.b").await;
    assert!(
        matches!(&receipt, Receipt::Refused(failure) if failure.code == codes::UNROUTABLE),
        "{receipt:?}"
    );
    let bound = binding(vhost, "topic", "bound", "a.#");
    estate.bind(&bound).await.unwrap();
    estate.bind(&bound).await.unwrap();
    assert!(matches!(publish(&broker, "topic", "a.b").await, Receipt::Accepted(_)));
    estate.unbind(&bound).await.unwrap();
    estate.unbind(&bound).await.unwrap();
    assert!(matches!(publish(&broker, "topic", "a.b").await, Receipt::Refused(_)));
    // With arguments, and away by the same.
    estate.create_exchange(vhost, "by headers", "headers").await.unwrap();
    let arguments = [("kind".to_owned(), HeaderValue::Text("order".to_owned()))].into_iter().collect();
    let by_headers = HubBinding { arguments, ..binding(vhost, "by headers", "bound", "") };
    estate.bind(&by_headers).await.unwrap();
    estate.unbind(&by_headers).await.unwrap();
    for (missing, code) in [
        (binding(vhost, "nowhere", "bound", ""), codes::NO_SUCH_EXCHANGE),
        (binding(vhost, "topic", "nowhere", ""), codes::NO_SUCH_QUEUE),
    ] {
        let failure = estate.bind(&missing).await.unwrap_err();
        assert_eq!((failure.kind, failure.code), (FailureKind::NotFound, code), "{failure}");
        estate.unbind(&missing).await.unwrap();
    }
    // The same broker for all: what one asked for, another consumes.
    let mut consumer = estate.broker(vhost).await.unwrap().consume("bound", 1).await.unwrap();
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap();
    assert_eq!(&delivery.unwrap().job().message.body[..], b"body");
}

async fn nowhere(estate: &dyn Estate) {
    for vhost in ["no such vhost", ""] {
        let failure = estate.look(&Resource::queue(vhost, "q")).await.unwrap_err();
        assert_eq!((failure.kind, failure.code), (FailureKind::NotFound, codes::UNKNOWN_VHOST), "{failure}");
        let failure = estate.look(&Resource::exchange(vhost, "")).await.unwrap_err();
        assert_eq!((failure.kind, failure.code), (FailureKind::NotFound, codes::UNKNOWN_VHOST), "{failure}");
        assert!(estate.create_queue(vhost, "q").await.is_err());
    }
}

#[tokio::test]
async fn the_embedded_broker_is_an_estate() {
    let folder = tempfile::tempdir().unwrap();
    let estate = embedded::estate("own", &embedded::Config::default(), folder.path()).unwrap();
    conforms(&*estate, "/", true).await;
    estate.close().await;
}

#[tokio::test]
async fn rabbitmq_is_an_estate_with_and_without_its_management_api() {
    for management in [true, false] {
        let vhost = vhost();
        let config = rabbitmq::Config {
            // Into another vhost: all are used with one login.
            url: Some(Secret::new(vhost.url().rsplit_once('/').unwrap().0)),
            management_url: management.then(|| Secret::new(vhost.management().url())),
            ..rabbitmq::Config::default()
        };
        let estate = rabbitmq::estate("rabbit", &config).unwrap();
        conforms(&*estate, vhost.name(), management).await;
        estate.close().await;
    }
}

#[tokio::test]
async fn a_vhost_that_comes_later_is_found_and_one_that_goes_is_missed() {
    let early = vhost();
    let config = rabbitmq::Config { url: Some(Secret::new(early.url())), ..rabbitmq::Config::default() };
    let estate = rabbitmq::estate("rabbit", &config).unwrap();
    let name = format!("{}-later", early.name());
    let queue = Resource::queue(&name, "q");
    assert_eq!(estate.look(&queue).await.unwrap_err().code, codes::UNKNOWN_VHOST);
    let none = serde_json::Value::Null;
    early.management().request("PUT", &format!("/api/vhosts/{name}"), &none);
    // A vhost is there some moments before it can be entered.
    let made = tokio::time::timeout(SOON, async {
        while estate.create_queue(&name, "q").await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    made.await.unwrap();
    assert!(estate.look(&queue).await.unwrap().is_some());
    early.management().request("DELETE", &format!("/api/vhosts/{name}"), &none);
    let gone = tokio::time::timeout(SOON, async {
        while !estate.look(&queue).await.is_err_and(|failure| failure.code == codes::UNKNOWN_VHOST) {
            tokio::task::yield_now().await;
        }
    });
    gone.await.unwrap();
    estate.close().await;
}

#[tokio::test]
async fn refused_declarations_are_invalid_and_say_why() {
    let vhost = vhost();
    let config = rabbitmq::Config { url: Some(Secret::new(vhost.url())), ..rabbitmq::Config::default() };
    let estate = rabbitmq::estate("rabbit", &config).unwrap();
    let rabbit = rabbitmq::Rabbit::new("rabbit", &config).unwrap();
    // Of the type, with other settings: it exists.
    let odd = rabbitmq::ExchangeSpec {
        name: "odd".to_owned(),
        kind: "topic".to_owned(),
        durable: true,
        auto_delete: false,
        internal: true,
        arguments: Headers::default(),
    };
    rabbit.declare_exchange(&odd).await.unwrap();
    assert_eq!(estate.create_exchange(vhost.name(), "odd", "topic").await.unwrap(), Made::Same);
    assert_eq!(
        estate.create_exchange(vhost.name(), "odd", "fanout").await.unwrap(),
        Made::Other(kind("topic"))
    );
    // A binding whose arguments the broker refuses.
    estate.create_exchange(vhost.name(), "by headers", "headers").await.unwrap();
    estate.create_queue(vhost.name(), "q").await.unwrap();
    for refused in [HeaderValue::Text("nope".to_owned()), HeaderValue::I64(5)] {
        let arguments = [("x-match".to_owned(), refused)].into_iter().collect();
        let binding = HubBinding { arguments, ..binding(vhost.name(), "by headers", "q", "") };
        let failure = estate.bind(&binding).await.unwrap_err();
        assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::INVALID_VALUE), "{failure}");
        assert!(failure.to_string().contains("x-match"), "{failure}");
    }
    // A vhost that may have no more queues.
    let limit = format!("/api/vhost-limits/{}/max-queues", vhost.name());
    vhost.management().request("PUT", &limit, &serde_json::json!({ "value": 1 }));
    let failure = estate.create_queue(vhost.name(), "beyond").await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::INVALID_VALUE), "{failure}");
    assert!(failure.to_string().contains("limit"), "{failure}");
    assert!(!estate.create_queue(vhost.name(), "q").await.unwrap());
    rabbit.close().await;
    estate.close().await;
}

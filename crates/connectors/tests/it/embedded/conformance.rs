//! The embedded broker does what every broker must do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tempfile::TempDir;
use warren_connectors::embedded::{
    Argument, Binding, Config, Embedded, ExchangeKind, QueueConfig, QueueSettings,
};
use warren_connectors::kit::conformance::broker::{CASES, Fixture, RESTART_CASES};
use warren_engine::message::Headers;
use warren_engine::ports::Broker;

struct Place {
    folder: TempDir,
    broker: Mutex<Embedded>,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mutex::new(open(&folder));
        Place { folder, broker }
    }

    fn embedded(&self) -> Embedded {
        self.broker.lock().unwrap().clone()
    }
}

fn open(folder: &TempDir) -> Embedded {
    Embedded::open("embedded", &Config::default(), folder.path()).unwrap()
}

#[async_trait]
impl Fixture for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.embedded())
    }

    async fn queue(&self, name: &str, arguments: Headers) {
        let arguments: BTreeMap<String, Argument> =
            arguments.iter().map(|(name, value)| (name.to_owned(), Argument(value.clone()))).collect();
        let settings = QueueSettings::of(name, &QueueConfig { arguments, ..QueueConfig::default() }).unwrap();
        self.embedded().declare_queue(name, &settings).await.unwrap();
    }

    async fn delete_queue(&self, name: &str) {
        self.embedded().delete_queue(name).await.unwrap();
    }

    async fn exchange(&self, name: &str, kind: &str) {
        let kind: ExchangeKind = serde_json::from_value(kind.into()).unwrap();
        self.embedded().declare_exchange(name, kind).await.unwrap();
    }

    async fn bind(&self, exchange: &str, queue: &str, routing_key: &str, arguments: Headers) {
        let binding = Binding {
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
            routing_key: routing_key.to_owned(),
            arguments,
        };
        self.embedded().bind(binding).await.unwrap();
    }

    async fn restart(&self) {
        self.embedded().close().await;
        *self.broker.lock().unwrap() = open(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_broker_must() {
    for (name, case) in CASES.iter().chain(RESTART_CASES) {
        println!("{name}");
        case(&Place::new()).await;
    }
}

/// On the current-thread runtime, where no second thread makes progress by chance.
#[tokio::test]
async fn it_does_so_on_one_thread() {
    for (name, case) in CASES.iter().chain(RESTART_CASES) {
        println!("{name}");
        case(&Place::new()).await;
    }
}

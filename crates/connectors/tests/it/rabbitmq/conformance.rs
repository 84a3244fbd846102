//! RabbitMQ does what every broker must do.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use warren_connectors::kit::conformance::broker::{CASES, Fixture, RESTART_CASES};
use warren_connectors::kit::setting::{Secret, Size};
use warren_connectors::rabbitmq::{Binding, Config, ExchangeSpec, QueueSpec, Rabbit};
use warren_engine::message::Headers;
use warren_engine::ports::Broker;
use warren_engine::size::ByteSize;
use warren_testkit::rabbit::{Vhost, vhost};

use super::config;

pub(super) struct Place {
    _vhost: Vhost,
    own: Option<Arc<warren_testkit::rabbit::Broker>>,
    rabbit: Mutex<Arc<Rabbit>>,
}

fn connect(vhost: &Vhost) -> Arc<Rabbit> {
    let config = Config {
        max_message_size: Some(Size(ByteSize(16 << 20))),
        management_url: Some(Secret::new(vhost.management().url())),
        ..config(&vhost.url())
    };
    Arc::new(Rabbit::new("rabbit", &config).unwrap())
}

impl Place {
    fn new(vhost: Vhost, own: Option<Arc<warren_testkit::rabbit::Broker>>) -> Place {
        Place { rabbit: Mutex::new(connect(&vhost)), _vhost: vhost, own }
    }

    fn rabbit(&self) -> Arc<Rabbit> {
        self.rabbit.lock().unwrap().clone()
    }
}

#[async_trait]
impl Fixture for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        self.rabbit()
    }

    async fn queue(&self, name: &str, arguments: Headers) {
        let spec = QueueSpec { name: name.to_owned(), durable: true, arguments, ..QueueSpec::default() };
        self.rabbit().declare_queue(&spec).await.unwrap();
    }

    async fn delete_queue(&self, name: &str) {
        self.rabbit().delete_queue(name).await.unwrap();
    }

    async fn exchange(&self, name: &str, kind: &str) {
        let spec = ExchangeSpec {
            name: name.to_owned(),
            kind: kind.to_owned(),
            durable: true,
            ..ExchangeSpec::default()
        };
        self.rabbit().declare_exchange(&spec).await.unwrap();
    }

    async fn bind(&self, exchange: &str, queue: &str, routing_key: &str, arguments: Headers) {
        let binding = Binding {
            queue: queue.to_owned(),
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            arguments,
        };
        self.rabbit().bind(&binding).await.unwrap();
    }

    async fn restart(&self) {
        let own = self.own.clone().expect("only a broker of the test's own is restarted");
        tokio::task::spawn_blocking(move || {
            own.stop();
            own.start_again();
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_broker_must() {
    for (name, case) in CASES {
        println!("{name}");
        let place = Place::new(vhost(), None);
        case(&place).await;
        place.rabbit().close().await;
    }
}

/// On the current-thread runtime, where no second thread makes progress by chance.
#[tokio::test]
async fn it_does_so_on_one_thread() {
    for (name, case) in CASES {
        println!("{name}");
        let place = Place::new(vhost(), None);
        case(&place).await;
        place.rabbit().close().await;
    }
}

pub(super) async fn restarts(own: Arc<warren_testkit::rabbit::Broker>) {
    for (name, case) in RESTART_CASES {
        println!("{name}");
        let place = Place::new(own.vhost(), Some(own.clone()));
        case(&place).await;
        place.rabbit().close().await;
    }
}

//! SQS does what every broker must do, as far as it has what that needs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use warren_connectors::kit::conformance::broker::{Capability, Fixture, cases_for};
use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::{Config, Sqs};
use warren_engine::message::Headers;
use warren_engine::ports::Broker;
use warren_testkit::sqs::{Account, Endpoint, account};

use super::{at, of, sqs};

/// SQS keeps order in groups only, and has no exchanges; text bodies of 1 to 1,048,576 bytes; names of letters, digits, `-` and `_`; no bound of a queue's length; no
/// headers about deaths; and keeps messages for a time, but moves none of them when that is over, so that no queue leads back: it delays deliveries itself.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const HAS: &[Capability] = &[];

/// Cases with thousands of messages, too many for the server, whose every request takes as long as the queue is.
const LARGE: [&str; 2] =
    ["each message has its own receipt", "many publishers at once each get their own answers"];

/// Where the queues are.
enum Server {
    Moto(Account),
    Scriptable(Endpoint),
}

struct Place {
    server: Server,
    broker: Arc<Sqs>,
}

impl Place {
    fn new(server: Server) -> Place {
        let config = match &server {
            Server::Moto(account) => of(account),
            Server::Scriptable(endpoint) => at(endpoint),
        };
        // One request after another, since a queue that is no FIFO queue promises no order and the cases ask for one; and extended
        // often, to hear soon that a queue is gone.
        let config = Config {
            concurrency: Some(1),
            visibility_timeout: Some(Span(Duration::from_secs(8))),
            wait_time: Some(Span(Duration::from_secs(1))),
            ..config
        };
        Place { broker: Arc::new(sqs(&config)), server }
    }
}

#[async_trait]
impl Fixture for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn queue(&self, name: &str, _: Headers) {
        match &self.server {
            Server::Moto(account) => drop(account.queue(name, &[])),
            Server::Scriptable(endpoint) => endpoint.queue(name),
        }
    }

    async fn delete_queue(&self, name: &str) {
        match &self.server {
            Server::Moto(account) => account.delete(name),
            Server::Scriptable(endpoint) => endpoint.delete(name),
        }
    }

    async fn exchange(&self, name: &str, _: &str) {
        panic!("no case asks for exchange {name}: SQS has none");
    }

    async fn bind(&self, exchange: &str, _: &str, _: &str, _: Headers) {
        panic!("no case binds to exchange {exchange}: SQS has none");
    }

    async fn handed_back(&self) {
        self.broker.close().await;
    }

    async fn restart(&self) {
        panic!("nobody restarts SQS");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_broker_must() {
    let (cases, others) = cases_for(HAS);
    assert_eq!((cases.len(), others.len()), (14, 16), "{others:?}");
    for (name, case) in cases {
        println!("{name}");
        case(&Place::new(Server::Scriptable(Endpoint::start().await))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_with_a_server_that_is_not_ours() {
    let (cases, _) = cases_for(HAS);
    let (large, cases): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(name, _)| LARGE.contains(name));
    assert_eq!(large.len(), LARGE.len());
    for (name, case) in cases {
        println!("{name}");
        case(&Place::new(Server::Moto(account()))).await;
    }
}

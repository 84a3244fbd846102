//! SQS does what every broker must do, as far as it has what that needs.

use std::sync::Arc;

use async_trait::async_trait;
use warren_connectors::kit::conformance::broker::{Capability, Fixture, cases_for};
use warren_connectors::kit::setting::Span;
use warren_connectors::sqs::{Config, Sqs};
use warren_engine::message::Headers;
use warren_engine::ports::Broker;
use warren_testkit::sqs::{Account, account};

use super::{of, sqs};

/// SQS keeps order in groups only, and has no exchanges; text bodies of 1 to 1,048,576 bytes; names of letters, digits, `-` and `_`; no bound of a queue's length; no
/// headers about deaths; and keeps messages for a time, but moves none of them when that is over.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const HAS: &[Capability] = &[];

struct Place {
    account: Account,
    broker: Arc<Sqs>,
}

impl Place {
    fn new() -> Place {
        let account = account();
        // One request after another, since a queue that is no FIFO queue promises no order and the cases ask for one; and extended
        // often, to hear soon that a queue is gone.
        let config = Config {
            concurrency: Some(1),
            visibility_timeout: Some(Span(std::time::Duration::from_secs(8))),
            ..of(&account)
        };
        Place { broker: Arc::new(sqs(&config)), account }
    }
}

#[async_trait]
impl Fixture for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    async fn queue(&self, name: &str, _: Headers) {
        self.account.queue(name, &[]);
    }

    async fn delete_queue(&self, name: &str) {
        self.account.delete(name);
    }

    async fn exchange(&self, name: &str, _: &str) {
        panic!("no case asks for exchange {name}: SQS has none");
    }

    async fn bind(&self, exchange: &str, _: &str, _: &str, _: Headers) {
        panic!("no case binds to exchange {exchange}: SQS has none");
    }

    async fn restart(&self) {
        panic!("nobody restarts SQS");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_broker_must() {
    let (cases, others) = cases_for(HAS);
    assert_eq!((cases.len(), others.len()), (14, 11), "{others:?}");
    for (name, case) in cases {
        println!("{name}");
        case(&Place::new()).await;
    }
}

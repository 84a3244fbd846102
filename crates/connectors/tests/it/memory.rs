//! The broker in memory does what every broker must do, as far as it has what that needs: tests of flows rely on it.

use std::sync::Arc;

use async_trait::async_trait;
use warren_connectors::kit::conformance::broker::{Capability, Fixture, cases_for};
use warren_engine::memory::MemoryBroker;
use warren_engine::message::Headers;
use warren_engine::ports::Broker;

/// It has no exchanges, knows no arguments of queues, and forgets everything when it ends.
const HAS: &[Capability] = &[Capability::AnyBody, Capability::DelayQueues, Capability::QueueOrder];

#[derive(Default)]
struct Place(Arc<MemoryBroker>);

#[async_trait]
impl Fixture for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        self.0.clone()
    }

    async fn queue(&self, name: &str, _: Headers) {
        self.0.declare(name);
    }

    async fn delete_queue(&self, name: &str) {
        self.0.delete(name);
    }

    async fn exchange(&self, name: &str, _: &str) {
        panic!("no case asks for exchange {name}: the broker in memory has none");
    }

    async fn bind(&self, exchange: &str, _: &str, _: &str, _: Headers) {
        panic!("no case binds to exchange {exchange}: the broker in memory has none");
    }

    async fn restart(&self) {
        panic!("what is in memory does not survive");
    }
}

#[tokio::test]
async fn it_does_what_every_broker_must() {
    let (cases, others) = cases_for(HAS);
    assert_eq!((cases.len(), others.len()), (21, 9), "{others:?}");
    for (name, case) in cases {
        println!("{name}");
        case(&Place::default()).await;
    }
}

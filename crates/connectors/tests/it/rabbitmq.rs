//! RabbitMQ, the real one.

mod conformance;
mod connecting;
mod culprits;
mod fake;
mod frames;
mod kinds;
mod looking;
mod own_broker;
mod publishing;
mod users;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use warren_connectors::kit::setting::{Secret, Span};
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes::Code;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(20);

fn config(url: &str) -> Config {
    Config { url: Some(Secret::new(url)), ..Config::default() }
}

fn rabbit(url: &str) -> Rabbit {
    Rabbit::new("rabbit", &config(url)).unwrap()
}

fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn queue(name: &str) -> Route {
    Route::Queue(name.to_owned())
}

fn exchange(exchange: &str, routing_key: &str) -> Route {
    Route::Exchange { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }
}

fn outbound(route: Route, body: impl Into<Bytes>) -> Outbound {
    Outbound { route, message: Message { body: body.into(), properties: Properties::default() } }
}

/// A message with an id, which is its body as well.
fn named(route: Route, id: &str) -> Outbound {
    let mut outbound = outbound(route, id.to_owned());
    outbound.message.properties.message_id = Some(id.to_owned());
    outbound
}

#[track_caller]
fn refused(receipt: &Receipt) -> &Failure {
    match receipt {
        Receipt::Refused(failure) => failure,
        Receipt::Accepted(_) | Receipt::Unknown(_) => panic!("not refused: {receipt:?}"),
    }
}

#[track_caller]
fn assert_refused(receipt: &Receipt, kind: FailureKind, code: Code) {
    let failure = refused(receipt);
    assert_eq!((failure.kind, failure.code), (kind, code), "{failure:?}");
}

#[track_caller]
fn assert_accepted(receipts: &[Receipt]) {
    for (at, receipt) in receipts.iter().enumerate() {
        assert!(matches!(receipt, Receipt::Accepted(_)), "message {at}: {receipt:?}");
    }
}

/// How many receipts there are of each kind, for the sentence of an assertion.
fn tally(receipts: &[Receipt]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for receipt in receipts {
        let name = match receipt {
            Receipt::Accepted(_) => "accepted".to_owned(),
            Receipt::Refused(failure) => format!("refused {}", failure.code),
            Receipt::Unknown(failure) => format!("unknown {}", failure.code),
        };
        *tally.entry(name).or_default() += 1;
    }
    tally
}

//! SQS: a server that keeps its rules (`moto`), and one that fails as it is told.

mod conformance;
mod consuming;
mod lapsing;
mod looking;
mod order;
mod publishing;
mod roles;
mod table;

use std::time::Duration;

use bytes::Bytes;
use warren_connectors::kit::setting::{Secret, Span};
use warren_connectors::sqs::config::AccessKey;
use warren_connectors::sqs::{Config, Sqs};
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::sqs as parts;
use warren_testkit::sqs::{Account, Endpoint, REGION};

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(30);

/// The settings for the scriptable endpoint.
fn at(endpoint: &Endpoint) -> Config {
    Config {
        region: Some(REGION.into()),
        access_key: Some(key("test", "secret", None)),
        endpoint_url: Some(endpoint.url()),
        ..Config::default()
    }
}

/// The settings for an account of the server.
fn of(account: &Account) -> Config {
    let (id, secret, token) = account.key();
    Config {
        region: Some(REGION.into()),
        access_key: Some(key(id, secret, Some(token))),
        endpoint_url: Some(warren_testkit::sqs::url()),
        visibility_timeout: Some(Span(Duration::from_secs(20))),
        wait_time: Some(Span(Duration::from_secs(1))),
        ..Config::default()
    }
}

fn key(id: &str, secret: &str, token: Option<&str>) -> AccessKey {
    AccessKey { id: id.into(), secret: Secret::new(secret), session_token: token.map(Secret::new) }
}

fn sqs(config: &Config) -> Sqs {
    Sqs::new("orders", config).unwrap()
}

fn outbound(queue: &str, body: impl Into<Bytes>) -> Outbound {
    let message = Message { body: body.into(), properties: Properties::default() };
    Outbound { route: Route::Queue(queue.to_owned()), message }
}

/// A message to a FIFO queue; its body is its deduplication id.
fn grouped(queue: &str, group: &str, body: &str) -> Outbound {
    let mut outbound = outbound(queue, body.to_owned());
    set(&mut outbound, parts::GROUP_ID, HeaderValue::Text(group.to_owned()));
    set(&mut outbound, parts::DEDUPLICATION_ID, HeaderValue::Text(body.to_owned()));
    outbound
}

fn set(outbound: &mut Outbound, name: &str, value: HeaderValue) {
    outbound.message.properties.headers.set(name, value);
}

fn code(receipt: &Receipt) -> &'static str {
    match receipt {
        Receipt::Accepted(_) => "accepted",
        Receipt::Refused(failure) | Receipt::Unknown(failure) => failure.code.as_str(),
    }
}

fn codes(receipts: &[Receipt]) -> Vec<&'static str> {
    receipts.iter().map(code).collect()
}

#[track_caller]
fn all_accepted(receipts: &[Receipt]) {
    for (at, receipt) in receipts.iter().enumerate() {
        assert!(matches!(receipt, Receipt::Accepted(_)), "message {at} of {}: {receipt:?}", receipts.len());
    }
}

fn bodies(endpoint: &Endpoint, queue: &str) -> Vec<String> {
    endpoint.stored(queue).into_iter().map(|stored| stored.arrival.body).collect()
}

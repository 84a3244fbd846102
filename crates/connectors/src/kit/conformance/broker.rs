//! What every broker must do. Each case gets a fresh fixture and panics with what does not hold.
//!
//! ```ignore
//! for (name, case) in broker::CASES {
//!     println!("{name}");
//!     case(&fixture()).await;
//! }
//! ```

mod consuming;
mod delaying;
mod keeping;
mod publishing;
mod routing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use warren_engine::codes::Code;
use warren_engine::delivery::{Delivery, Settlement};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::{Broker, Consumer};

/// A broker for one case, with nothing in it yet, and the means to set it up. Panics on failure.
///
/// Its broker's largest body must be set to at most 16 MiB.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The broker. After a restart it may be another one.
    fn broker(&self) -> Arc<dyn Broker>;

    /// Declares a durable queue, with arguments by RabbitMQ's names.
    async fn queue(&self, name: &str, arguments: Headers);

    /// Deletes a queue with its messages.
    async fn delete_queue(&self, name: &str);

    /// Declares a durable exchange: `direct`, `fanout`, `topic` or `headers`.
    async fn exchange(&self, name: &str, kind: &str);

    /// Binds a queue to an exchange.
    async fn bind(&self, exchange: &str, queue: &str, routing_key: &str, arguments: Headers);

    /// Waits until the broker has heard of consumers that were dropped, all of them. A broker that hears of it in order with what comes
    /// after needs no wait.
    async fn handed_back(&self) {}

    /// Stops the broker in good order and starts it again. Called by [`RESTART_CASES`] only.
    async fn restart(&self);
}

/// One thing that must hold.
pub type Case = for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, ()>;

/// The cases for which the broker runs on.
pub const CASES: &[(&str, Case)] = &[
    ("all properties and header types come back as they were sent", |f| {
        Box::pin(publishing::all_properties_come_back(f))
    }),
    ("a batch is consumed in order", |f| Box::pin(publishing::a_batch_is_consumed_in_order(f))),
    ("each message has its own receipt", |f| Box::pin(publishing::each_message_has_its_own_receipt(f))),
    ("an unroutable key and a missing exchange refuse only their own", |f| {
        Box::pin(publishing::only_their_own_are_refused(f))
    }),
    ("bodies of any size arrive whole", |f| Box::pin(publishing::bodies_arrive_whole(f))),
    ("a body that is too large is refused alone", |f| Box::pin(publishing::too_large_is_refused_alone(f))),
    ("a value that is too long is refused alone", |f| Box::pin(publishing::too_long_is_refused_alone(f))),
    ("a full queue refuses for now", |f| Box::pin(publishing::a_full_queue_refuses(f))),
    ("an empty batch has no receipts", |f| Box::pin(publishing::an_empty_batch_has_no_receipts(f))),
    ("many publishers at once each get their own answers", |f| {
        Box::pin(publishing::many_publishers_at_once(f))
    }),
    ("exchanges route by their kind", |f| Box::pin(routing::exchanges_route_by_their_kind(f))),
    ("queues are listed", |f| Box::pin(routing::queues_are_listed(f))),
    ("a check finds what is missing", |f| Box::pin(routing::a_check_finds_what_is_missing(f))),
    ("no more than the prefetch is unsettled at once", |f| Box::pin(consuming::prefetch_is_kept(f))),
    ("what is acknowledged does not come again", |f| Box::pin(consuming::acknowledged_is_gone(f))),
    ("what is acknowledged out of order does not come again, and the rest does", |f| {
        Box::pin(consuming::out_of_order_is_exact(f))
    }),
    ("what is rejected is gone", |f| Box::pin(consuming::rejected_is_gone(f))),
    ("what is requeued comes again, marked", |f| Box::pin(consuming::requeued_comes_again(f))),
    ("dropping a consumer hands back what is unsettled", |f| Box::pin(consuming::dropping_hands_back(f))),
    ("settling after the consumer is gone says so", |f| Box::pin(consuming::settling_late_says_so(f))),
    ("cancelling yields what was on its way, then ends", |f| Box::pin(consuming::cancelling_drains(f))),
    ("consuming from a missing queue is refused", |f| Box::pin(consuming::a_missing_queue_is_refused(f))),
    ("a consumer hears that its queue is deleted", |f| Box::pin(consuming::a_deleted_queue_is_heard_of(f))),
    ("what is rejected goes to the dead-letter queue as it was", |f| {
        Box::pin(keeping::rejected_is_dead_lettered(f))
    }),
    ("what expires goes to the dead-letter queue", |f| Box::pin(keeping::expired_is_dead_lettered(f))),
    ("what is delayed comes back after its time, as it was", |f| {
        Box::pin(delaying::it_comes_back_as_it_was(f))
    }),
    ("what is delayed for a shorter time of its own comes back after that", |f| {
        Box::pin(delaying::its_own_time_counts_where_it_is_shorter(f))
    }),
    ("a delay queue that is declared twice is one", |f| Box::pin(delaying::twice_declared_is_one(f))),
    ("a delay queue that is there with other settings is refused", |f| {
        Box::pin(delaying::one_of_other_settings_is_refused(f))
    }),
    ("a delay queue keeps the order", |f| Box::pin(delaying::order_is_kept_within_one(f))),
];

/// The cases that restart the broker.
pub const RESTART_CASES: &[(&str, Case)] = &[
    ("persistent messages survive a restart", |f| Box::pin(keeping::persistent_messages_survive(f))),
    ("unsettled messages survive a restart, settled ones stay settled", |f| {
        Box::pin(keeping::unsettled_messages_survive(f))
    }),
    ("what is delayed survives a restart and comes back", |f| Box::pin(delaying::what_waits_survives(f))),
];

/// What not every broker has. A broker declares what it has; the cases that need something else are not for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// It has exchanges, which choose queues.
    Exchanges,
    /// It carries every property and type of header of AMQP, with AMQP's limits.
    AmqpProperties,
    /// A body may be empty, any bytes, and megabytes large.
    AnyBody,
    /// A queue may have any name, and is listed as RabbitMQ would.
    AnyQueueName,
    /// A full queue can refuse messages.
    FullQueues,
    /// A message that was dead-lettered says so in headers of AMQP's names.
    DeathHeaders,
    /// Messages expire into a dead-letter queue.
    Expiration,
    /// Queues that keep messages for a time and lead them back.
    DelayQueues,
    /// A queue keeps the order in which it was sent to, whoever sends however much at once. (Small cases ask for order all the same,
    /// of one publisher that sends one request after another.)
    QueueOrder,
}

/// Everything: what a broker of AMQP's kind has.
pub const ALL_CAPABILITIES: &[Capability] = &[
    Capability::Exchanges,
    Capability::AmqpProperties,
    Capability::AnyBody,
    Capability::AnyQueueName,
    Capability::FullQueues,
    Capability::DeathHeaders,
    Capability::Expiration,
    Capability::DelayQueues,
    Capability::QueueOrder,
];

/// What some cases need.
const NEEDS: &[(&str, Capability)] = &[
    ("all properties and header types come back as they were sent", Capability::AmqpProperties),
    ("a batch is consumed in order", Capability::QueueOrder),
    ("an unroutable key and a missing exchange refuse only their own", Capability::Exchanges),
    ("bodies of any size arrive whole", Capability::AnyBody),
    ("a value that is too long is refused alone", Capability::AmqpProperties),
    ("a full queue refuses for now", Capability::FullQueues),
    ("exchanges route by their kind", Capability::Exchanges),
    ("queues are listed", Capability::AnyQueueName),
    ("a check finds what is missing", Capability::Exchanges),
    ("what is rejected goes to the dead-letter queue as it was", Capability::DeathHeaders),
    ("what expires goes to the dead-letter queue", Capability::Expiration),
    ("what is delayed comes back after its time, as it was", Capability::DelayQueues),
    ("what is delayed for a shorter time of its own comes back after that", Capability::DelayQueues),
    ("a delay queue that is declared twice is one", Capability::DelayQueues),
    ("a delay queue that is there with other settings is refused", Capability::DelayQueues),
    ("a delay queue keeps the order", Capability::DelayQueues),
];

/// The cases for a broker with these capabilities, and the names of those that are not for it.
///
/// # Panics
/// When a need is that of no case.
pub fn cases_for(has: &[Capability]) -> (Vec<(&'static str, Case)>, Vec<&'static str>) {
    for (name, _) in NEEDS {
        assert!(CASES.iter().any(|(case, _)| case == name), "`{name}` is no case");
    }
    let fits = |name: &str| NEEDS.iter().all(|(case, needs)| *case != name || has.contains(needs));
    let (fitting, others): (Vec<_>, Vec<_>) = CASES.iter().copied().partition(|(name, _)| fits(name));
    (fitting, others.into_iter().map(|(name, _)| name).collect())
}

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(20);
/// Long enough for what should not come to have come.
const NEVER: Duration = Duration::from_millis(300);

fn queue(name: &str) -> Route {
    Route::Queue(name.to_owned())
}

fn exchange(exchange: &str, routing_key: &str) -> Route {
    Route::Exchange { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }
}

/// A message whose id is its body.
fn message(id: impl Into<String>) -> Message {
    let id = id.into();
    Message {
        body: Bytes::from(id.clone()),
        properties: Properties { message_id: Some(id), ..Properties::default() },
    }
}

fn outbound(route: Route, id: impl Into<String>) -> Outbound {
    Outbound { route, message: message(id) }
}

fn headers(entries: &[(&str, HeaderValue)]) -> Headers {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::Text(text.to_owned())
}

async fn fill(fixture: &dyn Fixture, name: &str, ids: impl Iterator<Item = String>) {
    let batch: Vec<_> = ids.map(|id| outbound(queue(name), id)).collect();
    accepted(&fixture.broker().publish(&batch).await);
}

async fn consume(fixture: &dyn Fixture, queue: &str, prefetch: u16) -> Box<dyn Consumer> {
    let consumed = fixture.broker().consume(queue, prefetch).await;
    consumed.unwrap_or_else(|failure| panic!("consume from {queue}: {failure:?}"))
}

/// The next delivery, which must come.
async fn next(consumer: &mut dyn Consumer) -> Delivery {
    let next = tokio::time::timeout(SOON, consumer.next()).await;
    let next = next.expect("a delivery comes soon").expect("the consumer goes on");
    next.expect("the consumer was not cancelled")
}

/// Nothing comes.
async fn nothing(consumer: &mut dyn Consumer) {
    if let Ok(came) = tokio::time::timeout(NEVER, consumer.next()).await {
        panic!("nothing should come: {came:?}");
    }
}

async fn settle(delivery: Delivery, how: Settlement) {
    let (_, unsettled) = delivery.split();
    unsettled.settle(how).await.expect("the channel that delivered is there");
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.job().message.body).into_owned()
}

/// What a queue holds, taken out of it.
async fn drain(fixture: &dyn Fixture, name: &str) -> Vec<String> {
    const LAST: &str = "the last one, put in to find the end";
    fill(fixture, name, std::iter::once(LAST.to_owned())).await;
    let mut consumer = consume(fixture, name, 100).await;
    let mut bodies = Vec::new();
    // Side by side, since a broker may answer to each.
    let mut settling = JoinSet::new();
    loop {
        let delivery = next(consumer.as_mut()).await;
        let body = body(&delivery);
        settling.spawn(settle(delivery, Settlement::Ack));
        if body == LAST {
            settling.join_all().await;
            return bodies;
        }
        bodies.push(body);
    }
}

fn accepted(receipts: &[Receipt]) {
    for (at, receipt) in receipts.iter().enumerate() {
        assert!(matches!(receipt, Receipt::Accepted(_)), "message {at} of {}: {receipt:?}", receipts.len());
    }
}

fn refused(receipt: &Receipt, kind: FailureKind, code: Code) {
    let Receipt::Refused(failure) = receipt else { panic!("not refused: {receipt:?}") };
    is(failure, kind, code);
}

fn is(failure: &Failure, kind: FailureKind, code: Code) {
    assert_eq!((failure.kind, failure.code), (kind, code), "{failure:?}");
}

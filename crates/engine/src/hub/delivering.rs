//! A consumer for each active subscription: what should run, and does.
//!
//! One that ends does not end another; one whose queue is away is a state that is shown and tried again. An idle one costs a task that
//! waits for its broker, and no timer.

mod prepared;

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::prepared::Prepared;
use super::push::Push;
use super::push::ids::{IdSlots, WebhookIds};
use super::registry::Hub;
use super::settings::HubSettings;
use super::subscription::{Protocol, Subscription, SubscriptionId};
use crate::consume::lot;
use crate::consume::plan::{ConsumePlan, DeadLetter, Ordering, Retry};
use crate::consume::status::{FailureCounts, Status};
use crate::consume::worker::{ConsumePorts, Worker};
use crate::failure::Failure;
use crate::ports::{Dice, InFlight, MessageRecords, Parking};

/// How soon a consumer that could not begin, or panicked, is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The deadline of one handling: in it a message may be posted again and again, and wait for its turn under `max_tps`.
const HANDLING_MAX: Duration = Duration::from_secs(15 * 60);
/// So long may a message wait for its turn, at most.
const PACED_SECONDS_MAX: u32 = 300;

/// With whom the consumers of a hub work, beside what the hub works with.
#[derive(Clone)]
pub struct DeliveringPorts {
    /// The record of what became of messages.
    pub records: Arc<dyn MessageRecords>,
    /// For messages that no broker can hold.
    pub parking: Arc<dyn Parking>,
    /// What is being handled, for after a crash; one for all subscriptions.
    pub in_flight: Arc<dyn InFlight>,
    /// The ids of deliveries that are not acknowledged.
    pub ids: Arc<dyn IdSlots>,
    /// Spreads retries.
    pub dice: Arc<Dice>,
}

/// The consumers of a hub.
pub struct Delivering {
    hub: Arc<Hub>,
    ports: DeliveringPorts,
    /// How long what runs may take to end.
    grace: Duration,
    record_bodies: bool,
    /// Failed deliveries of all subscriptions, also of those that are over.
    failures: Arc<FailureCounts>,
    ids: Arc<WebhookIds>,
}

/// A consumer that runs.
struct Running {
    plan: Wanted,
    stop: CancellationToken,
}

/// What a consumer is told that cannot be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    vhost: String,
    queue: String,
    concurrency: u16,
}

impl Delivering {
    /// The consumers of a hub; [`Delivering::run`] runs them. `grace`: how long what runs may take to end.
    pub fn new(
        hub: Arc<Hub>,
        ports: DeliveringPorts,
        grace: Duration,
        record_bodies: bool,
    ) -> Arc<Delivering> {
        let (clock, random) = (hub.ports().clock.clone(), hub.ports().random.clone());
        let ids = Arc::new(WebhookIds::new(ports.ids.clone(), clock, random));
        Arc::new(Delivering { hub, ports, grace, record_bodies, failures: Arc::default(), ids })
    }

    /// Failed deliveries of all subscriptions, by kind.
    pub fn failures(&self) -> &FailureCounts {
        &self.failures
    }

    /// Keeps a consumer running for each active subscription until it is told to stop; then lets them end in good order.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.hub.changes();
        let mut running: HashMap<SubscriptionId, Running> = HashMap::new();
        let mut tasks = JoinSet::new();
        // What may run otherwise than it should: at first all of them, then those that changed and those that ended.
        let mut look: BTreeSet<SubscriptionId> = self.hub.all().iter().map(|one| one.id()).collect();
        while !stop.is_cancelled() {
            changes.borrow_and_update();
            look.extend(self.hub.take_changed());
            for id in std::mem::take(&mut look) {
                self.reconcile(id, &mut running, &mut tasks);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // One that was told to stop has ended; its subscription may want another by now.
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(id) = ended {
                        running.remove(&id);
                        self.hub.set_consumer(id, None);
                        look.insert(id);
                    }
                }
                // The hub lives as long as this, so the channel does.
                _ = changes.changed() => {}
            }
        }
        self.hub.stop();
        for one in running.values() {
            one.stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Starts the consumer of a subscription if it should run and does not, and stops it if it should not. One that is to run otherwise is
    /// stopped first.
    fn reconcile(
        self: &Arc<Self>,
        id: SubscriptionId,
        running: &mut HashMap<SubscriptionId, Running>,
        tasks: &mut JoinSet<SubscriptionId>,
    ) {
        let subscription = self.hub.by_id(id).filter(|subscription| subscription.is_active());
        let wanted = subscription.map(|subscription| Wanted::of(self.hub.settings(), &subscription));
        match (running.get(&id), wanted) {
            (Some(one), wanted) if wanted.as_ref() != Some(&one.plan) => one.stop.cancel(),
            (Some(_), _) | (None, None) => {}
            (None, Some(plan)) => {
                let status = Status::default().counting_failures_in(self.failures.clone());
                let (stop, status) = (CancellationToken::new(), Arc::new(status));
                self.hub.set_consumer(id, Some(status.clone()));
                running.insert(id, Running { plan: plan.clone(), stop: stop.clone() });
                let kept = self.clone().keep(id, plan, status, stop);
                tasks.spawn(async move {
                    if AssertUnwindSafe(kept).catch_unwind().await.is_err() {
                        tracing::error!(subscription = %id, "the consumer of a subscription panicked; it is started again");
                        tokio::time::sleep(AGAIN).await;
                    }
                    id
                });
            }
        }
    }

    /// Keeps one consumer running until it is told to stop.
    async fn keep(
        self: Arc<Self>,
        id: SubscriptionId,
        wanted: Wanted,
        status: Arc<Status>,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            if let Err(failure) = self.once(id, &wanted, &status, &stop).await {
                tracing::warn!(subscription = %id, failure = failure.line(), "the subscription's consumer cannot begin");
                status.waits(failure);
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        self.give_back(id, &wanted).await;
    }

    async fn once(
        &self,
        id: SubscriptionId,
        wanted: &Wanted,
        status: &Arc<Status>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(subscription) = self.hub.by_id(id) else { return Ok(()) };
        let plan = plan(self.hub.settings(), &subscription, self.record_bodies);
        let ports = self.consume_ports(id, wanted).await?;
        let mut task = JoinSet::new();
        task.spawn(Worker::new(plan, ports, status.clone()).run(stop.clone(), self.grace));
        match task.join_next().await {
            Some(Err(panic)) if panic.is_panic() => {
                Err(Failure::internal(format!("deliver to subscription {id}")).detail("it panicked"))
            }
            _ => Ok(()),
        }
    }

    async fn consume_ports(&self, id: SubscriptionId, wanted: &Wanted) -> Result<ConsumePorts, Failure> {
        let broker = self.hub.estate().broker(&wanted.vhost).await?;
        let DeliveringPorts { records, parking, in_flight, ids: _, dice } = self.ports.clone();
        Ok(ConsumePorts {
            broker: Arc::new(Prepared::new(broker, self.hub.clone(), id)),
            handler: Arc::new(Push::new(self.hub.clone(), id, self.ids.clone())),
            records,
            parking,
            in_flight,
            clock: self.hub.ports().clock.clone(),
            dice,
        })
    }

    /// What is parked of a subscription that is over goes back to its queue: there it is seen, and there is whoever comes next.
    async fn give_back(&self, id: SubscriptionId, wanted: &Wanted) {
        if self.hub.is_stopping() || self.hub.by_id(id).is_some_and(|subscription| subscription.is_active()) {
            return;
        }
        let name = consumer_name(id);
        let given = match self.hub.estate().broker(&wanted.vhost).await {
            Ok(broker) => lot::give_back(&*self.ports.parking, &*broker, &name, &wanted.queue).await,
            Err(failure) => Err(failure),
        };
        match given {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(subscription = %id, count, "messages that waited here are back in their queue")
            }
            Err(failure) => tracing::warn!(
                subscription = %id, failure = failure.line(),
                "messages of an ended subscription stay in the parking lot until it is active again"
            ),
        }
    }
}

impl Wanted {
    fn of(settings: &HubSettings, subscription: &Subscription) -> Wanted {
        let asked = subscription.max_in_flight.unwrap_or(settings.max_in_flight);
        // More than can have their turn soon need not be held.
        let paced = subscription.max_tps.saturating_mul(PACED_SECONDS_MAX);
        let paced = if paced == 0 { u16::MAX } else { u16::try_from(paced).unwrap_or(u16::MAX) };
        Wanted {
            vhost: subscription.key.resource.vhost.clone(),
            queue: subscription.queue().to_owned(),
            concurrency: asked.min(paced).max(1),
        }
    }
}

/// The name of the consumer of a subscription, in records and elsewhere.
pub fn consumer_name(id: SubscriptionId) -> String {
    format!("subscription {id}")
}

/// What the consumer of a subscription is told to do.
pub fn plan(settings: &HubSettings, subscription: &Subscription, record_bodies: bool) -> ConsumePlan {
    let Wanted { queue, concurrency, .. } = Wanted::of(settings, subscription);
    let rabbithub = settings.compat && subscription.protocol == Protocol::Rabbithub;
    let dead_letter = if rabbithub {
        DeadLetter::Broker // `requeue_on_http_post_error: false` rejects, and the queue's own settings decide
    } else {
        DeadLetter::Queue(settings.dead_letter_queue.clone())
    };
    let retry = if rabbithub {
        let delays = [1, 10, 60].map(Duration::from_secs).to_vec();
        Retry { in_place: Vec::new(), delays, forever: true, ..Retry::default() }
    } else {
        Retry::default()
    };
    ConsumePlan {
        binary: true,
        concurrency,
        max_timeout: HANDLING_MAX,
        expiration: None,
        message_bytes_max: u64::MAX,
        ordering: if concurrency == 1 { Ordering::Queue } else { Ordering::None },
        retry,
        record_bodies,
        ..ConsumePlan::new(&consumer_name(subscription.id()), &queue, dead_letter)
    }
}

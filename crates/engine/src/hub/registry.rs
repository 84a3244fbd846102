//! All subscriptions of a hub, and what is done to them: subscribing, ending, importing.
//!
//! They are held in memory and written through to the store. Changes of one subscription go one after another; what a call did is
//! stored when it returns.

mod deeds;
mod granting;
mod limits;
mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use self::limits::{Asked, Counts};
pub use self::topics::Fetches;
use super::callback;
use super::chores::{Chore, Chores};
use super::lease;
use super::ports::{Estate, Subscriptions};
use super::request::{Answered, ImportEntry, Mode, NotVerified, Refusal, SubscribeRequest, Verify};
use super::resource::{Resource, ResourceKind};
use super::settings::HubSettings;
use super::sign;
use super::subscription::{
    Protocol, Signing, Subscription, SubscriptionId, SubscriptionKey, SubscriptionState, WhyInactive,
};
use super::verify::{self, Question};
use super::websub;
use crate::codes;
use crate::consume::status::{State, Status};
use crate::failure::{Failure, FailureKind};
use crate::pipeline::outside::Hidden;
use crate::ports::{Clock, HttpCaller};

/// How much of an error is kept with a subscription, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// Fills with random bytes that nobody can guess.
pub type Random = dyn Fn(&mut [u8]) + Send + Sync;

/// With whom a hub works.
#[derive(Clone)]
pub struct HubPorts {
    /// The topology of the broker.
    pub estate: Arc<dyn Estate>,
    /// Where subscriptions are stored.
    pub store: Arc<dyn Subscriptions>,
    /// What calls callbacks and topics.
    pub http: Arc<dyn HttpCaller>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Fills with random bytes that nobody can guess.
    pub random: Arc<Random>,
}

/// A hub: its subscriptions, with what is done to them.
pub struct Hub {
    settings: HubSettings,
    ports: HubPorts,
    held: Mutex<Held>,
    chores: Chores,
    /// How often whose callbacks were asked.
    asked: Mutex<Asked>,
    /// Whose errors are to be stored.
    dirty: Mutex<HashSet<SubscriptionId>>,
    /// Changes of one subscription go one after another; those of others do not wait for them.
    turns: Mutex<HashMap<SubscriptionId, Arc<tokio::sync::Mutex<()>>>>,
    fetches: Fetches,
    /// What can be seen of the consumers that run.
    consumers: Mutex<HashMap<SubscriptionId, Arc<Status>>>,
    changed: watch::Sender<u64>,
    /// Told when there is something to do for [`Hub::run`].
    wake: Notify,
    /// Told when somebody's errors are to be stored.
    failed: Notify,
    /// Told when the process stops.
    stopping: CancellationToken,
}

/// The subscriptions, how they are found, and when something happens to their leases.
#[derive(Default)]
struct Held {
    by_id: HashMap<SubscriptionId, Entry>,
    /// In the order in which they are listed.
    by_key: BTreeMap<SubscriptionKey, SubscriptionId>,
    /// The active WebSub subscriptions of each topic.
    followers: HashMap<String, BTreeSet<SubscriptionId>>,
    /// What was stored or removed since [`Hub::take_changed`].
    changed: BTreeSet<SubscriptionId>,
    counts: Counts,
    due: BTreeSet<(i64, SubscriptionId)>,
}

/// By whose wish a callback is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Somebody's, whose wishes are limited.
    Anybodys,
    /// An administrator's, who may do as much as there is to do.
    Administrators,
}

struct Entry {
    subscription: Arc<Subscription>,
    due_ms: Option<i64>,
}

impl Hub {
    /// Opens a hub on what is stored. [`Hub::run`] does what is due.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn open(settings: HubSettings, ports: HubPorts) -> Result<Arc<Hub>, Failure> {
        let now = ports.clock.now_ms();
        let mut held = Held::default();
        for subscription in ports.store.all().await? {
            held.set(Arc::new(subscription), now);
        }
        let chores = Chores::open(&*ports.store, now).await?;
        let (changed, wake, failed) = (watch::Sender::new(0), Notify::new(), Notify::new());
        let (held, dirty, asked) = (Mutex::new(held), Mutex::default(), Mutex::default());
        let (consumers, turns) = (Mutex::default(), Mutex::default());
        let stopping = CancellationToken::new();
        Ok(Arc::new(Hub {
            settings,
            ports,
            held,
            chores,
            asked,
            dirty,
            turns,
            fetches: Fetches::default(),
            consumers,
            changed,
            wake,
            failed,
            stopping,
        }))
    }

    /// What the operator decided.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The topology of the broker.
    pub fn estate(&self) -> &Arc<dyn Estate> {
        &self.ports.estate
    }

    /// With whom it works.
    pub fn ports(&self) -> &HubPorts {
        &self.ports
    }

    /// Subscribes, or unsubscribes. Of a WebSub request the answer depends on nothing but its form; what becomes of it the callback
    /// is told.
    ///
    /// # Errors
    /// It is not granted; nothing has changed.
    pub async fn subscribe(self: &Arc<Self>, request: SubscribeRequest) -> Result<Answered, Refusal> {
        callback::check(&request.key.callback, request.protocol).map_err(Refusal::BadCallback)?;
        if request.mode == Mode::Subscribe {
            signable(request.signing, request.secret.as_ref())?;
        }
        match (request.protocol, request.mode) {
            (Protocol::Websub, Mode::Subscribe) => {
                if let Err(reason) = websub::topic(&self.settings, &request.key.topic) {
                    return self.later(Chore::Deny { key: request.key, reason }).await;
                }
            }
            (Protocol::Websub, Mode::Unsubscribe) => {
                if self.get(&request.key).is_none() {
                    return Ok(Answered::Later); // and there is nothing to do
                }
            }
            (Protocol::Rabbithub, Mode::Subscribe) => self.is_there(&request.key).await?,
            (Protocol::Rabbithub, Mode::Unsubscribe) => {
                self.get(&request.key).ok_or(Refusal::NoSuchSubscription)?;
            }
        }
        if request.mode == Mode::Subscribe {
            self.room(&request.key, request.user.as_deref()).map_err(Refusal::Failed)?;
        }
        match request.verify {
            Verify::Async => self.later(Chore::Verify(Box::new(request))).await,
            Verify::Sync => {
                self.agreed(&request, Wish::Anybodys).await?;
                self.act(&request).await?;
                Ok(Answered::Done)
            }
        }
    }

    /// Takes a subscription over from elsewhere; one of the same key is replaced. An active one is verified first.
    ///
    /// # Errors
    /// It is not granted; nothing has changed.
    pub async fn import(&self, entry: ImportEntry) -> Result<Arc<Subscription>, Refusal> {
        let ImportEntry { request, state } = entry;
        callback::check(&request.key.callback, request.protocol).map_err(Refusal::BadCallback)?;
        signable(request.signing, request.secret.as_ref())?;
        let request = SubscribeRequest { mode: Mode::Subscribe, ..request };
        match state {
            SubscriptionState::Active => {
                if request.protocol == Protocol::Websub {
                    let topic = websub::topic(&self.settings, &request.key.topic);
                    topic.map_err(|why| Refusal::BadParameter("hub.topic", why))?;
                }
                self.is_there(&request.key).await?;
                self.agreed(&request, Wish::Administrators).await?;
                self.grant(&request, state).await
            }
            SubscriptionState::Inactive(_) => self.grant(&request, state).await,
        }
    }

    /// All subscriptions, in the order of their keys.
    pub fn all(&self) -> Vec<Arc<Subscription>> {
        let held = self.held();
        held.by_key
            .values()
            .filter_map(|id| held.by_id.get(id))
            .map(|entry| entry.subscription.clone())
            .collect()
    }

    /// Those that come behind a key in that order.
    pub fn after(&self, key: &SubscriptionKey) -> Vec<Arc<Subscription>> {
        let held = self.held();
        let behind = held.by_key.range::<SubscriptionKey, _>((Bound::Excluded(key), Bound::Unbounded));
        behind.filter_map(|(_, id)| held.by_id.get(id)).map(|entry| entry.subscription.clone()).collect()
    }

    /// Those that were stored or removed since this was last called.
    pub(in crate::hub) fn take_changed(&self) -> BTreeSet<SubscriptionId> {
        std::mem::take(&mut self.held().changed)
    }

    /// A subscription.
    pub fn get(&self, key: &SubscriptionKey) -> Option<Arc<Subscription>> {
        self.by_id(key.id()).filter(|subscription| subscription.key == *key)
    }

    /// A subscription by its short name.
    pub fn by_id(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.held().by_id.get(&id).map(|entry| entry.subscription.clone())
    }

    /// Those whose lease ends before a time, in milliseconds since the epoch; also those whose lease is over.
    pub fn expiring_before(&self, at_ms: i64) -> Vec<Arc<Subscription>> {
        let all = self.all().into_iter();
        all.filter(|subscription| subscription.expires_at_ms < at_ms).collect()
    }

    /// How fetching topics ended so far.
    pub fn fetches(&self) -> &Fetches {
        &self.fetches
    }

    /// Notes that the publisher of a topic says it changed: it is fetched, and what is new handed out. However often that is said, one
    /// fetch is under way and one waits. A topic that nobody follows, or that is our own, needs none.
    ///
    /// # Errors
    /// The store cannot be written, or too much waits.
    pub async fn ping(self: &Arc<Self>, topic_url: &str) -> Result<(), Failure> {
        if websub::topic(&self.settings, topic_url) != Ok(websub::Topic::Foreign)
            || self.followers(topic_url) == 0
        {
            return Ok(());
        }
        self.add(Chore::Fetch { topic: topic_url.to_owned() }).await
    }

    /// Changes with each change of the subscriptions that are to be delivered to, and with how.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many things wait to be done.
    pub fn chores(&self) -> usize {
        self.chores.pending()
    }

    /// How many active subscriptions follow a foreign topic.
    pub fn followers(&self, topic_url: &str) -> usize {
        self.held().followers.get(topic_url).map_or(0, BTreeSet::len)
    }

    /// What can be seen of the consumers, one for each subscription that is delivered to.
    pub fn consumers(&self) -> Vec<(SubscriptionId, Arc<Status>)> {
        self.running().iter().map(|(id, status)| (*id, status.clone())).collect()
    }

    /// What can be seen of the consumer of a subscription; `None` where it has none.
    pub fn consumer(&self, id: SubscriptionId) -> Option<Arc<Status>> {
        self.running().get(&id).cloned()
    }

    /// Notes that a subscription has a consumer, or none any more.
    pub(in crate::hub) fn set_consumer(&self, id: SubscriptionId, status: Option<Arc<Status>>) {
        let mut running = self.running();
        match status {
            Some(status) => drop(running.insert(id, status)),
            None => drop(running.remove(&id)),
        }
    }

    /// Why an active subscription is not delivered to at the moment, such as that its queue is missing; `None` where it is.
    pub fn waits_for(&self, id: SubscriptionId) -> Option<Failure> {
        match self.consumer(id)?.state() {
            State::Waiting(failure) | State::Blocked(failure) => Some(failure),
            State::Starting | State::Consuming | State::Paused | State::Draining | State::Stopped => None,
        }
    }

    /// How many active subscriptions are not delivered to at the moment.
    pub fn waiting(&self) -> usize {
        self.running()
            .values()
            .filter(|status| matches!(status.state(), State::Waiting(_) | State::Blocked(_)))
            .count()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Arc<Status>>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the process stops: deliveries that wait for another try are handed back.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the process stops.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns once the process stops.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    // How it is done.

    async fn is_there(&self, key: &SubscriptionKey) -> Result<(), Refusal> {
        match self.ports.estate.look(&key.resource).await {
            Ok(Some(_)) => self.can_be_consumed(&key.resource).await,
            Ok(None) => Err(Refusal::NoSuchResource),
            Err(failure) if failure.kind == FailureKind::NotFound => Err(Refusal::NoSuchResource),
            Err(failure) => Err(Refusal::Failed(failure)),
        }
    }

    /// Refuses a queue whose messages could not all be delivered. Whatever else fails here shows when the queue is consumed.
    async fn can_be_consumed(&self, resource: &Resource) -> Result<(), Refusal> {
        if resource.kind == ResourceKind::Exchange {
            return Ok(()); // the subscription gets a queue of its own
        }
        match self.ports.estate.check_queue(&resource.vhost, &resource.name).await {
            Err(failure) if failure.code == codes::QUEUE_MISFIT => Err(Refusal::Failed(failure)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Asks the callback, where it is to be asked.
    async fn agreed(&self, request: &SubscribeRequest, wish: Wish) -> Result<(), Refusal> {
        let asks = request.mode == Mode::Subscribe
            || request.protocol == Protocol::Websub
            || self.settings.validate_callback_on_unsubscribe;
        if !asks {
            return Ok(());
        }
        if wish == Wish::Anybodys {
            self.may_ask(&request.key.callback, request.user.as_deref()).map_err(Refusal::Failed)?;
        }
        let lease_seconds = match request.mode {
            Mode::Subscribe => Some(lease::granted(&self.settings, request.protocol, request.lease_seconds)),
            Mode::Unsubscribe => None,
        };
        let question = Question {
            callback: &request.key.callback,
            mode: request.mode,
            topic: &request.key.topic,
            lease_seconds,
            verify_token: request.verify_token.as_deref(),
            basic_auth: request.basic_auth.as_ref(),
        };
        let challenge = verify::challenge(&*self.ports.random);
        let guard = callback::guard(&self.settings.allow_callbacks);
        let asked = verify::ask(&*self.ports.http, guard, &question, &challenge).await;
        asked.map_err(|not_verified| {
            let (mode, callback) = (request.mode.as_str(), callback::shown(&request.key.callback));
            match &not_verified {
                NotVerified::Unreachable(failure) if failure.code == codes::ADDRESS_REFUSED => {
                    tracing::warn!(mode, callback, failure = failure.line(), "a callback may not be called");
                }
                other => tracing::info!(mode, callback, why = ?other, "a callback did not agree"),
            }
            Refusal::NotVerified(not_verified)
        })
    }

    /// Does what was asked, the callback having agreed.
    async fn act(&self, request: &SubscribeRequest) -> Result<(), Refusal> {
        match request.mode {
            Mode::Subscribe => self.grant(request, SubscriptionState::Active).await.map(drop),
            Mode::Unsubscribe => {
                let id = request.key.id();
                let _turn = self.turn(id).await;
                let subscription = self.get(&request.key).ok_or(Refusal::NoSuchSubscription)?;
                let why = WhyInactive::Unsubscribed;
                self.end_in_turn(&subscription, why).await.map_err(Refusal::Failed)?;
                Ok(())
            }
        }
    }

    /// Stores a subscription, and tells those who follow.
    async fn store(&self, subscription: Subscription) -> Result<Arc<Subscription>, Failure> {
        self.ports.store.put(&subscription).await?;
        let subscription = Arc::new(subscription);
        {
            let mut held = self.held();
            held.set(subscription.clone(), self.ports.clock.now_ms());
            held.changed.insert(subscription.id());
        }
        self.poke();
        Ok(subscription)
    }

    async fn later(&self, chore: Chore) -> Result<Answered, Refusal> {
        self.add(chore).await.map_err(Refusal::Failed)?;
        Ok(Answered::Later)
    }

    async fn add(&self, chore: Chore) -> Result<(), Failure> {
        self.chores.add(&*self.ports.store, chore, self.ports.clock.now_ms()).await?;
        self.wake.notify_one();
        Ok(())
    }

    async fn turn(&self, id: SubscriptionId) -> OwnedMutexGuard<()> {
        self.turn_of(id).lock_owned().await
    }

    fn turn_of(&self, id: SubscriptionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has a turn or waits for it holds on to it.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(id).or_default().clone()
    }

    fn poke(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.wake.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a subscription has the contents of its topic.
fn follows(subscription: &Subscription) -> bool {
    subscription.is_active() && subscription.protocol == Protocol::Websub
}

/// Whether deliveries can be signed so.
fn signable(signing: Signing, secret: Option<&Hidden>) -> Result<(), Refusal> {
    sign::check(signing, secret).map_err(|rule| Refusal::BadParameter("hub.secret", rule))
}

impl Held {
    fn set(&mut self, subscription: Arc<Subscription>, now_ms: i64) {
        let id = subscription.id();
        self.take(id);
        let due_ms = subscription.is_active().then(|| lease::next(&subscription, now_ms).0);
        self.due.extend(due_ms.map(|at| (at, id)));
        self.counts.add(&subscription);
        self.by_key.insert(subscription.key.clone(), id);
        if follows(&subscription) {
            self.followers.entry(subscription.key.topic.clone()).or_default().insert(id);
        }
        self.by_id.insert(id, Entry { subscription, due_ms });
    }

    fn take(&mut self, id: SubscriptionId) {
        let Some(Entry { subscription, due_ms }) = self.by_id.remove(&id) else { return };
        self.counts.take(&subscription);
        self.by_key.remove(&subscription.key);
        if let Some(followers) = self.followers.get_mut(&subscription.key.topic) {
            followers.remove(&id);
            if followers.is_empty() {
                self.followers.remove(&subscription.key.topic);
            }
        }
        if let Some(at) = due_ms {
            self.due.remove(&(at, id));
        }
    }

    /// As `set`, for what changes nothing of the lease, the state or the user.
    fn replace(
        &mut self,
        id: SubscriptionId,
        change: impl FnOnce(&mut Subscription),
    ) -> Option<Arc<Subscription>> {
        let entry = self.by_id.get_mut(&id)?;
        change(Arc::make_mut(&mut entry.subscription));
        Some(entry.subscription.clone())
    }
}

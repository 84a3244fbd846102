//! All subscriptions of a hub, and what is done to them: subscribing, ending, importing.
//!
//! They are held in memory and written through to the store. Changes of one subscription go one after another; what a call did is
//! stored when it returns.

mod deeds;
mod topics;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::callback;
use super::chores::{self, Chore, Chores};
use super::lease;
use super::ports::{Estate, Subscriptions};
use super::request::{Answered, ImportEntry, Mode, NotVerified, Refusal, SubscribeRequest, Verify};
use super::settings::HubSettings;
use super::subscription::{
    Protocol, Subscription, SubscriptionId, SubscriptionKey, SubscriptionState, WhyInactive,
};
use super::topology::{self, Rest};
use super::verify::{self, Question};
use super::websub;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::ports::{Clock, HttpCaller};

/// How many changes of different subscriptions can be under way.
const TURNS: usize = 64;
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
    /// Whose errors are to be stored.
    dirty: Mutex<HashSet<SubscriptionId>>,
    turns: Vec<tokio::sync::Mutex<()>>,
    changed: watch::Sender<u64>,
    /// Told when there is something to do for [`Hub::run`].
    wake: Notify,
    /// Told when the process stops.
    stopping: CancellationToken,
}

/// The subscriptions, and when something happens to their leases.
#[derive(Default)]
struct Held {
    by_id: HashMap<SubscriptionId, Entry>,
    due: BTreeSet<(i64, SubscriptionId)>,
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
        let turns = (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect();
        let (changed, wake) = (watch::Sender::new(0), Notify::new());
        let (held, dirty, stopping) = (Mutex::new(held), Mutex::default(), CancellationToken::new());
        Ok(Arc::new(Hub { settings, ports, held, chores, dirty, turns, changed, wake, stopping }))
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
        match request.verify {
            Verify::Async => self.later(Chore::Verify(Box::new(request.into()))).await,
            Verify::Sync => {
                self.agreed(&request).await?;
                self.act(&request).await?;
                Ok(Answered::Done)
            }
        }
    }

    /// Forgets a subscription, without asking its callback. A queue of ours goes with what it holds. `false`: it was not there.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    pub async fn remove(&self, key: &SubscriptionKey) -> Result<bool, Failure> {
        let id = key.id();
        let _turn = self.turn(id).await;
        let Some(subscription) = self.get(key) else { return Ok(false) };
        // First what remains to be done, then what says that it has to: a death in between leaves too much and not too little.
        self.rest(&subscription, Rest::Deleted).await?;
        self.ports.store.remove(id).await?;
        self.chores.forget(&*self.ports.store, &chores::verify_name(id)).await?;
        self.held().take(id);
        self.poke();
        Ok(true)
    }

    /// Takes a subscription over from elsewhere; one of the same key is replaced. An active one is verified first.
    ///
    /// # Errors
    /// It is not granted; nothing has changed.
    pub async fn import(&self, entry: ImportEntry) -> Result<Arc<Subscription>, Refusal> {
        let ImportEntry { request, state } = entry;
        callback::check(&request.key.callback, request.protocol).map_err(Refusal::BadCallback)?;
        let request = SubscribeRequest { mode: Mode::Subscribe, ..request };
        match state {
            SubscriptionState::Active => {
                self.is_there(&request.key).await?;
                self.agreed(&request).await?;
                self.grant(&request, state).await
            }
            SubscriptionState::Inactive(_) => self.grant(&request, state).await,
        }
    }

    /// All subscriptions, in the order of their keys.
    pub fn all(&self) -> Vec<Arc<Subscription>> {
        let mut all: Vec<_> = self.held().by_id.values().map(|entry| entry.subscription.clone()).collect();
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
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

    /// What an operator says of the state of a subscription; `None`: there is no such one. Activating one whose lease is over gives it a
    /// lease as long as the last.
    ///
    /// # Errors
    /// The store cannot be written, or the broker cannot be reached; nothing has changed.
    pub async fn set_state(
        &self,
        key: &SubscriptionKey,
        state: SubscriptionState,
    ) -> Result<Option<Arc<Subscription>>, Failure> {
        let _turn = self.turn(key.id()).await;
        let Some(subscription) = self.get(key) else { return Ok(None) };
        match state {
            SubscriptionState::Inactive(why) => self.end_in_turn(&subscription, why).await.map(Some),
            SubscriptionState::Active => {
                let now = self.ports.clock.now_ms();
                let mut active = (*subscription).clone();
                active.state = SubscriptionState::Active;
                if active.expires_at_ms <= now {
                    active.expires_at_ms = lease::end_ms(now, active.lease_seconds);
                }
                if topology::has_own_queue(&active) {
                    active.pseudo_queue.get_or_insert_with(|| topology::queue_name(key.id()));
                }
                topology::prepare(&*self.ports.estate, &active).await?;
                self.store(active).await.map(Some)
            }
        }
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
        let held = self.held();
        let follows = |subscription: &Subscription| {
            subscription.is_active()
                && subscription.protocol == Protocol::Websub
                && subscription.key.topic == topic_url
        };
        held.by_id.values().filter(|entry| follows(&entry.subscription)).count()
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
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Refusal::NoSuchResource),
            Err(failure) if failure.kind == FailureKind::NotFound => Err(Refusal::NoSuchResource),
            Err(failure) => Err(Refusal::Failed(failure)),
        }
    }

    /// Asks the callback, where it is to be asked.
    async fn agreed(&self, request: &SubscribeRequest) -> Result<(), Refusal> {
        let asks = request.mode == Mode::Subscribe
            || request.protocol == Protocol::Websub
            || self.settings.validate_callback_on_unsubscribe;
        if !asks {
            return Ok(());
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

    /// Stores a subscription as it was asked for, in the place of one of the same key.
    async fn grant(
        &self,
        request: &SubscribeRequest,
        state: SubscriptionState,
    ) -> Result<Arc<Subscription>, Refusal> {
        let id = request.key.id();
        let _turn = self.turn(id).await;
        let before = self.by_id(id);
        if before.as_ref().is_some_and(|before| before.key != request.key) {
            let what = "store a subscription";
            let other = Failure::internal(what).detail("another one has the same short name");
            return Err(Refusal::Failed(other));
        }
        let now = self.ports.clock.now_ms();
        let lease_seconds = lease::granted(&self.settings, request.protocol, request.lease_seconds);
        let active = state == SubscriptionState::Active;
        let mut subscription = Subscription {
            state,
            lease_seconds,
            expires_at_ms: lease::end_ms(now, lease_seconds),
            max_tps: request.max_tps,
            max_in_flight: request.max_in_flight,
            ha_mode: request.ha_mode.unwrap_or(self.settings.ha_mode),
            basic_auth: request.basic_auth.clone(),
            secret: request.secret.clone(),
            signing: request.signing,
            contact: request.contact.clone(),
            arguments: request.arguments.clone(),
            user: request.user.clone(),
            verified_at_ms: active.then_some(now),
            ..Subscription::new(request.key.clone(), request.protocol, now)
        };
        if let Some(before) = &before {
            subscription.created_at_ms = before.created_at_ms;
            subscription.pseudo_queue.clone_from(&before.pseudo_queue);
        }
        if active && topology::has_own_queue(&subscription) {
            subscription.pseudo_queue.get_or_insert_with(|| topology::queue_name(id));
            let prepared = topology::prepare(&*self.ports.estate, &subscription).await;
            prepared.map_err(|failure| match failure.kind {
                FailureKind::NotFound => Refusal::NoSuchResource,
                _ => Refusal::Failed(failure),
            })?;
        }
        let old = before.as_deref().and_then(topology::binding);
        let new = topology::binding(&subscription);
        let follows = active && before.as_ref().is_none_or(|before| !before.is_active());
        let stored = self.store(subscription).await.map_err(Refusal::Failed)?;
        if let Some(old) = old.filter(|old| active && new.as_ref() != Some(old))
            && let Err(failure) = self.ports.estate.unbind(&old).await
        {
            // It hears of more than it asked for until it is renewed; it loses nothing.
            tracing::warn!(subscription = %id, failure = failure.line(), "cannot take the old binding away");
        }
        if follows && stored.protocol == Protocol::Websub {
            // Whoever comes anew is to have the topic as it is, even where it did not change since others had it.
            let forgotten = self.ports.store.forget(&deeds::topic_name(&stored.key.topic)).await;
            forgotten.map_err(Refusal::Failed)?;
        }
        let settled = self.chores.forget(&*self.ports.store, &chores::verify_name(id)).await;
        settled.map_err(Refusal::Failed)?;
        Ok(stored)
    }

    /// Ends the delivery to a subscription; it stays known.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    pub async fn end(&self, id: SubscriptionId, why: WhyInactive) -> Result<(), Failure> {
        let _turn = self.turn(id).await;
        match self.by_id(id).filter(|subscription| subscription.is_active()) {
            Some(subscription) => self.end_in_turn(&subscription, why).await.map(drop),
            None => Ok(()),
        }
    }

    async fn end_in_turn(
        &self,
        subscription: &Subscription,
        why: WhyInactive,
    ) -> Result<Arc<Subscription>, Failure> {
        let ended = Subscription { state: SubscriptionState::Inactive(why), ..subscription.clone() };
        let rest = topology::rest(&self.settings, &ended);
        self.rest(&ended, rest).await?;
        let stored = self.store(ended).await?;
        let Subscription { key, contact, .. } = &*stored;
        let app_name = contact.as_ref().map_or("", |contact| contact.app_name.as_str());
        tracing::info!(
            subscription = %key.id(), resource = %key.resource, topic = key.topic,
            callback = callback::shown(&key.callback), app_name, ?why, "subscription ended"
        );
        self.chores.forget(&*self.ports.store, &chores::verify_name(key.id())).await?;
        Ok(stored)
    }

    /// Notes what is to become of the queue of a subscription.
    async fn rest(&self, subscription: &Subscription, rest: Rest) -> Result<(), Failure> {
        let Some(binding) = topology::binding(subscription).filter(|_| rest != Rest::Bound) else {
            return Ok(());
        };
        self.add(Chore::Rest { id: subscription.id().to_string(), binding, rest }).await
    }

    /// Stores a subscription, and tells those who follow.
    async fn store(&self, subscription: Subscription) -> Result<Arc<Subscription>, Failure> {
        self.ports.store.put(&subscription).await?;
        let subscription = Arc::new(subscription);
        self.held().set(subscription.clone(), self.ports.clock.now_ms());
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

    async fn turn(&self, id: SubscriptionId) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[(id.0 % TURNS as u128) as usize].lock().await
    }

    fn poke(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.wake.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn set(&mut self, subscription: Arc<Subscription>, now_ms: i64) {
        let id = subscription.id();
        self.take(id);
        let due_ms = subscription.is_active().then(|| lease::next(&subscription, now_ms).0);
        self.due.extend(due_ms.map(|at| (at, id)));
        self.by_id.insert(id, Entry { subscription, due_ms });
    }

    fn take(&mut self, id: SubscriptionId) {
        if let Some(Entry { due_ms: Some(at), .. }) = self.by_id.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    /// As `set`, for what changes nothing of the lease.
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

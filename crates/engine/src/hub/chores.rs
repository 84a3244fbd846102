//! What is done after the answer, and again until it works or is given up: asking callbacks, telling them no, tidying up queues,
//! fetching topics. Each stands in the store until it is over, so it outlives the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::callback;
use super::ports::{HubBinding, Subscriptions};
use super::request::{Mode, SubscribeRequest, Verify};
use super::subscription::{Contact, HaMode, Protocol, Signing, SubscriptionId, SubscriptionKey};
use super::topology::Rest;
use super::websub;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::message::Headers;
use crate::pipeline::outside::Hidden;

/// What stands before the names of chores in the store.
const PREFIX: &str = "chore/";
/// So many may wait at once: whoever may ask for one without a login must not fill the disk.
const PENDING_MAX: usize = 20_000;
/// So many are done at once that call one host: one that hangs holds up no others.
const OF_HOST_MAX: usize = 8;
/// How long a callback is asked again and again (PubSubHubbub 0.3, section 6.2.1, suggests six hours).
pub const VERIFY_FOR: Duration = Duration::from_secs(6 * 60 * 60);
/// The pauses between tries, in seconds; the last is repeated.
const PAUSES: [u64; 6] = [10, 30, 120, 600, 1800, 3600];
/// How often a denial is sent before that is given up, and a topic fetched.
const TRIES_MAX: u32 = 5;

/// Something to be done later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chore {
    /// To ask a callback, and do what was requested if it agrees.
    Verify(Box<StoredRequest>),
    /// To tell a callback that it will hear nothing of a topic.
    Deny {
        /// The subscription that was asked for.
        key: SubscriptionKey,
        /// Why not.
        reason: String,
    },
    /// To do to a queue of ours what the end of its subscription asks for.
    Rest {
        /// The subscription.
        id: String,
        /// The queue, with its binding.
        binding: HubBinding,
        /// What is to be done where the subscription is gone.
        rest: Rest,
    },
    /// To fetch a topic, and to hand out what is new.
    Fetch {
        /// Its URL.
        topic: String,
    },
}

/// A request as it is kept. The store encrypts it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRequest {
    key: SubscriptionKey,
    protocol: Protocol,
    unsubscribe: bool,
    #[serde(default)]
    verify_token: Option<String>,
    #[serde(default)]
    lease_seconds: Option<u64>,
    #[serde(default)]
    max_tps: u32,
    #[serde(default)]
    max_in_flight: Option<u16>,
    #[serde(default)]
    ha_mode: Option<HaMode>,
    #[serde(default)]
    basic_auth: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    signing: Signing,
    #[serde(default)]
    contact: Option<Contact>,
    #[serde(default)]
    arguments: Headers,
    #[serde(default)]
    user: Option<String>,
}

impl std::fmt::Debug for StoredRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRequest").field("key", &self.key).finish_non_exhaustive()
    }
}

impl From<SubscribeRequest> for StoredRequest {
    fn from(request: SubscribeRequest) -> StoredRequest {
        let SubscribeRequest { key, protocol, mode, verify: _, verify_token, lease_seconds, max_tps, .. } =
            request;
        let SubscribeRequest {
            max_in_flight,
            ha_mode,
            basic_auth,
            secret,
            signing,
            contact,
            arguments,
            user,
            ..
        } = request;
        StoredRequest {
            key,
            protocol,
            unsubscribe: mode == Mode::Unsubscribe,
            verify_token,
            lease_seconds,
            max_tps,
            max_in_flight,
            ha_mode,
            basic_auth: basic_auth.map(|hidden| hidden.0),
            secret: secret.map(|hidden| hidden.0),
            signing,
            contact,
            arguments,
            user,
        }
    }
}

impl From<StoredRequest> for SubscribeRequest {
    fn from(stored: StoredRequest) -> SubscribeRequest {
        SubscribeRequest {
            key: stored.key,
            protocol: stored.protocol,
            mode: if stored.unsubscribe { Mode::Unsubscribe } else { Mode::Subscribe },
            verify: Verify::Async,
            verify_token: stored.verify_token,
            lease_seconds: stored.lease_seconds,
            max_tps: stored.max_tps,
            max_in_flight: stored.max_in_flight,
            ha_mode: stored.ha_mode,
            basic_auth: stored.basic_auth.map(Hidden),
            secret: stored.secret.map(Hidden),
            signing: stored.signing,
            contact: stored.contact,
            arguments: stored.arguments,
            user: stored.user,
        }
    }
}

impl Chore {
    /// A name by which a later chore takes the place of an earlier one.
    pub fn name(&self) -> String {
        match self {
            Chore::Verify(request) => verify_name(request.key.id()),
            Chore::Deny { key, .. } => format!("deny/{}", key.id()),
            Chore::Rest { id, .. } => format!("rest/{id}"),
            Chore::Fetch { topic } => format!("fetch/{}", websub::print(topic)),
        }
    }

    /// The host that it calls.
    fn host(&self) -> Option<String> {
        match self {
            Chore::Verify(request) => Some(callback::host(&request.key.callback)),
            Chore::Deny { key, .. } => Some(callback::host(&key.callback)),
            Chore::Fetch { topic } => Some(callback::host(topic)),
            Chore::Rest { .. } => None,
        }
    }

    /// Whether there may be only so many: anybody can ask for it. Queues to be tidied up are as many as subscriptions at most, and
    /// none must be forgotten because others ask for too much.
    fn is_bounded(&self) -> bool {
        match self {
            Chore::Verify(_) | Chore::Deny { .. } | Chore::Fetch { .. } => true,
            Chore::Rest { .. } => false,
        }
    }

    /// When to try again after so many tries; `None`: no more.
    fn pause(&self, tries: u32, since: Duration) -> Option<Duration> {
        let step = (tries.max(1) as usize - 1).min(PAUSES.len() - 1);
        let pause = Duration::from_secs(PAUSES[step]);
        match self {
            Chore::Verify(_) => (since + pause <= VERIFY_FOR).then_some(pause),
            Chore::Deny { .. } | Chore::Fetch { .. } => (tries < TRIES_MAX).then_some(pause),
            Chore::Rest { .. } => Some(pause),
        }
    }
}

/// The name of the chore that tidies up the queue of a subscription.
pub fn rest_name(id: SubscriptionId) -> String {
    format!("rest/{id}")
}

/// The name of the chore that asks the callback of a subscription.
pub fn verify_name(id: SubscriptionId) -> String {
    format!("verify/{id}")
}

/// How a try ended.
#[derive(Debug)]
pub enum Tried {
    /// It is over, well or not.
    Over,
    /// It is to be tried again, if it may; why.
    Again(String),
}

/// A chore that is taken to be done.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// What is to be done.
    pub chore: Chore,
    generation: u64,
    host: Option<String>,
}

/// All chores that are not over.
#[derive(Debug, Default)]
pub struct Chores(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pending: HashMap<String, Pending>,
    due: BTreeSet<(i64, String)>,
    /// How many are being done that call a host.
    calling: HashMap<String, usize>,
    generations: u64,
}

#[derive(Debug)]
struct Pending {
    chore: Chore,
    /// The host that it calls.
    host: Option<String>,
    begun_at_ms: i64,
    tries: u32,
    generation: u64,
    /// When it is due; `None`: it is being done.
    due_ms: Option<i64>,
    /// Which generation is being done.
    doing: Option<u64>,
}

impl Pending {
    /// Whether it begins now, or once what is being done is over.
    fn is_to_begin(&self, now_ms: i64) -> bool {
        match self.due_ms {
            Some(at) => at <= now_ms,
            None => self.doing.is_some_and(|doing| doing != self.generation),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    begun_at_ms: i64,
    chore: Chore,
}

impl Chores {
    /// Those that a process before this one left.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(store: &dyn Subscriptions, now_ms: i64) -> Result<Chores, Failure> {
        let chores = Chores::default();
        for name in store.names(PREFIX).await? {
            let Some(value) = store.value(&name).await? else { continue };
            match serde_json::from_slice::<Stored>(&value) {
                Ok(stored) => {
                    chores.lock().add(stored.chore, stored.begun_at_ms, now_ms);
                }
                Err(error) => {
                    return Err(Failure::new(FailureKind::Internal, codes::STATE_DAMAGED, "read a chore")
                        .at(name)
                        .because(error));
                }
            }
        }
        Ok(chores)
    }

    /// Notes something to be done now. One of the same name is replaced; where that is being done, this is done after it.
    ///
    /// # Errors
    /// The store cannot be written, or too many wait.
    pub async fn add(&self, store: &dyn Subscriptions, chore: Chore, now_ms: i64) -> Result<(), Failure> {
        let name = chore.name();
        {
            let inner = self.lock();
            let held = inner.pending.get(&name);
            if held.is_none() && chore.is_bounded() && inner.pending.len() >= PENDING_MAX {
                let what = "take a request that is answered before it is done";
                return Err(Failure::new(FailureKind::Throttled, codes::HUB_BUSY, what)
                    .detail(format!("{PENDING_MAX} wait already")));
            }
            // What is to be done anyway, and is the same, need not be written again: anybody may ask for it.
            if held.is_some_and(|held| held.chore == chore && held.is_to_begin(now_ms)) {
                return Ok(());
            }
        }
        let stored = Stored { begun_at_ms: now_ms, chore };
        let value = serde_json::to_vec(&stored)
            .map_err(|error| Failure::internal("write down a chore").because(error))?;
        store.keep(&format!("{PREFIX}{name}"), &value).await?;
        self.lock().add(stored.chore, now_ms, now_ms);
        Ok(())
    }

    /// Forgets one that is not needed any more.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn forget(&self, store: &dyn Subscriptions, name: &str) -> Result<(), Failure> {
        let known = {
            let mut inner = self.lock();
            let pending = inner.pending.remove(name);
            if let Some(at) = pending.as_ref().and_then(|pending| pending.due_ms) {
                inner.due.remove(&(at, name.to_owned()));
            }
            pending.is_some()
        };
        if known { store.forget(&format!("{PREFIX}{name}")).await } else { Ok(()) }
    }

    /// One that is due, to be done; one whose host is called by many already has its turn when one of those is over.
    pub fn take(&self, now_ms: i64) -> Option<Taken> {
        let mut inner = self.lock();
        let (at, name) = inner.next().filter(|(at, _)| *at <= now_ms)?.clone();
        inner.due.remove(&(at, name.clone()));
        let pending = inner.pending.get_mut(&name)?;
        (pending.due_ms, pending.doing) = (None, Some(pending.generation));
        pending.tries += 1;
        let host = pending.host.clone();
        let taken = Taken { name, chore: pending.chore.clone(), generation: pending.generation, host };
        if let Some(host) = &taken.host {
            *inner.calling.entry(host.clone()).or_default() += 1;
        }
        Some(taken)
    }

    /// Notes how one ended that was taken.
    ///
    /// # Errors
    /// The store cannot be written; it is done again later.
    pub async fn done(
        &self,
        store: &dyn Subscriptions,
        taken: Taken,
        tried: Tried,
        now_ms: i64,
    ) -> Result<(), Failure> {
        {
            let mut inner = self.lock();
            if let Some(host) = &taken.host {
                inner.called(host);
            }
            let Some(pending) = inner.pending.get_mut(&taken.name) else { return Ok(()) };
            pending.doing = None;
            if pending.generation != taken.generation {
                // Somebody asked anew meanwhile.
                (pending.due_ms, pending.tries) = (Some(now_ms), 0);
                inner.due.insert((now_ms, taken.name));
                return Ok(());
            }
            let since = u64::try_from(now_ms.saturating_sub(pending.begun_at_ms)).unwrap_or(0);
            let pause = match &tried {
                Tried::Over => None,
                Tried::Again(_) => pending.chore.pause(pending.tries, Duration::from_millis(since)),
            };
            if let Tried::Again(why) = &tried {
                let (chore, tries) = (taken.name.as_str(), pending.tries);
                if let Some(pause) = pause {
                    tracing::info!(chore, tries, why, again_in = ?pause, "tried");
                } else {
                    tracing::warn!(chore, tries, why, "given up");
                }
            }
            if let Some(pause) = pause {
                let at = now_ms.saturating_add(pause.as_millis() as i64);
                pending.due_ms = Some(at);
                inner.due.insert((at, taken.name));
                return Ok(());
            }
        }
        self.forget(store, &taken.name).await
    }

    /// When the next is due that can be done, in milliseconds since the epoch.
    pub fn next_ms(&self) -> Option<i64> {
        self.lock().next().map(|(at, _)| *at)
    }

    /// How many are not over.
    pub fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The first that is due whose host has room for one more.
    fn next(&self) -> Option<&(i64, String)> {
        let calling = |host: &String| self.calling.get(host).copied().unwrap_or(0);
        self.due.iter().find(|(_, name)| {
            let host = self.pending.get(name).and_then(|pending| pending.host.as_ref());
            host.is_none_or(|host| calling(host) < OF_HOST_MAX)
        })
    }

    /// One that called a host is over.
    fn called(&mut self, host: &str) {
        if let Some(count) = self.calling.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                self.calling.remove(host);
            }
        }
    }

    fn add(&mut self, chore: Chore, begun_at_ms: i64, due_ms: i64) {
        let name = chore.name();
        self.generations += 1;
        let held = self.pending.get(&name);
        if let Some(at) = held.and_then(|held| held.due_ms) {
            self.due.remove(&(at, name.clone()));
        }
        let doing = held.and_then(|held| held.doing);
        let due_ms = doing.is_none().then_some(due_ms);
        if let Some(at) = due_ms {
            self.due.insert((at, name.clone()));
        }
        let (host, generation) = (chore.host(), self.generations);
        let pending = Pending { chore, host, begun_at_ms, tries: 0, generation, due_ms, doing };
        self.pending.insert(name, pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemorySubscriptions;

    fn fetch(topic: &str) -> Chore {
        Chore::Fetch { topic: topic.into() }
    }

    #[tokio::test]
    async fn one_is_done_and_one_waits_however_often_it_is_asked_for() {
        let store = MemorySubscriptions::default();
        let chores = Chores::open(&store, 0).await.unwrap();
        for _ in 0..3 {
            chores.add(&store, fetch("a"), 0).await.unwrap();
        }
        let first = chores.take(0).unwrap();
        assert!(chores.take(0).is_none(), "one under way");
        chores.add(&store, fetch("a"), 1).await.unwrap();
        store.full(true); // what waits already is not written again
        for _ in 0..3 {
            chores.add(&store, fetch("a"), 1).await.unwrap();
        }
        store.full(false);
        assert!(chores.take(1).is_none(), "the next waits for it");
        chores.done(&store, first, Tried::Over, 2).await.unwrap();
        let second = chores.take(2).unwrap();
        chores.done(&store, second, Tried::Over, 3).await.unwrap();
        assert_eq!((chores.pending(), chores.next_ms()), (0, None));
        assert!(store.names(PREFIX).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_one_host_there_are_only_so_many_at_once() {
        let store = MemorySubscriptions::default();
        let chores = Chores::open(&store, 0).await.unwrap();
        for number in 0..20 {
            chores.add(&store, fetch(&format!("http://slow/{number}")), 0).await.unwrap();
        }
        let mut slow: Vec<Taken> = std::iter::from_fn(|| chores.take(0)).collect();
        assert_eq!((slow.len(), chores.next_ms()), (OF_HOST_MAX, None), "nothing to wake up for");
        chores.add(&store, fetch("http://other/"), 0).await.unwrap();
        let other = chores.take(0).unwrap();
        assert_eq!(other.chore, fetch("http://other/"));
        // One ends, also one that was forgotten meanwhile, and the next has its turn.
        for forgotten in [false, true] {
            let ended = slow.pop().unwrap();
            if forgotten {
                chores.forget(&store, &ended.name).await.unwrap();
            }
            chores.done(&store, ended, Tried::Over, 0).await.unwrap();
            slow.insert(0, chores.take(0).unwrap());
            assert!(chores.take(0).is_none());
        }
        for taken in slow {
            chores.done(&store, taken, Tried::Over, 0).await.unwrap();
        }
        assert_eq!(std::iter::from_fn(|| chores.take(0)).count(), OF_HOST_MAX);
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_and_given_up_in_the_end() {
        let store = MemorySubscriptions::default();
        let chores = Chores::open(&store, 0).await.unwrap();
        chores.add(&store, fetch("a"), 0).await.unwrap();
        let mut at = Vec::new();
        while let Some(next) = chores.next_ms() {
            at.push(next / 1000);
            let taken = chores.take(next).unwrap();
            chores.done(&store, taken, Tried::Again("no".into()), next).await.unwrap();
        }
        assert_eq!(at, [0, 10, 40, 160, 760]);
    }

    #[tokio::test]
    async fn what_a_process_left_is_done_by_the_next() {
        let store = MemorySubscriptions::default();
        Chores::open(&store, 0).await.unwrap().add(&store, fetch("a"), 7).await.unwrap();
        let chores = Chores::open(&store, 50).await.unwrap();
        assert_eq!(chores.take(50).unwrap().chore, fetch("a"));
    }
}

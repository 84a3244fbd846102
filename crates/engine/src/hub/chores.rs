//! What is done after the answer, and again until it works or is given up: asking callbacks, telling them no, tidying up queues,
//! fetching topics. Each stands in the store until it is over, so it outlives the process.

mod stored;
mod turns;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::turns::{Asker, Line, Turns};
use super::callback;
use super::ports::{HubBinding, Subscriptions};
use super::request::SubscribeRequest;
use super::subscription::{SubscriptionId, SubscriptionKey};
use super::topology::Rest;
use super::websub;
use crate::codes;
use crate::failure::{Failure, FailureKind};

/// What stands before the names of chores in the store.
const PREFIX: &str = "chore/";
/// So many may wait at once: whoever may ask for one without a login must not fill the disk.
const PENDING_MAX: usize = 20_000;
/// So many of one asker: there is room for others.
const PENDING_OF_ASKER_MAX: usize = PENDING_MAX / 2;
/// So many of one asker may wait however many others do.
const RESERVED_OF_ASKER: usize = 200;
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
    Verify(#[serde(with = "stored")] Box<SubscribeRequest>),
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

    /// Where it waits for its turn.
    fn line(&self) -> Line {
        let (asker, host) = match self {
            Chore::Verify(request) => {
                let asker = request.user.clone().map_or(Asker::Strangers, Asker::User);
                (asker, callback::host(&request.key.callback))
            }
            Chore::Deny { key, .. } => (Asker::Strangers, callback::host(&key.callback)),
            Chore::Fetch { topic } => (Asker::Publishers, callback::host(topic)),
            // It calls the broker only, and queues wait for one another no more than hosts do.
            Chore::Rest { id, .. } => (Asker::Ourselves, id.clone()),
        };
        Line { asker, host }
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
    line: Line,
    began_ms: i64,
}

/// All chores that are not over.
#[derive(Debug, Default)]
pub struct Chores(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pending: HashMap<String, Pending>,
    /// All that are pending and not being done wait here.
    turns: Turns,
    generations: u64,
}

#[derive(Debug)]
struct Pending {
    chore: Chore,
    line: Line,
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
            if held.is_none() && chore.is_bounded() {
                inner.has_room(&chore.line().asker)?;
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
            if let Some(pending) = &pending {
                inner.leave(pending, name);
            }
            pending.is_some()
        };
        if known { store.forget(&format!("{PREFIX}{name}")).await } else { Ok(()) }
    }

    /// One that is due, to be done, if there is one whose turn it is. It has to be told of by [`Chores::done`].
    pub fn take(&self, now_ms: i64) -> Option<Taken> {
        let mut inner = self.lock();
        let name = inner.turns.begin(now_ms)?;
        let pending = inner.pending.get_mut(&name)?; // what waits is pending
        (pending.due_ms, pending.doing) = (None, Some(pending.generation));
        pending.tries += 1;
        let Pending { chore, line, generation, .. } = &*pending;
        Some(Taken {
            chore: chore.clone(),
            generation: *generation,
            line: line.clone(),
            began_ms: now_ms,
            name,
        })
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
            let inner = &mut *inner;
            let took = u64::try_from(now_ms.saturating_sub(taken.began_ms)).unwrap_or(0);
            inner.turns.end(&taken.line, Duration::from_millis(took));
            let Some(pending) = inner.pending.get_mut(&taken.name) else { return Ok(()) };
            pending.doing = None;
            if pending.generation != taken.generation {
                // Somebody asked anew meanwhile.
                (pending.due_ms, pending.tries) = (Some(now_ms), 0);
                inner.turns.wait(&pending.line, now_ms, &taken.name);
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
                inner.turns.wait(&pending.line, at, &taken.name);
                return Ok(());
            }
        }
        self.forget(store, &taken.name).await
    }

    /// When the next is due that can be done, in milliseconds since the epoch.
    pub fn next_ms(&self) -> Option<i64> {
        self.lock().turns.next_ms()
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
    /// Whether one more of an asker may wait.
    fn has_room(&self, asker: &Asker) -> Result<(), Failure> {
        // What is our own is not bounded, so it takes no room either.
        let of_all = self.pending.len().saturating_sub(self.turns.of(&Asker::Ourselves));
        let of_asker = self.turns.of(asker);
        if (of_all < PENDING_MAX && of_asker < PENDING_OF_ASKER_MAX) || of_asker < RESERVED_OF_ASKER {
            return Ok(());
        }
        let what = "take a request that is answered before it is done";
        Err(Failure::new(FailureKind::Throttled, codes::HUB_BUSY, what)
            .detail(format!("{of_all} wait already, {of_asker} of them of the same asker")))
    }

    /// One is not to be waited for any more.
    fn leave(&mut self, pending: &Pending, name: &str) {
        if let Some(at) = pending.due_ms {
            self.turns.leave(&pending.line, at, name);
        }
    }

    fn add(&mut self, chore: Chore, begun_at_ms: i64, due_ms: i64) {
        let name = chore.name();
        self.generations += 1;
        let held = self.pending.remove(&name);
        if let Some(held) = &held {
            self.leave(held, &name);
        }
        let doing = held.and_then(|held| held.doing);
        let due_ms = doing.is_none().then_some(due_ms);
        let (line, generation) = (chore.line(), self.generations);
        if let Some(at) = due_ms {
            self.turns.wait(&line, at, &name);
        }
        let pending = Pending { chore, line, begun_at_ms, tries: 0, generation, due_ms, doing };
        self.pending.insert(name, pending);
    }
}

#[cfg(test)]
mod tests;

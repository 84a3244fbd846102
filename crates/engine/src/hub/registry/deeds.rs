//! What a hub does by itself: leases that end, chores, errors to be stored, topics to be fetched.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{ERROR_BYTES_MAX, Hub, Wish};
use crate::codes;
use crate::failure::{Failure, FailureName};
use crate::hub::callback;
use crate::hub::chores::{Chore, Taken, Tried};
use crate::hub::request::{Mode, Refusal, SubscribeRequest};
use crate::hub::subscription::{Protocol, Subscription, SubscriptionId, SubscriptionKey, WhyInactive};
use crate::hub::topology::{self, Rest};
use crate::hub::verify;
use crate::hub::websub;

/// The longest sleep: a wall clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(60 * 60);
/// The pause after the store failed.
const AGAIN: Duration = Duration::from_secs(5);
/// So far apart the errors of deliveries are stored: each time costs a write that is forced to the disk, for each subscription that fails,
/// and one that fails may do so many times a second.
const ERRORS_EVERY: Duration = Duration::from_secs(1);

/// Under which name the last state of a topic is kept.
pub(super) fn topic_name(topic: &str) -> String {
    format!("topic/{}", websub::print(topic))
}

/// Whether all leases that are over have ended.
enum Looked {
    All,
    SomeAreBusy,
}

impl Hub {
    /// Does what is due until it is told to stop: ends leases, asks callbacks, stores errors, fetches topics. Run once per hub.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Side by side: receivers that fail all the time hold up neither chores nor the ends of leases.
        tokio::join!(self.do_what_is_due(&stop), self.keep_errors(&stop));
    }

    async fn do_what_is_due(self: &Arc<Self>, stop: &CancellationToken) {
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            let mut wait = SLEEP_MAX;
            match self.look_at_leases().await {
                Ok(Looked::All) => {}
                // A subscription that is being changed, which may wait for the broker, holds up nothing else.
                Ok(Looked::SomeAreBusy) => wait = AGAIN,
                Err(failure) => {
                    tracing::warn!(failure = failure.line(), "the hub cannot store the end of a lease");
                    wait = AGAIN;
                }
            }
            let now = self.ports.clock.now_ms();
            while let Some(taken) = self.chores.take(now) {
                running.spawn(self.clone().chore(taken));
            }
            let lease = self.held().due.first().map(|(at, _)| *at);
            for at in [lease.filter(|_| wait == SLEEP_MAX), self.chores.next_ms()].into_iter().flatten() {
                wait = wait.min(Duration::from_millis(u64::try_from(at.saturating_sub(now)).unwrap_or(0)));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // What a chore frees is for the next one.
                Some(_) = running.join_next(), if !running.is_empty() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Stores the errors of deliveries, soon after they were noted.
    async fn keep_errors(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.store_errors().await {
                Ok(()) => {
                    tokio::select! {
                        () = self.failed.notified() => {}
                        () = stop.cancelled() => {}
                    }
                    ERRORS_EVERY
                }
                Err(failure) => {
                    tracing::warn!(failure = failure.line(), "the hub cannot store the errors of deliveries");
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        self.store_errors().await.ok(); // whatever is not stored now is counted anew
    }

    /// Announces the ends of leases, and ends them.
    async fn look_at_leases(&self) -> Result<Looked, Failure> {
        let now = self.ports.clock.now_ms();
        let mut busy = HashSet::new();
        loop {
            let due = {
                let mut held = self.held();
                let mut over = held.due.iter().take_while(|(at, _)| *at <= now);
                let Some((at, id)) = over.find(|(_, id)| !busy.contains(id)).copied() else {
                    return Ok(if busy.is_empty() { Looked::All } else { Looked::SomeAreBusy });
                };
                let Some(entry) = held.by_id.get(&id) else {
                    held.due.remove(&(at, id));
                    continue;
                };
                let subscription = entry.subscription.clone();
                if subscription.expires_at_ms > now {
                    held.set(subscription.clone(), now); // to the next event of its lease
                    warn_of_end(&subscription, now);
                    continue;
                }
                subscription
            };
            let id = due.id();
            match self.turn_of(id).try_lock_owned() {
                Ok(turn) => self.end_if_active(id, WhyInactive::Expired, turn).await?,
                Err(_) => drop(busy.insert(id)),
            }
        }
    }

    /// Notes that a delivery failed.
    pub(in crate::hub) fn note_error(
        &self,
        id: SubscriptionId,
        kind: FailureName,
        message: &str,
    ) -> Option<Arc<Subscription>> {
        let now = self.ports.clock.now_ms();
        let window = self.settings.unsubscribe_on_http_post_error_timeout;
        let limited = window.filter(|_| self.settings.unsubscribe_on_http_post_error_limit.is_some());
        let changed = self.held().replace(id, |subscription| {
            let errors = &mut subscription.errors;
            let over = limited.is_some_and(|window| {
                now.saturating_sub(errors.first_at_ms) > i64::try_from(window.as_millis()).unwrap_or(i64::MAX)
            });
            if errors.count == 0 || over {
                (errors.count, errors.first_at_ms) = (0, now);
            }
            errors.count = errors.count.saturating_add(1);
            errors.last_at_ms = now;
            errors.last_kind = Some(kind);
            let mut end = message.len().min(ERROR_BYTES_MAX);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message[..end].clone_into(&mut errors.last_message);
        });
        if changed.is_some() {
            self.dirty().insert(id);
            self.failed.notify_one();
        }
        changed
    }

    /// Stores the errors that were noted before. Each subscription is written once, however many there were meanwhile.
    async fn store_errors(&self) -> Result<(), Failure> {
        let noted: Vec<SubscriptionId> = self.dirty().drain().collect();
        for (at, id) in noted.iter().enumerate() {
            let Ok(_turn) = self.turn_of(*id).try_lock_owned() else {
                // It is being changed, which may wait for the broker: the others do not wait for it.
                self.dirty().insert(*id);
                self.failed.notify_one();
                continue;
            };
            let Some(subscription) = self.by_id(*id) else { continue };
            if let Err(failure) = self.ports.store.put(&subscription).await {
                self.dirty().extend(&noted[at..]);
                return Err(failure);
            }
        }
        Ok(())
    }

    fn dirty(&self) -> MutexGuard<'_, HashSet<SubscriptionId>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn chore(self: Arc<Self>, taken: Taken) {
        let trying = AssertUnwindSafe(self.attempt(taken.chore.clone())).catch_unwind();
        // A bug of ours keeps no place, and what it was in the way of is done once it is mended.
        let tried = trying.await.unwrap_or_else(|_| Tried::Again("it panicked".to_owned()));
        let now = self.ports.clock.now_ms();
        if let Err(failure) = self.chores.done(&*self.ports.store, taken, tried, now).await {
            tracing::warn!(failure = failure.line(), "a chore that is over cannot be forgotten");
        }
    }

    async fn attempt(&self, chore: Chore) -> Tried {
        match chore {
            Chore::Verify(request) => self.verify_later(*request).await,
            Chore::Deny { key, reason } => self.deny(&key, &reason).await,
            Chore::Rest { id, binding, rest } => self.put_to_rest(&id, &binding, rest).await,
            Chore::Fetch { topic } => self.fetch(&topic).await,
        }
    }

    async fn verify_later(&self, request: SubscribeRequest) -> Tried {
        if request.protocol == Protocol::Websub {
            // What is allowed may have changed since it was asked, and whether it is there was not looked at.
            if let Err(reason) = websub::topic(&self.settings, &request.key.topic) {
                return self.deny(&request.key, &reason).await;
            }
            if request.key.resource.name != websub::EXCHANGE {
                match self.is_there(&request.key).await {
                    Ok(()) => {}
                    Err(Refusal::NoSuchResource) => {
                        return self.deny(&request.key, "there is no such exchange").await;
                    }
                    Err(refusal) => return after(&refusal),
                }
            }
        }
        // Others may have come since it was asked.
        let room = match request.mode {
            Mode::Subscribe => self.room(&request.key, request.user.as_deref()),
            Mode::Unsubscribe => Ok(()),
        };
        if room.is_err() && request.protocol == Protocol::Websub {
            return self.deny(&request.key, "there are too many subscriptions already").await;
        }
        let done = match room.map_err(Refusal::Failed) {
            Ok(()) => match self.agreed(&request, Wish::Anybodys).await {
                Ok(()) => self.act(&request).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        match done {
            Ok(()) => Tried::Over,
            Err(refusal) => {
                let callback = callback::shown(&request.key.callback);
                tracing::info!(callback, topic = request.key.topic, why = %refusal, "not verified");
                after(&refusal)
            }
        }
    }

    /// Tells a callback that it will hear nothing of a topic (WebSub, section 5.2).
    async fn deny(&self, key: &SubscriptionKey, reason: &str) -> Tried {
        if let Err(failure) = self.may_ask(&key.callback, None) {
            return Tried::Again(failure.to_string());
        }
        let guard = callback::guard(&self.settings.allow_callbacks);
        match verify::deny(&*self.ports.http, guard, key, reason).await {
            Ok(()) => Tried::Over,
            Err(failure) => Tried::Again(failure.to_string()),
        }
    }

    async fn put_to_rest(&self, id: &str, binding: &crate::hub::ports::HubBinding, rest: Rest) -> Tried {
        let id = u128::from_str_radix(id, 16).map(SubscriptionId);
        let Ok(id) = id else { return Tried::Over };
        let _turn = self.turn(id).await;
        let owner = self.by_id(id).filter(|owner| owner.pseudo_queue.as_deref() == Some(&*binding.queue));
        let rest = match owner {
            Some(subscription) => topology::rest(&self.settings, &subscription), // it may be active again
            None => rest, // it is gone, or was never told of the queue
        };
        match topology::put_to_rest(&*self.ports.estate, binding, rest).await {
            Ok(()) => Tried::Over,
            Err(failure) => Tried::Again(failure.to_string()),
        }
    }
}

/// Whether a refusal may pass.
fn after(refusal: &Refusal) -> Tried {
    match refusal {
        Refusal::NotVerified(why) if why.may_pass() => Tried::Again(why.to_string()),
        Refusal::Failed(failure) if failure.code == codes::TOO_MANY_SUBSCRIPTIONS => Tried::Over,
        Refusal::Failed(failure) => Tried::Again(failure.to_string()),
        Refusal::NotVerified(_)
        | Refusal::NoSuchResource
        | Refusal::NoSuchSubscription
        | Refusal::BadCallback(_)
        | Refusal::BadParameter(..) => Tried::Over,
    }
}

fn warn_of_end(subscription: &Subscription, now_ms: i64) {
    let Subscription { key, contact, .. } = subscription;
    let app_name = contact.as_ref().map_or("", |contact| contact.app_name.as_str());
    let hours = subscription.expires_at_ms.saturating_sub(now_ms) / 3_600_000;
    tracing::warn!(
        subscription = %key.id(), resource = %key.resource, topic = key.topic,
        callback = callback::shown(&key.callback), app_name, hours,
        "the lease of a subscription ends soon"
    );
}

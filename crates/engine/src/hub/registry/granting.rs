//! What changes of a subscription when it is granted, ended or forgotten: its queue, and what is stored, in an order in which a death at
//! any moment leaves something to be done and never something that nobody knows of.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::Hub;
use super::deeds;
use crate::failure::{Failure, FailureKind};
use crate::hub::callback;
use crate::hub::chores::{self, Chore};
use crate::hub::lease;
use crate::hub::request::{Change, Refusal, SubscribeRequest};
use crate::hub::resource::Resource;
use crate::hub::subscription::{
    Protocol, Subscription, SubscriptionId, SubscriptionKey, SubscriptionState, WhyInactive,
};
use crate::hub::topology::{self, Rest};

impl Hub {
    /// Changes a subscription as an operator says, without asking its callback; `None`: there is no such subscription. Activating one whose
    /// lease is over gives it a lease as long as the last.
    ///
    /// # Errors
    /// The secret does not fit the way of signing, the store cannot be written, or the broker cannot be reached; nothing has changed.
    pub async fn change(
        &self,
        key: &SubscriptionKey,
        change: Change,
    ) -> Result<Option<Arc<Subscription>>, Refusal> {
        let Change { state, signing, secret, final_statuses } = change;
        let _turn = self.turn(key.id()).await;
        let Some(before) = self.get(key) else { return Ok(None) };
        let mut changed = (*before).clone();
        changed.signing = signing.unwrap_or(changed.signing);
        changed.secret = secret.unwrap_or(changed.secret);
        changed.final_statuses = final_statuses.unwrap_or(changed.final_statuses);
        if (changed.signing, &changed.secret) != (before.signing, &before.secret) {
            super::signable(changed.signing, changed.secret.as_ref())?;
        }
        let stored = match state {
            Some(state) => self.set_state_in_turn(changed, &before, state).await,
            None if changed == *before => return Ok(Some(before)),
            None => self.store(changed).await,
        };
        stored.map(Some).map_err(Refusal::Failed)
    }

    /// Gives a subscription, as it is to be otherwise, a state.
    async fn set_state_in_turn(
        &self,
        subscription: Subscription,
        before: &Subscription,
        state: SubscriptionState,
    ) -> Result<Arc<Subscription>, Failure> {
        match state {
            SubscriptionState::Inactive(why) => self.end_in_turn(&subscription, why).await,
            SubscriptionState::Active => {
                let now = self.ports.clock.now_ms();
                let mut active = subscription;
                active.state = SubscriptionState::Active;
                if active.expires_at_ms <= now {
                    active.expires_at_ms = lease::end_ms(now, active.lease_seconds);
                }
                if topology::has_own_queue(&active) {
                    let id = active.id();
                    active.pseudo_queue.get_or_insert_with(|| topology::queue_name(id));
                }
                self.prepare(&active, Some(before)).await?;
                let stored = self.store(active).await?;
                self.keep_queue(&stored).await;
                Ok(stored)
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
        {
            let mut held = self.held();
            held.take(id);
            held.changed.insert(id);
        }
        self.poke();
        Ok(true)
    }

    /// Stores a subscription as it was asked for, in the place of one of the same key.
    pub(super) async fn grant(
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
            final_statuses: request.final_statuses.clone(),
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
            let prepared = self.prepare(&subscription, before.as_deref()).await;
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
        self.keep_queue(&stored).await;
        Ok(stored)
    }

    /// Makes and binds the queue of a subscription that is about to be active. What is to become of the queue otherwise is noted before it is
    /// made: whoever dies here, or is dropped since the one who asked hung up, leaves no bound queue that nobody empties. The note is looked at
    /// once the turn is given back, and asks for nothing where the subscription was stored.
    async fn prepare(
        &self,
        subscription: &Subscription,
        before: Option<&Subscription>,
    ) -> Result<(), Failure> {
        let binding =
            topology::binding(subscription).filter(|_| !before.is_some_and(Subscription::is_active));
        if let Some(binding) = binding {
            let known = before.is_some_and(|before| before.pseudo_queue.is_some());
            let queue = Resource::queue(&binding.vhost, &binding.queue);
            // One that is there and that no subscription names is not ours to delete.
            if known || self.ports.estate.look(&queue).await?.is_none() {
                let id = subscription.id().to_string();
                self.add(Chore::Rest { id, binding, rest: Rest::Deleted }).await?;
            }
        }
        topology::prepare(&*self.ports.estate, subscription).await
    }

    /// Makes and binds the queue of an active subscription again, before it is consumed.
    ///
    /// # Errors
    /// As the broker's.
    pub(in crate::hub) async fn prepare_again(&self, id: SubscriptionId) -> Result<(), Failure> {
        let active = || self.by_id(id).filter(|subscription| subscription.is_active());
        let Some(subscription) = active() else { return Ok(()) };
        topology::prepare(&*self.ports.estate, &subscription).await?;
        if let Some(binding) = topology::binding(&subscription).filter(|_| active().is_none()) {
            // It ended meanwhile, and what was to become of its queue may have been done before the queue was made.
            self.add(Chore::Rest { id: id.to_string(), binding, rest: Rest::Deleted }).await?;
        }
        Ok(())
    }

    /// The queue of a subscription that is stored as active stays.
    async fn keep_queue(&self, stored: &Subscription) {
        if stored.is_active() {
            // A note that stays is looked at, finds the subscription, and does nothing.
            self.chores.forget(&*self.ports.store, &chores::rest_name(stored.id())).await.ok();
        }
    }

    /// Ends the delivery to a subscription; it stays known.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    pub async fn end(&self, id: SubscriptionId, why: WhyInactive) -> Result<(), Failure> {
        let turn = self.turn(id).await;
        self.end_if_active(id, why, turn).await
    }

    /// Ends the delivery to a subscription in its turn.
    pub(super) async fn end_if_active(
        &self,
        id: SubscriptionId,
        why: WhyInactive,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<(), Failure> {
        match self.by_id(id).filter(|subscription| subscription.is_active()) {
            Some(subscription) => self.end_in_turn(&subscription, why).await.map(drop),
            None => Ok(()),
        }
    }

    pub(super) async fn end_in_turn(
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
}

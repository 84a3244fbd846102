//! The `webhook-id` of messages that have no id of their own: the same in every attempt at one message, another for each message.
//!
//! A receiver tells a repeated delivery by it (Standard Webhooks). The broker gives such a message nothing by which it could be
//! recognised, so an id is kept with a fingerprint of the whole message until the message is acknowledged, also over a restart. Messages with
//! one fingerprint are identical, so any of them may take an id that an earlier attempt left. Only an id under which a receiver took a message
//! is not passed on, except to a redelivery: the acknowledgement of that message was lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::consume::copies::WRITTEN_BY_BROKERS;
use crate::delivery::Job;
use crate::failure::Failure;
use crate::hub::subscription::SubscriptionId;
use crate::message::{Headers, Properties};
use crate::ports::Clock;

use super::super::registry::Random;

/// Ids that are kept for one subscription. Beyond it the oldest is forgotten, and its message gets another in its next attempt.
const KEPT_MAX: usize = 50_000;
/// How long an id is kept of a message that does not come again, in seconds.
const KEPT_S: u32 = 7 * 24 * 60 * 60;
/// The same of one under which a receiver took the message.
const TAKEN_KEPT_S: u32 = 60 * 60;
/// Headers that differ between the deliveries of one message.
const COUNTED_BY_BROKERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// One id as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredId {
    /// The fingerprint of the message and its subscription.
    pub fingerprint: u128,
    /// The id.
    pub id: [u8; 16],
    /// The hash of the subscription.
    pub owner: u64,
    /// When it was made, in seconds since the epoch.
    pub made_at_s: u32,
    /// Whether a receiver took the message.
    pub taken: bool,
}

/// Where ids outlive the process: slots by number. One process at a time has them.
pub trait IdSlots: Send + Sync {
    /// All that is stored. Called once, before anything else.
    fn all(&self) -> Vec<(usize, StoredId)>;

    /// Stores an id in a slot, or clears it.
    ///
    /// # Errors
    /// It cannot be written.
    fn set(&self, slot: usize, id: Option<&StoredId>) -> Result<(), Failure>;
}

/// The ids of a hub.
pub struct WebhookIds {
    slots: Arc<dyn IdSlots>,
    clock: Arc<dyn Clock>,
    random: Arc<Random>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By fingerprint.
    known: HashMap<u128, Vec<Known>>,
    /// By subscription: what it has, in the order in which it was made.
    owned: HashMap<u64, BTreeMap<u64, u128>>,
    /// Slots that are free below `end`.
    free: Vec<usize>,
    end: usize,
    next: u64,
}

struct Known {
    stored: StoredId,
    slot: usize,
    number: u64,
    state: State,
    /// The delivery it was last used for, by its address in memory. A delivery that is held is handled again with the same one.
    delivery: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An attempt is being made.
    InUse,
    /// The last attempt failed, or nobody knows what came of it.
    Waiting,
    /// A receiver took it, and the broker is still to be told.
    Taken,
}

/// The id of one attempt. When it is dropped the id waits for the next one.
pub(super) struct Ticket<'i> {
    ids: &'i WebhookIds,
    fingerprint: u128,
    number: u64,
    id: [u8; 16],
    taken: bool,
}

impl WebhookIds {
    /// With what was stored before.
    pub fn new(slots: Arc<dyn IdSlots>, clock: Arc<dyn Clock>, random: Arc<Random>) -> WebhookIds {
        let ids = WebhookIds { slots, clock, random, inner: Mutex::default() };
        let now = ids.now_s();
        let mut inner = ids.lock();
        for (slot, stored) in ids.slots.all() {
            while inner.end < slot {
                let free = inner.end;
                inner.free.push(free);
                inner.end += 1;
            }
            inner.end = slot + 1;
            let state = if stored.taken { State::Taken } else { State::Waiting };
            if is_over(&stored, now) {
                ids.store(slot, None);
                inner.free.push(slot);
            } else {
                inner.add(Known { stored, slot, number: 0, state, delivery: 0 });
            }
        }
        drop(inner);
        ids
    }

    /// The id for an attempt at a message. `again`: it was attempted before.
    pub(super) fn begin(&self, subscription: SubscriptionId, job: &Job, again: bool) -> Ticket<'_> {
        let (owner, fingerprint) = (owner(subscription), fingerprint(subscription, job));
        let delivery = std::ptr::from_ref(job).addr();
        let now = self.now_s();
        let mut inner = self.lock();
        let known = inner.known.entry(fingerprint).or_default();
        let waits = |known: &Known| known.state == State::Waiting;
        let taken = |known: &Known| known.state == State::Taken && !is_over(&known.stored, now);
        let redelivered = job.envelope.redelivered || job.envelope.delivery_count.unwrap_or(0) > 0;
        let found = known
            .iter()
            .position(|known| waits(known) && known.delivery == delivery)
            .or_else(|| (again || redelivered).then(|| known.iter().position(waits)).flatten())
            .or_else(|| redelivered.then(|| known.iter().position(taken)).flatten());
        if let Some(found) = found {
            let known = &mut known[found];
            (known.state, known.delivery) = (State::InUse, delivery);
            let (number, id) = (known.number, known.stored.id);
            return Ticket { ids: self, fingerprint, number, id, taken: false };
        }
        let mut id = [0; 16];
        (self.random)(&mut id);
        let stored = StoredId { fingerprint, id, owner, made_at_s: now, taken: false };
        if inner.owned.get(&owner).is_some_and(|owned| owned.len() >= KEPT_MAX) {
            self.forget_oldest(&mut inner, owner);
        }
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.end += 1;
            inner.end - 1
        });
        self.store(slot, Some(&stored));
        let number = inner.add(Known { stored, slot, number: 0, state: State::InUse, delivery });
        Ticket { ids: self, fingerprint, number, id, taken: false }
    }

    /// The broker was told that the message was taken: no attempt at it follows.
    pub(super) fn acknowledged(&self, subscription: SubscriptionId, job: &Job) {
        let fingerprint = fingerprint(subscription, job);
        let delivery = std::ptr::from_ref(job).addr();
        let mut inner = self.lock();
        let taken = |known: &&Known| known.state == State::Taken;
        let known = inner.known.get(&fingerprint).map(Vec::as_slice).unwrap_or_default();
        let this = known.iter().filter(taken).find(|known| known.delivery == delivery);
        if let Some(number) = this.or_else(|| known.iter().find(taken)).map(|known| known.number) {
            self.forget(&mut inner, fingerprint, number);
        }
    }

    /// How many are kept.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.lock().known.values().map(Vec::len).sum()
    }

    fn end(&self, ticket: &Ticket<'_>) {
        let mut inner = self.lock();
        let Some(known) = inner.known.get_mut(&ticket.fingerprint) else { return };
        let Some(known) = known.iter_mut().find(|known| known.number == ticket.number) else { return };
        known.state = if ticket.taken { State::Taken } else { State::Waiting };
        // A receiver that took it once has it, whatever a later attempt says.
        if ticket.taken && !known.stored.taken {
            known.stored.taken = true;
            self.store(known.slot, Some(&known.stored));
        }
    }

    fn forget_oldest(&self, inner: &mut Inner, owner: u64) {
        let oldest = inner.owned.get(&owner).and_then(BTreeMap::first_key_value);
        if let Some((number, fingerprint)) = oldest.map(|(number, fingerprint)| (*number, *fingerprint)) {
            self.forget(inner, fingerprint, number);
        }
    }

    fn forget(&self, inner: &mut Inner, fingerprint: u128, number: u64) {
        let Some(all) = inner.known.get_mut(&fingerprint) else { return };
        let Some(at) = all.iter().position(|known| known.number == number) else { return };
        let known = all.swap_remove(at);
        if all.is_empty() {
            inner.known.remove(&fingerprint);
        }
        if let Some(owned) = inner.owned.get_mut(&known.stored.owner) {
            owned.remove(&number);
            if owned.is_empty() {
                inner.owned.remove(&known.stored.owner);
            }
        }
        self.store(known.slot, None);
        inner.free.push(known.slot);
    }

    /// An id that cannot be stored does not outlive the process; the message is delivered all the same.
    fn store(&self, slot: usize, id: Option<&StoredId>) {
        if let Err(failure) = self.slots.set(slot, id) {
            tracing::warn!(failure = failure.line(), "cannot store the id of a delivery");
        }
    }

    fn now_s(&self) -> u32 {
        u32::try_from(self.clock.now_ms().div_euclid(1000)).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, mut known: Known) -> u64 {
        known.number = self.next;
        self.next += 1;
        let StoredId { owner, fingerprint, .. } = known.stored;
        self.owned.entry(owner).or_default().insert(known.number, fingerprint);
        let number = known.number;
        self.known.entry(fingerprint).or_default().push(known);
        number
    }
}

impl Ticket<'_> {
    /// The id as it is sent.
    pub(super) fn text(&self) -> String {
        format!("msg_{}", URL_SAFE_NO_PAD.encode(self.id))
    }

    /// A receiver took the message.
    pub(super) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.ids.end(self);
    }
}

fn is_over(stored: &StoredId, now_s: u32) -> bool {
    let kept = if stored.taken { TAKEN_KEPT_S } else { KEPT_S };
    now_s.saturating_sub(stored.made_at_s) > kept
}

fn owner(subscription: SubscriptionId) -> u64 {
    xxh3_64(subscription.to_string().as_bytes())
}

/// What is the same in all deliveries of a message to a subscription, and of those that are identical to it.
fn fingerprint(subscription: SubscriptionId, job: &Job) -> u128 {
    let mut hash = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(subscription.to_string().as_bytes());
    let envelope = &job.envelope;
    for text in [&envelope.queue, &envelope.exchange, &envelope.routing_key] {
        part(text.as_bytes());
    }
    part(&job.message.body);
    let Properties { headers, .. } = &job.message.properties;
    let bare = Properties { headers: Headers::default(), ..job.message.properties.clone() };
    part(&serde_json::to_vec(&bare).unwrap_or_default());
    let written = |name: &str| WRITTEN_BY_BROKERS.contains(&name) || COUNTED_BY_BROKERS.contains(&name);
    let mut headers: Vec<_> = headers.iter().filter(|(name, _)| !written(name)).collect();
    headers.sort_by_key(|(name, _)| *name);
    for (name, value) in headers {
        part(name.as_bytes());
        part(&serde_json::to_vec(value).unwrap_or_default());
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::delivery::Envelope;
    use crate::hub::resource::{Resource, ResourceKind};
    use crate::hub::subscription::SubscriptionKey;
    use crate::memory::{FixedClock, MemoryIdSlots};
    use crate::message::Message;

    fn subscription(name: &str) -> SubscriptionId {
        let resource = Resource { vhost: "/".into(), kind: ResourceKind::Queue, name: name.into() };
        SubscriptionKey { resource, topic: String::new(), callback: "https://a.example/".into() }.id()
    }

    fn job(body: &'static str, redelivered: bool) -> Job {
        let envelope = Envelope { queue: "q".into(), redelivered, ..Envelope::default() };
        Job {
            message: Message { body: Bytes::from_static(body.as_bytes()), properties: Properties::default() },
            envelope,
        }
    }

    fn opened(slots: &Arc<MemoryIdSlots>, now_s: i64) -> WebhookIds {
        let random = {
            let slots = slots.clone();
            move |bytes: &mut [u8]| bytes.fill(slots.random())
        };
        WebhookIds::new(slots.clone(), Arc::new(FixedClock(now_s * 1000)), Arc::new(random))
    }

    #[test]
    fn attempts_at_one_message_have_one_id_and_identical_messages_two() {
        let (ids, s) = (opened(&Arc::default(), 1000), subscription("q"));
        let (one, other) = (job("a", false), job("a", false));
        let first = ids.begin(s, &one, false).text();
        let second = ids.begin(s, &other, false).text();
        assert_ne!(first, second);
        // Held: the same delivery again, as a first attempt.
        assert_eq!(ids.begin(s, &other, false).text(), second);
        assert_eq!(ids.begin(s, &one, false).text(), first);
        // Copies of both: each takes one of the two, at once or one after the other.
        let (copy, copy_of_other) = (job("a", false), job("a", false));
        let (x, y) = (ids.begin(s, &copy, true), ids.begin(s, &copy_of_other, true));
        assert_ne!(x.text(), y.text());
        assert!([&first, &second].contains(&&x.text()) && [&first, &second].contains(&&y.text()));
        x.taken();
        y.taken();
        ids.acknowledged(s, &copy);
        ids.acknowledged(s, &copy_of_other);
        assert_eq!(ids.count(), 0);
        // What comes later is another message.
        let third = ids.begin(s, &job("a", true), true).text();
        assert!(third != first && third != second);
    }

    #[test]
    fn messages_and_subscriptions_are_told_apart() {
        let (ids, s) = (opened(&Arc::default(), 1000), subscription("q"));
        let first = ids.begin(s, &job("a", false), false).text();
        let mut with_header = job("a", true);
        with_header.message.properties.headers.set("tenant", crate::message::HeaderValue::I64(1));
        assert_ne!(ids.begin(s, &with_header, true).text(), first);
        assert_ne!(ids.begin(s, &job("b", true), true).text(), first);
        assert_ne!(ids.begin(subscription("other"), &job("a", true), true).text(), first);
        // What brokers write and count is not the message's.
        let mut back = job("a", true);
        back.message.properties.headers.set("x-delivery-count", crate::message::HeaderValue::I64(3));
        assert_eq!(ids.begin(s, &back, true).text(), first);
    }

    #[test]
    fn an_id_that_was_taken_goes_to_a_redelivery_alone() {
        let (ids, s) = (opened(&Arc::default(), 1000), subscription("q"));
        let lost = job("a", false);
        let ticket = ids.begin(s, &lost, false);
        let taken = ticket.text();
        ticket.taken();
        // The acknowledgement was lost; an identical message is another one, also where it is retried.
        assert_ne!(ids.begin(s, &job("a", false), false).text(), taken);
        let fresh = ids.begin(s, &job("a", false), false);
        assert_ne!(fresh.text(), taken);
        assert_ne!(ids.begin(s, &job("a", false), true).text(), taken);
        let waiting = ids.begin(s, &job("a", true), true);
        let redelivered = ids.begin(s, &job("a", true), true);
        assert!(waiting.text() == taken || redelivered.text() == taken);
    }

    #[test]
    fn ids_outlive_the_process_for_a_time() {
        let (slots, s) = (Arc::<MemoryIdSlots>::default(), subscription("q"));
        let (failed, taken) = {
            let ids = opened(&slots, 1000);
            let failed = ids.begin(s, &job("failed", false), false).text();
            let ticket = ids.begin(s, &job("taken", false), false);
            let text = ticket.text();
            ticket.taken();
            // Under way when the process dies.
            std::mem::forget(ids.begin(s, &job("died", false), false));
            (failed, text)
        };
        let ids = opened(&slots, 2000);
        assert_eq!(ids.count(), 3);
        assert_eq!(ids.begin(s, &job("failed", true), true).text(), failed);
        assert_eq!(ids.begin(s, &job("taken", true), true).text(), taken);
        drop(ids);
        assert_eq!(opened(&slots, 1001 + i64::from(TAKEN_KEPT_S)).count(), 2, "one was taken long ago");
        assert_eq!(opened(&slots, 1001 + i64::from(KEPT_S)).count(), 0);
        assert_eq!(slots.all().len(), 0);
    }

    #[test]
    fn beyond_the_bound_the_oldest_of_that_subscription_is_forgotten() {
        let ids = opened(&Arc::default(), 1000);
        let (busy, quiet) = (subscription("busy"), subscription("quiet"));
        let kept = ids.begin(quiet, &job("a", false), false).text();
        let first = ids.begin(busy, &job("first", false), false).text();
        let mut jobs = job("", false);
        for n in 0..KEPT_MAX {
            jobs.message.body = Bytes::from(n.to_string());
            drop(ids.begin(busy, &jobs, false));
        }
        assert_eq!(ids.count(), KEPT_MAX + 1);
        assert_ne!(ids.begin(busy, &job("first", true), true).text(), first);
        assert_eq!(ids.begin(quiet, &job("a", true), true).text(), kept);
    }
}

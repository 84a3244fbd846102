//! The parking lot as the worker sees it: what is due is taken into the lanes, and what comes behind a parked message of its lane is
//! parked behind it, so that it takes no place among the unsettled messages and delays no other lane. Beyond the bound of a lane
//! ([`ParkingMax`](crate::consume::plan::ParkingMax)) its messages are dead-lettered, in their order.

#![expect(clippy::vec_box, reason = "messages come in their boxes and go in them")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{CRASHES_MAX, PANICS_MAX, Worker};
use crate::codes;
use crate::consume::copies::{self, Received};
use crate::consume::flow::Role;
use crate::consume::lanes::Lane;
use crate::consume::plan::{Ordering, ParkingMax};
use crate::consume::policy::{Class, Decision, Reason};
use crate::consume::settle::acknowledge;
use crate::consume::status::backlog;
use crate::consume::work::{Carried, Finished, Item, Shared, let_go_later};
use crate::delivery::Unsettled;
use crate::failure::Failure;
use crate::ports::{NewParked, Parked, ParkedId};

/// How soon the parking lot is asked again after it failed to answer.
const PARKING_AGAIN: Duration = Duration::from_secs(5);
/// How soon it is asked again when there is no room for what is due.
const NO_ROOM_AGAIN: Duration = Duration::from_millis(200);
/// The same when all that is due is being worked on already; something else may become due meanwhile.
const TAKEN_AGAIN: Duration = Duration::from_secs(2);
/// The most messages that are parked in one transaction.
const BATCH_MAX: usize = 256;

/// What is known of the parking lot.
#[derive(Default)]
pub(super) struct Lot {
    /// Those that were taken from it and are not over.
    pub taken: BTreeSet<ParkedId>,
    /// What is parked in each lane.
    pub lanes: HashMap<Arc<str>, LaneLot>,
    /// When to look next; `None`: nothing is parked.
    pub look_at: Option<Instant>,
    /// What is to be parked behind others of its lane, in the order in which it came.
    pub to_park: VecDeque<Box<Item>>,
    /// When `to_park` is tried again, after it could not be parked.
    pub park_at: Option<Instant>,
    /// Whether some of it is being parked now: one batch at a time, since order matters.
    pub is_parking: bool,
    /// How many lanes are full.
    full: i64,
}

/// What is parked of one lane.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct LaneLot {
    messages: u64,
    bytes: u64,
    /// Of these, the messages that are still on their way into the lot.
    coming: u64,
    /// Whether a message of it was dead-lettered because the lane is full.
    full: bool,
}

impl LaneLot {
    fn has_room(&self, max: ParkingMax, bytes: u64) -> bool {
        self.messages < max.messages && self.bytes.saturating_add(bytes) <= max.bytes
    }

    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn remove(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Messages that were to be parked behind others of their lanes.
pub(crate) struct Batch {
    /// How many of them are parked now.
    parked: i64,
    /// Lane and bytes of each that arrived in the lot.
    arrived: Vec<(Arc<str>, u64)>,
    /// Lane and bytes of each whose channel is gone: the broker delivers it again.
    gone: Vec<(Arc<str>, u64)>,
    /// Those that could not be parked.
    pub(super) left: Vec<Box<Item>>,
    /// Why.
    failure: Option<Failure>,
}

impl Worker {
    /// What was parked by a process before this one.
    pub(super) async fn learn_lot(&mut self) -> Result<(), Failure> {
        let lanes = self.shared.ports.parking.lanes(&self.shared.plan.name).await?;
        let mut parked = 0;
        for (lane, sum) in lanes {
            parked += sum.messages;
            if let Some(lane) = lane.filter(|_| !matches!(self.shared.plan.ordering, Ordering::None)) {
                let lane: Arc<str> = lane.into();
                self.lanes.keep(&lane);
                let (messages, bytes) = (sum.messages, sum.bytes);
                self.lot.lanes.insert(lane, LaneLot { messages, bytes, ..LaneLot::default() });
            }
        }
        self.shared.status.parked.store(parked as i64, Relaxed);
        self.lot.look_at = (parked > 0).then(Instant::now);
        Ok(())
    }

    /// Takes what is due, as far as there is room for it.
    pub(super) async fn look_at_lot(&mut self) {
        let now = Instant::now();
        if self.lot.look_at.is_none_or(|at| at > now) {
            return;
        }
        let pause = self.shared.flow().pause();
        let probes = match pause {
            None => false,
            // One is taken as a probe, where there is no other.
            Some(pause) if self.lot_is_to_probe() && now >= pause.probe_at => true,
            Some(_) => return,
        };
        let shared = self.shared.clone();
        let (parking, name) = (&shared.ports.parking, &*shared.plan.name);
        let now_ms = shared.ports.clock.now_ms();
        let room = if probes { 1 } else { usize::from(shared.plan.concurrency.max(1)) };
        let room = room.saturating_sub(self.lanes.ready());
        let due = if room == 0 {
            Ok(Vec::new())
        } else {
            parking.due(name, now_ms, room + self.lot.taken.len()).await
        };
        let next = parking.next_due_ms(name).await;
        match (due, next) {
            (Ok(due), Ok(next)) => {
                let all_are_taken = room > 0 && due.iter().all(|parked| self.lot.taken.contains(&parked.id));
                let taken = &self.lot.taken;
                let due: Vec<Parked> =
                    due.into_iter().filter(|parked| !taken.contains(&parked.id)).take(room).collect();
                for parked in due {
                    self.take_parked(parked).await;
                }
                self.lot.look_at = next.map(|next| {
                    let wait = u64::try_from(next.saturating_sub(now_ms)).unwrap_or(0);
                    // What is due and taken is looked at again when it ended, what finds no room, soon.
                    let soon = if all_are_taken && wait == 0 { TAKEN_AGAIN } else { NO_ROOM_AGAIN };
                    now + Duration::from_millis(wait).max(soon)
                });
            }
            (Err(failure), _) | (_, Err(failure)) => {
                shared.status.troubled(Some(failure));
                self.lot.look_at = Some(now + PARKING_AGAIN);
            }
        }
    }

    async fn take_parked(&mut self, Parked { id, parked }: Parked) {
        let NewParked { job, spent, first_at_ms, lane, dead_lettered, .. } = parked;
        let received_at_ms = self.shared.ports.clock.now_ms();
        let received = Received { job, spent, first_at_ms, received_at_ms, again: true, given_up: None };
        let print = copies::print(&received.job);
        let crashes = self.shared.ports.in_flight.crashes(print);
        let decided = match &dead_lettered {
            Some(reason) => Some(reason.clone().into()),
            None if crashes >= CRASHES_MAX => self.may_have_run(&received, print, crashes).await,
            None => None,
        };
        // A trigger that had an order once and has none now.
        let lane = lane.filter(|lane| self.lot.lanes.contains_key(lane));
        let now = Instant::now();
        let item = Box::new(Item {
            received,
            unsettled: None,
            parked: Some(id),
            lane: lane.clone(),
            overflow: false,
            print,
            crashes,
            arrived: now,
            paused_before: self.shared.flow().paused_in_all(now),
            role: Role::Usual,
            decided: decided.map(Decision::DeadLetter),
            handled: false,
            tried: false,
            dead_lettered,
            later: None,
            panics: 0,
            is_being_parked: false,
            working: None,
        });
        self.lot.taken.insert(id);
        self.lanes.push_first(lane, item);
    }

    /// A message waits in the lot for its next try.
    pub(super) fn is_parked(&mut self, before: Option<ParkedId>, lane: Lane, bytes: u64) {
        self.lot.look_at = Some(Instant::now());
        if let Some(id) = before {
            self.lot.taken.remove(&id);
            return;
        }
        self.shared.status.parked.fetch_add(1, Relaxed);
        if let Some(lane) = lane {
            // The one that fails is parked also where the lane is full: all others wait for it.
            self.lot.lanes.entry(lane.clone()).or_default().add(bytes);
            for item in self.lanes.take_behind(&lane) {
                self.comes_behind(&lane, item);
            }
        }
    }

    /// A dead letter that no broker takes was parked; nothing waits for it.
    pub(super) fn lot_keeps_one_more(&mut self) {
        self.shared.status.parked.fetch_add(1, Relaxed);
        self.lot.look_at = Some(Instant::now());
    }

    /// A parked message is over: the next of its lane is due, or the lane free.
    pub(super) fn unparked(&mut self, id: ParkedId, lane: &Lane, bytes: u64) {
        self.lot.taken.remove(&id);
        // Also one that was handed back at the end of the process ends here; it is still parked then, and nobody looks any more.
        self.shared.status.parked.fetch_sub(1, Relaxed);
        self.lot.look_at = Some(Instant::now());
        if let Some(name) = lane {
            self.leaves_lane(name, bytes);
        }
    }

    /// A message of a lane is not in the lot, or not any more.
    fn leaves_lane(&mut self, name: &Arc<str>, bytes: u64) {
        let Some(lane) = self.lot.lanes.get_mut(name) else { return };
        lane.remove(bytes);
        // Not full any more only once there is room for more than a few, so that it does not change all the time.
        if lane.full && lane.messages <= self.shared.plan.parking.messages / 10 * 9 {
            lane.full = false;
            self.lot.full -= 1;
        }
        if lane.messages == 0 {
            if lane.full {
                self.lot.full -= 1;
            }
            self.lot.lanes.remove(name);
            self.lanes.done(&Some(name.clone()));
        }
        self.shared.status.full_lanes.store(self.lot.full, Relaxed);
    }

    /// A message came whose lane waits for a parked one. For a whole queue nothing is parked: it stays where it is.
    pub(super) fn comes_behind(&mut self, name: &Arc<str>, mut item: Box<Item>) {
        if matches!(self.shared.plan.ordering, Ordering::Queue) {
            self.lanes.push(Some(name.clone()), item);
            return;
        }
        if item.decided.is_some() {
            // Nothing of it is to be run, so it overtakes nothing; and what is parked is looked at no more before it runs.
            item.lane = None;
            self.lanes.push(None, item);
            return;
        }
        let bytes = item.received.job.parked_bytes();
        let max = self.shared.plan.parking;
        let lane = self.lot.lanes.entry(name.clone()).or_default();
        if lane.has_room(max, bytes) {
            lane.add(bytes);
            lane.coming += 1;
            item.is_being_parked = true;
            self.lot.to_park.push_back(item);
            return;
        }
        if !lane.full {
            lane.full = true;
            self.lot.full += 1;
            self.shared.status.full_lanes.store(self.lot.full, Relaxed);
            let consumer = &*self.shared.plan.name;
            tracing::warn!(consumer, failure = backlog(1, max).line(), "a key is full");
        }
        let failure = backlog(1, max);
        let text = format!("its key has as much parked as it may: {failure}");
        let reason = Reason { class: Class::Backlog, text, failure: Some(failure) };
        debug_assert_eq!(reason.failure.as_ref().map(|failure| failure.code), Some(codes::KEY_BACKLOG));
        item.decided = Some(Decision::DeadLetter(reason));
        item.overflow = true;
        self.overflow.push(Some(name.clone()), item);
    }

    /// Starts to park what came behind others, all of it at once: the disk is waited for beside everything else.
    pub(super) fn park_what_came(&mut self) {
        if self.lot.is_parking || self.lot.to_park.is_empty() {
            return;
        }
        if self.lot.park_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let batch: Vec<Box<Item>> = self.lot.to_park.drain(..self.lot.to_park.len().min(BATCH_MAX)).collect();
        self.lot.is_parking = true;
        self.running.start(park_batch(self.shared.clone(), batch));
    }

    /// Messages were parked behind others, or could not be.
    pub(super) fn batch_is_over(&mut self, batch: Batch) {
        let Batch { parked, arrived, gone, left, failure } = batch;
        self.lot.is_parking = false;
        self.shared.status.parked.fetch_add(parked, Relaxed);
        for (lane, _) in &arrived {
            if let Some(lane) = self.lot.lanes.get_mut(lane) {
                lane.coming = lane.coming.saturating_sub(1);
            }
        }
        if parked > 0 {
            self.lot.look_at = Some(Instant::now());
        }
        for (name, bytes) in gone {
            self.does_not_come(&name, bytes);
        }
        match failure {
            Some(failure) => {
                // They wait unsettled until it works.
                for item in left.into_iter().rev() {
                    self.lot.to_park.push_front(item);
                }
                self.lot.park_at = Some(Instant::now() + PARKING_AGAIN);
                self.shared.status.troubled(Some(failure));
            }
            None => {
                if self.lot.park_at.take().is_some() {
                    self.shared.status.troubled(None);
                }
            }
        }
    }

    fn does_not_come(&mut self, name: &Arc<str>, bytes: u64) {
        if let Some(lane) = self.lot.lanes.get_mut(name) {
            lane.coming = lane.coming.saturating_sub(1);
        }
        self.leaves_lane(name, bytes);
    }

    /// Takes out what is still to be parked: its consumer is gone.
    pub(super) fn nothing_is_to_be_parked(&mut self) -> Vec<Box<Item>> {
        let mut items: Vec<Box<Item>> = std::mem::take(&mut self.lot.to_park).into();
        for item in &mut items {
            item.is_being_parked = false;
            if let Some(lane) = item.lane.clone() {
                self.does_not_come(&lane, item.received.job.parked_bytes());
            }
        }
        items
    }

    /// Parking a message panicked.
    pub(super) fn parking_panicked(&mut self, mut item: Box<Item>) {
        self.lot.is_parking = false;
        if item.panics < PANICS_MAX {
            self.lot.park_at = Some(Instant::now() + PARKING_AGAIN);
            self.lot.to_park.push_back(item);
            return;
        }
        item.is_being_parked = false;
        if let Some(lane) = item.lane.take() {
            self.does_not_come(&lane, item.received.job.parked_bytes());
        }
        self.running.start(let_go_later(self.shared.clone(), item));
    }
}

async fn park_batch(shared: Arc<Shared>, items: Vec<Box<Item>>) -> Finished {
    let mut carried = Carried::new(shared, items);
    let (shared, items) = carried.parts();
    Finished::Batch(parked(shared, items).await)
}

/// Parks messages and then acknowledges them. Takes out those of which nothing is left to be done.
async fn parked(shared: &Shared, items: &mut Vec<Box<Item>>) -> Batch {
    let mut batch =
        Batch { parked: 0, arrived: Vec::new(), gone: Vec::new(), left: Vec::new(), failure: None };
    let place = |item: &Item| item.lane.clone().map(|lane| (lane, item.received.job.parked_bytes()));
    let is_here = |item: &Item| item.unsettled.as_ref().is_none_or(Unsettled::alive);
    items.retain(|item| {
        let here = is_here(item);
        if !here {
            batch.gone.extend(place(item));
        }
        here
    });
    let due_ms = shared.ports.clock.now_ms();
    let parked: Vec<NewParked> = items
        .iter()
        .map(|item| NewParked {
            job: item.received.job.clone(),
            spent: item.received.spent,
            first_at_ms: item.received.first_at_ms,
            due_ms,
            lane: item.lane.clone(),
            dead_lettered: None,
        })
        .collect();
    let parking = &shared.ports.parking;
    let ids = match parking.park_all(&shared.plan.name, &parked).await {
        Ok(ids) => ids,
        Err(failure) => {
            (batch.left, batch.failure) = (std::mem::take(items), Some(failure));
            return batch;
        }
    };
    for (item, id) in items.iter_mut().zip(ids) {
        let acknowledged = acknowledge(item.unsettled.take()).await.is_ok();
        let removed = !acknowledged && {
            let removed = parking.remove(id).await;
            if let Err(failure) = &removed {
                // It is here and with the broker: it may be handled twice.
                shared.status.troubled(Some(failure.clone()));
            }
            removed.is_ok()
        };
        if removed {
            batch.gone.extend(place(item));
        } else {
            batch.parked += 1;
            batch.arrived.extend(place(item));
        }
    }
    items.clear();
    batch
}

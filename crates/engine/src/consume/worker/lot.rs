//! The parking lot as the worker sees it: what is due is taken into the lanes, and what comes behind a parked message of its
//! lane is parked behind it, up to a bound. Beyond that it stays unsettled with the broker, in its lane, and takes up its part of the
//! prefetch: the others go on with what is left of that.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{CRASHES_MAX, HOLD_MAX, Worker};
use crate::consume::copies::{self, Received};
use crate::consume::lanes::Lane;
use crate::consume::plan::Ordering;
use crate::consume::policy::Decision;
use crate::consume::settle::acknowledge;
use crate::consume::status::State;
use crate::consume::work::Item;
use crate::failure::Failure;
use crate::ports::{NewParked, Parked, ParkedId};

/// How soon the parking lot is asked again after it failed to answer.
const PARKING_AGAIN: Duration = Duration::from_secs(5);

/// How soon it is asked again when there is no room for what is due.
const NO_ROOM_AGAIN: Duration = Duration::from_millis(200);
/// The same when all that is due is being worked on already; something else may become due meanwhile.
const TAKEN_AGAIN: Duration = Duration::from_secs(2);

/// The most messages of one lane that are parked. What is parked only this machine has, and it is read back one by one; a key that has
/// as many waiting behind one that fails is a backlog, which is the broker's to keep and to show.
pub const LANE_PARKED_MAX: u64 = 1000;

/// What is known of the parking lot.
#[derive(Default)]
pub(super) struct Lot {
    /// Those that were taken from it and are not over.
    pub taken: BTreeSet<ParkedId>,
    /// How many are parked in each lane.
    pub lanes: HashMap<Arc<str>, u64>,
    /// When to look next; `None`: nothing is parked.
    pub look_at: Option<Instant>,
    /// The lanes that are full while more of them is here, unsettled, and since when.
    full: HashMap<Arc<str>, Instant>,
    /// Whether consuming has stopped because of that, until there is room again.
    rests: bool,
}

impl Lot {
    /// Since brokers take back what is not settled for long, it is not held for longer than while the destination is down.
    pub fn full_for_long_at(&self) -> Option<Instant> {
        self.full.values().min().map(|since| *since + HOLD_MAX)
    }

    pub fn is_full_for_long(&self) -> bool {
        self.full_for_long_at().is_some_and(|at| at <= Instant::now())
    }

    /// Whether consuming need not rest, or not any longer. It rests until there is room for more than one, since each time it begins
    /// again what waits is delivered once more.
    pub fn has_room(&mut self) -> bool {
        self.rests &= self.lanes.values().any(|parked| *parked > LANE_PARKED_MAX / 2);
        !self.rests
    }

    fn is_full(&self, lane: &Arc<str>) -> bool {
        self.lanes.get(lane).is_some_and(|parked| *parked >= LANE_PARKED_MAX)
    }
}

impl Worker {
    /// What was parked by a process before this one.
    pub(super) async fn learn_lot(&mut self) -> Result<(), Failure> {
        let lanes = self.shared.ports.parking.lanes(&self.shared.plan.name).await?;
        let mut parked = 0;
        for (lane, count) in lanes {
            parked += count;
            if let Some(lane) = lane.filter(|_| !matches!(self.shared.plan.ordering, Ordering::None)) {
                let lane: Arc<str> = lane.into();
                self.lanes.keep(&lane);
                self.lot.lanes.insert(lane, count);
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
        let probes = match &self.paused {
            None => false,
            // One is taken to see whether the destination is back, where there is no other.
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
                for parked in due
                    .into_iter()
                    .filter(|parked| !self.lot.taken.contains(&parked.id))
                    .take(room)
                    .collect::<Vec<_>>()
                {
                    self.take_parked(parked);
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

    fn take_parked(&mut self, Parked { id, parked }: Parked) {
        let NewParked { job, spent, first_at_ms, lane, .. } = parked;
        let received_at_ms = self.shared.ports.clock.now_ms();
        let received = Received { job, spent, first_at_ms, received_at_ms, given_up: None };
        let print = copies::print(&received.job);
        let crashes = self.shared.ports.in_flight.crashes(print);
        let decided =
            (crashes >= CRASHES_MAX).then(|| self.may_have_run(&received, print, crashes)).flatten();
        // A trigger that had an order once and has none now.
        let lane = lane.filter(|lane| self.lot.lanes.contains_key(lane));
        let item = Box::new(Item {
            received,
            unsettled: None,
            parked: Some(id),
            lane: lane.clone(),
            print,
            crashes,
            arrived: Instant::now(),
            paused_before: self.paused_in_all,
            decided: decided.map(Decision::DeadLetter),
            handled: false,
            working: None,
        });
        self.lot.taken.insert(id);
        self.lanes.push_first(lane, item);
    }

    /// A parked message is over: the next of its lane is due, or the lane free.
    pub(super) async fn unparked(&mut self, id: ParkedId, lane: &Lane) {
        self.lot.taken.remove(&id);
        // Also one that was handed back at the end of the process ends here; it is still parked then, and nobody looks any more.
        self.shared.status.parked.fetch_sub(1, Relaxed);
        self.lot.look_at = Some(Instant::now());
        let Some(name) = lane else { return };
        let left = self.lot.lanes.get_mut(name).map_or(0, |left| {
            *left = left.saturating_sub(1);
            *left
        });
        if left == 0 {
            self.lot.lanes.remove(name);
            self.lanes.done(lane);
            self.held_back(name, false);
        } else {
            self.park_behind(name).await; // there is room for one that was held back
        }
    }

    /// Whether messages have been held back behind a full lane for so long that they go back to the queue. Nothing is taken any more, and
    /// what runs has ended.
    pub(super) fn rests_for_room(&mut self) -> bool {
        if !self.lot.is_full_for_long() || !self.running.is_empty() {
            return false;
        }
        self.lot.rests = true;
        let failure = self.shared.status.backlog();
        self.shared.status.set(State::Waiting(failure));
        true
    }

    /// What was held back is let go.
    pub(super) fn nothing_is_held_back(&mut self) {
        self.lot.full.clear();
        self.shared.status.full_lanes.store(0, Relaxed);
    }

    /// Notes whether messages of a lane are held back because it is full.
    fn held_back(&mut self, lane: &Arc<str>, is: bool) {
        if is {
            self.lot.full.entry(lane.clone()).or_insert_with(Instant::now);
        } else {
            self.lot.full.remove(lane);
        }
        self.shared.status.full_lanes.store(self.lot.full.len() as i64, Relaxed);
    }

    /// Parks what came behind a parked message of its lane, in order, so that it is neither held nor overtakes. For a whole queue
    /// nothing is parked: it stays where it is.
    pub(super) async fn park_behind(&mut self, lane: &Arc<str>) {
        if matches!(self.shared.plan.ordering, Ordering::Queue) {
            return;
        }
        let shared = self.shared.clone();
        let (decided, mut behind): (VecDeque<Box<Item>>, VecDeque<Box<Item>>) =
            self.lanes.take_behind(lane).into_iter().partition(|item| item.decided.is_some());
        for mut item in decided {
            // Nothing of it is to be run, so it overtakes nothing; and what is parked is looked at no more before it runs.
            item.lane = None;
            self.lanes.push(None, item);
        }
        while !self.lot.is_full(lane)
            && let Some(mut item) = behind.pop_front()
        {
            let parked = NewParked {
                job: item.received.job.clone(),
                spent: item.received.spent,
                first_at_ms: item.received.first_at_ms,
                due_ms: shared.ports.clock.now_ms(),
                lane: Some(lane.clone()),
            };
            match shared.ports.parking.park(&shared.plan.name, &parked).await {
                Ok(id) => {
                    if acknowledge(item.unsettled.take()).await.is_ok() {
                        *self.lot.lanes.entry(lane.clone()).or_default() += 1;
                        shared.status.parked.fetch_add(1, Relaxed);
                    } else if let Err(failure) = shared.ports.parking.remove(id).await {
                        // It is here and with the broker: it may be handled twice.
                        shared.status.troubled(Some(failure));
                        *self.lot.lanes.entry(lane.clone()).or_default() += 1;
                    }
                }
                Err(failure) => {
                    // They wait unsettled, in their lane, for its turn.
                    shared.status.troubled(Some(failure));
                    behind.push_front(item);
                    break;
                }
            }
        }
        self.held_back(lane, self.lot.is_full(lane) && !behind.is_empty());
        for item in behind {
            self.lanes.push(Some(lane.clone()), item);
        }
    }
}

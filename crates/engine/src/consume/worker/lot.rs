//! The parking lot as the worker sees it: what is due is taken into the lanes, and what comes behind a parked message of its
//! lane is parked behind it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{CRASHES_MAX, Worker};
use crate::consume::copies::{self, Received};
use crate::consume::lanes::Lane;
use crate::consume::plan::Ordering;
use crate::consume::policy::Decision;
use crate::consume::settle::acknowledge;
use crate::consume::work::Item;
use crate::failure::Failure;
use crate::ports::{NewParked, Parked, ParkedId};

/// How soon the parking lot is asked again after it failed to answer.
const PARKING_AGAIN: Duration = Duration::from_secs(5);

/// How soon it is asked again when there is no room for what is due.
const NO_ROOM_AGAIN: Duration = Duration::from_millis(200);
/// The same when all that is due is being worked on already; something else may become due meanwhile.
const TAKEN_AGAIN: Duration = Duration::from_secs(2);

/// What is known of the parking lot.
#[derive(Default)]
pub(super) struct Lot {
    /// Those that were taken from it and are not over.
    pub taken: BTreeSet<ParkedId>,
    /// How many are parked in each lane.
    pub lanes: HashMap<Arc<str>, u64>,
    /// When to look next; `None`: nothing is parked.
    pub look_at: Option<Instant>,
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
        let item = Item {
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
        };
        self.lot.taken.insert(id);
        self.lanes.push_first(lane, item);
    }

    /// A parked message is over: the next of its lane is due, or the lane free.
    pub(super) fn unparked(&mut self, id: ParkedId, lane: &Lane) {
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
        }
    }

    /// Parks what came behind a parked message of its lane, in order, so that it is neither held nor overtakes. For a whole queue
    /// nothing is parked: it stays where it is.
    pub(super) async fn park_behind(&mut self, lane: &Arc<str>) {
        if matches!(self.shared.plan.ordering, Ordering::Queue) {
            return;
        }
        let shared = self.shared.clone();
        let mut behind = self.lanes.take_behind(lane);
        while let Some(mut item) = behind.pop_front() {
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
        for item in behind {
            self.lanes.push(Some(lane.clone()), item);
        }
    }
}

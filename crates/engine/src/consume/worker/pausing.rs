//! What the worker does with a pause: the message that probes, room for it, and messages that were held for too long.

use tokio::time::Instant;

use super::Worker;
use crate::consume::flow::{Event, HOLD_MAX, Mode, Role};
use crate::consume::status::State;
use crate::consume::work::Item;

/// What of the mode is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Flowing,
    Paused,
    Blocked,
}

impl Worker {
    /// Starts what is only to be settled, which needs no destination; whether there was such a message.
    pub(super) fn start_settling(&mut self) -> bool {
        let next = self.overflow.take().or_else(|| self.lanes.take_first(|item| item.decided.is_some()));
        let Some((_, item)) = next else { return false };
        self.start(item);
        true
    }

    /// Starts the message that shows whether the destination works again: one that has not failed, or else the one that failed
    /// longest ago, so that no message that fails by its own content is tried again and again.
    pub(super) fn start_probe(&mut self) -> bool {
        let next = self.lanes.take().map(|(_, item)| item).or_else(|| self.suspects.pop_front());
        let Some(item) = next.or_else(|| self.held.pop_front().map(Item::once_more)) else { return false };
        let mut item = self.unless_expired(item);
        if item.decided.is_none() {
            item.role = Role::Probe;
            self.shared.on(Event::Started(Role::Probe));
        }
        self.start(item);
        true
    }

    /// During a pause: where held messages take up the whole prefetch, the one that failed longest ago makes room for one that has
    /// not failed. It is tried again later, and no attempt is spent.
    pub(super) fn make_room(&mut self) {
        let is_paused = matches!(self.shared.flow().mode(), Mode::Paused(_));
        if !is_paused || self.held.is_empty() || self.lanes.ready() > 0 || !self.suspects.is_empty() {
            return;
        }
        let Some(prefetch) = self.prefetch else { return };
        let held = self.held.iter().filter(|item| item.unsettled.is_some()).count();
        let unsettled = held + self.working() + self.lanes.waiting() + self.again.waiting();
        if unsettled + self.lot.to_park.len() < usize::from(prefetch) {
            return;
        }
        let first = self.held.iter().position(|item| item.unsettled.is_some());
        if let Some(item) = first.and_then(|first| self.held.remove(first)) {
            self.start(item);
        }
    }

    /// Whether the destination has not worked for so long that messages are not held any longer: what was held is tried again later,
    /// with no attempt spent, and the consumer opened again for one message at a time.
    pub(super) fn rests(&mut self) -> bool {
        let Some(pause) = self.shared.flow().pause() else { return false };
        if Instant::now() < pause.held_since + HOLD_MAX {
            return false;
        }
        for item in std::mem::take(&mut self.held) {
            self.start(item);
        }
        if !self.running.is_empty() {
            return false;
        }
        self.shared.on(Event::LetGo);
        true
    }

    /// Whether nothing but what is parked can show whether the destination works.
    pub(super) fn lot_is_to_probe(&self) -> bool {
        matches!(self.shared.flow().mode(), Mode::Paused(_))
            && self.running.is_empty()
            && self.held.is_empty()
            && self.suspects.is_empty()
            && self.lanes.ready() == 0
    }

    /// When something is to be done although nothing happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let (pause, is_probing) = {
            let flow = self.shared.flow();
            (flow.pause(), matches!(flow.mode(), Mode::Probing(_)))
        };
        let probe = pause.filter(|_| !is_probing).map(|pause| pause.probe_at);
        let can_probe = !self.held.is_empty() || self.lanes.ready() > 0 || !self.suspects.is_empty();
        let probe = probe.filter(|_| can_probe);
        let rest = pause.filter(|_| self.running.is_empty()).map(|pause| pause.held_since + HOLD_MAX);
        let lot = self.lot.look_at.and_then(|at| match pause {
            None => Some(at),
            Some(pause) => self.lot_is_to_probe().then(|| at.max(pause.probe_at)),
        });
        let park = self.lot.park_at.filter(|_| !self.lot.to_park.is_empty());
        if probe.is_none() && rest.is_none() && park.is_none() {
            return lot; // what mostly is
        }
        let now = Instant::now();
        // What is due already and could not be done waits for something else to happen.
        [probe.filter(|at| *at > now), rest, lot, park].into_iter().flatten().min()
    }

    /// Shows and logs a pause that began or ended.
    pub(super) fn show(&mut self) {
        let shown = match self.shared.flow().pause() {
            None => Shown::Flowing,
            Some(pause) if pause.operator => Shown::Blocked,
            Some(_) => Shown::Paused,
        };
        if shown == self.shown {
            return;
        }
        self.shown = shown;
        let consumer = &*self.shared.plan.name;
        match (shown, self.shared.status.blocked_by()) {
            (Shown::Flowing, _) => {
                tracing::info!(consumer, "the destination works again, consuming continues")
            }
            (Shown::Blocked, Some(failure)) => tracing::error!(
                consumer,
                failure = failure.line(),
                "consuming pauses until an operator acts; it resumes by itself"
            ),
            (Shown::Paused | Shown::Blocked, _) => {
                tracing::warn!(consumer, "the destination is down, consuming pauses");
            }
        }
        // While there is no consumer, the state says why.
        if !matches!(self.shared.status.state(), State::Waiting(_)) {
            self.set_state();
        }
    }

    /// Sets the state that is seen from outside, for a consumer that is open.
    pub(super) fn set_state(&self) {
        self.shared.status.set(match (self.shown, self.shared.status.blocked_by()) {
            (Shown::Flowing, _) => State::Consuming,
            (Shown::Blocked, Some(failure)) => State::Blocked(failure),
            (Shown::Paused | Shown::Blocked, _) => State::Paused,
        });
    }
}

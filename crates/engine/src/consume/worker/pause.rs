//! While the destination is down: consuming pauses, one message at a time probes, and what is held for too long is settled.

use tokio::time::Instant;

use super::{HOLD_MAX, Worker, again};
use crate::consume::status::State;
use crate::consume::work::work;

/// The destination is down.
pub(super) struct Pause {
    pub(super) since: Instant,
    pub(super) probe_at: Instant,
    pub(super) probing: bool,
}

impl Worker {
    /// While the destination is down: what needs no destination, or one message to see whether it is back.
    pub(super) fn probe(&mut self) {
        let now = Instant::now();
        if self.lanes.peek().is_some_and(|item| item.decided.is_some()) {
            if let Some((_, item)) = self.lanes.take() {
                self.start(item);
            }
            return;
        }
        let Some(pause) = &mut self.paused else { return };
        if pause.probing || now < pause.probe_at || now >= pause.since + HOLD_MAX {
            return;
        }
        let next = self.held.pop_front().map(again).or_else(|| self.suspects.pop_front());
        if let Some(item) = next.or_else(|| self.lanes.take().map(|(_, item)| item)) {
            pause.probing = true;
            self.start(item);
        }
    }

    /// Follows the breaker.
    pub(super) fn pause_or_go_on(&mut self) {
        let now = Instant::now();
        let (is_open, next) = {
            let mut breaker = self.shared.breaker();
            if let Some(pause) = &mut self.paused
                && pause.probing
                && breaker.is_open()
                && self.running.is_empty()
            {
                breaker.probe_failed();
                pause.probing = false;
                pause.probe_at = now + breaker.pause();
            }
            (breaker.is_open(), breaker.pause())
        };
        match (is_open, self.paused.is_some()) {
            (true, false) => {
                tracing::warn!(
                    consumer = &*self.shared.plan.name,
                    "the destination is down, consuming pauses"
                );
                self.paused = Some(Pause { since: now, probe_at: now + next, probing: false });
                self.shared.status.set(State::Paused);
            }
            (false, true) => {
                tracing::info!(
                    consumer = &*self.shared.plan.name,
                    "the destination is back, consuming goes on"
                );
                if let Some(pause) = self.paused.take() {
                    self.paused_in_all += pause.since.elapsed();
                }
                self.shared.status.set(State::Consuming);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Whether the destination has been down for so long that messages are not held any longer: what was held is settled, and
    /// the consumer opened again for one message at a time.
    pub(super) fn rests(&mut self) -> bool {
        let Some(pause) = &mut self.paused else { return false };
        if pause.since.elapsed() < HOLD_MAX {
            return false;
        }
        for item in std::mem::take(&mut self.held) {
            self.running.start(work(self.shared.clone(), item)); // their attempts are spent now
        }
        if !self.running.is_empty() {
            return false;
        }
        pause.since = Instant::now();
        true
    }

    /// Whether nothing but what is parked can tell whether the destination is back.
    pub(super) fn lot_is_to_probe(&self) -> bool {
        self.paused.as_ref().is_some_and(|pause| !pause.probing)
            && self.running.is_empty()
            && self.held.is_empty()
            && self.suspects.is_empty()
            && self.lanes.ready() == 0
    }
}

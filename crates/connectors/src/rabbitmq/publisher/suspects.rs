//! Messages of which one made the broker close a channel or the connection, while it is not known which.
//!
//! Sent again together they would close it again, for ever. A suspect is sent alone: when the channel closes then, it was it.
//! A connection may close for something else at that moment, so there it takes three times.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use warren_engine::message::Outbound;

/// More than are in flight on any connection that keeps its window.
const SUSPECTS_MAX: usize = 65_536;
/// Suspects that nobody sent again in this time are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How often the connection may close on one message.
const STRIKES_MAX: u8 = 3;

#[derive(Default)]
pub(super) struct Suspects {
    /// Whether there are any; read without the lock for each batch.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    strikes: HashMap<u64, u8>,
    added: Option<Instant>,
}

impl Suspects {
    /// Whether there may be any.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether a message is one.
    pub(super) fn has(&self, outbound: &Outbound) -> bool {
        let mut state = self.state();
        if state.expire() {
            self.any.store(false, Ordering::Release);
            return false;
        }
        state.strikes.contains_key(&print(outbound))
    }

    /// A message becomes one.
    pub(super) fn add(&self, outbound: &Outbound) {
        let mut state = self.state();
        state.expire();
        state.added = Some(Instant::now());
        if state.strikes.len() < SUSPECTS_MAX {
            state.strikes.entry(print(outbound)).or_default();
            self.any.store(true, Ordering::Release);
        }
    }

    /// The connection closed while the message was on its own: whether that was once too often.
    pub(super) fn strike(&self, outbound: &Outbound) -> bool {
        let mut state = self.state();
        let strikes = state.strikes.entry(print(outbound)).or_default();
        *strikes += 1;
        *strikes >= STRIKES_MAX
    }

    /// It is known what became of a message.
    pub(super) fn clear(&self, outbound: &Outbound) {
        let mut state = self.state();
        state.strikes.remove(&print(outbound));
        if state.strikes.is_empty() {
            self.any.store(false, Ordering::Release);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets all where none was added for long enough; whether it did.
    fn expire(&mut self) -> bool {
        let expired = self.added.is_some_and(|added| added.elapsed() > FORGOTTEN);
        if expired {
            self.strikes.clear();
            self.added = None;
        }
        expired
    }
}

fn print(outbound: &Outbound) -> u64 {
    let mut hasher = DefaultHasher::new();
    outbound.route.hash(&mut hasher);
    outbound.message.properties.message_id.hash(&mut hasher);
    outbound.message.body.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warren_engine::message::{Message, Properties, Route};

    use super::*;

    fn outbound(body: &'static str) -> Outbound {
        let message =
            Message { body: Bytes::from_static(body.as_bytes()), properties: Properties::default() };
        Outbound { route: Route::Queue("q".into()), message }
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_that_is_not_sent_again_is_forgotten_without_another() {
        let suspects = Suspects::default();
        suspects.add(&outbound("a"));
        assert!(suspects.any() && suspects.has(&outbound("a")) && !suspects.has(&outbound("b")));
        tokio::time::advance(FORGOTTEN + Duration::from_secs(1)).await;
        assert!(!suspects.has(&outbound("b")));
        assert!(!suspects.any(), "later messages are not looked at any more");
        suspects.add(&outbound("b"));
        assert!(suspects.has(&outbound("b")) && !suspects.has(&outbound("a")));
    }
}

//! Messages that were received and are not settled yet: kept hidden from others, half of their time before it ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

/// SQS hides a message for twelve hours after it was received, at most.
pub(super) const HIDDEN_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The messages of one consumer.
#[derive(Debug, Default)]
pub(super) struct Held {
    inner: Mutex<Inner>,
    /// One came, or the consumer was closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    messages: HashMap<u64, Kept>,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    handle: String,
    received: Instant,
    extend_at: Instant,
    /// Room for another message is made when this one is settled.
    _room: OwnedSemaphorePermit,
}

impl Held {
    /// Keeps a message that was received just now. False: the consumer is closed.
    pub(super) fn keep(
        &self,
        tag: u64,
        handle: String,
        hidden: Duration,
        room: OwnedSemaphorePermit,
    ) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        let received = Instant::now();
        inner.messages.insert(tag, Kept { handle, received, extend_at: received + hidden / 2, _room: room });
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// Takes a message out, to settle it. `None`: the consumer is closed, and handed it back.
    pub(super) fn take(&self, tag: u64) -> Option<String> {
        self.lock().messages.remove(&tag).map(|kept| kept.handle)
    }

    /// Closes, and takes all messages out, to hand them back.
    pub(super) fn close(&self) -> Vec<String> {
        let mut inner = self.lock();
        inner.closed = true;
        let messages = std::mem::take(&mut inner.messages);
        drop(inner);
        self.changed.notify_one();
        messages.into_values().map(|kept| kept.handle).collect()
    }

    /// The next messages to extend, at most ten, as soon as there are some. They count as extended by `hidden`. `None`: the
    /// consumer is closed.
    pub(super) async fn due(&self, hidden: Duration) -> Option<Vec<(u64, String)>> {
        loop {
            let next = {
                let mut inner = self.lock();
                if inner.closed {
                    return None;
                }
                let now = Instant::now();
                let mut due = Vec::new();
                for (tag, kept) in &mut inner.messages {
                    // Beyond that SQS refuses: the message will be delivered again.
                    let may = now.duration_since(kept.received) + hidden < HIDDEN_MAX;
                    if kept.extend_at <= now && may && due.len() < 10 {
                        kept.extend_at = now + hidden / 2;
                        due.push((*tag, kept.handle.clone()));
                    }
                }
                if !due.is_empty() {
                    return Some(due);
                }
                inner.messages.values().map(|kept| kept.extend_at).filter(|at| *at > now).min()
            };
            // Only waiting is dropped.
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn messages_are_extended_at_half_their_time_until_they_are_settled() {
        let room = Arc::new(Semaphore::new(2));
        let permit = || room.clone().try_acquire_owned().unwrap();
        let held = Held::default();
        let hidden = Duration::from_secs(60);
        let began = Instant::now();
        assert!(held.keep(1, "one".into(), hidden, permit()));
        assert!(held.keep(2, "two".into(), hidden, permit()));
        assert_eq!(room.available_permits(), 0);
        let mut due = held.due(hidden).await.unwrap();
        due.sort();
        assert_eq!(due, [(1, "one".to_owned()), (2, "two".to_owned())]);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(held.take(1).as_deref(), Some("one"));
        assert_eq!(room.available_permits(), 1);
        assert_eq!(held.due(hidden).await.unwrap(), [(2, "two".to_owned())]);
        assert_eq!(began.elapsed().as_secs(), 60);
        // After twelve hours SQS would refuse.
        let mut last = began.elapsed();
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(3600), held.due(hidden)).await {
            last = began.elapsed();
        }
        assert!(last < HIDDEN_MAX && last + hidden * 2 > HIDDEN_MAX, "{last:?}");
        assert_eq!(held.close(), ["two"]);
        assert_eq!(held.due(hidden).await, None);
        assert!(!held.keep(3, "three".into(), hidden, permit()));
        assert_eq!(held.take(2), None);
    }
}

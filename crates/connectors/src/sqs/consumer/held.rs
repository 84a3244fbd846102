//! Messages that were received and are not settled yet: kept hidden from others, half of their time before it ends.
//!
//! A message whose time was up nevertheless, because it could not be extended or the process stood still, is received again while it is
//! worked on. It is known by its id, and goes on where it is: only its handle is a newer one. SQS takes an older handle without an
//! error and does nothing, so what a message comes to must be told by the newest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::settle::Told;

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
    /// Which of them a message is, by the id that SQS gave it.
    tags: HashMap<String, u64>,
    /// Messages that SQS was told to delete, by their id, for as long as an answer may still bring them.
    deleted: HashMap<String, Deleted>,
    /// Whether SQS is being asked for messages.
    asking: bool,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    id: Option<String>,
    handle: String,
    received: Instant,
    extend_at: Instant,
    /// Room for another message is made when this one is settled.
    _room: OwnedSemaphorePermit,
}

/// Invariant: one that is not answered is being told by `settle::tell`, which takes the newer handle.
#[derive(Debug, Default)]
struct Deleted {
    answered: bool,
    /// By which it was received again before SQS answered: the older one may have deleted nothing.
    newer: Option<String>,
}

/// What a message is that was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// One to work on.
    New,
    /// One that is here: its time was up, and it goes on under the newer handle.
    Again,
    /// One that is done with: it is to be deleted by the newer handle.
    Done,
    /// The consumer is closed.
    Late,
}

/// A message that was taken out, to settle it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: Option<String>,
    pub(super) handle: String,
}

impl Held {
    /// SQS is asked for messages from now on; until [`Held::asked`] they may be ones that are here.
    pub(super) fn asks(&self) {
        self.lock().asking = true;
    }

    /// The answer was gone through.
    pub(super) fn asked(&self) {
        let mut inner = self.lock();
        inner.asking = false;
        inner.deleted.retain(|_, deleted| !deleted.answered);
    }

    /// Keeps a message that was received just now, unless it is one that was here before.
    pub(super) fn keep(
        &self,
        tag: u64,
        id: Option<&str>,
        handle: &str,
        hidden: Duration,
        room: OwnedSemaphorePermit,
    ) -> Came {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(deleted) = id.and_then(|id| inner.deleted.get_mut(id)) {
            if deleted.answered {
                return Came::Done;
            }
            deleted.newer = Some(handle.to_owned());
            return Came::Again;
        }
        if inner.closed {
            return Came::Late;
        }
        let received = Instant::now();
        let extend_at = received + hidden / 2;
        let here = id.and_then(|id| inner.tags.get(id));
        if let Some(kept) = here.and_then(|tag| inner.messages.get_mut(tag)) {
            (kept.handle, kept.received, kept.extend_at) = (handle.to_owned(), received, extend_at);
            return Came::Again;
        }
        let id = id.map(str::to_owned);
        if let Some(id) = &id {
            inner.tags.insert(id.clone(), tag);
        }
        let kept = Kept { id, handle: handle.to_owned(), received, extend_at, _room: room };
        inner.messages.insert(tag, kept);
        self.changed.notify_one();
        Came::New
    }

    /// When a message was received last. `None`: it is not here any more.
    pub(super) fn received(&self, tag: u64) -> Option<Instant> {
        self.lock().messages.get(&tag).map(|kept| kept.received)
    }

    /// Takes a message out, to settle it. `None`: the consumer is closed, and handed it back.
    pub(super) fn take(&self, tag: u64, told: Told) -> Option<Taken> {
        let mut inner = self.lock();
        let Kept { id, handle, .. } = inner.messages.remove(&tag)?;
        if let Some(id) = &id {
            inner.tags.remove(id);
            // One that is hidden for a time is meant to come again.
            if told == Told::Delete {
                inner.deleted.insert(id.clone(), Deleted::default());
            }
        }
        Some(Taken { id, handle })
    }

    /// SQS answered that a message is deleted, or that it is not. Returns the handle by which it was received meanwhile, by which it
    /// must be told again.
    pub(super) fn deleted(&self, id: &str, is_deleted: bool) -> Option<String> {
        let mut inner = self.lock();
        let asking = inner.asking;
        let deleted = inner.deleted.get_mut(id)?;
        if let Some(newer) = deleted.newer.take() {
            return Some(newer);
        }
        // What SQS is asked from now on it answers without it.
        if is_deleted && asking {
            deleted.answered = true;
        } else {
            inner.deleted.remove(id);
        }
        None
    }

    /// Closes, and takes all messages out, to hand them back.
    pub(super) fn close(&self) -> Vec<String> {
        let mut inner = self.lock();
        inner.closed = true;
        inner.tags.clear();
        let mut messages: Vec<(u64, Kept)> = std::mem::take(&mut inner.messages).into_iter().collect();
        drop(inner);
        self.changed.notify_one();
        // In the order in which they came, so that they come again in it as far as the queue keeps one.
        messages.sort_unstable_by_key(|(tag, _)| *tag);
        messages.into_iter().map(|(_, kept)| kept.handle).collect()
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

    /// A message could not be extended: it is tried again while there is time left. To be called before [`Held::due`] is asked again.
    pub(super) fn extend_again(&self, tag: u64, hidden: Duration) {
        if let Some(kept) = self.lock().messages.get_mut(&tag) {
            kept.extend_at = kept.extend_at.min(Instant::now() + hidden / 8);
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

    const HIDDEN: Duration = Duration::from_secs(60);

    /// What is held, with room for two messages.
    struct World {
        held: Held,
        room: Arc<Semaphore>,
    }

    impl World {
        fn new() -> World {
            World { held: Held::default(), room: Arc::new(Semaphore::new(2)) }
        }

        fn keep(&self, tag: u64, id: &str, handle: &str) -> Came {
            let place = self.room.clone().try_acquire_owned().unwrap();
            self.held.keep(tag, Some(id), handle, HIDDEN, place)
        }

        fn delete(&self, tag: u64) -> Option<String> {
            self.held.take(tag, Told::Delete).map(|taken| taken.handle)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_extended_at_half_their_time_until_they_are_settled() {
        let world = World::new();
        let World { held, room } = &world;
        let began = Instant::now();
        assert_eq!(world.keep(1, "1", "one"), Came::New);
        assert_eq!(world.keep(2, "2", "two"), Came::New);
        assert_eq!(room.available_permits(), 0);
        let mut due = held.due(HIDDEN).await.unwrap();
        due.sort();
        assert_eq!(due, [(1, "one".to_owned()), (2, "two".to_owned())]);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(world.delete(1).as_deref(), Some("one"));
        assert_eq!(room.available_permits(), 1);
        assert_eq!(held.due(HIDDEN).await.unwrap(), [(2, "two".to_owned())]);
        assert_eq!(began.elapsed().as_secs(), 60);
        // After twelve hours SQS would refuse.
        let mut last = began.elapsed();
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(3600), held.due(HIDDEN)).await {
            last = began.elapsed();
        }
        assert!(last < HIDDEN_MAX && last + HIDDEN * 2 > HIDDEN_MAX, "{last:?}");
        assert_eq!(held.close(), ["two"]);
        assert_eq!(held.due(HIDDEN).await, None);
        assert_eq!(world.keep(3, "3", "three"), Came::Late);
        assert_eq!(world.delete(2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_extended_is_tried_again_before_its_time_is_up() {
        let world = World::new();
        assert_eq!(world.keep(1, "1", "one"), Came::New);
        let began = Instant::now();
        for seconds in [30, 37, 45, 52] {
            assert!(world.held.due(HIDDEN).await.is_some());
            assert_eq!(began.elapsed().as_secs(), seconds);
            world.held.extend_again(1, HIDDEN);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_again_goes_on_under_its_newest_handle() {
        let world = World::new();
        assert_eq!(world.keep(1, "m", "old"), Came::New);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(world.keep(2, "m", "new"), Came::Again);
        assert_eq!(world.room.available_permits(), 1);
        assert_eq!(world.held.received(1), Some(Instant::now()));
        assert_eq!(world.held.received(2), None);
        let began = Instant::now();
        assert_eq!(world.held.due(HIDDEN).await.unwrap(), [(1, "new".to_owned())]);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(world.delete(1).as_deref(), Some("new"));
    }

    #[test]
    fn one_that_comes_again_while_it_is_deleted_is_deleted_by_its_newest_handle() {
        let world = World::new();
        for is_deleted in [true, false] {
            world.keep(1, "m", "old");
            world.held.asks();
            assert_eq!(world.delete(1).as_deref(), Some("old"));
            assert_eq!(world.keep(2, "m", "new"), Came::Again);
            assert_eq!(world.held.deleted("m", is_deleted).as_deref(), Some("new"));
            assert_eq!(world.held.deleted("m", true), None);
            world.held.asked();
            assert!(world.held.lock().deleted.is_empty());
        }
    }

    #[test]
    fn one_that_was_deleted_is_done_with_as_long_as_it_may_come_by_an_earlier_request() {
        let world = World::new();
        world.keep(1, "m", "old");
        world.held.asks();
        world.delete(1);
        assert_eq!(world.held.deleted("m", true), None);
        assert_eq!(world.keep(2, "m", "new"), Came::Done);
        world.held.asked();
        world.held.asks();
        assert_eq!(world.keep(3, "m", "newer"), Came::New);
        // One that could not be deleted comes again, and so does one that is to come again.
        world.delete(3);
        assert_eq!(world.held.deleted("m", false), None);
        assert_eq!(world.keep(4, "m", "newest"), Came::New);
        assert!(world.held.take(4, Told::Hide(0)).is_some());
        assert_eq!(world.keep(5, "m", "last"), Came::New);
    }
}

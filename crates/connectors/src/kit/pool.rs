//! A few connections of one database that are used again and again: never more than so many at once, and none is given on
//! that may be broken or not clean.
//!
//! The pool knows nothing of what it keeps. Whoever takes a connection out of it finds out whether it still works, makes
//! another where there is none, and gives back only what is as new: no open transaction, no settings, nothing pending.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A trigger works on ten messages at once unless it is told otherwise, and a step takes a fraction of a message's time. Servers
/// take some hundred connections in all, of which each costs them memory.
pub(crate) const CONNECTIONS_MAX: usize = 10;

/// Firewalls forget connections over which nothing went for some minutes, and do not say so: a statement sent over such a one waits
/// until its time is over.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    room: Arc<Semaphore>,
    /// Those that nobody uses, with the moment from which on; the last one used comes last.
    idle: Mutex<Vec<(Instant, T)>>,
}

/// The right to have one connection.
pub(crate) struct Place<T> {
    pool: Arc<Pool<T>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Pool<T> {
    /// At most so many at once.
    pub fn new(most: usize) -> Arc<Pool<T>> {
        Arc::new(Pool { room: Arc::new(Semaphore::new(most)), idle: Mutex::default() })
    }

    /// Waits, in turn, until one more connection may be had. Whoever is dropped while it waits has taken nothing.
    pub async fn place(self: &Arc<Self>) -> Place<T> {
        let permit = self.room.clone().acquire_owned().await;
        Place { pool: self.clone(), _permit: permit.expect("nobody closes the semaphore") }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, T)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Place<T> {
    /// A connection that was used before, if there is one. It may be broken.
    pub fn used(&self) -> Option<T> {
        let mut idle = self.pool.idle();
        let now = Instant::now();
        // Dropped here: no farewell is owed over a line that may be dead.
        idle.retain(|(since, _)| now.duration_since(*since) < IDLE_MAX);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Gives back a connection that is as new.
    pub fn give_back(self, connection: T) {
        self.pool.idle().push((Instant::now(), connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_so_many_and_the_last_used_comes_first() {
        let pool = Pool::new(2);
        let (one, two) = (pool.place().await, pool.place().await);
        assert_eq!(one.used(), None);
        assert!(tokio::time::timeout(Duration::from_secs(1), pool.place()).await.is_err());
        one.give_back(1);
        two.give_back(2);
        let place = pool.place().await;
        assert_eq!(place.used(), Some(2));
        // Lost: its place is free all the same.
        drop(place);
        assert_eq!(pool.place().await.used(), Some(1));
        let (_one, _two) = (pool.place().await, pool.place().await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_idle_for_long_is_not_used() {
        let pool = Pool::new(2);
        let (one, two) = (pool.place().await, pool.place().await);
        one.give_back(1);
        tokio::time::advance(Duration::from_secs(40)).await;
        two.give_back(2);
        tokio::time::advance(Duration::from_secs(40)).await;
        let (one, two) = (pool.place().await, pool.place().await);
        assert_eq!((one.used(), two.used()), (Some(2), None));
    }
}

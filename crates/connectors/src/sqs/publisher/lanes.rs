//! Whose turn it is in each FIFO group: batches that publish to the same group go one after another, in the order in which
//! their calls began.
//!
//! A batch queues in all its groups at once, under one lock, before it first waits. So of two batches one is first in every
//! group they share, and they cannot wait for each other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A queue, as written, and a group.
pub(super) type Lane = (String, String);

/// All groups that somebody publishes to now.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    inner: Mutex<Inner>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<Lane, VecDeque<u64>>,
    next: u64,
}

/// A batch's place in the lanes of its groups; it leaves them all when dropped.
#[derive(Debug)]
pub(super) struct Turn<'l> {
    lanes: &'l Lanes,
    number: u64,
    mine: Mutex<HashSet<Lane>>,
}

impl Lanes {
    /// Queues in lanes.
    pub(super) fn join(&self, lanes: HashSet<Lane>) -> Turn<'_> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let number = inner.next;
        for lane in &lanes {
            inner.waiting.entry(lane.clone()).or_default().push_back(number);
        }
        Turn { lanes: self, number, mine: Mutex::new(lanes) }
    }

    fn leave(&self, number: u64, lane: &Lane) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = inner.waiting.get_mut(lane) {
            waiting.retain(|other| *other != number);
            if waiting.is_empty() {
                inner.waiting.remove(lane);
            }
        }
    }
}

impl Turn<'_> {
    /// Whether it is this batch's turn in a lane.
    pub(super) fn is_now(&self, lane: &Lane) -> bool {
        let inner = self.lanes.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.waiting.get(lane).is_none_or(|waiting| waiting.front() == Some(&self.number))
    }

    /// Leaves a lane to the next.
    pub(super) fn leave(&self, lane: &Lane) {
        if self.mine.lock().unwrap_or_else(PoisonError::into_inner).remove(lane) {
            self.lanes.leave(self.number, lane);
            self.lanes.moved.notify_waiters();
        }
    }

    /// When somebody leaves a lane. To be enabled before looking whose turn it is.
    pub(super) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.lanes.moved.notified()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mine = std::mem::take(self.mine.get_mut().unwrap_or_else(PoisonError::into_inner));
        for lane in &mine {
            self.lanes.leave(self.number, lane);
        }
        self.lanes.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(group: &str) -> Lane {
        ("q.fifo".to_owned(), group.to_owned())
    }

    #[test]
    fn first_come_first_served_in_every_lane() {
        let lanes = Lanes::default();
        let first = lanes.join([lane("a"), lane("b")].into());
        let second = lanes.join([lane("b"), lane("c")].into());
        assert!(first.is_now(&lane("a")) && first.is_now(&lane("b")));
        assert!(!second.is_now(&lane("b")) && second.is_now(&lane("c")));
        first.leave(&lane("b"));
        assert!(second.is_now(&lane("b")));
        let third = lanes.join([lane("a")].into());
        assert!(!third.is_now(&lane("a")));
        drop(first);
        assert!(third.is_now(&lane("a")));
        drop((second, third));
        assert!(lanes.inner.lock().unwrap().waiting.is_empty());
    }
}

//! Messages that come again while they are still worked on.
//!
//! When a connection is lost the broker gives out again what was under way, although it is still being handled here. Such a message
//! waits until the one before it has ended, whose result is recorded as late; then it runs, and not beside itself.
//!
//! A message is known by its print. Equal messages that come for the first time wait for nobody, nor do those that are worked on by
//! way of the connection that is open: a consumer does not yield one that is here once more. Where messages have lanes there is nothing to do: the one that is worked on still has its lane.

#![expect(clippy::vec_box, reason = "they come in their boxes and go in them")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::consume::work::Item;

/// What is known of messages that are worked on, and those that wait because of that.
#[derive(Default)]
pub(super) struct Again {
    under_way: Arc<UnderWay>,
    waiting: Vec<Box<Item>>,
}

/// How many messages there are of each print.
#[derive(Debug, Default)]
struct UnderWay(Mutex<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    /// Counts the consumers that were opened.
    now: u64,
    of_now: HashMap<u128, u32>,
    /// From consumers that are gone.
    of_lost: HashMap<u128, u32>,
}

/// Held as long as a message is here; what its task leaves behind when it panics, too.
#[derive(Debug)]
pub(in crate::consume) struct Working {
    under_way: Arc<UnderWay>,
    session: u64,
    print: u128,
}

impl Again {
    /// Another consumer is open: whatever is here came by way of one that is gone.
    pub fn opened(&mut self) {
        let mut sessions = self.under_way.lock();
        sessions.now += 1;
        let Sessions { of_now, of_lost, .. } = &mut *sessions;
        for (print, count) in of_now.drain() {
            *of_lost.entry(print).or_default() += count;
        }
    }

    /// A message came by way of the consumer that is open.
    pub fn came(&self, print: u128) -> Working {
        let mut sessions = self.under_way.lock();
        *sessions.of_now.entry(print).or_default() += 1;
        Working { under_way: self.under_way.clone(), session: sessions.now, print }
    }

    /// Whether a message like it is still worked on that came by way of a consumer that is gone.
    pub fn is_worked_on(&self, print: u128) -> bool {
        self.under_way.lock().of_lost.contains_key(&print)
    }

    pub fn wait(&mut self, item: Box<Item>) {
        self.waiting.push(item);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Those that need not wait any longer. That they waited for themselves does not count as waiting to be started.
    pub fn over(&mut self) -> Vec<Box<Item>> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let (still, mut over): (Vec<Box<Item>>, Vec<Box<Item>>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|item| self.is_worked_on(item.print));
        self.waiting = still;
        for item in &mut over {
            item.arrived = Instant::now();
        }
        over
    }

    /// All that wait, because their consumer is gone too.
    pub fn take_all(&mut self) -> Vec<Box<Item>> {
        std::mem::take(&mut self.waiting)
    }
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut sessions = self.under_way.lock();
        let of = if self.session == sessions.now { &mut sessions.of_now } else { &mut sessions.of_lost };
        if let Some(count) = of.get_mut(&self.print) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.print);
            }
        }
    }
}

//! Groups that keep an order (of FIFO queues): batches that share one go one after another, and what stands behind a message that was
//! rejected is held for the next run.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::message::Outbound;
use crate::sqs::ordered_group;

/// A queue and a group.
type Group = (String, String);

/// The groups of one run.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    under_way: HashSet<Group>,
    stopped: HashSet<Group>,
}

/// A batch's hold on its groups; let go when dropped.
#[derive(Debug)]
pub(super) struct Hold<'g> {
    groups: &'g Groups,
    mine: Vec<Group>,
}

impl Groups {
    /// Takes hold of a batch's groups. `None`: a batch under way has one of them.
    pub(super) fn hold(&self, batch: &[Outbound]) -> Option<Hold<'_>> {
        let mut inner = self.lock();
        let mine: HashSet<Group> = batch.iter().filter_map(group).collect();
        if mine.iter().any(|group| inner.under_way.contains(group)) {
            return None;
        }
        inner.under_way.extend(mine.iter().cloned());
        Some(Hold { groups: self, mine: mine.into_iter().collect() })
    }

    /// A message was rejected: nothing behind it is sent in this run.
    pub(super) fn stop(&self, outbound: &Outbound) {
        if let Some(group) = group(outbound) {
            self.lock().stopped.insert(group);
        }
    }

    /// Whether a message stands behind one that was rejected.
    pub(super) fn is_stopped(&self, outbound: &Outbound) -> bool {
        let Some(group) = group(outbound) else { return false };
        self.lock().stopped.contains(&group)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut inner = self.groups.lock();
        for group in &self.mine {
            inner.under_way.remove(group);
        }
    }
}

fn group(outbound: &Outbound) -> Option<Group> {
    ordered_group(outbound).map(|(queue, group)| (queue.to_owned(), group.to_owned()))
}

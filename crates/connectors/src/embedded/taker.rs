//! The consumers of this process as the writer knows them, and how messages are dealt out to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc as channel;

use super::consumer::{Flow, Item};
use super::fault::Fault;
use super::ledger::Ledger;
use super::take::{TAKE_MESSAGES_MAX, Taken, Verdict};
use super::topology::QueueId;
use super::writer::ConsumerId;

/// A consumer as the writer knows it.
pub(super) struct Taker {
    pub(super) queue: QueueId,
    pub(super) queue_name: String,
    pub(super) prefetch: usize,
    pub(super) outgoing: channel::Sender<Item>,
    pub(super) flow: Arc<Flow>,
    /// The messages it holds.
    pub(super) held: HashSet<i64>,
    /// Those of them that could not be sent to it any more.
    pub(super) unsent: HashSet<i64>,
    /// Whether it was told that nothing more comes.
    pub(super) ended: bool,
}

impl Taker {
    /// Tells it, once, that nothing more comes and why.
    pub(super) fn end(&mut self, why: Item) {
        if !std::mem::replace(&mut self.ended, true) {
            self.outgoing.try_send(why).ok(); // there is room; one that is just leaving need not hear of it
        }
    }

    /// How many messages it may be sent, `freed` of those that it holds being settled in this transaction.
    pub(super) fn room(&self, freed: usize) -> usize {
        if self.ended {
            return 0;
        }
        let free = self.prefetch.saturating_sub(self.held.len() - freed.min(self.held.len()));
        if free == 0 { 0 } else { free.min(self.flow.room()) }
    }

    pub(super) fn put_back(&self, ledger: &mut Ledger<'_>, unseen: &HashSet<i64>) -> Result<(), Fault> {
        for message in &self.held {
            let nobody_saw = unseen.contains(message) || self.unsent.contains(message);
            let verdict = if nobody_saw { Verdict::Unseen } else { Verdict::Requeue };
            ledger.settle(self.queue, *message, verdict)?;
        }
        Ok(())
    }
}

/// Takes messages for the consumers that have room, dealt out in turn where several share a queue.
pub(super) fn hand_to_takers(
    ledger: &mut Ledger<'_>,
    takers: &HashMap<ConsumerId, Taker>,
    freed: &HashMap<ConsumerId, usize>,
    leavers: &HashSet<ConsumerId>,
) -> Result<Vec<(ConsumerId, Vec<Taken>)>, Fault> {
    let mut by_queue: HashMap<QueueId, Vec<(ConsumerId, usize)>> = HashMap::new();
    for (consumer, taker) in takers {
        let room = taker.room(freed.get(consumer).copied().unwrap_or(0));
        if room > 0 && !leavers.contains(consumer) && ledger.topology.queue_by_id(taker.queue).is_some() {
            by_queue.entry(taker.queue).or_default().push((*consumer, room));
        }
    }
    let mut handed_out: HashMap<ConsumerId, Vec<Taken>> = HashMap::new();
    for (queue, mut shares) in by_queue {
        let room = shares.iter().fold(0_usize, |sum, (_, room)| sum.saturating_add(*room));
        let mut turn = 0;
        for taken in ledger.take(queue, room.min(TAKE_MESSAGES_MAX))? {
            turn %= shares.len();
            let (consumer, room) = &mut shares[turn];
            handed_out.entry(*consumer).or_default().push(taken);
            *room -= 1;
            if *room == 0 {
                shares.swap_remove(turn);
            } else {
                turn += 1;
            }
            if shares.is_empty() {
                break;
            }
        }
    }
    Ok(handed_out.into_iter().collect())
}

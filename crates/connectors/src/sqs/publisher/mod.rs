//! Batches of messages, packed into requests, many under way; each message with an answer of its own.
//!
//! A queue that keeps no order has its messages packed as they come. A FIFO queue's are taken group by group: a group has one
//! request under way, with one message of it (`group_batch`), so that a message that fails cannot be overtaken; requests are filled
//! with messages of other groups. What stands behind a failed message of its group is not sent: its receipt says so, and whoever
//! publishes decides whether the group waits or goes on.

mod answer;
mod entry;
mod fifo;
mod lanes;
mod pack;
mod window;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinSet;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{Outbound, Receipt, Route};
use warren_engine::sqs::ordered_group;

use self::entry::Entry;
use self::lanes::{Lanes, Turn};
use self::window::Window;
use super::connection::Link;
use super::queues::{Queue, Queues};

/// Publishes.
pub(crate) struct Publisher {
    link: Arc<Link>,
    queues: Arc<Queues>,
    window: Window,
    lanes: Lanes,
}

/// Receipts by the message's place in its batch.
type Answers = Vec<(usize, Receipt)>;

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, queues: Arc<Queues>) -> Publisher {
        let window = Window::new(link.target.concurrency);
        Publisher { link, queues, window, lanes: Lanes::default() }
    }

    /// Publishes a batch; one receipt a message, in the order of the batch.
    pub(crate) async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let groups: HashSet<_> = batch
            .iter()
            .filter_map(ordered_group)
            .map(|(queue, group)| (queue.to_owned(), group.to_owned()))
            .collect();
        // Before anything is waited for, so that of two calls the first is first.
        let turn = self.lanes.join(groups);
        let mut by_queue: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut receipts: Vec<Option<Receipt>> = batch.iter().map(|_| None).collect();
        for (at, outbound) in batch.iter().enumerate() {
            match &outbound.route {
                Route::Queue(queue) => by_queue.entry(queue).or_default().push(at),
                Route::Exchange { .. } => {
                    receipts[at] = Some(Receipt::Refused(no_exchanges(&outbound.route)))
                }
            }
        }
        let mut under_way: FuturesUnordered<_> =
            by_queue.into_iter().map(|(queue, places)| self.to_queue(queue, places, batch, &turn)).collect();
        while let Some(answers) = under_way.next().await {
            for (at, receipt) in answers {
                receipts[at] = Some(receipt);
            }
        }
        let lost = || Receipt::Unknown(Failure::internal("publish to SQS").detail("a message was forgotten"));
        receipts.into_iter().map(|receipt| receipt.unwrap_or_else(lost)).collect()
    }

    /// How many requests may be under way, if SQS throttles.
    pub(crate) fn narrowed(&self) -> Option<(usize, usize)> {
        self.window.narrowed()
    }

    /// The messages of one queue.
    async fn to_queue(&self, name: &str, places: Vec<usize>, batch: &[Outbound], turn: &Turn<'_>) -> Answers {
        let queue = match self.queues.get(&self.link, name).await {
            Ok(queue) => queue,
            Err(failure) => {
                let refused = |at| (at, Receipt::Refused(failure.clone()));
                return places.into_iter().map(refused).collect();
            }
        };
        let mut answers = Vec::with_capacity(places.len());
        let mut entries = Vec::with_capacity(places.len());
        for at in places {
            match Entry::of(at, &batch[at], &queue) {
                Ok(entry) => entries.push(entry),
                Err(failure) => answers.push((at, Receipt::Refused(failure))),
            }
        }
        if queue.is_fifo {
            answers.extend(self.in_order(&queue, entries, turn).await);
        } else {
            answers.extend(self.as_they_come(&queue, entries).await);
        }
        answers
    }

    async fn as_they_come(&self, queue: &Queue, entries: Vec<Entry<'_>>) -> Answers {
        let sizes: Vec<u64> = entries.iter().map(|entry| entry.bytes).collect();
        let packs = pack::pack(&sizes, queue.bytes_max());
        let requests = packs.into_iter().map(|pack| self.request(queue, &entries[pack]));
        let mut under_way: FuturesUnordered<_> = requests.collect();
        let mut answers = Vec::with_capacity(entries.len());
        while let Some(some) = under_way.next().await {
            answers.extend(some);
        }
        answers
    }

    /// One request, once there is room for it.
    async fn request(&self, queue: &Queue, entries: &[Entry<'_>]) -> Answers {
        let permit = self.window.enter().await;
        let client = match self.link.get().await {
            Ok(connected) => connected.client.clone(),
            Err(failure) => {
                return entries.iter().map(|entry| (entry.at, Receipt::Refused(failure.clone()))).collect();
            }
        };
        let requested = entries.iter().enumerate().map(|(id, entry)| entry.request(id, queue.is_fifo));
        let request =
            client.send_message_batch().queue_url(&queue.url).set_entries(Some(requested.collect()));
        // On a task of its own, since signing and reading take time of a processor; it ends with us.
        let mut task = JoinSet::new();
        task.spawn(request.send());
        let Some(Ok(answered)) = task.join_next().await else {
            let failure = Failure::internal("send a batch to SQS").detail("the request panicked");
            return entries.iter().map(|entry| (entry.at, Receipt::Unknown(failure.clone()))).collect();
        };
        let (answers, went) = answer::receipts(queue, entries, answered);
        if answers.iter().any(|(_, receipt)| is_gone(receipt)) {
            self.queues.forget(&queue.name);
        }
        permit.leave(went);
        answers
    }
}

fn is_gone(receipt: &Receipt) -> bool {
    matches!(receipt, Receipt::Refused(failure) if failure.code == codes::NO_SUCH_QUEUE)
}

fn no_exchanges(route: &Route) -> Failure {
    Failure::new(FailureKind::NotFound, codes::NO_SUCH_EXCHANGE, format!("publish to {route}"))
        .detail("SQS has queues only")
        .remedy("name a queue")
}

//! The receiving end: deliveries of one queue, and settling them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use async_trait::async_trait;
use tokio::sync::{mpsc as channel, oneshot};
use warren_engine::codes;
use warren_engine::delivery::{Delivery, Settle, Settlement};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::Consumer;

use super::fault::damaged;
use super::shared::Shared;
use super::take::{Taken, Verdict};
use super::writer::{Command, ConsumerId};

/// What the writer sends a consumer.
#[derive(Debug)]
pub(super) enum Item {
    Message(Taken),
    /// The consumer was cancelled and nothing more comes.
    End,
    /// The queue or the file is gone and nothing more comes.
    Failed(Failure),
}

/// How much was sent to a consumer and not looked at yet, so that a large prefetch does not fill the memory.
#[derive(Debug, Default)]
pub(super) struct Flow {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Set by the writer when it holds back for this reason; then the consumer tells it when there is room.
    held_back: AtomicBool,
}

/// Sent and not looked at, at most; the bytes by at most one message or one transaction's worth more.
const UNSEEN_MESSAGES_MAX: usize = 1024;
const UNSEEN_BYTES_MAX: usize = 16 << 20;
/// What the channel to a consumer holds: those, and the one item that ends it. So it is never full.
pub(super) const CHANNEL_ITEMS_MAX: usize = UNSEEN_MESSAGES_MAX + 1;

impl Flow {
    /// How many messages may be sent now.
    pub(super) fn room(&self) -> usize {
        let room = self.free(UNSEEN_MESSAGES_MAX, UNSEEN_BYTES_MAX);
        if room == 0 {
            self.held_back.store(true, Ordering::SeqCst);
            // The consumer may have looked at everything before it could see the flag: nobody would wake us.
            return self.free(UNSEEN_MESSAGES_MAX, UNSEEN_BYTES_MAX);
        }
        room
    }

    fn free(&self, messages_max: usize, bytes_max: usize) -> usize {
        if self.bytes.load(Ordering::SeqCst) >= bytes_max {
            return 0;
        }
        messages_max.saturating_sub(self.messages.load(Ordering::SeqCst))
    }

    pub(super) fn sent(&self, taken: &Taken) {
        self.messages.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(size(taken), Ordering::SeqCst);
    }

    /// Whether the writer waits to hear that there is room again.
    fn seen(&self, taken: &Taken) -> bool {
        self.messages.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(size(taken), Ordering::SeqCst);
        self.free(UNSEEN_MESSAGES_MAX / 2, UNSEEN_BYTES_MAX / 2) > 0
            && self.held_back.swap(false, Ordering::SeqCst)
    }
}

fn size(taken: &Taken) -> usize {
    taken.body.len() + taken.properties.len()
}

/// Deliveries of one queue.
pub(super) struct QueueConsumer {
    pub id: ConsumerId,
    pub queue: Arc<str>,
    pub tag: String,
    pub next_tag: u64,
    pub incoming: channel::Receiver<Item>,
    pub flow: Arc<Flow>,
    pub commands: mpsc::Sender<Command>,
    pub cancelled: bool,
    /// Keeps the broker open as long as somebody consumes.
    pub _broker: Arc<Shared>,
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        let taken = match self.incoming.recv().await {
            Some(Item::Message(taken)) => taken,
            Some(Item::End) => return Ok(None),
            Some(Item::Failed(failure)) => return Err(failure),
            None if self.cancelled => return Ok(None),
            None => return Err(closed(&format!("consume queue `{}`", self.queue))),
        };
        if self.flow.seen(&taken) {
            self.commands.send(Command::Room).ok(); // a writer that is gone shows at the next call
        }
        let (id, tag) = (taken.id, self.next_tag);
        self.next_tag += 1;
        let Some(job) = taken.into_job(&self.queue, tag, &self.tag) else {
            return Err(damaged(
                &format!("consume queue `{}`", self.queue),
                format!("the properties of message {id} cannot be read"),
            ));
        };
        let settle = Hold {
            consumer: self.id,
            message: id,
            queue: Arc::clone(&self.queue),
            commands: self.commands.clone(),
        };
        Ok(Some(Delivery::new(job, Box::new(settle))))
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
        self.commands.send(Command::Cancel { consumer: self.id }).ok(); // a writer that is gone sends nothing more
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        // Closed before it is emptied: what the writer sends from here on fails to be sent, and it sees that.
        self.incoming.close();
        let mut unseen = Vec::new();
        while let Ok(item) = self.incoming.try_recv() {
            if let Item::Message(taken) = item {
                unseen.push(taken.id);
            }
        }
        // A writer that is gone has put everything back.
        self.commands.send(Command::Leave { consumer: self.id, unseen }).ok();
    }
}

/// A message held by a consumer.
struct Hold {
    consumer: ConsumerId,
    message: i64,
    queue: Arc<str>,
    commands: mpsc::Sender<Command>,
}

#[async_trait]
impl Settle for Hold {
    /// Returns when the file says so: what was acked does not come again if the process dies.
    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure> {
        let what = format!("settle a message of queue `{}`", self.queue);
        let verdict = match how {
            Settlement::Ack => Verdict::Ack,
            Settlement::Reject => Verdict::Reject,
            Settlement::Requeue => Verdict::Requeue,
            Settlement::Delay(_) => {
                return Err(Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
                    .detail("the embedded broker has no delayed messages")
                    .remedy("use a queue with a time to live and a dead-letter exchange, as on RabbitMQ"));
            }
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Settle { consumer: self.consumer, message: self.message, verdict, reply };
        self.commands.send(command).map_err(|_| closed(&what))?;
        answer.await.map_err(|_| closed(&what))?
    }
}

/// What is said where the writer is gone.
pub(super) fn closed(what: &str) -> Failure {
    Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what)
        .detail("the embedded broker was closed")
}

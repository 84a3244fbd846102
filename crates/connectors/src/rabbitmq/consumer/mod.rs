//! Takes messages from one queue, on a channel of its own, and settles each on that channel.

mod inbox;
pub(crate) mod ledger;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::delivery::{Delivery, Envelope, Job, Settle, Settlement};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers, Message};
use warren_engine::ports::Consumer;

use self::inbox::{Came, Inbox};
use self::ledger::{Ledger, Told};
use super::connection::Connection;
use super::connection::channel::{Content, OpenChannel, Reply};
use super::failures::{CallFault, Gone};
use super::topology::QueueKind;
use super::wire::method::{Answer, Call, ConsumeOptions, Method};

/// How long after it was told the last time the broker is told at once where nothing waits to be worked on. With a receiver that takes 10 ms and
/// 100 messages at once, a millisecond costs 5 % of the rate and leaving it to the outbox, whose timer ticks in those, 10 %; less than this gains
/// nothing. Where all is busy it costs nothing that could be measured.
const TOLD_AGAIN_AFTER: Duration = Duration::from_micros(250);
/// The most acknowledgements that wait for each other.
const EAGER_MAX: usize = 64;

pub(crate) struct RabbitConsumer {
    queue: String,
    tag: String,
    /// Moved here from the inbox, many at once.
    here: VecDeque<Content>,
    inbox: Arc<Inbox>,
    settling: Arc<Settling>,
    /// The tag of the last delivery that was yielded.
    last: u64,
    cancelled: bool,
}

/// What a consumer and its unsettled deliveries share.
struct Settling {
    ledger: Arc<Ledger>,
    channel: OpenChannel,
    /// Kept alive for as long as anything is unsettled.
    connection: Arc<Connection>,
    /// Acknowledgements are told at once when this many wait.
    eager: usize,
}

/// Starts to consume on a channel of the connection that is used for nothing else.
///
/// # Errors
/// The queue does not exist, may not be read, or the connection is lost.
pub(crate) async fn consume(
    connection: Arc<Connection>,
    channel: OpenChannel,
    queue: &str,
    prefetch: u16,
) -> Result<RabbitConsumer, Failure> {
    let failed = |fault: &CallFault| fault.failure(format!("consume from queue `{queue}`"));
    let inbox = Arc::new(Inbox::default());
    channel.listen(inbox.clone());
    // Zero would mean "without bound" to the broker.
    let prefetch = prefetch.max(1);
    channel.tell(Call::Qos { prefetch }).await.map_err(|fault| failed(&fault))?;
    let options = ConsumeOptions {
        no_local: false,  // RabbitMQ ignores it
        no_ack: false,    // we settle; true would lose what is in flight when we die
        exclusive: false, // several nodes share one queue
        nowait: false,    // we want to hear that the queue does not exist
    };
    // The default priority. A stream has no priorities and refuses the consumer; without the argument it would accept it, begin
    // at the stream's end and skip what is in it.
    let arguments: Headers = [("x-priority".to_owned(), HeaderValue::I64(0))].into_iter().collect();
    let consume = Call::Consume { queue, options, arguments: &arguments };
    let tag = match channel.ask(consume).await.map_err(|fault| refused(queue, &fault))? {
        Reply::Plain(Answer::ConsumeOk { consumer }) => consumer,
        Reply::Plain(_) | Reply::Content(_) | Reply::Closed => return Err(failed(&CallFault::Unexpected)),
    };
    let ledger = Arc::new(Ledger::new(channel.number));
    // Half: the broker goes on with the other while it hears of this one. A quarter costs twice the writes: at a prefetch of 10
    // 8 µs of processor time a message instead of 6; a difference in rate was not to be told from noise. Beyond the bound a
    // write is paid off.
    let eager = usize::from(prefetch / 2).clamp(1, EAGER_MAX);
    Ok(RabbitConsumer {
        queue: queue.to_owned(),
        tag,
        here: VecDeque::new(),
        inbox,
        settling: Arc::new(Settling { ledger, channel, connection, eager }),
        last: 0,
        cancelled: false,
    })
}

/// Why the broker does not let us consume.
fn refused(queue: &str, fault: &CallFault) -> Failure {
    let failure = fault.failure(format!("consume from queue `{queue}`"));
    let CallFault::Gone(gone) = fault else { return failure };
    match &**gone {
        Gone::Channel(close) if close.code == 406 && close.text.contains("'x-priority'") => {
            // A text of the broker is cut at 255 bytes, perhaps before the type.
            let kind = match QueueKind::of_refusal(&close.text) {
                QueueKind::Unknown => QueueKind::Stream,
                kind => kind,
            };
            kind.refusal(queue).unwrap_or(failure)
        }
        Gone::Channel(close) if close.code == 403 && close.text.contains("exclusive use") => {
            failure.remedy("Another consumer has the queue exclusively; end it, or use another queue.")
        }
        _ => failure,
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        loop {
            if let Some(there) = self.next_that_is_there() {
                return there;
            }
            // Nothing waits here to be worked on, so the broker is to hear soon what it may send more for. What is settled a moment later
            // travels with the next, or is told by the outbox when nothing else happens.
            if self.settling.ledger.is_to_be_told(self.last, TOLD_AGAIN_AFTER) {
                self.settling.tell_now();
            }
            self.inbox.came().await;
        }
    }

    fn next_that_is_there(&mut self) -> Option<Result<Option<Delivery>, Failure>> {
        if self.here.is_empty() {
            match self.inbox.take(&mut self.here) {
                Came::Some => {}
                Came::None => return None,
                Came::End(None) => return Some(Ok(None)),
                Came::End(Some(gone)) => return Some(Err(self.failure(&gone))),
            }
        }
        let content = self.here.pop_front()?;
        if let Some(gone) = self.settling.channel.gone() {
            return Some(Err(self.failure(&gone))); // the broker gives them out again
        }
        let delivery = self.delivery(content);
        self.last = delivery.job().envelope.delivery_tag;
        Some(Ok(Some(delivery)))
    }

    async fn cancel(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        // If the channel is gone, `next` says so.
        if self.settling.channel.ask(Call::Cancel { consumer: &self.tag }).await.is_ok() {
            self.inbox.end(None);
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.settling.tell_now();
        // Also if deliveries are still being worked on: they are handed back, and settling them says so.
        self.settling.channel.close();
    }
}

impl RabbitConsumer {
    fn delivery(&self, content: Content) -> Delivery {
        let Method::Deliver { tag, redelivered, exchange, routing_key } = content.method else {
            unreachable!("the inbox takes deliveries only")
        };
        let delivery_count = match content.properties.headers.get("x-delivery-count") {
            Some(HeaderValue::I64(count)) => u64::try_from(*count).ok(),
            Some(HeaderValue::I32(count)) => u64::try_from(*count).ok(),
            Some(HeaderValue::U32(count)) => Some((*count).into()),
            Some(HeaderValue::U8(count)) => Some((*count).into()),
            Some(HeaderValue::I8(count)) => u64::try_from(*count).ok(),
            Some(HeaderValue::I16(count)) => u64::try_from(*count).ok(),
            Some(HeaderValue::U16(count)) => Some((*count).into()),
            _ => None,
        };
        let envelope = Envelope {
            queue: self.queue.clone(),
            exchange,
            routing_key,
            redelivered,
            delivery_count,
            delivery_tag: tag,
            consumer_tag: self.tag.clone(),
            ..Envelope::default()
        };
        let message = Message { body: content.body, properties: content.properties };
        let settle = Unsettled { tag, settling: self.settling.clone() };
        Delivery::new(Job { message, envelope }, Box::new(settle))
    }

    fn failure(&self, gone: &Gone) -> Failure {
        gone.failure(format!("consume from queue `{}`", self.queue))
    }
}

impl Settling {
    fn tell_now(&self) {
        // If the connection is gone the broker gives the messages out again, and nobody can be told otherwise.
        self.connection.shared.outbox.collect_now(&self.ledger).ok();
    }
}

struct Unsettled {
    tag: u64,
    settling: Arc<Settling>,
}

#[async_trait]
impl Settle for Unsettled {
    fn alive(&self) -> bool {
        self.settling.channel.gone().is_none()
    }

    /// Returns once the acknowledgement is with the connection, which writes it at once when it is not waiting for more, and
    /// after a millisecond at the latest. AMQP has no answer to it: written or not, a message whose acknowledgement is lost
    /// with the connection comes again.
    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure> {
        let told = match how {
            Settlement::Ack => Told::Ack,
            Settlement::Reject => Told::Reject { requeue: false },
            Settlement::Requeue => Told::Reject { requeue: true },
            Settlement::Delay(_) => {
                return Err(Failure::new(FailureKind::Internal, codes::INTERNAL, "delay a message")
                    .detail("RabbitMQ cannot deliver an unsettled message again after a time"));
            }
        };
        let settling = &self.settling;
        if let Some(gone) = settling.channel.gone() {
            let failure = gone.failure(format!("settle delivery {}", self.tag));
            return Err(Failure { kind: FailureKind::Disconnected, code: codes::CONNECTION_LOST, ..failure });
        }
        let waiting = settling.ledger.settle(self.tag, told);
        let outbox = &settling.connection.shared.outbox;
        if waiting >= settling.eager {
            outbox.collect_now(&settling.ledger).map_err(|_| {
                Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "settle a delivery")
            })?;
        } else if waiting == 1 {
            outbox.collect_soon(&settling.ledger);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rabbitmq::wire::method::Close;

    #[test]
    fn a_queue_in_exclusive_use_is_no_matter_of_permissions() {
        let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use".to_owned();
        let close = Close { code: 403, text, class: 60, method: 20 };
        let failure = refused("q", &CallFault::Gone(Arc::new(Gone::Channel(close))));
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.remedy.unwrap().contains("exclusively"));
    }
}

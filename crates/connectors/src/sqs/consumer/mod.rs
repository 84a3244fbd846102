//! Takes messages from one queue by long polling, keeps them hidden while they are worked on, and settles them.
//!
//! One task asks for messages while there is room for them, one extends those that are worked on, one tells SQS what became of them.
//! All end when the consumer is dropped, after what was not settled was handed back; the broker waits for them when it is closed.

mod delivery;
mod held;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message as Received, MessageSystemAttributeName};
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warren_engine::codes;
use warren_engine::delivery::Delivery;
use warren_engine::failure::{Failure, Remedy};
use warren_engine::ports::Consumer;

use self::held::{Came, Held};
use self::settle::{Unsettled, delete, extend, hand_back, tell_all};
use super::connection::Link;
use super::failures::fault;
use super::queues::{Queue, Queues};

/// The most messages of one answer.
const RECEIVE_MAX: usize = 10;
/// What an answer may take beyond the time SQS waits for a message.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Deliveries of one queue.
pub(crate) struct SqsConsumer {
    queue: Arc<Queue>,
    client: Client,
    held: Arc<Held>,
    arrived: mpsc::Receiver<Result<Arrived, Failure>>,
    tell: mpsc::Sender<settle::Tell>,
    /// Ends the asking.
    enough: CancellationToken,
    /// Ends the telling.
    gone: CancellationToken,
    tasks: TaskTracker,
}

/// A message that is here.
struct Arrived {
    received: Received,
    tag: u64,
}

/// Starts to consume.
///
/// # Errors
/// The queue does not exist, or SQS cannot be reached.
pub(crate) async fn consume(
    link: &Link,
    queues: &Queues,
    name: &str,
    prefetch: u16,
    tasks: &TaskTracker,
) -> Result<SqsConsumer, Failure> {
    let queue = queues.get(link, name).await?;
    let client = link.get().await?.client.clone();
    let held = Arc::new(Held::default());
    let enough = CancellationToken::new();
    // Each holds a place of the prefetch, so there are never more; and room for what ends it.
    let (here, arrived) = mpsc::channel(usize::from(prefetch).max(1) + 2);
    let (tell, tells) = mpsc::channel(64);
    let hidden = link.target.visibility_timeout;
    let tell_gone = here.downgrade();
    let poller = Poller {
        client: client.clone(),
        queue: queue.clone(),
        held: held.clone(),
        room: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
        here,
        enough: enough.clone(),
        hidden,
        wait: link.target.wait_time,
    };
    tasks.spawn(poller.ask_on());
    let gone = CancellationToken::new();
    tasks.spawn(tell_all(client.clone(), queue.clone(), held.clone(), tells, gone.clone()));
    let (keeping, extending, of) = (held.clone(), client.clone(), queue.clone());
    tasks.spawn(async move {
        while let Some(due) = keeping.due(hidden).await {
            if let Some(failure) = extend(&extending, &of, &keeping, &due, hidden).await {
                // Nobody may be asking for messages now, when there is room for no more. If nobody listens, nobody needs to know.
                if let Some(gone) = tell_gone.upgrade() {
                    gone.send(Err(failure)).await.ok();
                }
                return;
            }
        }
    });
    Ok(SqsConsumer { queue, client, held, arrived, tell, enough, gone, tasks: tasks.clone() })
}

#[async_trait]
impl Consumer for SqsConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        match self.arrived.recv().await {
            None => Ok(None),
            Some(Err(failure)) => Err(failure),
            Some(Ok(Arrived { received, tag })) => {
                let job = delivery::job(&self.queue.name, &received, tag);
                let settle = Unsettled {
                    tag,
                    queue: self.queue.clone(),
                    held: self.held.clone(),
                    tell: self.tell.clone(),
                };
                Ok(Some(Delivery::new(job, Box::new(settle))))
            }
        }
    }

    /// What SQS has been asked for may still come; the asking lasts as long as `wait_time`.
    async fn cancel(&mut self) {
        self.enough.cancel();
    }
}

impl Drop for SqsConsumer {
    fn drop(&mut self) {
        self.enough.cancel();
        let handles = self.held.close();
        self.gone.cancel();
        if !handles.is_empty() {
            let (client, queue) = (self.client.clone(), self.queue.clone());
            self.tasks.spawn(async move { hand_back(&client, &queue, handles).await });
        }
    }
}

/// Asks for messages.
struct Poller {
    client: Client,
    queue: Arc<Queue>,
    held: Arc<Held>,
    room: Arc<Semaphore>,
    here: mpsc::Sender<Result<Arrived, Failure>>,
    enough: CancellationToken,
    hidden: Duration,
    wait: Duration,
}

impl Poller {
    /// Until it is enough, the consumer is gone, or SQS refuses.
    async fn ask_on(self) {
        let mut tag = 0;
        loop {
            // Waiting for room takes nothing.
            let first = tokio::select! {
                biased;
                () = self.enough.cancelled() => return,
                () = self.here.closed() => return,
                first = self.room.clone().acquire_owned() => first,
            };
            let Ok(first) = first else { return };
            let mut places = vec![first];
            while places.len() < RECEIVE_MAX
                && let Ok(place) = self.room.clone().try_acquire_owned()
            {
                places.push(place);
            }
            self.held.asks();
            match self.ask(places.len()).await {
                Ok(messages) => {
                    self.yield_all(messages, places, &mut tag).await;
                    self.held.asked();
                }
                Err(failure) => {
                    // The consumer may be gone.
                    self.here.send(Err(failure)).await.ok();
                    return;
                }
            }
        }
    }

    async fn yield_all(&self, messages: Vec<Received>, places: Vec<OwnedSemaphorePermit>, tag: &mut u64) {
        let mut places = places.into_iter();
        let (mut late, mut done) = (Vec::new(), Vec::new());
        for received in messages {
            let (Some(handle), Some(place)) = (received.receipt_handle().map(str::to_owned), places.next())
            else {
                continue; // without a handle nothing can be told of it, and it comes again
            };
            *tag += 1;
            match self.held.keep(*tag, received.message_id(), &handle, self.hidden, place) {
                // If the consumer goes now, it hands back all that is kept.
                Came::New => {
                    self.here.send(Ok(Arrived { received, tag: *tag })).await.ok();
                }
                Came::Again => {}
                Came::Done => done.push(handle),
                Came::Late => late.push(handle),
            }
        }
        delete(&self.client, &self.queue, done).await;
        hand_back(&self.client, &self.queue, late).await;
    }

    /// Asks once, and again while SQS throttles.
    async fn ask(&self, count: usize) -> Result<Vec<Received>, Failure> {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(self.wait + ANSWER_WITHIN).build();
        let request = self
            .client
            .receive_message()
            .queue_url(&self.queue.url)
            .max_number_of_messages(count as i32)
            .wait_time_seconds(self.wait.as_secs() as i32)
            .visibility_timeout(self.hidden.as_secs() as i32)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        let answered = request
            .customize()
            .config_override(aws_sdk_sqs::Config::builder().timeout_config(timeouts))
            .send()
            .await;
        match answered {
            Ok(output) => Ok(output.messages.unwrap_or_default()),
            Err(error) => {
                let failure = fault(format!("consume from queue `{}`", self.queue.name), &error).failure;
                if failure.code == codes::BROKER_THROTTLED {
                    // Waiting is all there is to do about it. It ends early when nobody wants more.
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        () = self.enough.cancelled() => {}
                    }
                    return Ok(Vec::new());
                }
                let lost =
                    failure.kind.for_message() == Remedy::Retry && failure.code == codes::PUBLISH_TIMEOUT;
                Err(if lost {
                    Failure { code: codes::CONNECTION_LOST, remedy: None, ..failure }
                } else {
                    failure
                })
            }
        }
    }
}

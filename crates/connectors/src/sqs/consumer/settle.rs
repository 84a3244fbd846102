//! What became of messages, told to SQS up to ten at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::delivery::{Settle, Settlement};
use warren_engine::failure::{Failure, FailureKind, Remedy};

use super::held::{HIDDEN_MAX, Held};
use crate::sqs::failures::{fault, meaning, short_name};
use crate::sqs::queues::Queue;

/// How often what can be said again without harm is said. A message that is deleted twice is deleted.
const TRIES_MAX: u32 = 4;
/// The first pause between tries; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be told of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is done with.
    Delete,
    /// It is hidden for so many seconds more.
    Hide(i32),
}

/// One message to tell of, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Tell {
    pub(super) handle: String,
    pub(super) told: Told,
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
}

/// The half of a delivery that tells SQS.
pub(super) struct Unsettled {
    pub(super) tag: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) held: Arc<Held>,
    pub(super) tell: mpsc::Sender<Tell>,
    pub(super) received: Instant,
}

#[async_trait]
impl Settle for Unsettled {
    /// Up to twelve hours after the message was received.
    fn can_delay(&self, by: Duration) -> bool {
        self.received.elapsed() + by < HIDDEN_MAX
    }

    /// Returns once SQS has answered. `Reject` leaves the message to the queue's redrive policy: it can be received again at once, until that
    /// moves it. Where there is none, it is deleted.
    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure> {
        let told = match how {
            Settlement::Ack => Told::Delete,
            Settlement::Reject if self.queue.redrives == Some(false) => Told::Delete,
            Settlement::Reject | Settlement::Requeue => Told::Hide(0),
            Settlement::Delay(by) => {
                // Not a moment earlier than asked for, and not past what SQS takes.
                let most = HIDDEN_MAX.saturating_sub(self.received.elapsed() + Duration::from_secs(1));
                Told::Hide(by.as_millis().div_ceil(1000).min(most.as_secs().into()) as i32)
            }
        };
        let Some(handle) = self.held.take(self.tag) else { return Err(self.gone("the consumer was closed")) };
        let (answer, answered) = oneshot::channel();
        let tell = Tell { handle, told, answer };
        if self.tell.send(tell).await.is_err() {
            return Err(self.gone("the consumer was closed"));
        }
        answered.await.unwrap_or_else(|_| Err(self.gone("the consumer was closed")))
    }
}

impl Unsettled {
    fn gone(&self, why: &str) -> Failure {
        let what = format!("settle delivery {} of queue `{}`", self.tag, self.queue.name);
        Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what).detail(why)
    }
}

/// Tells SQS of messages until nobody is left who could settle one.
pub(super) async fn tell_all(client: Client, queue: Arc<Queue>, mut tells: mpsc::Receiver<Tell>) {
    let mut some = Vec::with_capacity(10);
    while tells.recv_many(&mut some, 10).await > 0 {
        let (deletes, hides): (Vec<Tell>, Vec<Tell>) =
            some.drain(..).partition(|tell| tell.told == Told::Delete);
        tokio::join!(tell(&client, &queue, deletes), tell(&client, &queue, hides));
    }
}

/// Hands messages back, so that they can be received again at once. What cannot be told is received again when its time is up.
pub(super) async fn hand_back(client: &Client, queue: &Queue, handles: Vec<String>) {
    for some in handles.chunks(10) {
        let handles = some.iter().map(|handle| (handle.as_str(), Told::Hide(0))).collect::<Vec<_>>();
        said(client, queue, &handles).await;
    }
}

/// Hides messages for longer; those that SQS no longer lets us hide will be delivered again. Returns why no message of the queue can be
/// hidden any more, if that is so: the queue is gone, or the right to it.
pub(super) async fn hide(
    client: &Client,
    queue: &Queue,
    handles: &[(u64, String)],
    seconds: i32,
) -> Option<Failure> {
    let handles: Vec<_> = handles.iter().map(|(_, handle)| (handle.as_str(), Told::Hide(seconds))).collect();
    let answers = said(client, queue, &handles).await;
    let gone = |failure: &Failure| matches!(failure.kind, FailureKind::NotFound | FailureKind::Refused);
    answers.into_iter().filter_map(Result::err).find(gone)
}

/// All of them are to be deleted, or all hidden.
async fn tell(client: &Client, queue: &Queue, tells: Vec<Tell>) {
    if tells.is_empty() {
        return;
    }
    let handles: Vec<_> = tells.iter().map(|tell| (tell.handle.as_str(), tell.told)).collect();
    let answers = said(client, queue, &handles).await;
    for (tell, answer) in tells.into_iter().zip(answers) {
        // Whatever it is, the message comes again.
        let answer = answer.map_err(|failure| Failure { kind: FailureKind::Disconnected, ..failure });
        // Who does not wait any more does not want to know.
        tell.answer.send(answer).ok();
    }
}

/// Says it, up to a few times, and returns what came of each.
async fn said(client: &Client, queue: &Queue, handles: &[(&str, Told)]) -> Vec<Result<(), Failure>> {
    let mut answers: Vec<Result<(), Failure>> = handles.iter().map(|_| Ok(())).collect();
    let mut open: Vec<usize> = (0..handles.len()).collect();
    let mut pause = PAUSE;
    for tried in 1..=TRIES_MAX {
        let failed = once(client, queue, handles, &open).await;
        open.clear();
        for (at, failure) in failed {
            if failure.kind.for_message() == Remedy::Retry && tried < TRIES_MAX {
                open.push(at);
            }
            answers[at] = Err(failure);
        }
        if open.is_empty() {
            break;
        }
        for at in &open {
            answers[*at] = Ok(());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    answers
}

/// Says it once; returns what failed.
async fn once(
    client: &Client,
    queue: &Queue,
    handles: &[(&str, Told)],
    open: &[usize],
) -> Vec<(usize, Failure)> {
    let what = format!("settle a delivery of queue `{}`", queue.name);
    let is_delete = open.iter().any(|at| handles[*at].1 == Told::Delete);
    let failed: Result<Vec<BatchResultErrorEntry>, Failure> = if is_delete {
        let entries = open.iter().map(|at| {
            let entry =
                DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(handles[*at].0);
            entry.build().expect("id and handle are set")
        });
        let request =
            client.delete_message_batch().queue_url(&queue.url).set_entries(Some(entries.collect()));
        let answered = request.send().await;
        answered.map(|output| output.failed).map_err(|error| fault(what.clone(), &error).failure)
    } else {
        let entries = open.iter().map(|at| {
            let seconds = match handles[*at].1 {
                Told::Hide(seconds) => seconds,
                Told::Delete => 0,
            };
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(at.to_string());
            let entry = entry.receipt_handle(handles[*at].0).visibility_timeout(seconds);
            entry.build().expect("id and handle are set")
        });
        let request = client
            .change_message_visibility_batch()
            .queue_url(&queue.url)
            .set_entries(Some(entries.collect()));
        let answered = request.send().await;
        answered.map(|output| output.failed).map_err(|error| fault(what.clone(), &error).failure)
    };
    match failed {
        Err(failure) => open.iter().map(|at| (*at, failure.clone())).collect(),
        Ok(failed) => {
            let by_id: HashMap<usize, &BatchResultErrorEntry> =
                failed.iter().filter_map(|entry| Some((entry.id().parse().ok()?, entry))).collect();
            let failure = |entry: &BatchResultErrorEntry| {
                let (kind, code) = meaning(entry.code(), if entry.sender_fault() { 400 } else { 500 });
                let said = entry.message().unwrap_or_default();
                Failure::new(kind, code, what.clone()).detail(format!("{}: {said}", short_name(entry.code())))
            };
            by_id.into_iter().map(|(at, entry)| (at, failure(entry))).collect()
        }
    }
}

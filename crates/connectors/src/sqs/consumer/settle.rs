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
use tokio_util::sync::CancellationToken;
use warren_engine::codes;
use warren_engine::delivery::{Settle, Settlement};
use warren_engine::failure::{Failure, FailureKind, Remedy};

use super::held::{HIDDEN_MAX, Held, Taken};
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
    pub(super) taken: Taken,
    pub(super) told: Told,
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
}

/// The half of a delivery that tells SQS.
pub(super) struct Unsettled {
    pub(super) tag: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) held: Arc<Held>,
    pub(super) tell: mpsc::Sender<Tell>,
}

#[async_trait]
impl Settle for Unsettled {
    /// Up to twelve hours after the message was received.
    fn can_delay(&self, by: Duration) -> bool {
        self.held.received(self.tag).is_some_and(|received| received.elapsed() + by < HIDDEN_MAX)
    }

    fn alive(&self) -> bool {
        self.held.received(self.tag).is_some()
    }

    /// Returns once SQS has answered. `Reject` leaves the message to the queue's redrive policy: it can be received again at once, until that
    /// moves it. Where there is none, it is deleted.
    async fn settle(self: Box<Self>, how: Settlement) -> Result<(), Failure> {
        let Some(received) = self.held.received(self.tag) else { return Err(self.gone()) };
        let told = match how {
            Settlement::Ack => Told::Delete,
            Settlement::Reject if self.queue.redrives == Some(false) => Told::Delete,
            Settlement::Reject | Settlement::Requeue => Told::Hide(0),
            Settlement::Delay(by) => {
                // Not a moment earlier than asked for, and not past what SQS takes.
                let most = HIDDEN_MAX.saturating_sub(received.elapsed() + Duration::from_secs(1));
                Told::Hide(by.as_millis().div_ceil(1000).min(most.as_secs().into()) as i32)
            }
        };
        let Ok(place) = self.tell.reserve().await else { return Err(self.gone()) };
        // From here on it is told whoever waits for it.
        let Some(taken) = self.held.take(self.tag, told) else { return Err(self.gone()) };
        let (answer, answered) = oneshot::channel();
        place.send(Tell { taken, told, answer });
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }
}

impl Unsettled {
    fn gone(&self) -> Failure {
        let what = format!("settle delivery {} of queue `{}`", self.tag, self.queue.name);
        Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what)
            .detail("the consumer was closed")
    }
}

/// Tells SQS of messages, until the consumer is gone and what was to be told by then is told.
pub(super) async fn tell_all(
    client: Client,
    queue: Arc<Queue>,
    held: Arc<Held>,
    mut tells: mpsc::Receiver<Tell>,
    gone: CancellationToken,
) {
    let mut some = Vec::with_capacity(10);
    loop {
        // What was received stays in the channel when the other branch ends.
        let count = tokio::select! {
            biased;
            count = tells.recv_many(&mut some, 10) => count,
            () = gone.cancelled(), if !tells.is_closed() => {
                tells.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let (deletes, hides): (Vec<Tell>, Vec<Tell>) =
            some.drain(..).partition(|tell| tell.told == Told::Delete);
        tokio::join!(tell(&client, &queue, &held, deletes), tell(&client, &queue, &held, hides));
    }
}

/// Hands messages back, so that they can be received again at once. What cannot be told is received again when its time is up.
pub(super) async fn hand_back(client: &Client, queue: &Queue, handles: Vec<String>) {
    for some in handles.chunks(10) {
        let handles = some.iter().map(|handle| (handle.as_str(), Told::Hide(0))).collect::<Vec<_>>();
        said(client, queue, &handles).await;
    }
}

/// Deletes messages that are done with and came once more. What cannot be told is received again, and done again.
pub(super) async fn delete(client: &Client, queue: &Queue, handles: Vec<String>) {
    for some in handles.chunks(10) {
        let handles = some.iter().map(|handle| (handle.as_str(), Told::Delete)).collect::<Vec<_>>();
        said(client, queue, &handles).await;
    }
}

/// Hides messages for longer; those that SQS no longer lets us hide will be received again. Returns why no message of the queue can be
/// hidden any more, if that is so: the queue is gone, or the right to it.
pub(super) async fn extend(
    client: &Client,
    queue: &Queue,
    held: &Held,
    due: &[(u64, String)],
    hidden: Duration,
) -> Option<Failure> {
    let seconds = hidden.as_secs() as i32;
    let handles: Vec<_> = due.iter().map(|(_, handle)| (handle.as_str(), Told::Hide(seconds))).collect();
    let answers = said(client, queue, &handles).await;
    let mut gone = None;
    for ((tag, _), answer) in due.iter().zip(answers) {
        let Err(failure) = answer else { continue };
        if failure.kind.for_message() == Remedy::Retry {
            held.extend_again(*tag, hidden);
        }
        if matches!(failure.kind, FailureKind::NotFound | FailureKind::Refused) {
            gone.get_or_insert(failure);
        }
    }
    gone
}

/// All of them are to be deleted, or all hidden.
async fn tell(client: &Client, queue: &Queue, held: &Held, tells: Vec<Tell>) {
    let mut open = tells;
    while !open.is_empty() {
        let handles: Vec<_> = open.iter().map(|tell| (tell.taken.handle.as_str(), tell.told)).collect();
        let answers = said(client, queue, &handles).await;
        let mut again = Vec::new();
        for (tell, answer) in open.into_iter().zip(answers) {
            let id = tell.taken.id.as_deref().filter(|_| tell.told == Told::Delete);
            if let Some(newer) = id.and_then(|id| held.deleted(id, answer.is_ok())) {
                again.push(Tell { taken: Taken { handle: newer, ..tell.taken }, ..tell });
                continue;
            }
            // Whatever it is, the message comes again.
            let answer = answer.map_err(|failure| Failure { kind: FailureKind::Disconnected, ..failure });
            // Who does not wait any more does not want to know.
            tell.answer.send(answer).ok();
        }
        open = again;
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

//! Decision to copy, confirm, ack. The only place that settles.
//!
//! What cannot be confirmed, recorded or parked is tried again with back-off, and the message stays unsettled meanwhile: its
//! place among the messages worked on is taken, which is the back-pressure. It ends early only where the channel that
//! delivered it is gone (then the broker gives it out again, and a copy would be one too many), or where the process stops
//! and will wait no longer.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::codes;
use crate::delivery::{Settlement, Unsettled};
use crate::failure::{Failure, FailureKind};
use crate::message::{Outbound, Receipt, Route};
use crate::ports::{NewParked, ParkedId};

use super::copies::{self, Received};
use super::lanes::Lane;
use super::plan::{DeadLetter, Ordering, RetryMode};
use super::policy::{DeadLettered, Decision, Reason};
use super::retry::{Mechanism, delay_queue};
use super::work::{Item, Shared};

/// The first pause after something failed that must not.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// The longest.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// How long a parked message waits that no queue takes; only another limit of the broker changes that.
const UNCOPYABLE_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// The times in a row that a delay queue may leave a copy without an answer; then messages wait here instead.
const SILENCES_MAX: u32 = 2;

/// How settling ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settled {
    /// As decided; nothing of it is left here.
    Done,
    /// It is in the parking lot.
    Parked,
    /// It is a dead letter that no broker takes: it is in the parking lot, and nothing waits for it.
    Kept,
    /// The channel that delivered it is gone.
    Late,
    /// It went back to the queue, because the process stops.
    HandedBack,
}

/// Why something that is tried again and again ended without success.
enum Cut {
    Late,
    Stopping,
}

/// Does what was decided.
pub(super) async fn settle(shared: &Shared, item: &mut Item, decision: &Decision) -> Settled {
    if shared.plan.auto_ack && item.parked.is_none() {
        return Settled::Done; // it was acknowledged on receipt
    }
    let done = match decision {
        Decision::HandBack => {
            hand_back(shared, item).await;
            return Settled::HandedBack;
        }
        Decision::Ack | Decision::Drop => Ok(Told::Ack),
        // Boxed, since they are large and mostly not needed.
        Decision::DeadLetter(reason) => Box::pin(dead_letter(shared, item, reason)).await,
        Decision::Retry { after, .. } => Box::pin(retry(shared, item, *after)).await,
    };
    finish(shared, item, done).await
}

/// Has a message tried again later whose attempt does not count. It is on record.
pub(super) async fn defer(shared: &Shared, item: &mut Item, after: Duration) -> Settled {
    let done = Box::pin(retry(shared, item, after)).await;
    if let Ok(Told::Broker(_)) = &done {
        shared.uncounted(item);
    }
    finish(shared, item, done).await
}

/// What is to be told of the original.
enum Told {
    /// That it is done with.
    Ack,
    /// That it is done with; it is in the parking lot.
    Parked,
    /// That it is done with; it is in the parking lot as a dead letter of this number.
    Kept(ParkedId),
    /// Something else.
    Broker(Settlement),
    /// It has none: it stays in the parking lot.
    Nothing,
}

/// Settles the original once its copy, if it became one, is safe.
async fn finish(shared: &Shared, item: &mut Item, done: Result<Told, Cut>) -> Settled {
    match done {
        Ok(Told::Nothing) => Settled::Parked,
        Ok(Told::Parked) => match tell(item.unsettled.take(), Settlement::Ack).await {
            Ok(()) => Settled::Parked,
            Err(_) => Settled::Late,
        },
        Ok(Told::Kept(id)) => {
            shared.is_settled(item);
            match end(shared, item, Settlement::Ack).await {
                Settled::Done => Settled::Kept,
                other => {
                    // The original comes again, so this copy is one too many. If the process stops before it is removed, the message is
                    // dead-lettered twice, and never lost.
                    again(shared, None, || async { shared.ports.parking.remove(id).await }).await.ok();
                    other
                }
            }
        }
        Ok(Told::Ack) => {
            shared.is_settled(item);
            end(shared, item, Settlement::Ack).await
        }
        Ok(Told::Broker(how)) => end(shared, item, how).await,
        Err(Cut::Late) => Settled::Late,
        Err(Cut::Stopping) => {
            // One that is parked stays where it is.
            hand_back(shared, item).await;
            Settled::HandedBack
        }
    }
}

/// Tells whoever has the message that this is over.
async fn end(shared: &Shared, item: &mut Item, how: Settlement) -> Settled {
    let Some(id) = item.parked else {
        return match tell(item.unsettled.take(), how).await {
            Ok(()) => Settled::Done,
            Err(_) => Settled::Late,
        };
    };
    let removed = again(shared, None, || async { shared.ports.parking.remove(id).await }).await;
    match removed {
        Ok(()) => Settled::Done,
        Err(Cut::Late | Cut::Stopping) => Settled::HandedBack,
    }
}

async fn tell(unsettled: Option<Unsettled>, how: Settlement) -> Result<(), Failure> {
    match unsettled {
        Some(unsettled) => unsettled.settle(how).await,
        None => Ok(()), // acknowledged on receipt
    }
}

async fn dead_letter(shared: &Shared, item: &Item, reason: &Reason) -> Result<Told, Cut> {
    let received = &item.received;
    let attempts = item.attempts();
    match &shared.plan.dead_letter {
        DeadLetter::Drop => Ok(Told::Ack),
        DeadLetter::Broker if item.parked.is_none() => Ok(Told::Broker(Settlement::Reject)),
        DeadLetter::Broker => {
            let copy = copies::given_up_copy(received, attempts, reason);
            let copies = [copy.clone(), copies::bare_retry_copy(copy)];
            match confirmed(shared, item, || async { Ok(()) }, copies, |_| false).await? {
                Ok(()) => Ok(Told::Ack),
                Err(failure) => cannot_be_copied(shared, item, reason, &failure).await,
            }
        }
        DeadLetter::Queue(queue) => {
            let now = shared.ports.clock.now_ms();
            let message = copies::dead_letter_copy(received, reason, attempts, now);
            let message = copies::within(message, shared.ports.broker.headers_max());
            let copies = [message, copies::bare_dead_letter_copy(received)]
                .map(|message| Outbound { route: Route::Queue(queue.clone()), message });
            let ensure = || async { shared.ports.broker.ensure_queue(queue).await };
            match confirmed(shared, item, ensure, copies, |_| false).await? {
                Ok(()) => Ok(Told::Ack),
                Err(failure) => cannot_be_copied(shared, item, reason, &failure).await,
            }
        }
    }
}

/// A dead letter that the broker refuses as a copy, and would refuse each time. Rejecting the original would lose it where its queue has no
/// dead-letter exchange, so it is parked. It leaves its lane, since it never runs again.
async fn cannot_be_copied(
    shared: &Shared,
    item: &Item,
    reason: &Reason,
    failure: &Failure,
) -> Result<Told, Cut> {
    tracing::error!(
        consumer = &*shared.plan.name,
        failure = failure.line(),
        "the broker refuses the copy of a message for the dead-letter queue; the message is parked"
    );
    if let (Some(id), Some(_)) = (item.parked, &item.dead_lettered) {
        delay_parked(shared, id, item.attempts(), UNCOPYABLE_PAUSE).await?;
        return Ok(Told::Nothing);
    }
    let dead_lettered = DeadLettered { class: reason.class, text: reason.text.clone() };
    let id = park_as(shared, item, UNCOPYABLE_PAUSE, None, Some(dead_lettered)).await?;
    Ok(Told::Kept(id))
}

async fn retry(shared: &Shared, item: &Item, after: Duration) -> Result<Told, Cut> {
    let plan = &shared.plan;
    if let Some(id) = item.parked {
        delay_parked(shared, id, item.attempts(), after).await?;
        return Ok(Told::Nothing);
    }
    let can_delay = item.unsettled.as_ref().is_some_and(|unsettled| unsettled.can_delay(after));
    let ordered = !matches!(plan.ordering, Ordering::None);
    match plan.retry.mode {
        RetryMode::Requeue => {
            shared.status.retries_by(Mechanism::Requeue);
            return Ok(Told::Broker(Settlement::Requeue));
        }
        // A delay of the broker's frees the lane, so what came behind would overtake it; so would another queue.
        RetryMode::Auto | RetryMode::Visibility if can_delay && !ordered => {
            shared.status.retries_by(Mechanism::Visibility);
            return Ok(Told::Broker(Settlement::Delay(after)));
        }
        RetryMode::Auto | RetryMode::DelayQueues if !ordered => {
            if by_delay_queue(shared, item, after).await? {
                return Ok(Told::Ack);
            }
        }
        RetryMode::Auto | RetryMode::DelayQueues | RetryMode::Visibility | RetryMode::Parking => {
            if shared.status.mechanism().is_none() {
                shared.status.retries_by(Mechanism::Parking { instead: None });
            }
        }
    }
    park(shared, item, after).await?;
    Ok(Told::Parked)
}

/// Publishes the copy to the queue that leads back. `false`: the broker will have no such queue.
async fn by_delay_queue(shared: &Shared, item: &Item, after: Duration) -> Result<bool, Cut> {
    if let Some(Mechanism::Parking { instead: Some(_) }) = shared.status.mechanism() {
        return Ok(false);
    }
    let plan = &shared.plan;
    let queue = delay_queue(&plan.queue, &plan.retry.delays, after);
    let explicit = plan.retry.mode == RetryMode::DelayQueues;
    let mut refused = None;
    let is_there = |name| shared.declared.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
    let declared = again(shared, item.unsettled.as_ref(), || async {
        if is_there(&queue.name) {
            return Ok(Ok(()));
        }
        match shared.ports.broker.declare_delay_queue(&queue).await {
            Err(failure)
                if !explicit && matches!(failure.kind, FailureKind::Refused | FailureKind::Invalid) =>
            {
                Ok(Err(failure))
            }
            other => other.map(Ok),
        }
    });
    match declared.await? {
        Ok(()) => {
            shared.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.name.clone());
            shared.status.retries_by(Mechanism::DelayQueues);
        }
        Err(failure) => refused = Some(failure),
    }
    if refused.is_some() {
        shared.status.retries_by(Mechanism::Parking { instead: refused });
        return Ok(false);
    }
    let mut copy = copies::retry_copy(&item.received, item.attempts(), Route::Queue(queue.name.clone()));
    copy.message.properties.expiration = Some(after.as_millis().to_string());
    let declare = || async { shared.ports.broker.declare_delay_queue(&queue).await };
    // A quorum queue that was made just before its broker died may be there and never confirm again. What waits for it would
    // keep its place for ever, so it is parked; the copy may be there as well.
    let silences = AtomicU32::new(0);
    let gives_up = |failure: &Failure| {
        let silent = failure.code == codes::PUBLISH_TIMEOUT;
        let known = matches!(shared.status.mechanism(), Some(Mechanism::Parking { instead: Some(_) }));
        !explicit && silent && (known || silences.fetch_add(1, Relaxed) + 1 >= SILENCES_MAX)
    };
    let copies = [copy.clone(), copies::bare_retry_copy(copy)];
    match confirmed(shared, item, declare, copies, gives_up).await? {
        Ok(()) => Ok(true),
        // No queue takes this one; the next message is another.
        Err(failure) if failure.kind == FailureKind::Invalid => Ok(false),
        Err(silent) => {
            shared.status.retries_by(Mechanism::Parking { instead: Some(silent) });
            Ok(false)
        }
    }
}

async fn park(shared: &Shared, item: &Item, after: Duration) -> Result<ParkedId, Cut> {
    park_as(shared, item, after, item.lane.clone(), None).await
}

async fn park_as(
    shared: &Shared,
    item: &Item,
    after: Duration,
    lane: Lane,
    dead_lettered: Option<DeadLettered>,
) -> Result<ParkedId, Cut> {
    let parked = NewParked {
        job: item.received.job.clone(),
        spent: item.attempts(),
        first_at_ms: item.received.first_at_ms,
        due_ms: due_ms(shared, after),
        lane,
        dead_lettered,
    };
    let park = || async { shared.ports.parking.park(&shared.plan.name, &parked).await };
    let id = again(shared, item.unsettled.as_ref(), park).await?;
    // Between parking and acking the channel may have gone: then the broker gives it out again, and this one is too many.
    if item.unsettled.as_ref().is_some_and(|unsettled| !unsettled.alive()) {
        again(shared, None, || async { shared.ports.parking.remove(id).await }).await?;
        return Err(Cut::Late);
    }
    Ok(id)
}

async fn delay_parked(shared: &Shared, id: ParkedId, spent: u32, after: Duration) -> Result<(), Cut> {
    let due = due_ms(shared, after);
    again(shared, None, || async { shared.ports.parking.delay(id, spent, due).await }).await
}

fn due_ms(shared: &Shared, after: Duration) -> i64 {
    let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
    shared.ports.clock.now_ms().saturating_add(after)
}

/// Gives a message back to its queue. One that is parked stays parked.
pub(super) async fn hand_back(shared: &Shared, item: &mut Item) {
    if item.unsettled.is_some() {
        shared.uncounted(item);
    }
    give_back(item.unsettled.take()).await;
}

/// Gives a message back to its queue.
pub(super) async fn give_back(unsettled: Option<Unsettled>) {
    tell(unsettled, Settlement::Requeue).await.ok(); // if the channel is gone the broker has it back already
}

/// Acknowledges a message of which nothing is left to be done with the broker: on receipt, or because it is parked.
///
/// # Errors
/// The channel is gone: the broker gives it out again.
pub(super) async fn acknowledge(unsettled: Option<Unsettled>) -> Result<(), Failure> {
    tell(unsettled, Settlement::Ack).await
}

/// Publishes the first of these copies that the broker does not refuse as invalid, until it is confirmed. `prepare` makes its queue where
/// that is missing. `Err`: none of them can be published, however often it is tried, or a failure is one to give up at.
async fn confirmed<P, F>(
    shared: &Shared,
    item: &Item,
    prepare: P,
    copies: [Outbound; 2],
    gives_up: impl Fn(&Failure) -> bool,
) -> Result<Result<(), Failure>, Cut>
where
    P: Fn() -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let [whole, bare] = copies;
    match confirmed_as(shared, item, &prepare, whole, &gives_up).await? {
        Err(failure) if failure.kind == FailureKind::Invalid => {
            confirmed_as(shared, item, &prepare, bare, &gives_up).await
        }
        ended => Ok(ended),
    }
}

/// As [`confirmed`], for one copy.
async fn confirmed_as<P, F>(
    shared: &Shared,
    item: &Item,
    prepare: &P,
    copy: Outbound,
    gives_up: &impl Fn(&Failure) -> bool,
) -> Result<Result<(), Failure>, Cut>
where
    P: Fn() -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let copy = [copy];
    again(shared, item.unsettled.as_ref(), || async {
        let receipts = shared.ports.broker.publish(&copy).await;
        match receipts.into_iter().next() {
            Some(Receipt::Accepted(_)) => Ok(Ok(())),
            // It is the message that is refused, and would be each time.
            Some(Receipt::Refused(failure)) if failure.kind == FailureKind::Invalid => Ok(Err(failure)),
            Some(Receipt::Refused(failure)) => {
                if matches!(failure.kind, FailureKind::NotFound | FailureKind::Unroutable) {
                    prepare().await?;
                }
                Err(failure)
            }
            Some(Receipt::Unknown(failure)) if gives_up(&failure) => Ok(Err(failure)),
            Some(Receipt::Unknown(failure)) => Err(failure),
            None => Err(Failure::internal("publish a copy").detail("the broker gave no receipt")),
        }
    })
    .await
}

/// Does something until it succeeds, with backoff in between. A consumer that is lost or opened again ends the backoff: either the delivery is
/// gone, or the broker answers again.
async fn again<T, F: Future<Output = Result<T, Failure>>>(
    shared: &Shared,
    unsettled: Option<&Unsettled>,
    what: impl Fn() -> F,
) -> Result<T, Cut> {
    let mut pause = BACK_OFF_MIN;
    let mut troubled = false;
    let mut sessions = shared.sessions.subscribe();
    loop {
        sessions.mark_unchanged();
        if unsettled.is_some_and(|unsettled| !unsettled.alive()) {
            return Err(Cut::Late);
        }
        match what().await {
            Ok(done) => {
                if troubled {
                    shared.status.troubled(None);
                }
                return Ok(done);
            }
            Err(failure) => {
                if !troubled {
                    tracing::warn!(
                        consumer = &*shared.plan.name,
                        failure = failure.line(),
                        "a message stays unsettled until this works"
                    );
                }
                troubled = true;
                shared.status.troubled(Some(failure));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACK_OFF_MAX),
            Ok(()) = sessions.changed() => pause = BACK_OFF_MIN,
            // Nothing was taken: the message is handed back.
            () = shared.abandon.cancelled() => return Err(Cut::Stopping),
        }
    }
}

/// Records something that must be on record before the message is settled; as [`settle`], until it works. Also what comes
/// late is recorded.
pub(super) async fn recorded<T, F: Future<Output = Result<T, Failure>>>(
    shared: &Shared,
    what: impl Fn() -> F,
) -> Option<T> {
    again(shared, None, what).await.ok()
}

/// A message that came back to be rejected: what is known of why.
pub(super) fn given_up_before(received: &Received) -> Option<Reason> {
    let text = received.given_up.clone()?;
    Some(Reason { class: super::policy::Class::Exhausted, text, failure: None })
}

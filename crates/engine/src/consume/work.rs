//! One message on its way: handled under its deadline, decided, recorded, settled.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, Noted, Sign};
use super::copies::Received;
use super::lanes::Lane;
use super::plan::{ConsumePlan, DeadLetter};
use super::policy::{Decision, decide};
use super::record::{MessageError, MessageRun, MessageRunId, MessageStatus};
use super::settle::{Settled, hand_back, recorded, settle};
use super::status::Status;
use super::worker::{ConsumePorts, Working};
use crate::codes;
use crate::delivery::Unsettled;
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, Outcome, Trace};
use crate::ports::ParkedId;

/// What all messages of one consumer share.
pub(super) struct Shared {
    pub plan: ConsumePlan,
    pub ports: ConsumePorts,
    pub status: Arc<Status>,
    pub breaker: Mutex<Breaker>,
    /// Delay queues that are known to be there.
    pub declared: Mutex<std::collections::HashSet<String>>,
    /// Told when the process stops and will wait no longer for what runs.
    pub abandon: CancellationToken,
}

impl Shared {
    pub fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message received, with all that is known of it here.
pub(super) struct Item {
    pub received: Received,
    /// `None`: it was acknowledged on receipt, or it is parked.
    pub unsettled: Option<Unsettled>,
    /// Its number in the parking lot, where it comes from there.
    pub parked: Option<ParkedId>,
    pub lane: Lane,
    pub print: u128,
    /// How often the process died with it.
    pub crashes: u32,
    pub arrived: Instant,
    /// How long consuming had paused, in all, when it arrived.
    pub paused_before: std::time::Duration,
    /// What is decided already, so that it is not handled (again).
    pub decided: Option<Decision>,
    /// Whether `decided` follows an attempt that is spent.
    pub handled: bool,
    /// Tells that it is here, where the broker may give it out again meanwhile.
    #[expect(dead_code, reason = "it tells that it is here no more when it is dropped")]
    pub working: Option<Working>,
}

impl Item {
    /// How many attempts are spent once this one is over.
    pub fn attempts(&self) -> u32 {
        self.received.spent.saturating_add(self.handled.into())
    }
}

/// What became of it, for the worker.
pub(super) struct Finished {
    pub lane: Lane,
    pub parked: Option<ParkedId>,
    pub end: End,
}

pub(super) enum End {
    /// Nothing is left of it here.
    Done,
    /// It is in the parking lot, and its lane waits for it.
    Parked,
    /// The destination is down: it waits, and its attempt does not count.
    Held(Box<Item>),
}

/// Takes a message all its way.
pub(super) async fn work(shared: Arc<Shared>, mut item: Box<Item>) -> Finished {
    let (lane, parked) = (item.lane.clone(), item.parked);
    let end = |end| Finished { lane: lane.clone(), parked, end };
    let clock = &shared.ports.clock;
    let started_at = clock.now_ms();
    let mut steps = Vec::new();
    let mut noted = None;
    if item.decided.is_none() {
        noted = recorded(&shared, || async { shared.ports.in_flight.enter(item.print) }).await;
        let outcome = match noted {
            Some(_) => handle(&shared, &item, &mut steps).await,
            None => None,
        };
        let Some(outcome) = outcome else {
            item.handled = noted.is_some();
            shared.status.count(MessageStatus::HandedBack);
            hand_back(&shared, item).await;
            if let Some(noted) = noted {
                shared.ports.in_flight.leave(noted);
            }
            return end(End::Done);
        };
        item.handled = true;
        shared.status.failures().note(&outcome);
        let hold = shared.breaker().note(Sign::of(&outcome));
        let number = item.attempts();
        let plan = &shared.plan;
        let dice = (shared.ports.dice)();
        let decision = decide(outcome, number, &plan.retry, plan.allow_redelivery, dice);
        if hold == Noted::Hold && matches!(decision, Decision::Retry { .. }) && item.unsettled_or_parked() {
            let run = run(&shared, &item, MessageStatus::Held, &decision, started_at, &mut steps);
            // The failure is on record once it is; the message is not settled by it.
            if let Err(failure) = shared.ports.records.append(&run).await {
                shared.status.troubled(Some(failure));
            }
            shared.status.count(MessageStatus::Held);
            if let Some(noted) = noted {
                shared.ports.in_flight.leave(noted);
            }
            item.decided = Some(decision);
            return end(End::Held(item));
        }
        item.decided = Some(decision);
    }
    let settled = conclude(&shared, item, started_at, &mut steps).await;
    if let Some(noted) = noted {
        shared.ports.in_flight.leave(noted);
    }
    end(match settled {
        Settled::Parked => End::Parked,
        Settled::Done | Settled::Late | Settled::HandedBack => End::Done,
    })
}

/// Records what was decided, and then settles it.
async fn conclude(
    shared: &Shared,
    mut item: Box<Item>,
    started_at: i64,
    steps: &mut Vec<crate::outcome::StepTrace>,
) -> Settled {
    let decision = item.decided.take().unwrap_or(Decision::Ack);
    let status = status_of(shared, &item, &decision);
    let run = run(shared, &item, status, &decision, started_at, steps);
    let late = item.unsettled.as_ref().is_some_and(|unsettled| !unsettled.alive());
    let run = MessageRun { status: if late { MessageStatus::Late } else { status }, ..run };
    let Some(id) = recorded(shared, || shared.ports.records.append(&run)).await else {
        shared.status.count(MessageStatus::HandedBack);
        hand_back(shared, item).await;
        return Settled::HandedBack;
    };
    let settled = settle(shared, item, &decision).await;
    let ended = match settled {
        Settled::Done | Settled::Parked => status,
        Settled::Late => MessageStatus::Late,
        Settled::HandedBack => MessageStatus::HandedBack,
    };
    if ended == MessageStatus::Late && !late {
        note_late(shared, id).await;
    }
    if ended == MessageStatus::Ok {
        shared.ports.handler.acknowledged(&run.job);
    }
    shared.status.count(ended);
    tell(&run, ended);
    settled
}

/// The one wide event of an attempt; what is recorded, without bodies.
fn tell(run: &MessageRun, status: MessageStatus) {
    let (consumer, queue, attempt) = (&*run.consumer, run.job.envelope.queue.as_str(), run.attempt);
    let (took_ms, status) = (run.ended_at - run.started_at, status.as_str());
    match &run.error {
        None => tracing::debug!(consumer, queue, attempt, took_ms, status, "message handled"),
        Some(error) => {
            let error = format!("{} [{}]", error.message, error.code);
            tracing::info!(consumer, queue, attempt, took_ms, status, error, "message failed");
        }
    }
}

async fn note_late(shared: &Shared, id: MessageRunId) {
    // The message is not settled by this, so nothing is lost if it fails; what is shown then is what was decided.
    if let Err(failure) = shared.ports.records.late(id).await {
        shared.status.troubled(Some(failure));
    }
}

fn status_of(shared: &Shared, item: &Item, decision: &Decision) -> MessageStatus {
    if shared.plan.auto_ack && item.parked.is_none() {
        return match decision {
            Decision::Ack => MessageStatus::Ok,
            Decision::Drop => MessageStatus::Dropped,
            Decision::Retry { .. } | Decision::DeadLetter(_) | Decision::HandBack => MessageStatus::Failed,
        };
    }
    match decision {
        Decision::Ack => MessageStatus::Ok,
        Decision::Drop => MessageStatus::Dropped,
        Decision::Retry { .. } => MessageStatus::Retried,
        Decision::HandBack => MessageStatus::HandedBack,
        Decision::DeadLetter(_) => match shared.plan.dead_letter {
            DeadLetter::Queue(_) => MessageStatus::DeadLettered,
            DeadLetter::Broker => MessageStatus::Rejected,
            DeadLetter::Drop => MessageStatus::Dropped,
        },
    }
}

fn run(
    shared: &Shared,
    item: &Item,
    status: MessageStatus,
    decision: &Decision,
    started_at: i64,
    steps: &mut Vec<crate::outcome::StepTrace>,
) -> MessageRun {
    let now = shared.ports.clock.now_ms();
    let next_at = match decision {
        Decision::Retry { after, .. } if status == MessageStatus::Retried => {
            Some(now.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)))
        }
        _ => None,
    };
    MessageRun {
        consumer: shared.plan.name.clone(),
        job: item.received.job.clone(),
        print: item.print,
        with_body: shared.plan.record_bodies,
        attempt: item.attempts().max(1),
        received_at: item.received.received_at_ms,
        started_at,
        ended_at: now,
        status,
        class: match decision {
            Decision::DeadLetter(reason) => Some(reason.class.as_str()),
            Decision::Ack | Decision::Drop | Decision::Retry { .. } | Decision::HandBack => None,
        },
        next_at,
        error: MessageError::of_decision(decision),
        steps: std::mem::take(steps).into_iter().map(Into::into).collect(),
    }
}

impl Item {
    /// Whether it can still be tried again at all.
    fn unsettled_or_parked(&self) -> bool {
        self.unsettled.is_some() || self.parked.is_some()
    }
}

/// Runs the handler, again in place where the connection failed. `None`: the process stops and waits no longer.
async fn handle(shared: &Shared, item: &Item, steps: &mut Vec<crate::outcome::StepTrace>) -> Option<Outcome> {
    let plan = &shared.plan;
    let began = Instant::now();
    let deadline = began + plan.max_timeout;
    let attempt = Attempt {
        consumer: plan.name.clone(),
        number: item.received.spent.saturating_add(1),
        received_at_ms: item.received.received_at_ms,
        deadline,
        trace: Trace::default(),
    };
    let _in_flight = Gauge::up(&shared.status.in_flight);
    let mut pauses = plan.retry.in_place.iter();
    let outcome = loop {
        let handling = shared.ports.handler.handle(&item.received.job, &attempt);
        // A panic is this message's error, and nobody else's: what it leaves behind is the handler's own, and dropped here.
        let handling = AssertUnwindSafe(handling).catch_unwind();
        let outcome = tokio::select! {
            biased;
            outcome = tokio::time::timeout_at(deadline, handling) => match outcome {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Outcome::Retry(panicked(&*panic)),
                Err(_) => Outcome::Retry(too_long(plan)),
            },
            // The handler is dropped, and what it started ends with it. Its message goes back.
            () = shared.abandon.cancelled() => break None,
        };
        let Outcome::Retry(failure) = &outcome else { break Some(outcome) };
        // An answer, however bad, is no error of the connection.
        let connection = failure.kind == FailureKind::Disconnected && failure.said.is_none();
        let pause = connection.then(|| pauses.next().copied()).flatten();
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < deadline) else {
            break Some(outcome);
        };
        if plan.auto_ack || !plan.allow_redelivery || shared.breaker().is_open() {
            break Some(outcome);
        }
        shared.status.in_place.fetch_add(1, Relaxed);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // As above.
            () = shared.abandon.cancelled() => break None,
        }
    };
    steps.extend(attempt.trace.take());
    shared.status.duration.add(began.elapsed());
    outcome
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Failure::internal("handle a message").detail(format!("the handler panicked: {said}"))
}

fn too_long(plan: &ConsumePlan) -> Failure {
    Failure::new(FailureKind::Timeout, codes::DEADLINE_PASSED, "handle a message")
        .detail(format!("it did not end within {:?}", plan.max_timeout))
        .remedy("give the steps shorter timeouts, or the trigger a longer `max_timeout`")
}

/// Counts up now, and down when it is dropped.
struct Gauge<'g>(&'g std::sync::atomic::AtomicI64);

impl<'g> Gauge<'g> {
    fn up(gauge: &'g std::sync::atomic::AtomicI64) -> Gauge<'g> {
        gauge.fetch_add(1, Relaxed);
        Gauge(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

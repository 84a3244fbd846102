//! One message on its way: handled under its deadline, decided, recorded, settled.

#![expect(clippy::vec_box, reason = "messages come in their boxes and go in them")]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::copies::{self, Received};
use super::flow::{Event, Flow, May, Mode, Role, Sign, Verdict};
use super::lanes::Lane;
use super::plan::{ConsumePlan, DeadLetter, RetryMode};
use super::policy::{BLOCKED, DeadLettered, Decision, decide, uncounted_pause};
use super::record::{MessageError, MessageRun, MessageRunId, MessageStatus};
use super::settle::{Settled, defer, hand_back, recorded, settle};
use super::status::Status;
use super::worker::{Batch, ConsumePorts, Working};
use crate::codes;
use crate::delivery::{Job, Unsettled};
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, Outcome, StepTrace, Trace};
use crate::ports::{Noted, ParkedId};

/// Messages of which it is known how many deliveries were no attempt.
const UNCOUNTED_MAX: usize = 10_000;
/// How long a message is kept whose task panicked twice, before it goes back to its queue.
const PANICKED_AGAIN: Duration = Duration::from_secs(10);

/// What all messages of one consumer share.
pub(super) struct Shared {
    pub plan: ConsumePlan,
    pub ports: ConsumePorts,
    pub status: Arc<Status>,
    pub flow: Mutex<Flow>,
    /// Delay queues that are known to be there.
    pub declared: Mutex<std::collections::HashSet<String>>,
    /// Deliveries that a broker counts and that were no attempt, by the print of their message.
    pub uncounted: Mutex<HashMap<u128, u32>>,
    /// When messages failed for which an operator must act, by their print.
    pub blocked: Mutex<HashMap<u128, Instant>>,
    /// Messages whose task panicked, on their way back to the worker.
    pub dropped: Mutex<Vec<Box<Item>>>,
    /// Cancelled when the process stops and no longer waits for what runs.
    pub abandon: CancellationToken,
    /// Counts how often the consumer was lost or opened again. Whoever waits for the broker looks again when it changes.
    pub sessions: watch::Sender<u64>,
}

impl Shared {
    /// The consumer was lost, or the broker answers again.
    pub fn session_changed(&self) {
        self.sessions.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event that asks for no verdict.
    pub fn on(&self, event: Event) {
        self.flow().on(event, Instant::now());
    }

    pub fn may(&self) -> May {
        let flow = self.flow();
        match flow.mode() {
            Mode::Flowing => May::Any, // needs no clock, and is asked for every message
            Mode::Alone | Mode::Paused(_) | Mode::Probing(_) | Mode::Draining { .. } => {
                flow.may(Instant::now())
            }
        }
    }

    pub fn take_dropped(&self) -> Vec<Box<Item>> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that an operator must act for a message; whether it was tried again after it failed so before.
    fn is_still_blocked(&self, print: u128) -> bool {
        let now = Instant::now();
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.len() >= UNCOUNTED_MAX {
            blocked.clear();
        }
        // What fails sooner is another message that is alike.
        blocked.insert(print, now).is_some_and(|before| now - before >= BLOCKED / 2)
    }

    /// Whether the broker alone counts the attempts at a message: no copy of ours carries the number.
    pub fn broker_counts(&self, job: &Job) -> bool {
        self.plan.retry.mode == RetryMode::Requeue || job.envelope.system.contains_key(copies::RECEIVE_COUNT)
    }

    /// Notes that the next delivery of a message follows no attempt.
    pub fn uncounted(&self, item: &Item) {
        if !self.broker_counts(&item.received.job) {
            return;
        }
        let mut uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        if uncounted.len() >= UNCOUNTED_MAX
            && !uncounted.contains_key(&item.print)
            && let Some(print) = uncounted.keys().next().copied()
        {
            uncounted.remove(&print);
        }
        *uncounted.entry(item.print).or_default() += 1;
    }

    /// How many deliveries of a message are known to have been no attempt.
    pub fn uncounted_of(&self, print: u128) -> u32 {
        let uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        uncounted.get(&print).copied().unwrap_or(0)
    }

    /// Forgets that: the message is settled.
    pub fn is_settled(&self, item: &Item) {
        if self.broker_counts(&item.received.job) {
            self.uncounted.lock().unwrap_or_else(PoisonError::into_inner).remove(&item.print);
        }
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
    /// Whether its lane is full, so that it is only dead-lettered.
    pub overflow: bool,
    pub print: u128,
    /// How often the process died with it.
    pub crashes: u32,
    pub arrived: Instant,
    /// How long consuming had paused, in all, when it arrived.
    pub paused_before: Duration,
    /// As what it was started.
    pub role: Role,
    /// It comes from the parking lot as a dead letter that no broker took.
    pub dead_lettered: Option<DeadLettered>,
    /// What is decided already, so that it is not handled (again).
    pub decided: Option<Decision>,
    /// Whether `decided` follows an attempt that is spent.
    pub handled: bool,
    /// Whether it was attempted before and held.
    pub tried: bool,
    /// It is held; after how long it is tried again when it is held no more. Its attempt was not spent.
    pub later: Option<Duration>,
    /// Panics of our own over it.
    pub panics: u32,
    /// Whether it is on its way into the parking lot, behind others of its lane.
    pub is_being_parked: bool,
    /// Says that it is here, where the broker may give it out again meanwhile.
    #[expect(dead_code, reason = "dropping it says that the message is here no more")]
    pub working: Option<Working>,
}

impl Item {
    /// How many attempts are spent once this one is over.
    pub fn attempts(&self) -> u32 {
        self.received.spent.saturating_add(self.handled.into())
    }

    /// A message that was held, to be tried once more.
    pub fn once_more(mut self: Box<Item>) -> Box<Item> {
        self.later = None;
        self
    }

    /// Whether it can still be tried again at all.
    fn is_unsettled_or_parked(&self) -> bool {
        self.unsettled.is_some() || self.parked.is_some()
    }

    /// Whether it goes back to its queue as one that was never started.
    pub fn goes_back_unstarted(&self) -> bool {
        !self.handled && self.parked.is_none() && self.unsettled.is_some()
    }
}

/// What ended, for the worker.
pub(super) enum Finished {
    /// Work on one message.
    Message(Over),
    /// Parking what came behind others of its lane.
    Batch(Batch),
}

/// Work on one message that is over.
pub(super) struct Over {
    pub role: Role,
    pub lane: Lane,
    pub overflow: bool,
    pub parked: Option<ParkedId>,
    /// What it takes of the parking lot, in bytes.
    pub bytes: u64,
    pub stays: Stays,
}

impl Over {
    pub fn of(item: &mut Item, stays: Stays) -> Over {
        Over {
            role: item.role,
            lane: item.lane.take(),
            overflow: item.overflow,
            parked: item.parked,
            bytes: item.received.job.parked_bytes(),
            stays,
        }
    }
}

/// What is left of a message here.
pub(super) enum Stays {
    /// Nothing.
    No,
    /// It is in the parking lot, and its lane waits for it.
    Parked,
    /// It is in the parking lot as a dead letter, under a new number, and its lane continues.
    Kept,
    /// It failed during a pause: it waits, and its attempt does not count.
    Held(Box<Item>),
}

/// A message in the hands of its task. When the task panics it returns to the worker, so that all it held is freed there.
pub(super) struct Carried {
    shared: Arc<Shared>,
    items: Vec<Box<Item>>,
}

/// As [`Carried`], for one message.
struct CarriedOne {
    shared: Arc<Shared>,
    item: Option<Box<Item>>,
}

impl Carried {
    pub fn new(shared: Arc<Shared>, items: Vec<Box<Item>>) -> Carried {
        Carried { shared, items }
    }

    pub fn parts(&mut self) -> (&Shared, &mut Vec<Box<Item>>) {
        (&self.shared, &mut self.items)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.dropped.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.items);
        }
    }
}

impl Drop for CarriedOne {
    fn drop(&mut self) {
        if let Some(item) = self.item.take()
            && std::thread::panicking()
        {
            self.shared.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        }
    }
}

/// The entry of a message in the journal of what is in flight. A panic ends it too: the process lives.
struct Entry<'s> {
    shared: &'s Shared,
    noted: Option<Noted>,
}

impl Entry<'_> {
    fn leave(&mut self) {
        if let Some(noted) = self.noted.take() {
            self.shared.ports.in_flight.leave(noted);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic here would end the process.
            catch_unwind(AssertUnwindSafe(|| self.leave())).ok();
        }
    }
}

/// Takes a message all its way.
pub(super) async fn work(shared: Arc<Shared>, item: Box<Item>) -> Finished {
    let mut carried = CarriedOne { shared, item: Some(item) };
    let CarriedOne { shared, item } = &mut carried;
    let left = match item {
        Some(item) => through(shared, item).await,
        None => Left::Nothing,
    };
    over(carried, left)
}

/// After a second panic: keeps a message for a while, and then gives it back to its queue.
pub(super) async fn let_go_later(shared: Arc<Shared>, item: Box<Item>) -> Finished {
    let mut carried = CarriedOne { shared, item: Some(item) };
    let CarriedOne { shared, item } = &mut carried;
    tokio::select! {
        () = tokio::time::sleep(PANICKED_AGAIN) => {}
        () = shared.abandon.cancelled() => {}
    }
    let mut left = Left::Nothing;
    if let Some(item) = item {
        if item.parked.is_some() {
            left = Left::Parked;
        }
        give_up_unrun(shared, item).await;
    }
    over(carried, left)
}

/// What is left of a message after [`through`].
#[derive(Clone, Copy)]
enum Left {
    Nothing,
    Parked,
    Kept,
    Held,
}

fn over(mut carried: CarriedOne, left: Left) -> Finished {
    let Some(mut item) = carried.item.take() else {
        let nothing =
            Over { role: Role::Usual, lane: None, overflow: false, parked: None, bytes: 0, stays: Stays::No };
        return Finished::Message(nothing);
    };
    Finished::Message(match left {
        Left::Nothing => Over::of(&mut item, Stays::No),
        Left::Parked => Over::of(&mut item, Stays::Parked),
        Left::Kept => Over::of(&mut item, Stays::Kept),
        Left::Held => {
            // It keeps its lane.
            let (role, overflow) = (std::mem::take(&mut item.role), item.overflow);
            Over { role, lane: None, overflow, parked: item.parked, bytes: 0, stays: Stays::Held(item) }
        }
    })
}

async fn through(shared: &Shared, item: &mut Item) -> Left {
    if let Some(after) = item.later.take() {
        return left(defer(shared, item, after).await);
    }
    let started_at = shared.ports.clock.now_ms();
    let mut steps = Vec::new();
    let mut entry = Entry { shared, noted: None };
    let decision = if let Some(decision) = item.decided.take() {
        decision
    } else {
        entry.noted = recorded(shared, || async { shared.ports.in_flight.enter(item.print) }).await;
        let outcome = match &entry.noted {
            Some(_) => handle(shared, item, &mut steps).await,
            None => None,
        };
        let Some(outcome) = outcome else {
            item.handled = entry.noted.is_some();
            shared.status.count(MessageStatus::HandedBack);
            give_up_unrun(shared, item).await;
            entry.leave();
            return Left::Nothing;
        };
        item.handled = true;
        shared.status.failures().note(&outcome);
        match judge(shared, item, outcome) {
            Judged::Decided(decision) => decision,
            Judged::Uncounted { verdict, after, failure } => {
                let run = Decision::Retry { after, failure };
                let run = run_of(shared, item, MessageStatus::Held, &run, started_at, &mut steps);
                let left = uncounted(shared, item, &run, verdict, after).await;
                entry.leave();
                return left;
            }
        }
    };
    let settled = conclude(shared, item, &decision, started_at, &mut steps).await;
    entry.leave();
    left(settled)
}

fn left(settled: Settled) -> Left {
    match settled {
        Settled::Parked => Left::Parked,
        Settled::Kept => Left::Kept,
        Settled::Done | Settled::Late | Settled::HandedBack => Left::Nothing,
    }
}

/// Gives a message back that was not run to its end.
async fn give_up_unrun(shared: &Shared, item: &mut Item) {
    if item.goes_back_unstarted() && !shared.plan.allow_redelivery {
        shared.ports.in_flight.unstarted(&[item.print]).await;
    }
    hand_back(shared, item).await;
}

/// What becomes of a message by its outcome.
enum Judged {
    Decided(Decision),
    /// The attempt does not count.
    Uncounted {
        verdict: Verdict,
        after: Duration,
        failure: Failure,
    },
}

/// The state machine is asked first: during a pause no attempt is spent, not even the last.
fn judge(shared: &Shared, item: &Item, outcome: Outcome) -> Judged {
    let plan = &shared.plan;
    let mut sign = Sign::of(&outcome);
    if sign == Sign::Blocked && shared.is_still_blocked(item.print) {
        sign = Sign::StillBlocked;
    }
    let kind = match &outcome {
        Outcome::Retry(failure) => Some(failure.kind),
        Outcome::Ok | Outcome::Reject(_) | Outcome::Drop | Outcome::HandBack => None,
    };
    let blocks = item.lane.is_some() && kind.is_some_and(|kind| kind != FailureKind::Disconnected);
    let event = Event::Handled { sign, role: item.role, blocks };
    let verdict = shared.flow().on(event, Instant::now());
    if sign.is_blocked()
        && let Outcome::Retry(failure) = &outcome
    {
        shared.status.blocked(failure);
    }
    let number = item.attempts();
    let dice = (shared.ports.dice)();
    match (verdict, outcome) {
        (Verdict::Hold | Verdict::Defer, Outcome::Retry(failure))
            if plan.allow_redelivery && item.is_unsettled_or_parked() =>
        {
            let after = uncounted_pause(&failure, sign, number, &plan.retry, dice);
            Judged::Uncounted { verdict, after, failure }
        }
        (_, outcome) => Judged::Decided(decide(outcome, number, &plan.retry, plan.allow_redelivery, dice)),
    }
}

/// Records an attempt that does not count; then the message is held, or tried again later.
async fn uncounted(
    shared: &Shared,
    item: &mut Item,
    run: &MessageRun,
    verdict: Verdict,
    after: Duration,
) -> Left {
    let on_record = recorded(shared, || shared.ports.records.append(run)).await;
    (item.handled, item.tried) = (false, true);
    if on_record.is_none() {
        shared.status.count(MessageStatus::HandedBack);
        hand_back(shared, item).await;
        return Left::Nothing;
    }
    shared.status.count(MessageStatus::Held);
    tell(run, MessageStatus::Held);
    match verdict {
        Verdict::Hold | Verdict::Settle => {
            item.later = Some(after);
            Left::Held
        }
        Verdict::Defer => left(defer(shared, item, after).await),
    }
}

/// Records what was decided, and then settles it.
async fn conclude(
    shared: &Shared,
    item: &mut Item,
    decision: &Decision,
    started_at: i64,
    steps: &mut Vec<StepTrace>,
) -> Settled {
    let status = status_of(shared, item, decision);
    let run = run_of(shared, item, status, decision, started_at, steps);
    let late = item.unsettled.as_ref().is_some_and(|unsettled| !unsettled.alive());
    let run = MessageRun { status: if late { MessageStatus::Late } else { status }, ..run };
    let Some(id) = recorded(shared, || shared.ports.records.append(&run)).await else {
        shared.status.count(MessageStatus::HandedBack);
        hand_back(shared, item).await;
        return Settled::HandedBack;
    };
    let settled = settle(shared, item, decision).await;
    let ended = match settled {
        Settled::Done | Settled::Parked | Settled::Kept => status,
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

fn run_of(
    shared: &Shared,
    item: &Item,
    status: MessageStatus,
    decision: &Decision,
    started_at: i64,
    steps: &mut Vec<StepTrace>,
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

/// Runs the handler, again in place where the connection failed. `None`: the process stops and waits no longer.
async fn handle(shared: &Shared, item: &Item, steps: &mut Vec<StepTrace>) -> Option<Outcome> {
    let plan = &shared.plan;
    let began = Instant::now();
    let deadline = began + plan.max_timeout;
    let attempt = Attempt {
        consumer: plan.name.clone(),
        number: item.received.spent.saturating_add(1),
        again: item.received.again || item.tried,
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
        if plan.auto_ack || !plan.allow_redelivery || shared.flow().pause().is_some() {
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

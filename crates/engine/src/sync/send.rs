//! Changes on their way: rendered, published with several batches in flight, recorded, and only then counted as told.
//!
//! A batch has either removals or rows added and changed, and the first of the latter starts only when every removal is
//! settled. So a consumer that stores rows by a part of the key, or by a key without regard to case, ends with the rows
//! there are.
//!
//! What is done in which order, for each batch: announce its changes to the baseline, publish, wait for every receipt, retry
//! what may be retried, record what became of each row, advance the baseline by what was accepted and withdraw what
//! certainly was not. A process that dies between announcing and advancing sends those rows once more, with the same
//! change ids as long as they are what they were; there is no other place that repeats a row, apart from an answer
//! that was lost.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::change::{Change, ChangeId, Op};
use crate::codes::{self, Code};
use crate::failure::{Failure, FailureKind, Remedy};
use crate::key::key_text;
use crate::message::{Outbound, Receipt};
use crate::ports::{Broker, ChangeSet, Clock, MessageLimits, Records};
use crate::run::{Attempt, RowOutcome, RowStatus, RunCounts, RunId, RunRecord};
use crate::sync::batches::Batches;
use crate::sync::groups::Groups;
use crate::sync::plan::BATCHES_AHEAD;
use crate::sync::render::{Rendered, Renderer};
use crate::sync::watch::{Event, Watch};

/// A message that the broker has refused this often (a full queue that rejects, an internal error) is rejected, so that
/// the others go on; the row stays a difference and is tried again in the next run. With the pauses between tries this
/// takes about 30 seconds.
const REFUSALS_MAX: usize = 12;
/// A message whose answer was lost this often, while the destination answers others, is left for the next run.
const LOST_ANSWERS_MAX: usize = 20;
/// The first pause before a batch is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the broker holds publishers back, while an answer is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the run's record is written while it goes.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// What sending needs.
pub struct Sender<'p> {
    /// Makes the messages.
    pub renderer: &'p Renderer,
    /// Takes them.
    pub broker: Arc<dyn Broker>,
    /// Keeps what became of them.
    pub records: Arc<dyn Records>,
    /// The time of each answer.
    pub clock: Arc<dyn Clock>,
    /// Keys outside of which nothing is sent; other changes stay differences.
    pub only: Option<&'p BTreeSet<String>>,
    /// Hears of it.
    pub watch: &'p dyn Watch,
    /// Ends it.
    pub cancel: &'p CancellationToken,
}

/// A message under way, and what it is about.
struct Item {
    /// What the baseline advances by; `None` where a recorded message is sent again.
    change: Option<Change>,
    id: Option<ChangeId>,
    op: Op,
    key: String,
    attempts: Vec<Attempt>,
    refusals: usize,
    lost_answers: usize,
    unknown: bool,
}

impl Item {
    fn new(id: Option<ChangeId>, op: Op, key: String, change: Option<Change>) -> Item {
        Item { change, id, op, key, attempts: Vec::new(), refusals: 0, lost_answers: 0, unknown: false }
    }

    fn outcome(
        self,
        outbound: Outbound,
        status: RowStatus,
        code: Option<Code>,
    ) -> (RowOutcome, Option<Change>) {
        let outcome = RowOutcome {
            change: self.id,
            op: Some(self.op),
            key: self.key,
            status,
            code,
            outbound: Some(outbound),
            attempts: self.attempts,
        };
        (outcome, self.change)
    }
}

/// What became of a batch.
#[derive(Default)]
struct Delivered {
    accepted: Vec<Change>,
    /// Certainly not told.
    withdrawn: Vec<Change>,
    counts: RunCounts,
    /// Why the run has to end: the destination stayed away, or the record cannot be written.
    stop: Option<Failure>,
    first_rejection: Option<Failure>,
}

/// What the batches under way share: when the destination last did anything, whether the run has to end, and groups that
/// keep an order.
struct Progress {
    touched: Mutex<Instant>,
    ending: AtomicBool,
    groups: Groups,
}

impl Progress {
    fn begun() -> Progress {
        Progress {
            touched: Mutex::new(Instant::now()),
            ending: AtomicBool::new(false),
            groups: Groups::default(),
        }
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// The batches under way, and those of them that have ended and were not looked at yet.
struct UnderWay<F> {
    running: FuturesUnordered<F>,
    ended: VecDeque<Delivered>,
}

impl<F: Future<Output = Delivered>> UnderWay<F> {
    fn len(&self) -> usize {
        self.running.len() + self.ended.len()
    }

    /// The next batch that has ended; `None` when none is under way.
    async fn next(&mut self) -> Option<Delivered> {
        match self.ended.pop_front() {
            Some(delivered) => Some(delivered),
            None => self.running.next().await,
        }
    }

    /// Does something else, while the batches under way go on. They only do while they are polled.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            // Neither branch loses anything when the other is taken: both are polled on.
            tokio::select! {
                out = &mut work => return out,
                Some(delivered) = self.running.next() => self.ended.push_back(delivered),
            }
        }
    }
}

impl Sender<'_> {
    /// Sends all changes of a set, and counts in `record` what became of them. Returns when nothing is under way any more.
    ///
    /// # Errors
    /// Why the run ended before its end. What was accepted until then is advanced and counted.
    pub async fn all(&self, changes: &mut dyn ChangeSet, record: &mut RunRecord) -> Result<(), Failure> {
        let limits = self.limits().await?;
        let progress = Progress::begun();
        let plan = &self.renderer.plan;
        let turns = Semaphore::new(plan.batches_in_flight);
        let mut under_way = UnderWay { running: FuturesUnordered::new(), ended: VecDeque::new() };
        // A batch that waits for those under way: it shares with one a group that keeps an order, or they are removals.
        let mut behind: Option<(Vec<Item>, Vec<Outbound>)> = None;
        let mut batches = Batches::of(changes);
        // Whether what is under way are removals.
        let mut removing = false;
        let mut stop: Option<Failure> = None;
        let mut more = true;
        let mut scratch = Vec::new();
        let mut recorded = Instant::now();
        loop {
            while (more || behind.is_some())
                && stop.is_none()
                && under_way.len() < plan.batches_in_flight + BATCHES_AHEAD
            {
                if self.cancel.is_cancelled() {
                    more = false;
                    break;
                }
                if let Some((items, outbounds)) = behind.take() {
                    let removals = items.iter().all(|item| item.op == Op::Removed);
                    if removing && !removals && under_way.len() > 0 {
                        behind = Some((items, outbounds));
                        break;
                    }
                    removing = removals;
                    let Some(hold) = progress.groups.hold(&outbounds) else {
                        behind = Some((items, outbounds));
                        break;
                    };
                    let (turns, deliver) = (&turns, self.deliver(record.id, items, outbounds, &progress));
                    under_way.running.push(async move {
                        // Invariant: nobody closes it.
                        let turn = turns.acquire().await.ok();
                        let delivered = deliver.await; // nothing of it is sent before it has its turn
                        drop((hold, turn));
                        delivered
                    });
                    continue;
                }
                match under_way.beside(batches.next(plan.batch_messages)).await {
                    Ok(batch) if batch.is_empty() => more = false,
                    Ok(batch) => {
                        let prepare = self.prepare(batch, &limits, batches.changes, record, &mut scratch);
                        match under_way.beside(prepare).await {
                            Ok((items, _)) if items.is_empty() => {}
                            Ok(batch) => behind = Some(batch), // it goes in the next round
                            Err(failure) => stop = Some(failure),
                        }
                    }
                    Err(failure) => stop = Some(failure),
                }
            }
            let Some(delivered) = under_way.next().await else { break };
            add(&mut record.counts, &delivered.counts);
            if record.error.is_none() {
                record.error = delivered.first_rejection.as_ref().map(crate::run::RunError::from);
            }
            let accepted: Vec<&Change> = delivered.accepted.iter().collect();
            let withdrawn: Vec<&Change> = delivered.withdrawn.iter().collect();
            let mut advanced = Ok(());
            if !accepted.is_empty() {
                advanced = under_way.beside(batches.changes.advance(&accepted)).await;
            }
            if !withdrawn.is_empty() {
                advanced = advanced.and(under_way.beside(batches.changes.withdraw(&withdrawn)).await);
            }
            if let Some(failure) = delivered.stop.or(advanced.err()) {
                stop.get_or_insert(failure);
                progress.ending.store(true, Ordering::Relaxed);
            }
            self.watch.event(Event::Sent(&record.counts));
            if recorded.elapsed() > RECORD_EVERY {
                recorded = Instant::now();
                if let Err(failure) = under_way.beside(self.records.update(record)).await {
                    stop.get_or_insert(failure);
                }
            }
        }
        if let Some((items, _)) = behind {
            // Announced, and certainly not told.
            let withdrawn: Vec<&Change> = items.iter().filter_map(|item| item.change.as_ref()).collect();
            stop = stop.or(batches.changes.withdraw(&withdrawn).await.err());
        }
        match stop {
            Some(failure) => Err(failure),
            None if self.cancel.is_cancelled() && more_left(&record.counts) => Err(cancelled()),
            None => Ok(()),
        }
    }

    /// Sends recorded messages again, as they were and in their order as far as it matters: one batch after another, and a
    /// batch has either removals or others, and each key once. The baseline has no part in it.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub async fn again(&self, outcomes: Vec<RowOutcome>, record: &mut RunRecord) -> Result<(), Failure> {
        self.limits().await?;
        let progress = Progress::begun();
        let mut rest = outcomes
            .into_iter()
            .filter_map(|outcome| {
                let item = Item::new(outcome.change, outcome.op.unwrap_or(Op::Added), outcome.key, None);
                Some((item, outcome.outbound?))
            })
            .peekable();
        loop {
            let (items, outbounds) = recorded_batch(&mut rest, self.renderer.plan.batch_messages);
            if items.is_empty() {
                return Ok(());
            }
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            let delivered = self.deliver(record.id, items, outbounds, &progress).await;
            add(&mut record.counts, &delivered.counts);
            if record.error.is_none() {
                record.error = delivered.first_rejection.as_ref().map(crate::run::RunError::from);
            }
            self.watch.event(Event::Sent(&record.counts));
            if let Some(stop) = delivered.stop {
                return Err(stop);
            }
        }
    }

    /// Waits for the broker as a batch would, and asks what it allows.
    async fn limits(&self) -> Result<MessageLimits, Failure> {
        let since = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let failure = match self.broker.limits().await {
                Ok(limits) => return Ok(limits),
                Err(failure) => failure,
            };
            if failure.kind.for_message() == Remedy::Reject {
                return Err(failure);
            }
            self.wait(&failure, since.elapsed(), &mut pause).await?;
        }
    }

    /// Renders a batch. What cannot be sent is recorded as rejected, what need not be sent is advanced, the rest announced.
    async fn prepare(
        &self,
        batch: Vec<Change>,
        limits: &MessageLimits,
        changes: &mut dyn ChangeSet,
        record: &mut RunRecord,
        scratch: &mut Vec<u8>,
    ) -> Result<(Vec<Item>, Vec<Outbound>), Failure> {
        let mut items = Vec::with_capacity(batch.len());
        let mut outbounds = Vec::with_capacity(batch.len());
        let mut skipped = Vec::new();
        let mut rejected = Vec::new();
        for change in batch {
            if self.only.is_some_and(|keys| !keys.contains(&self.key(&change))) {
                continue;
            }
            let id = self.renderer.id(&change);
            match self.renderer.render(&change, id, limits, scratch) {
                Rendered::Send(outbound) => {
                    outbounds.push(outbound);
                    let key = self.key(&change);
                    items.push(Item::new(Some(id), change.op, key, Some(change)));
                }
                Rendered::Skip => {
                    *record.counts.skipped.of(change.op) += 1;
                    skipped.push(change);
                }
                Rendered::Reject { failure, outbound } => {
                    *record.counts.rejected.of(change.op) += 1;
                    let key = self.key(&change);
                    let failure = failure.at(format!("row with key {key}"));
                    let outcome = RowOutcome {
                        change: Some(id),
                        op: Some(change.op),
                        key,
                        status: RowStatus::Rejected,
                        code: Some(failure.code),
                        outbound,
                        attempts: vec![Attempt { at: self.clock.now_ms(), answer: failure.line() }],
                    };
                    self.watch.event(Event::Rejected(&outcome));
                    record.error.get_or_insert_with(|| crate::run::RunError::from(&failure));
                    rejected.push(outcome);
                }
            }
        }
        if !rejected.is_empty() {
            self.records.append(record.id, rejected).await?;
        }
        if !skipped.is_empty() {
            let skipped: Vec<&Change> = skipped.iter().collect();
            changes.advance(&skipped).await?;
        }
        let announced: Vec<&Change> = items.iter().filter_map(|item| item.change.as_ref()).collect();
        if !announced.is_empty() {
            changes.announce(&announced).await?;
        }
        Ok((items, outbounds))
    }

    /// Publishes a batch until each of its messages is accepted or rejected, the run is stopped, or the destination has
    /// stayed away for too long; then records what became of them.
    async fn deliver(
        &self,
        run: RunId,
        mut items: Vec<Item>,
        mut outbounds: Vec<Outbound>,
        progress: &Progress,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        if self.cancel.is_cancelled() || progress.ending.load(Ordering::Relaxed) {
            delivered.withdrawn.extend(items.into_iter().filter_map(|item| item.change));
            return delivered;
        }
        let mut outcomes = Vec::with_capacity(items.len());
        let mut pause = PAUSE_MIN;
        // A batch begins first, or after another has ended. Before that there may have been nothing to send for long.
        progress.touch();
        loop {
            (items, outbounds) = hold_back(items, outbounds, &progress.groups, &mut delivered, &mut outcomes);
            if items.is_empty() {
                break;
            }
            delivered.counts.possible_duplicates += items.iter().filter(|item| item.unknown).count() as u64;
            let receipts = self.publish(&outbounds).await;
            assert_eq!(receipts.len(), items.len(), "a broker answers for each message");
            let before = items.len();
            let waiting;
            (items, outbounds, waiting) =
                self.sort(items, outbounds, receipts, progress, &mut delivered, &mut outcomes);
            if items.len() < before {
                progress.touch();
            }
            let Some(failure) = waiting else { break };
            delivered.counts.retries += items.len() as u64;
            if let Err(stop) = self.wait(&failure, progress.idle(), &mut pause).await {
                delivered.counts.retries -= items.len() as u64;
                outcomes.extend(left_over(items, outbounds, &mut delivered));
                delivered.stop = Some(stop);
                break;
            }
        }
        self.watch.event(Event::Waiting(None));
        if let Err(failure) = self.records.append(run, outcomes).await {
            delivered.stop.get_or_insert(failure);
        }
        if delivered.stop.is_some() {
            progress.ending.store(true, Ordering::Relaxed);
        }
        delivered
    }

    /// Publishes a batch once. While the broker holds publishers back that is told, long before a publish times out.
    async fn publish(&self, outbounds: &[Outbound]) -> Vec<Receipt> {
        let publish = self.broker.publish(outbounds);
        tokio::pin!(publish);
        loop {
            // The publish is polled on after each look; only the wait for the next look is dropped.
            tokio::select! {
                receipts = &mut publish => return receipts,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if let Some(reason) = self.broker.blocked() {
                        self.watch.event(Event::Waiting(Some(format!("the broker holds publishers back: {reason}"))));
                    }
                }
            }
        }
    }

    /// Sorts a batch by its receipts; what is to be tried again comes back, with the failure that stands for it.
    fn sort(
        &self,
        items: Vec<Item>,
        outbounds: Vec<Outbound>,
        receipts: Vec<Receipt>,
        progress: &Progress,
        delivered: &mut Delivered,
        outcomes: &mut Vec<RowOutcome>,
    ) -> (Vec<Item>, Vec<Outbound>, Option<Failure>) {
        let at = self.clock.now_ms();
        let (mut again, mut again_outbounds, mut waiting) = (Vec::new(), Vec::new(), None);
        for ((mut item, outbound), receipt) in items.into_iter().zip(outbounds).zip(receipts) {
            let (failure, unknown) = match receipt {
                Receipt::Accepted(answer) => {
                    item.attempts.push(Attempt { at, answer: answer.0.into_owned() });
                    *delivered.counts.sent.of(item.op) += 1;
                    delivered.counts.bytes += outbound.message.body.len() as u64;
                    let (outcome, change) = item.outcome(outbound, RowStatus::Sent, None);
                    outcomes.push(outcome);
                    delivered.accepted.extend(change);
                    continue;
                }
                Receipt::Refused(failure) => (failure, false),
                Receipt::Unknown(failure) => (failure, true),
            };
            // What stands behind another says so once, however often that is tried.
            if failure.code != codes::HELD || item.attempts.is_empty() {
                item.attempts.push(Attempt { at, answer: failure.line() });
            }
            item.unknown = unknown;
            item.lost_answers += usize::from(unknown);
            if failure.code == codes::BROKER_REFUSED_MESSAGE {
                item.refusals += 1;
            }
            let again_please = unknown || failure.kind.for_message() == Remedy::Retry;
            if again_please && item.refusals < REFUSALS_MAX && item.lost_answers < LOST_ANSWERS_MAX {
                again.push(item);
                again_outbounds.push(outbound);
                // A message that waits for another is not what is waited for.
                if waiting.as_ref().is_none_or(|failure: &Failure| failure.code == codes::HELD) {
                    waiting = Some(failure);
                }
            } else {
                *delivered.counts.rejected.of(item.op) += 1;
                progress.groups.stop(&outbound);
                let status = if unknown { RowStatus::Unknown } else { RowStatus::Rejected };
                delivered.counts.possible_duplicates += u64::from(unknown); // it goes once more, in the next run
                delivered.counts.unanswered += u64::from(item.lost_answers > 0);
                let in_doubt = item.lost_answers > 0;
                let (outcome, change) = item.outcome(outbound, status, Some(failure.code));
                delivered.withdrawn.extend(change.filter(|_| !in_doubt));
                self.watch.event(Event::Rejected(&outcome));
                delivered
                    .first_rejection
                    .get_or_insert_with(|| failure.at(format!("row with key {}", outcome.key)));
                outcomes.push(outcome);
            }
        }
        (again, again_outbounds, waiting)
    }

    fn key(&self, change: &Change) -> String {
        key_text(&change.row, &self.renderer.plan.model.key)
    }

    /// Pauses before another try.
    ///
    /// # Errors
    /// No other try: the run is stopped, or the destination has been away for too long.
    async fn wait(&self, failure: &Failure, idle: Duration, pause: &mut Duration) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let give_up_after = self.renderer.plan.give_up_after;
        if idle > give_up_after {
            return Err(Failure::new(
                FailureKind::Disconnected,
                codes::GAVE_UP,
                format!("the destination has been away for {} s", idle.as_secs()),
            )
            .detail(failure.to_string())
            .remedy("start the sync again once it is back: it goes on where it was")
            .because(failure.clone()));
        }
        self.watch.event(Event::Waiting(Some(failure.to_string())));
        let length = failure.retry_after.unwrap_or(*pause).min(PAUSE_MAX);
        *pause = (*pause * 2).min(PAUSE_MAX);
        // Both branches only wait: nothing is lost when one is dropped.
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }
}

/// Holds back what stands behind a message of its group that was rejected; it goes in the next run.
fn hold_back(
    items: Vec<Item>,
    outbounds: Vec<Outbound>,
    groups: &Groups,
    delivered: &mut Delivered,
    outcomes: &mut Vec<RowOutcome>,
) -> (Vec<Item>, Vec<Outbound>) {
    let (held, rest): (Vec<_>, Vec<_>) =
        items.into_iter().zip(outbounds).partition(|(_, outbound)| groups.is_stopped(outbound));
    for (item, outbound) in held {
        *delivered.counts.held.of(item.op) += 1;
        let in_doubt = item.lost_answers > 0;
        delivered.counts.unanswered += u64::from(in_doubt);
        let (outcome, change) = item.outcome(outbound, RowStatus::Held, Some(codes::HELD));
        delivered.withdrawn.extend(change.filter(|_| !in_doubt));
        outcomes.push(outcome);
    }
    rest.into_iter().unzip()
}

/// The outcomes of messages that are neither accepted nor rejected when the run ends. They stay differences, and go in
/// the next run; those whose answer was lost may arrive twice.
fn left_over(items: Vec<Item>, outbounds: Vec<Outbound>, delivered: &mut Delivered) -> Vec<RowOutcome> {
    let mut outcomes = Vec::new();
    let counts = &mut delivered.counts;
    for (item, outbound) in items.into_iter().zip(outbounds) {
        if item.lost_answers > 0 {
            // Where a refusal came after the lost answer, the second try was counted when it was made.
            counts.possible_duplicates += u64::from(item.unknown);
            counts.unanswered += 1;
            let code = Some(codes::CONNECTION_LOST);
            outcomes.push(item.outcome(outbound, RowStatus::Unknown, code).0);
        } else {
            delivered.withdrawn.extend(item.change);
        }
    }
    outcomes
}

/// The next of the recorded messages that may be under way together, at most `max`.
fn recorded_batch(
    rest: &mut std::iter::Peekable<impl Iterator<Item = (Item, Outbound)>>,
    max: usize,
) -> (Vec<Item>, Vec<Outbound>) {
    let (mut items, mut outbounds): (Vec<Item>, Vec<Outbound>) = (Vec::new(), Vec::new());
    let mut keys = BTreeSet::new();
    while items.len() < max {
        let removals = items.first().map(|item: &Item| item.op == Op::Removed);
        let fits = |(item, _): &(Item, Outbound)| {
            !keys.contains(&item.key) && removals.is_none_or(|removals| removals == (item.op == Op::Removed))
        };
        let Some((item, outbound)) = rest.next_if(fits) else { break };
        keys.insert(item.key.clone());
        items.push(item);
        outbounds.push(outbound);
    }
    (items, outbounds)
}

/// Moves the baseline over all changes, and sends nothing.
///
/// # Errors
/// The state cannot be used, or the run was stopped. What was noted until then is noted.
pub async fn take_note(
    changes: &mut dyn ChangeSet,
    record: &mut RunRecord,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    loop {
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        let batch = changes.next(4096).await?;
        if batch.is_empty() {
            return Ok(());
        }
        for change in &batch {
            *record.counts.skipped.of(change.op) += 1;
        }
        changes.advance(&batch.iter().collect::<Vec<_>>()).await?;
        watch.event(Event::Sent(&record.counts));
    }
}

/// The failure of a run that was stopped.
pub fn cancelled() -> Failure {
    Failure::new(FailureKind::Refused, codes::CANCELLED, "the run was stopped")
        .remedy("start the sync again: it goes on where it was")
}

fn more_left(counts: &RunCounts) -> bool {
    let done = counts.sent.total() + counts.skipped.total() + counts.rejected.total() + counts.held.total();
    done < counts.planned.total()
}

fn add(counts: &mut RunCounts, more: &RunCounts) {
    for (sum, part) in [
        (&mut counts.sent, more.sent),
        (&mut counts.rejected, more.rejected),
        (&mut counts.skipped, more.skipped),
        (&mut counts.held, more.held),
    ] {
        sum.added += part.added;
        sum.changed += part.changed;
        sum.removed += part.removed;
    }
    counts.possible_duplicates += more.possible_duplicates;
    counts.unanswered += more.unanswered;
    counts.retries += more.retries;
    counts.bytes += more.bytes;
}

//! The loop of one consumer: open, take, start what may start, settle, open again; and an orderly end.
//!
//! One task owns everything that waits, and mostly polls the work on messages too, which returns what became of them (`running`).
//! Deliveries are looked at in `arrival`, deliveries that come again while they are worked on in `redelivery`; `parking` looks after the
//! parking lot, `pausing` does what the state machine in [`flow`](super::flow) says.
//!
//! Nothing here ends because a broker is away or a queue is missing: that is a state, shown and tried again.

mod arrival;
mod parking;
mod pausing;
mod redelivery;
mod running;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::parking::Batch;
use self::parking::Lot;
use self::pausing::Shown;
use self::redelivery::Again;
pub(super) use self::redelivery::Working;
use self::running::{Ended, Running};
use super::copies;
use super::flow::{Event, Flow, May, Mode, Role};
use super::lanes::Lanes;
use super::plan::{ConsumePlan, DeadLetter, Ordering, RetryMode};
use super::policy::{Class, Decision, Reason, decide};
use super::settle::{give_back, hand_back};
use super::status::{State, Status};
use super::work::{Finished, Item, Over, Shared, Stays, let_go_later, work};
use crate::codes;
use crate::delivery::{Delivery, Unsettled};
use crate::failure::{Failure, FailureKind};
use crate::outcome::Outcome;
use crate::ports::{Broker, Clock, Consumer, Dice, Handler, InFlight, MessageRecords, Parking};

/// The first pause before a consumer is opened again.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// The longest, where the broker refuses: a missing queue, a permission.
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// The longest, where there is no connection: after a restart of the broker, consuming resumes within this time.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
/// A consumer that lived as long begins anew with the shortest pause.
const LIVED: Duration = Duration::from_secs(30);
/// Deaths of the process after which the message that was being handled is dead-lettered.
const CRASHES_MAX: u32 = 3;
/// Panics of our own over one message after which nothing more is tried with it: the broker delivers it again when the consumer closes.
const PANICS_MAX: u32 = 3;
/// Messages taken in one round.
const TOGETHER_MAX: u32 = 64;

/// What a consumer works with.
#[derive(Clone)]
pub struct ConsumePorts {
    /// Where its messages come from, and their copies go.
    pub broker: Arc<dyn Broker>,
    /// What is done with them.
    pub handler: Arc<dyn Handler>,
    /// The record of it.
    pub records: Arc<dyn MessageRecords>,
    /// For messages that no broker can hold.
    pub parking: Arc<dyn Parking>,
    /// What is being handled, for after a crash.
    pub in_flight: Arc<dyn InFlight>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Spreads retries.
    pub dice: Arc<Dice>,
}

/// One consumer at work.
pub struct Worker {
    shared: Arc<Shared>,
    lanes: Lanes<Box<Item>>,
    /// Messages of lanes that are full, to be dead-lettered, one after another of each lane.
    overflow: Lanes<Box<Item>>,
    running: Running<Finished>,
    /// Messages that were being handled when the process died: each runs alone.
    suspects: VecDeque<Box<Item>>,
    /// Messages that failed during a pause, the one that failed longest ago first.
    held: VecDeque<Box<Item>>,
    /// The prefetch of the consumer that is open.
    prefetch: Option<u16>,
    lot: Lot,
    again: Again,
    shown: Shown,
}

/// How a session with an open consumer ended.
enum SessionEnd {
    Lost(Failure),
    /// To be opened again with what the moment asks for.
    Reopen,
    Stopping,
}

impl Worker {
    /// A consumer of a plan. `status` is seen from outside.
    pub fn new(plan: ConsumePlan, ports: ConsumePorts, status: Arc<Status>) -> Worker {
        status.parks_at_most(plan.parking);
        Worker {
            shared: Arc::new(Shared {
                plan,
                ports,
                status,
                flow: Mutex::new(Flow::default()),
                declared: Mutex::default(),
                uncounted: Mutex::new(HashMap::new()),
                blocked: Mutex::default(),
                dropped: Mutex::default(),
                abandon: CancellationToken::new(),
                sessions: watch::Sender::new(0),
            }),
            lanes: Lanes::default(),
            overflow: Lanes::default(),
            running: Running::new(),
            suspects: VecDeque::new(),
            held: VecDeque::new(),
            prefetch: None,
            lot: Lot::default(),
            again: Again::default(),
            shown: Shown::Flowing,
        }
    }

    /// Consumes until `stop`; then finishes what runs within `grace` and hands the rest back.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        self.running.work().beside(self.consume(stop, grace)).await;
    }

    async fn consume(mut self, stop: CancellationToken, grace: Duration) {
        let mut pause = REOPEN_MIN;
        let mut lot_is_known = false;
        let mut was_lost = false;
        while !stop.is_cancelled() {
            if !lot_is_known && let Err(failure) = self.learn_lot().await {
                self.shared.status.set(State::Waiting(failure));
                self.wait(REOPEN_MAX, &stop).await;
                continue;
            }
            lot_is_known = true;
            let opened = self.open().await;
            let began = Instant::now();
            let end = match opened {
                Ok(consumer) => {
                    if std::mem::take(&mut was_lost) {
                        self.reconnected();
                    }
                    self.serve(consumer, &stop, grace).await
                }
                Err(failure) => SessionEnd::Lost(failure),
            };
            self.prefetch = None;
            let failure = match end {
                SessionEnd::Stopping => break,
                SessionEnd::Reopen => {
                    pause = REOPEN_MIN;
                    continue;
                }
                SessionEnd::Lost(failure) => failure,
            };
            was_lost = true;
            self.shared.session_changed();
            self.forget_waiting().await;
            if began.elapsed() >= LIVED {
                pause = REOPEN_MIN;
            }
            if failure.kind == FailureKind::Disconnected {
                pause = pause.min(RECONNECT_MAX);
            }
            tracing::warn!(
                consumer = &*self.shared.plan.name, queue = self.shared.plan.queue, failure = failure.line(),
                again_in = ?pause, "cannot consume"
            );
            self.shared.status.reconnects.fetch_add(1, Relaxed);
            self.shared.status.set(State::Waiting(failure));
            self.wait(pause, &stop).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
        self.end(None, grace).await;
        self.shared.status.set(State::Stopped);
    }

    async fn open(&mut self) -> Result<Box<dyn Consumer>, Failure> {
        let plan = &self.shared.plan;
        let broker = &self.shared.ports.broker;
        if let DeadLetter::Queue(queue) = &plan.dead_letter {
            // Consuming does not depend on it: what cannot be dead-lettered stays unsettled, and says why.
            if let Err(failure) = broker.ensure_queue(queue).await {
                self.shared.status.troubled(Some(failure));
            }
        }
        let prefetch = self.shared.flow().prefetch(plan.concurrency);
        let consumer = broker.consume(&plan.queue, prefetch).await?;
        self.prefetch = Some(prefetch);
        self.show();
        self.set_state();
        Ok(consumer)
    }

    /// The broker answers again after the consumer was lost: what waited for the broker continues now, not when its backoff ends.
    fn reconnected(&self) {
        self.shared.on(Event::Reconnected);
        self.shared.session_changed();
    }

    /// One session: takes and starts until the consumer is lost or to be opened otherwise.
    async fn serve(
        &mut self,
        mut consumer: Box<dyn Consumer>,
        stop: &CancellationToken,
        grace: Duration,
    ) -> SessionEnd {
        self.again.opened();
        loop {
            consume_budget().await; // others of the thread have their turn
            self.start_what_may();
            if let Some(Some(ended)) = self.running.next().now_or_never() {
                self.finished(ended);
                continue;
            }
            if self.rests() || self.queue_waits_for_parked() || self.is_to_be_reopened() {
                self.forget_waiting().await;
                drop(consumer);
                self.prefetch = None;
                self.wait_until_it_may_go_on(stop).await;
                return SessionEnd::Reopen;
            }
            let takes = self.takes();
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.end(Some(consumer), grace).await;
                    return SessionEnd::Stopping;
                }
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finished(finished);
                }
                () = sleep_until(wake_at), if wake_at.is_some() => self.look_at_lot().await,
                // A consumer that is dropped half-way has taken nothing: that is its contract.
                delivery = consumer.next(), if takes => {
                    if let Err(end) = self.arrived_with_others(delivery, &mut *consumer).await {
                        return end;
                    }
                }
            }
        }
    }

    /// A message came, and perhaps others with it: they are taken in one round.
    async fn arrived_with_others(
        &mut self,
        first: Result<Option<Delivery>, Failure>,
        consumer: &mut dyn Consumer,
    ) -> Result<(), SessionEnd> {
        let mut next = first;
        for taken in 1.. {
            match next {
                Ok(Some(delivery)) => self.arrived(delivery).await,
                Ok(None) => return Err(SessionEnd::Lost(ended(&self.shared.plan.queue))),
                Err(failure) => return Err(SessionEnd::Lost(failure)),
            }
            if taken == TOGETHER_MAX || !self.takes() {
                break;
            }
            match consumer.next_that_is_there() {
                Some(there) => next = there,
                None => break,
            }
        }
        Ok(())
    }

    /// Whether more is to be taken. The prefetch bounds what waits; during a pause one message at a time is enough.
    fn takes(&self) -> bool {
        let mode = self.shared.flow().mode(); // not in the match, which would keep the lock
        match mode {
            Mode::Flowing | Mode::Alone => !self.has_too_small_a_prefetch(),
            Mode::Paused(_) => self.lanes.ready() == 0,
            Mode::Probing(_) | Mode::Draining { .. } => false,
        }
    }

    /// Whether a consumer that was opened during a pause is to be opened again with the whole prefetch.
    fn is_to_be_reopened(&self) -> bool {
        self.has_too_small_a_prefetch() && self.running.is_empty() && self.lanes.ready() == 0
    }

    fn has_too_small_a_prefetch(&self) -> bool {
        let concurrency = self.shared.plan.concurrency;
        self.prefetch.is_some_and(|prefetch| prefetch < self.shared.flow().prefetch(concurrency))
    }

    /// Starts all that may run now.
    fn start_what_may(&mut self) {
        loop {
            let room = self.working() < usize::from(self.shared.plan.concurrency.max(1));
            let started = room
                && match self.shared.may() {
                    May::Any => self.start_any(),
                    May::Probe => self.start_settling() || self.start_probe(),
                    May::Settle => self.start_settling(),
                    May::Nothing => false,
                };
            if !started {
                break;
            }
        }
        self.make_room();
        self.park_what_came();
        let waiting = self.lanes.waiting() + self.overflow.waiting() + self.suspects.len() + self.held.len();
        let waiting = waiting + self.again.waiting() + self.lot.to_park.len();
        self.shared.status.waiting.store(waiting as i64, Relaxed);
    }

    /// Starts one message; whether there was one that may start.
    fn start_any(&mut self) -> bool {
        if let Some((_, item)) = self.overflow.take() {
            self.start(item);
            return true;
        }
        if !self.suspects.is_empty() {
            return self.running.is_empty() && self.start_suspect();
        }
        let next = self.held.pop_front().map(Item::once_more);
        let Some(item) = next.or_else(|| self.lanes.take().map(|(_, item)| item)) else { return false };
        if item.crashes > 0 && item.decided.is_none() {
            self.suspects.push_back(item);
            return true;
        }
        let item = self.unless_expired(item);
        self.start(item);
        true
    }

    fn start_suspect(&mut self) -> bool {
        let Some(mut item) = self.suspects.pop_front() else { return false };
        item.role = Role::Alone;
        self.shared.on(Event::Started(Role::Alone));
        self.start(item);
        true
    }

    fn start(&mut self, item: Box<Item>) {
        self.running.start(work(self.shared.clone(), item));
    }

    /// How many messages are worked on. Those that are being parked behind others take no place.
    fn working(&self) -> usize {
        self.running.len() - usize::from(self.lot.is_parking)
    }

    /// A message that waited too long here is dead-lettered: whoever set that bound does not want it run so late.
    fn unless_expired(&self, mut item: Box<Item>) -> Box<Item> {
        let Some(expiration) = self.shared.plan.expiration else { return item };
        if item.decided.is_some() || item.parked.is_some() {
            return item;
        }
        let now = Instant::now();
        // Time in which nothing could be started because the destination did not work does not count.
        let paused = self.shared.flow().paused_in_all(now).saturating_sub(item.paused_before);
        let waited = (now - item.arrived).saturating_sub(paused);
        if waited > expiration {
            let text = format!("expired: it waited {} s to be started", waited.as_secs());
            let reason = Reason { class: Class::Expired, text, failure: None };
            item.decided = Some(Decision::DeadLetter(reason));
        }
        item
    }

    /// Work on a message is over, or it waits.
    fn finished(&mut self, finished: Ended<Finished>) {
        for item in self.again.over() {
            self.lanes.push(item.lane.clone(), item);
        }
        match finished {
            None => self.panicked(),
            Some(Finished::Batch(batch)) => self.batch_is_over(batch),
            Some(Finished::Message(over)) => self.is_over(over),
        }
        self.show();
    }

    fn is_over(&mut self, over: Over) {
        if over.role != Role::Usual {
            self.shared.on(Event::Over(over.role));
        }
        match over.stays {
            Stays::Held(item) => self.held.push_back(item),
            Stays::Parked => self.is_parked(over.parked, over.lane, over.bytes),
            Stays::Kept => {
                self.lot_keeps_one_more();
                self.leaves(&over);
            }
            Stays::No => self.leaves(&over),
        }
    }

    /// Nothing of a message is left where it was: the next of its lane may start.
    fn leaves(&mut self, over: &Over) {
        match (over.parked, over.overflow) {
            (Some(id), _) => self.unparked(id, &over.lane, over.bytes),
            (None, true) => self.overflow.done(&over.lane),
            (None, false) => self.lanes.done(&over.lane),
        }
    }

    /// The task of a message panicked outside its handler. That is an error of this attempt: the message is tried again as after
    /// any other, and what it held (its lane, its place, the probe) is free again.
    fn panicked(&mut self) {
        for mut item in self.shared.take_dropped() {
            let role = std::mem::take(&mut item.role);
            if role != Role::Usual {
                self.shared.on(Event::Over(role));
            }
            item.panics += 1;
            let failure = Failure::internal("work on a message").detail("its task panicked; see the log");
            tracing::error!(consumer = &*self.shared.plan.name, failure = failure.line(), "a bug in Warren");
            if item.is_being_parked {
                self.parking_panicked(item);
            } else if item.panics == 1 {
                (item.handled, item.later) = (true, None);
                let plan = &self.shared.plan;
                let outcome = Outcome::Retry(failure);
                item.decided =
                    Some(decide(outcome, item.attempts(), &plan.retry, plan.allow_redelivery, 0.5));
                self.start(item);
            } else if item.panics < PANICS_MAX {
                self.running.start(let_go_later(self.shared.clone(), item));
            } else {
                let stays = if item.parked.is_some() { Stays::Parked } else { Stays::No };
                self.is_over(Over::of(&mut item, stays));
            }
        }
    }

    /// Whether the whole queue waits for a parked message: then nothing is held unsettled meanwhile.
    fn queue_waits_for_parked(&self) -> bool {
        matches!(self.shared.plan.ordering, Ordering::Queue)
            && !self.lot.lanes.is_empty()
            && self.running.is_empty()
            && self.lanes.ready() == 0
    }

    /// Works without a consumer: on what is parked, and until a probe is due.
    async fn wait_until_it_may_go_on(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            self.rests();
            self.start_what_may();
            let probe_is_due =
                self.shared.flow().pause().is_none_or(|pause| Instant::now() >= pause.probe_at);
            let queue_waits =
                matches!(self.shared.plan.ordering, Ordering::Queue) && !self.lot.lanes.is_empty();
            if self.running.is_empty() && probe_is_due && !queue_waits {
                return;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finished(finished);
                }
                () = sleep_until(wake_at), if wake_at.is_some() => self.look_at_lot().await,
            }
        }
    }

    /// Waits before the consumer is opened again; what runs and what is parked goes on meanwhile.
    async fn wait(&mut self, pause: Duration, stop: &CancellationToken) {
        let until = Instant::now() + pause;
        loop {
            self.rests();
            self.start_what_may();
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => return,
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finished(finished);
                }
                () = sleep_until(wake_at), if wake_at.is_some() => self.look_at_lot().await,
            }
        }
    }

    /// Lets go of what waits and was not started: the consumer is gone, or about to be closed. What is parked stays parked.
    async fn forget_waiting(&mut self) {
        let to_park = self.nothing_is_to_be_parked();
        let waiting = self.again.take_all().into_iter().chain(self.lanes.take_all());
        let waiting = waiting.chain(self.overflow.take_all()).chain(to_park);
        // These have a lane for themselves, as if they ran.
        let begun: Vec<Box<Item>> = self.suspects.drain(..).chain(self.held.drain(..)).collect();
        for item in &begun {
            self.lanes.done(&item.lane);
        }
        let all: Vec<Box<Item>> = begun.into_iter().chain(waiting).collect();
        for lane in self.lot.lanes.keys() {
            self.lanes.keep(lane);
        }
        self.note_unstarted(&all).await;
        // The last first: a broker that puts what comes back at the head has them in order then.
        for mut item in all.into_iter().rev() {
            if let Some(id) = item.parked {
                self.lot.taken.remove(&id);
                self.lot.look_at = Some(Instant::now());
            }
            hand_back(&self.shared, &mut item).await;
        }
    }

    /// Where nothing may run twice, it is noted which messages go back without having been started: all of them at once.
    async fn note_unstarted(&self, items: &[Box<Item>]) {
        if self.shared.plan.allow_redelivery {
            return;
        }
        let unstarted = items.iter().filter(|item| item.goes_back_unstarted()).map(|item| item.print);
        let unstarted: Vec<u128> = unstarted.collect();
        if !unstarted.is_empty() {
            self.shared.ports.in_flight.unstarted(&unstarted).await;
        }
    }

    // The end.

    /// Asks for no more, hands back what was not started, lets what runs end within the grace, and hands back the rest.
    async fn end(&mut self, consumer: Option<Box<dyn Consumer>>, grace: Duration) {
        self.shared.on(Event::Stop);
        if !matches!(self.shared.status.state(), State::Draining) {
            self.shared.status.set(State::Draining);
        }
        let over = Instant::now() + grace;
        let mut consumer = consumer;
        if let Some(consumer) = &mut consumer {
            // A broker that does not answer must not hold up the end.
            tokio::time::timeout_at(over, consumer.cancel()).await.ok();
        }
        self.forget_waiting().await;
        let mut comes = consumer.is_some();
        while !self.running.is_empty() || comes {
            tokio::select! {
                biased;
                Some(ended) = self.running.next(), if !self.running.is_empty() => self.is_left(ended).await,
                delivery = next_of(&mut consumer), if comes => match delivery {
                    Ok(Some(delivery)) => comes = self.hand_back_unread(delivery, &mut consumer).await,
                    Ok(None) | Err(_) => comes = false,
                },
                () = tokio::time::sleep_until(over) => break,
            }
        }
        self.shared.abandon.cancel();
        while let Some(ended) = self.running.next().await {
            self.is_left(ended).await;
        }
        // Only now: closing it hands back whatever is still unsettled.
        drop(consumer);
    }

    /// What ended while the process stops, and is not settled.
    async fn is_left(&mut self, ended: Ended<Finished>) {
        let left = match ended {
            Some(Finished::Message(Over { stays: Stays::Held(item), .. })) => vec![item],
            Some(Finished::Message(_)) => Vec::new(),
            Some(Finished::Batch(batch)) => batch.left,
            None => self.shared.take_dropped(),
        };
        self.note_unstarted(&left).await;
        for mut item in left {
            hand_back(&self.shared, &mut item).await;
        }
    }

    /// Messages that were on their way when no more were asked for. Whether more may come.
    async fn hand_back_unread(&self, first: Delivery, consumer: &mut Option<Box<dyn Consumer>>) -> bool {
        let (mut unsettled, mut prints): (Vec<Unsettled>, Vec<u128>) = (Vec::new(), Vec::new());
        let (mut next, mut comes) = (Some(first), true);
        while let Some(delivery) = next.take() {
            let (job, half) = delivery.split();
            unsettled.push(half);
            prints.push(copies::print(&job));
            next = match consumer.as_mut().and_then(|consumer| consumer.next_that_is_there()) {
                Some(Ok(Some(delivery))) => Some(delivery),
                Some(Ok(None) | Err(_)) => {
                    comes = false;
                    None
                }
                None => None,
            };
        }
        if !self.shared.plan.allow_redelivery {
            self.shared.ports.in_flight.unstarted(&prints).await;
        }
        for half in unsettled {
            give_back(Some(half)).await;
        }
        comes
    }
}

async fn next_of(consumer: &mut Option<Box<dyn Consumer>>) -> Result<Option<Delivery>, Failure> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => Ok(None),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ended(queue: &str) -> Failure {
    Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, format!("consume from queue `{queue}`"))
        .detail("the broker ended the consumer")
}

impl RetryMode {
    /// Whether it may make delay queues for a consumer of that order.
    pub fn makes_queues(self, ordering: &Ordering) -> bool {
        matches!(self, RetryMode::Auto | RetryMode::DelayQueues) && matches!(ordering, Ordering::None)
    }
}

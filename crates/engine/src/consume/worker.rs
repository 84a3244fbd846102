//! The loop of one consumer: open, take, start what may start, settle, open again; and an orderly end.
//!
//! One task owns all that waits, and mostly goes on with what is worked on too, which hands back what became of it (`running`).
//! What comes is looked at in `arrival`, what comes again while it is worked on in `again`; the parking lot is
//! looked after in `lot`; what is otherwise while the destination is down stands in `pause`.
//!
//! Nothing here ends because of a broker that is away or a queue that is missing: that is a state, shown and tried again.

mod again;
mod arrival;
mod lot;
mod pause;
mod running;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::again::Again;
pub(super) use self::again::Working;
use self::arrival::came_before;
pub use self::lot::LANE_PARKED_MAX;
use self::lot::Lot;
use self::pause::Pause;
use self::running::{Ended, Running};
use super::copies;
use super::lanes::Lanes;
use super::plan::{ConsumePlan, DeadLetter, Ordering, RetryMode};
use super::policy::{Class, Decision, Reason};
use super::settle::{acknowledge, give_back, hand_back};
use super::status::{State, Status};
use super::work::{End, Finished, Item, Shared, work};
use crate::codes;
use crate::delivery::Delivery;
use crate::failure::{Failure, FailureKind};
use crate::ports::{Broker, Clock, Consumer, Dice, Handler, InFlight, MessageRecords, Parking};

/// The first pause before a consumer is opened again.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// The longest.
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// A consumer that lived as long begins anew with the shortest pause.
const LIVED: Duration = Duration::from_secs(30);
/// How long messages are held while the destination is down. Brokers take a message back that is not settled for long
/// (RabbitMQ: 30 minutes, with all others of the channel); after this they are settled, and one at a time is taken.
const HOLD_MAX: Duration = Duration::from_secs(10 * 60);
/// The deaths of the process after which the message that was worked on is given up.
const CRASHES_MAX: u32 = 3;
/// Messages taken in one round.
const TOGETHER_MAX: u32 = 64;

/// With whom a consumer works.
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
    running: Running<Finished>,
    /// Messages that were being handled when the process died: each runs alone.
    suspects: VecDeque<Box<Item>>,
    alone: bool,
    /// Messages that failed while the destination was down, in the order in which they did.
    held: VecDeque<Box<Item>>,
    paused: Option<Pause>,
    /// How long messages have waited for nothing but the destination, in all.
    paused_in_all: Duration,
    lot: Lot,
    again: Again,
}

/// How a session with an open consumer ended.
enum Over {
    Lost(Failure),
    /// To be opened again with what the moment asks for.
    Reopen,
    Stopping,
}

impl Worker {
    /// A consumer of a plan. `status` is seen from outside.
    pub fn new(plan: ConsumePlan, ports: ConsumePorts, status: Arc<Status>) -> Worker {
        let abandon = CancellationToken::new();
        let (breaker, declared) = (std::sync::Mutex::default(), std::sync::Mutex::default());
        Worker {
            shared: Arc::new(Shared { plan, ports, status, breaker, declared, abandon }),
            lanes: Lanes::default(),
            running: Running::new(),
            suspects: VecDeque::new(),
            alone: false,
            held: VecDeque::new(),
            paused: None,
            paused_in_all: Duration::ZERO,
            lot: Lot::default(),
            again: Again::default(),
        }
    }

    /// Consumes until it is told to stop; then finishes what runs within `grace` and hands the rest back.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        self.running.work().beside(self.consume(stop, grace)).await;
    }

    async fn consume(mut self, stop: CancellationToken, grace: Duration) {
        let mut pause = REOPEN_MIN;
        let mut lot_is_known = false;
        while !stop.is_cancelled() {
            if !lot_is_known && let Err(failure) = self.learn_lot().await {
                self.shared.status.set(State::Waiting(failure));
                self.wait(REOPEN_MAX, &stop).await;
                continue;
            }
            lot_is_known = true;
            let opened = self.open().await;
            let began = Instant::now();
            let over = match opened {
                Ok(consumer) => self.serve(consumer, &stop, grace).await,
                Err(failure) => Over::Lost(failure),
            };
            let failure = match over {
                Over::Stopping => break,
                Over::Reopen => {
                    pause = REOPEN_MIN;
                    continue;
                }
                Over::Lost(failure) => failure,
            };
            self.forget_waiting().await;
            if began.elapsed() >= LIVED {
                pause = REOPEN_MIN;
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
        let prefetch = if self.paused.is_some() { 1 } else { plan.concurrency.max(1) };
        let consumer = broker.consume(&plan.queue, prefetch).await?;
        let state = if self.paused.is_some() { State::Paused } else { State::Consuming };
        self.shared.status.set(state);
        Ok(consumer)
    }

    /// One session: takes and starts until the consumer is lost or to be opened otherwise.
    async fn serve(
        &mut self,
        mut consumer: Box<dyn Consumer>,
        stop: &CancellationToken,
        grace: Duration,
    ) -> Over {
        self.again.opened();
        loop {
            consume_budget().await; // others of the thread have their turn
            self.start_what_may();
            if let Some(Some(ended)) = self.running.next().now_or_never() {
                self.finished(ended).await;
                continue;
            }
            if self.rests() || self.queue_waits_for_parked() || self.rests_for_room() {
                self.forget_waiting().await;
                drop(consumer);
                self.wait_until_it_may_go_on(stop).await;
                return Over::Reopen;
            }
            let takes = self.takes();
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.end(Some(consumer), grace).await;
                    return Over::Stopping;
                }
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finished(finished).await;
                }
                () = sleep_until(wake_at), if wake_at.is_some() => self.look_at_lot().await,
                // A consumer that is dropped half-way has taken nothing: that is its contract.
                delivery = consumer.next(), if takes => {
                    if let Err(over) = self.arrived_with_others(delivery, &mut *consumer).await {
                        return over;
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
    ) -> Result<(), Over> {
        let mut next = first;
        for taken in 1.. {
            match next {
                Ok(Some(delivery)) => self.arrived(delivery).await,
                Ok(None) => return Err(Over::Lost(ended(&self.shared.plan.queue))),
                Err(failure) => return Err(Over::Lost(failure)),
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

    /// Whether more is to be taken. The prefetch bounds what waits; while the destination is down one message is enough.
    fn takes(&self) -> bool {
        if self.lot.is_full_for_long() {
            return false;
        }
        self.paused.is_none() || (self.held.is_empty() && self.lanes.ready() == 0 && self.running.is_empty())
    }

    /// A message came.
    async fn arrived(&mut self, delivery: Delivery) {
        let (job, unsettled) = delivery.split();
        let shared = self.shared.clone();
        shared.status.received.fetch_add(1, Relaxed);
        let received = copies::receive(job, shared.ports.clock.now_ms());
        let mut unsettled = Some(unsettled);
        if shared.plan.auto_ack && acknowledge(unsettled.take()).await.is_err() {
            return; // the broker gives it out again
        }
        let print = copies::print(&received.job);
        let crashes = shared.ports.in_flight.crashes(print);
        let (lane, decided) = self.judged(&received, print, crashes).await;
        let again = lane.is_none() && decided.is_none() && came_before(&received.job.envelope);
        let working = unsettled.is_some().then(|| self.again.came(print));
        let item = Box::new(Item {
            received,
            unsettled,
            parked: None,
            lane: lane.clone(),
            print,
            crashes,
            arrived: Instant::now(),
            paused_before: self.paused_in_all,
            decided: decided.map(Decision::DeadLetter),
            handled: false,
            working,
        });
        if again && self.again.is_worked_on(print) {
            self.again.wait(item);
            return;
        }
        self.lanes.push(lane.clone(), item);
        if let Some(lane) = lane
            && self.lot.lanes.contains_key(&lane)
        {
            self.park_behind(&lane).await;
        }
    }

    /// Starts all that may run now.
    fn start_what_may(&mut self) {
        loop {
            let room = self.running.len() < usize::from(self.shared.plan.concurrency.max(1));
            if self.alone || !room {
                break;
            }
            if self.paused.is_some() {
                self.probe();
                break;
            }
            if !self.suspects.is_empty() {
                if self.running.is_empty()
                    && let Some(item) = self.suspects.pop_front()
                {
                    self.alone = true;
                    self.start(item);
                }
                break;
            }
            let next = self.held.pop_front().map(again).or_else(|| self.lanes.take().map(|(_, item)| item));
            match next {
                None => break,
                Some(item) if item.crashes > 0 && item.decided.is_none() => self.suspects.push_back(item),
                Some(item) => {
                    let item = self.unless_expired(item);
                    self.start(item);
                }
            }
        }
        let waiting = self.lanes.waiting() + self.suspects.len() + self.held.len() + self.again.waiting();
        self.shared.status.waiting.store(waiting as i64, Relaxed);
    }

    fn start(&mut self, item: Box<Item>) {
        self.running.start(work(self.shared.clone(), item));
    }

    /// A message that waited too long here is given up: whoever set that bound does not want it run so late.
    fn unless_expired(&self, mut item: Box<Item>) -> Box<Item> {
        let Some(expiration) = self.shared.plan.expiration else { return item };
        // Time in which nothing could be started because the destination was down does not count.
        let paused = self.paused_in_all.saturating_sub(item.paused_before);
        let waited = item.arrived.elapsed().saturating_sub(paused);
        if waited <= expiration || item.decided.is_some() || item.parked.is_some() {
            return item;
        }
        let text = format!("expired: it waited {} s to be started", waited.as_secs());
        let reason = Reason { class: Class::Expired, text, failure: None };
        item.decided = Some(Decision::DeadLetter(reason));
        item
    }

    /// A message is over, or waits.
    async fn finished(&mut self, finished: Ended<Finished>) {
        self.alone = false;
        for item in self.again.over() {
            self.lanes.push(item.lane.clone(), item);
        }
        let Some(Finished { lane, parked, end }) = finished else {
            // A panic of ours, not of a handler: what it held is with the broker, which gives it out again.
            self.shared.status.troubled(Some(Failure::internal("work on a message")));
            return;
        };
        match end {
            End::Held(item) => self.held.push_back(item),
            End::Done => match parked {
                Some(id) => self.unparked(id, &lane).await,
                None => self.lanes.done(&lane),
            },
            End::Parked => {
                self.lot.look_at = Some(Instant::now());
                match (parked, &lane) {
                    (Some(id), _) => {
                        self.lot.taken.remove(&id);
                    }
                    (None, Some(name)) => {
                        *self.lot.lanes.entry(name.clone()).or_default() += 1;
                        self.shared.status.parked.fetch_add(1, Relaxed);
                        self.park_behind(&name.clone()).await;
                    }
                    (None, None) => {
                        self.shared.status.parked.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        self.pause_or_go_on();
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
            let probe_is_due = self.paused.as_ref().is_none_or(|pause| Instant::now() >= pause.probe_at);
            let queue_waits =
                matches!(self.shared.plan.ordering, Ordering::Queue) && !self.lot.lanes.is_empty();
            if self.running.is_empty() && probe_is_due && !queue_waits && self.lot.has_room() {
                return;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(finished) = self.running.next(), if !self.running.is_empty() => {
                    self.finished(finished).await;
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
                    self.finished(finished).await;
                }
                () = sleep_until(wake_at), if wake_at.is_some() => self.look_at_lot().await,
            }
        }
    }

    /// When something is to be done although nothing happens.
    fn wake_at(&self) -> Option<Instant> {
        let pause = self.paused.as_ref();
        let probe = pause.filter(|pause| !pause.probing).map(|pause| pause.probe_at);
        let probe = probe.filter(|_| !self.held.is_empty() || self.lanes.ready() > 0);
        let rest = pause.filter(|_| self.running.is_empty()).map(|pause| pause.since + HOLD_MAX);
        let lot = self.lot.look_at.and_then(|at| match pause {
            None => Some(at),
            Some(pause) => self.lot_is_to_probe().then(|| at.max(pause.probe_at)),
        });
        let now = Instant::now();
        // What is due already and could not be done waits for something else to happen.
        let full = self.lot.full_for_long_at().filter(|at| *at > now);
        [probe.filter(|at| *at > now), rest, lot, full].into_iter().flatten().min()
    }

    /// Lets go of what waits and was not started: the consumer is gone, or about to be closed. What is parked stays parked.
    async fn forget_waiting(&mut self) {
        // The last first: a broker that puts what comes back at the head has them in order then.
        let waiting = self.again.take_all().into_iter().chain(self.lanes.take_all());
        for item in waiting.collect::<Vec<_>>().into_iter().rev() {
            self.let_go(item).await;
        }
        self.nothing_is_held_back();
        // These have a lane for themselves, as if they ran.
        let begun: Vec<Box<Item>> = self.suspects.drain(..).chain(self.held.drain(..)).collect();
        for item in begun.into_iter().rev() {
            let lane = item.lane.clone();
            self.let_go(item).await;
            self.lanes.done(&lane);
        }
        for lane in self.lot.lanes.keys() {
            self.lanes.keep(lane);
        }
    }

    async fn let_go(&mut self, item: Box<Item>) {
        if let Some(id) = item.parked {
            self.lot.taken.remove(&id);
            self.lot.look_at = Some(Instant::now());
        }
        hand_back(&self.shared, item).await;
    }

    // The end.

    /// Asks for no more, hands back what was not started, lets what runs end within the grace, and hands back the rest.
    async fn end(&mut self, consumer: Option<Box<dyn Consumer>>, grace: Duration) {
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
                Some(_) = self.running.next(), if !self.running.is_empty() => {}
                delivery = next_of(&mut consumer), if comes => match delivery {
                    // It was on its way when we asked for no more.
                    Ok(Some(delivery)) => {
                        let (job, unsettled) = delivery.split();
                        if !self.shared.plan.allow_redelivery {
                            let received = copies::receive(job, 0);
                            self.shared.ports.in_flight.unstarted(copies::print(&received.job));
                        }
                        give_back(Some(unsettled)).await;
                    }
                    Ok(None) | Err(_) => comes = false,
                },
                () = tokio::time::sleep_until(over) => break,
            }
        }
        self.shared.abandon.cancel();
        while self.running.next().await.is_some() {}
        // Only now: closing it hands back whatever is still unsettled.
        drop(consumer);
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

/// A message that was held, to be tried once more: the attempt did not count.
fn again(mut item: Box<Item>) -> Box<Item> {
    if matches!(item.decided, Some(Decision::Retry { .. })) {
        (item.decided, item.handled) = (None, false);
    }
    item
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

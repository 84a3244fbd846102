//! A consumer with everything it needs in memory, and a handler that does as it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warren_engine::codes;
use warren_engine::consume::plan::{ConsumePlan, DeadLetter};
use warren_engine::consume::record::{MessageRun, MessageStatus};
use warren_engine::consume::status::{State, Status};
use warren_engine::consume::worker::{ConsumePorts, Worker};
use warren_engine::delivery::{Job, Settlement};
use warren_engine::failure::{Failure, FailureKind, Said};
use warren_engine::memory::{Event, MemoryBroker, MemoryInFlight, MemoryMessageRecords, MemoryParking};
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::outcome::{Attempt, Outcome, StepTrace};
use warren_engine::ports::{Broker, Clock, Handler};

/// The wall clock goes with tokio's, which tests hold.
pub struct TestClock(Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.elapsed().as_millis() as i64 + 1_700_000_000_000
    }
}

/// What the handler does with a message, by its body.
#[derive(Clone)]
pub enum Act {
    Ok,
    Drop,
    Reject,
    /// Fails as a destination that cannot be reached.
    Unreachable,
    /// Fails as a destination that answers badly, asking to come back after so many seconds.
    Busy(Option<u64>),
    /// An answer that says that it does not work now.
    Answers503,
    /// Cannot be handled before an operator acts: the login is refused.
    LoginRefused,
    /// Fails so often, then works.
    FailsTimes(usize),
    Hangs,
    Panics,
    /// Waits until [`World::release`].
    Waits,
}

#[derive(Default)]
pub struct Script {
    acts: Mutex<HashMap<String, Act>>,
    otherwise: Mutex<Option<Act>>,
    pub calls: Mutex<Vec<(String, u32)>>,
    running: AtomicUsize,
    most: AtomicUsize,
    dropped: AtomicUsize,
    gate: Option<Semaphore>,
    changed: Notify,
}

/// Notices that a handler was dropped before it ended.
struct Guard<'s>(&'s Script, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
        self.0.changed.notify_waiters();
    }
}

/// Time passes on the test's clock, which stands still while anything can run.
pub async fn passes(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

pub fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, codes::BROKER_UNREACHABLE, "call the shop")
}

#[async_trait]
impl Handler for Script {
    async fn handle(&self, job: &Job, attempt: &Attempt) -> Outcome {
        let body = String::from_utf8_lossy(&job.message.body).into_owned();
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let mut guard = Guard(self, false);
        let before = {
            let mut calls = self.calls.lock().unwrap();
            let before = calls.iter().filter(|(other, _)| *other == body).count();
            calls.push((body.clone(), attempt.number));
            before
        };
        self.changed.notify_waiters();
        attempt.trace.note(StepTrace {
            path: "1.http".into(),
            id: None,
            took: Duration::from_millis(3),
            note: None,
            failure: None,
        });
        let act = self.acts.lock().unwrap().get(&body).cloned();
        let act = act.or_else(|| self.otherwise.lock().unwrap().clone()).unwrap_or(Act::Ok);
        let outcome = match act {
            Act::Ok => Outcome::Ok,
            Act::Drop => Outcome::Drop,
            Act::Reject => Outcome::Reject(failure(FailureKind::Invalid)),
            Act::Unreachable => Outcome::Retry(failure(FailureKind::Disconnected)),
            Act::Busy(after) => Outcome::Retry(Failure {
                retry_after: after.map(Duration::from_secs),
                ..failure(FailureKind::Throttled)
            }),
            Act::Answers503 => Outcome::Retry(failure(FailureKind::Disconnected).said(Said {
                status: Some(503),
                exit_code: None,
                answer: Some("come back later".into()),
            })),
            Act::LoginRefused => Outcome::Retry(Failure::new(
                FailureKind::Refused,
                codes::BROKER_REFUSED_LOGIN,
                "publish to the ledger",
            )),
            Act::FailsTimes(times) if before < times => Outcome::Retry(failure(FailureKind::Internal)),
            Act::FailsTimes(_) => Outcome::Ok,
            Act::Hangs => std::future::pending().await,
            Act::Panics => panic!("told to"),
            Act::Waits => {
                let gate = self.gate.as_ref().unwrap();
                gate.acquire().await.unwrap().forget();
                Outcome::Ok
            }
        };
        guard.1 = true;
        outcome
    }
}

pub struct World {
    pub plan: ConsumePlan,
    pub broker: Arc<MemoryBroker>,
    pub script: Arc<Script>,
    pub records: Arc<MemoryMessageRecords>,
    pub parking: Arc<MemoryParking>,
    pub in_flight: Arc<MemoryInFlight>,
    pub status: Arc<Status>,
    /// The next so many throws of the dice panic.
    pub dice_panics: Arc<AtomicUsize>,
    began: Instant,
    stop: CancellationToken,
    worker: Option<JoinHandle<()>>,
}

impl World {
    /// A queue `in` and a queue `dead` for what is given up.
    pub fn new() -> World {
        let script = Script { gate: Some(Semaphore::new(0)), ..Script::default() };
        World {
            plan: ConsumePlan::new("orders", "in", DeadLetter::Queue("dead".into())),
            broker: Arc::new(MemoryBroker::with_queues(["in", "dead"])),
            script: Arc::new(script),
            records: Arc::default(),
            parking: Arc::default(),
            in_flight: Arc::default(),
            status: Arc::default(),
            dice_panics: Arc::default(),
            began: Instant::now(),
            stop: CancellationToken::new(),
            worker: None,
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut ConsumePlan)) -> World {
        change(&mut self.plan);
        self
    }

    pub fn acts(self, acts: impl IntoIterator<Item = (&'static str, Act)>) -> World {
        for (body, act) in acts {
            self.act(body, act);
        }
        self
    }

    pub fn act(&self, body: &str, act: Act) {
        self.script.acts.lock().unwrap().insert(body.to_owned(), act);
    }

    /// What is done with all other messages.
    pub fn otherwise(&self, act: Act) {
        *self.script.otherwise.lock().unwrap() = Some(act);
    }

    pub async fn publish(&self, bodies: impl IntoIterator<Item = impl Into<String>>) {
        for body in bodies {
            self.publish_as(&body.into(), Properties::default()).await;
        }
    }

    pub async fn publish_as(&self, body: &str, properties: Properties) {
        let message = Message { body: Bytes::from(body.to_owned()), properties };
        self.publish_message(message).await;
    }

    pub async fn publish_message(&self, message: Message) {
        let outbound = Outbound { route: Route::Queue("in".into()), message };
        let receipts = self.broker.publish(&[outbound]).await;
        assert!(matches!(receipts[..], [Receipt::Accepted(_)]));
    }

    pub fn ports(&self) -> ConsumePorts {
        let panics = self.dice_panics.clone();
        ConsumePorts {
            broker: self.broker.clone(),
            handler: self.script.clone(),
            records: self.records.clone(),
            parking: self.parking.clone(),
            in_flight: self.in_flight.clone(),
            clock: Arc::new(TestClock(self.began)),
            dice: Arc::new(move || {
                let panics =
                    panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                assert!(panics.is_err(), "the dice were told to panic");
                0.5
            }),
        }
    }

    pub fn start(&mut self) {
        self.stop = CancellationToken::new();
        let worker = Worker::new(self.plan.clone(), self.ports(), self.status.clone());
        let (stop, grace) = (self.stop.clone(), Duration::from_secs(30));
        #[allow(clippy::disallowed_methods, reason = "tests")]
        let running = tokio::spawn(worker.run(stop, grace));
        self.worker = Some(running);
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.worker.take().unwrap().await.unwrap();
    }

    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// The process dies: nothing it had ends in good order.
    pub async fn kill(&mut self) {
        let worker = self.worker.take().unwrap();
        // The broker notices the lost connection; the journal finds at its next start what was being handled.
        self.in_flight.crash();
        self.broker.disconnect();
        worker.abort();
        worker.await.unwrap_err();
    }

    /// Waits for a state, which must come within days of the test's clock.
    pub async fn until(&self, what: &str, state: impl Fn(&World) -> bool) {
        let began = Instant::now();
        while !state(self) {
            assert!(began.elapsed() < Duration::from_secs(4 * 86400), "{what} never came: {}", self.shown());
            // The clock stands still while anything can run, and then goes on to what happens next.
            passes(Duration::from_millis(20) + began.elapsed() / 100).await;
        }
    }

    /// Waits until nothing is left to be done in the queue and here.
    pub async fn until_settled(&self) {
        self.until("rest", |world| {
            world.depth("in") == 0
                && world.broker.unsettled() == 0
                && world.parking.all().is_empty()
                && world.delayed() == 0
        })
        .await;
    }

    /// Messages in delay queues.
    pub fn delayed(&self) -> usize {
        let names = self.broker.events();
        let queues: std::collections::BTreeSet<String> = names
            .into_iter()
            .filter_map(|event| match event {
                Event::Confirmed(queue, _) if queue.starts_with("warren.delay.") => Some(queue),
                _ => None,
            })
            .collect();
        queues.iter().map(|queue| self.depth(queue)).sum()
    }

    pub fn depth(&self, queue: &str) -> usize {
        self.broker.messages(queue).len()
    }

    pub fn release(&self, count: usize) {
        self.script.gate.as_ref().unwrap().add_permits(count);
    }

    /// The bodies and attempts the handler was called with.
    pub fn calls(&self) -> Vec<(String, u32)> {
        self.script.calls.lock().unwrap().clone()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.calls().into_iter().map(|(body, _)| body).collect()
    }

    pub fn calls_of(&self, body: &str) -> usize {
        self.calls().iter().filter(|(other, _)| other == body).count()
    }

    pub fn running(&self) -> usize {
        self.script.running.load(Ordering::SeqCst)
    }

    /// The most handlers at once.
    pub fn most(&self) -> usize {
        self.script.most.load(Ordering::SeqCst)
    }

    /// Handlers dropped before their end.
    pub fn dropped(&self) -> usize {
        self.script.dropped.load(Ordering::SeqCst)
    }

    /// How deliveries of a body were settled, in order.
    pub fn settled(&self, body: &str) -> Vec<Settlement> {
        let events = self.broker.events().into_iter();
        let settled = events.filter_map(|event| match event {
            Event::Settled(_, of, how) if of == body => Some(how),
            _ => None,
        });
        settled.collect()
    }

    pub fn runs(&self, body: &str) -> Vec<MessageRun> {
        let runs = self.records.all().into_iter();
        runs.filter(|run| run.job.message.body == body.as_bytes()).collect()
    }

    pub fn statuses(&self, body: &str) -> Vec<MessageStatus> {
        self.runs(body).iter().map(|run| run.status).collect()
    }

    /// The dead letters: body, class and reason.
    pub fn dead(&self) -> Vec<(String, String, String)> {
        let text = |message: &Message, name: &str| match message.properties.headers.get(name) {
            Some(HeaderValue::Text(text)) => text.clone(),
            other => panic!("{name}: {other:?}"),
        };
        let messages = self.broker.messages("dead");
        messages
            .iter()
            .map(|message| {
                let body = String::from_utf8_lossy(&message.body).into_owned();
                (body, text(message, "x-warren-class"), text(message, "x-warren-reason"))
            })
            .collect()
    }

    pub fn is(&self, word: &str) -> bool {
        self.status.state().as_str() == word
    }

    pub fn waits_for(&self) -> Option<Failure> {
        match self.status.state() {
            State::Waiting(failure) => Some(failure),
            _ => None,
        }
    }

    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn shown(&self) -> String {
        format!(
            "{} at {} s; calls {:?}; events {:?}; trouble {:?}",
            self.status.state().as_str(),
            self.seconds(),
            self.calls(),
            self.broker.events(),
            self.status.trouble()
        )
    }
}

//! The ports to the world. What stands here is a contract: who calls, what may run at once, who retries.
//!
//! Nobody behind a port retries a message, reconnects in the background of a failed call, records, logs errors or
//! dead-letters. A port says what happened; the engine decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::change::Change;
use crate::codes::{self, Code};
use crate::consume::policy::DeadLettered;
use crate::consume::record::{MessageRun, MessageRunId};
use crate::consume::retry::DelayQueue;
use crate::delivery::{Delivery, Job};
use crate::failure::{Failure, FailureKind};
use crate::finding::{Finding, Severity};
use crate::message::{Outbound, Receipt, Route};
use crate::model::{Model, Schema};
use crate::outcome::{Attempt, Outcome};
use crate::pipeline::outside::{CommandEnd, CommandLine, HttpAnswer, HttpRequest, SqlAnswer, SqlCall};
use crate::row::Batch;
use crate::run::{RowOutcome, RunCounts, RunId, RunKind, RunRecord};

/// Where rows come from. Read only.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns of a model's query, found without running it where the source can.
    ///
    /// # Errors
    /// The source cannot be reached or refuses the query.
    async fn describe(&self, model: &Model) -> Result<Arc<Schema>, Failure>;

    /// Runs the query in full, in one consistent read that cannot write. Dropping the stream ends the query.
    ///
    /// # Errors
    /// The source cannot be reached or refuses the query.
    async fn rows(&self, model: &Model) -> Result<Box<dyn RowStream>, Failure>;
}

/// The rows of one query, in batches.
#[async_trait]
pub trait RowStream: Send {
    /// The columns of every row.
    fn schema(&self) -> &Arc<Schema>;

    /// The next rows; never an empty batch; `None` once the source has said that the result is complete.
    ///
    /// # Errors
    /// The query failed or the connection was lost. A result that was cut short is an error, never an end.
    /// After an error the stream is not asked again.
    async fn next(&mut self) -> Result<Option<Batch>, Failure>;
}

/// A queue that a broker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// What kind it is, in the broker's words, such as `classic` or `quorum`.
    pub kind: String,
    /// Messages in it, where the broker tells.
    pub messages: Option<u64>,
    /// Consumers of it, where the broker tells.
    pub consumers: Option<u64>,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
}

/// What a broker allows in one message, as far as is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// The largest body, in bytes.
    pub body_bytes_max: u64,
    /// The most bytes of properties and headers together, encoded.
    pub header_bytes_max: Option<u64>,
    /// The most bytes of a name, routing key or short property.
    pub short_bytes_max: Option<usize>,
}

/// Where messages go and come from.
///
/// Calls may run at once. A broker connects when it is first used, and again when it is used after the connection
/// was lost: a call that finds no connection tries to make one, once, and says [`Disconnected`] if it cannot.
///
/// [`Disconnected`]: crate::failure::FailureKind::Disconnected
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes a batch and waits for the answers: one receipt a message, in the order of the batch, each
    /// its own message's. Within a batch, and among batches whose calls begin one after another, messages of one route
    /// are sent in order. Unroutable messages are refused. Waits no longer than the configured publish timeout for an answer,
    /// after which the message's receipt is `Unknown`.
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt>;

    /// What one message may be. Asked before messages are rendered and again after a refusal; may connect.
    ///
    /// # Errors
    /// The broker cannot be reached.
    async fn limits(&self) -> Result<MessageLimits, Failure>;

    /// Looks at the connection, the rights and the routes named, and changes nothing.
    async fn check(&self, routes: &[Route]) -> Vec<Finding>;

    /// The queues it has, by name.
    ///
    /// # Errors
    /// The broker cannot be reached, or does not tell.
    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure>;

    /// Takes messages from a queue that exists, at most `prefetch` unsettled at once.
    ///
    /// # Errors
    /// The broker cannot be reached, or the queue does not exist.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure>;

    /// Makes the queue that keeps messages for a time and leads them back, unless it is there.
    ///
    /// # Errors
    /// [`Refused`](crate::failure::FailureKind::Refused) or [`Invalid`](crate::failure::FailureKind::Invalid): it may not, or
    /// cannot; messages must be kept elsewhere. Others: the broker cannot be reached.
    async fn declare_delay_queue(&self, queue: &DelayQueue) -> Result<(), Failure> {
        let what = format!("declare queue `{}`", queue.name);
        Err(Failure::new(FailureKind::Refused, codes::ACCESS_REFUSED, what)
            .detail("this broker has no queues that lead back"))
    }

    /// Makes a durable queue unless one of that name is there, whatever its settings. A broker whose queues Warren does not make
    /// looks whether it is there.
    ///
    /// # Errors
    /// It is not there and may not be made, or the broker cannot be reached.
    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        let findings = self.check(&[Route::Queue(queue.to_owned())]).await;
        let Some(wrong) = findings.into_iter().find(|finding| finding.severity == Severity::Error) else {
            return Ok(());
        };
        let kind = if wrong.code == codes::NO_SUCH_QUEUE {
            FailureKind::NotFound
        } else {
            FailureKind::Disconnected
        };
        let failure =
            Failure::new(kind, wrong.code, format!("look for queue `{queue}`")).detail(wrong.message);
        Err(Failure { remedy: wrong.remedy, ..failure })
    }

    /// How many headers a message may have; `None`: as many as fit.
    fn headers_max(&self) -> Option<usize> {
        None
    }

    /// Looks at a queue that is to be consumed: whether it is there, and whether its settings fit. Changes nothing.
    async fn check_consumer(&self, wanted: &Wanted) -> Vec<Finding> {
        let _ = wanted;
        Vec::new()
    }

    /// Whether the broker holds back publishers now, and why.
    fn blocked(&self) -> Option<String> {
        None
    }

    /// Closes connections in good order. What was not answered stays unanswered.
    async fn close(&self);
}

/// What a consumer wants of its queue; for checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The queue.
    pub queue: String,
    /// How many attempts a message has, the first included.
    pub attempts_max: u32,
    /// The deadline of one attempt.
    pub deadline: Duration,
    /// How many messages it holds at once.
    pub prefetch: u16,
    /// Whether it keeps an order, of the queue or of each key.
    pub ordered: bool,
    /// Whether messages that are given up go where the queue sends what is rejected.
    pub dead_letters_by_broker: bool,
    /// The queue for messages that are given up, where there is one.
    pub dead_letter_queue: Option<String>,
    /// The names of the delay queues that it would make; none where it makes none.
    pub delay_queues: Vec<String>,
}

/// Yields the deliveries of one queue. Dropping it hands back what was not settled.
///
/// What was yielded and is not settled yet is not yielded once more. Where a broker can give it out again meanwhile, the connector knows
/// it, and settles it by whatever the broker gave with it last.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; `None` after [`Consumer::cancel`] once all that was on its way has been yielded.
    ///
    /// # Errors
    /// The connection, the channel or the queue is gone. The consumer is not asked again.
    async fn next(&mut self) -> Result<Option<Delivery>, Failure>;

    /// As [`Consumer::next`], if it has an answer at once; else nothing was taken.
    fn next_that_is_there(&mut self) -> Option<Result<Option<Delivery>, Failure>> {
        self.next().now_or_never()
    }

    /// Asks for no more deliveries.
    async fn cancel(&mut self);
}

/// What is done with a delivery: a pipeline, or a push to a callback.
///
/// Calls may run at once. A handler neither settles, retries out of place, records nor dead-letters; it may be dropped at
/// the deadline, and whatever it started then ends.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one message.
    async fn handle(&self, job: &Job, attempt: &Attempt) -> Outcome;

    /// A message whose outcome was [`Outcome::Ok`] was acknowledged: no attempt at it follows.
    fn acknowledged(&self, job: &Job) {
        let _ = job;
    }
}

/// The record of what became of messages.
#[async_trait]
pub trait MessageRecords: Send + Sync {
    /// Records one attempt at a message. Outlives the death of the process once it returns.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn append(&self, run: &MessageRun) -> Result<MessageRunId, Failure>;

    /// Notes that an attempt's result came too late: the broker gives the message out again.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn late(&self, run: MessageRunId) -> Result<(), Failure>;
}

/// Messages that wait here for their next try, because no broker can hold them for us. One process at a time uses those of
/// a consumer.
///
/// What is parked outlives the death of the process and of the machine once the call returns: the original is acked then.
#[async_trait]
pub trait Parking: Send + Sync {
    /// Parks messages, in this order: all of them or none.
    ///
    /// # Errors
    /// The state cannot be written. Nothing was parked.
    async fn park_all(&self, consumer: &str, parked: &[NewParked]) -> Result<Vec<ParkedId>, Failure>;

    /// Parks a message.
    ///
    /// # Errors
    /// The state cannot be written. Nothing was parked.
    async fn park(&self, consumer: &str, parked: &NewParked) -> Result<ParkedId, Failure> {
        let ids = self.park_all(consumer, std::slice::from_ref(parked)).await?;
        ids.first().copied().ok_or_else(|| Failure::internal("park a message").detail("it has no number"))
    }

    /// The messages that are due, oldest first, at most `max`. Of a lane only the first is ever due.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn due(&self, consumer: &str, now_ms: i64, max: usize) -> Result<Vec<Parked>, Failure>;

    /// When the next is due, in milliseconds since the epoch.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn next_due_ms(&self, consumer: &str) -> Result<Option<i64>, Failure>;

    /// The lanes in which something is parked, each with how much; and how much is parked in no lane.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn lanes(&self, consumer: &str) -> Result<Vec<(Option<String>, ParkedSum)>, Failure>;

    /// Parks one for longer. It keeps its place in its lane.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn delay(&self, id: ParkedId, spent: u32, due_ms: i64) -> Result<(), Failure>;

    /// Forgets one: it is settled.
    ///
    /// # Errors
    /// The state cannot be written. It may come again.
    async fn remove(&self, id: ParkedId) -> Result<(), Failure>;
}

/// How much is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParkedSum {
    /// Messages.
    pub messages: u64,
    /// Bytes, by [`Job::parked_bytes`].
    pub bytes: u64,
}

/// The number of a parked message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkedId(pub i64);

/// A message to be parked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewParked {
    /// The message as it was first, and how it came.
    pub job: Arc<Job>,
    /// How many attempts are spent.
    pub spent: u32,
    /// When it was first received, in milliseconds since the epoch.
    pub first_at_ms: i64,
    /// When it is due.
    pub due_ms: i64,
    /// Its lane, where order matters.
    pub lane: Option<Arc<str>>,
    /// Set for a dead letter that the broker refuses as a copy: when it is due, publishing the copy is tried again, and nothing is run.
    pub dead_lettered: Option<DeadLettered>,
}

/// A parked message.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// Its number.
    pub id: ParkedId,
    /// What was parked.
    pub parked: NewParked,
}

/// Which messages were being handled when the process died, and which were handed back without having been started.
///
/// What is called for every message does not wait: what it notes is with the operating system when it returns, and outlives
/// the death of the process, not of the machine. Messages are told by their [`print`](crate::consume::copies::print).
#[async_trait]
pub trait InFlight: Send + Sync {
    /// How often the process died while it handled this message.
    fn crashes(&self, print: u128) -> u32;

    /// A message is being handled from now on; yields where that is noted.
    ///
    /// # Errors
    /// The state cannot be written.
    fn enter(&self, print: u128) -> Result<Noted, Failure>;

    /// It is not any more, and the process lives.
    fn leave(&self, noted: Noted);

    /// Messages go back to the queue without having been started.
    async fn unstarted(&self, prints: &[u128]);

    /// Whether a message went back without having been started; forgets it.
    async fn take_unstarted(&self, print: u128) -> bool;
}

/// Where a message is noted as being handled.
#[derive(Debug, PartialEq, Eq)]
pub struct Noted {
    /// The slot of the journal.
    pub slot: usize,
    /// The message.
    pub print: u128,
}

/// A number from 0 to 1, another each time: it spreads retries.
pub type Dice = dyn Fn() -> f64 + Send + Sync;

/// Calls HTTP servers for `http` steps. Calls may run at once; connections are kept and used again.
#[async_trait]
pub trait HttpCaller: Send + Sync {
    /// Sends one request and reads the answer, whatever its status. Redirects are not followed. Dropping the call ends it.
    ///
    /// # Errors
    /// No whole answer came: the name, the connection or TLS failed, or the address is not allowed
    /// ([`ADDRESS_REFUSED`](crate::codes::ADDRESS_REFUSED)), or the answer is too large.
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure>;
}

/// Runs commands for `exec` steps. Calls may run at once.
#[async_trait]
pub trait CommandRunner: Send + Sync {
    /// Runs one command to its end, whatever its exit code. Dropping the call kills the command with all it started.
    ///
    /// # Errors
    /// It could not be started, was ended by a signal, or wrote too much.
    async fn run(&self, command: &CommandLine) -> Result<CommandEnd, Failure>;
}

/// Executes statements for `sql` steps. Calls may run at once.
#[async_trait]
pub trait SqlExecutor: Send + Sync {
    /// Executes one statement once for each set of parameters, all of them in one transaction: either all count or none. Once
    /// it returns, they are durable as far as the database makes them so. Dropping the call rolls back, unless the commit was
    /// already on its way.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the statement; after a lost connection the commit may have happened.
    async fn execute(&self, call: &SqlCall) -> Result<SqlAnswer, Failure>;
}

/// Which columns make up the row's print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// All but those ignored.
    AllBut(BTreeSet<String>),
    /// These.
    These(BTreeSet<String>),
}

/// What a diff is asked.
#[derive(Debug, Clone)]
pub struct DiffSpec {
    /// The key's columns, in order. They exist in the schema.
    pub key: Vec<String>,
    /// The columns that count.
    pub compare: Compare,
    /// Whether the last accepted rows are kept whole (or only their key).
    pub keep_rows: bool,
    /// Whether every row is reported as added, and none as removed.
    pub full: bool,
    /// Whether changed rows come with [`Change::previous`]; looking it up costs, so only where something reads it.
    pub previous: bool,
}

/// How far a diff is; for progress bars. Rows read, bytes read.
pub type Progress = dyn Fn(u64, u64) + Send + Sync;

/// A row that cannot take part in the diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    /// [`NULL_KEY`](crate::codes::NULL_KEY) or [`DUPLICATE_KEY`](crate::codes::DUPLICATE_KEY).
    pub code: Code,
    /// The key as text (see [`RowOutcome::key`]).
    pub key: String,
}

/// What a diff found, known before anything is sent.
#[derive(Debug, Clone, Default)]
pub struct DiffSummary {
    /// `rows`, `baseline_rows`, `planned`, `null_keys`, `duplicate_keys` are filled in.
    pub counts: RunCounts,
    /// Whether there was no baseline before.
    pub first_run: bool,
    /// Rows that could not take part: the first hundred of each code.
    pub faults: Vec<RowFault>,
    /// How the columns that count differ from those the baseline was made with, in one sentence, where that could
    /// not be reconciled (a column that counts changed its type or is gone). A run stops unless told not to.
    pub columns_changed: Option<String>,
    /// The wrapping sum of [`Change::digest`] over all changes: the same changes, whatever their order, make the same
    /// number. A stored plan is compared by it.
    pub digest: u128,
}

/// What the destination of one sync has been told, row by row.
///
/// One caller at a time, held by the sync's lease.
#[async_trait]
pub trait Baseline: Send + Sync {
    /// Reads all rows and finds what differs. Nothing of the baseline changes.
    ///
    /// # Errors
    /// The stream's error, or the state cannot be read or written. No partial result: a broken read can never look like
    /// removals.
    async fn diff(
        &self,
        rows: &mut dyn RowStream,
        spec: &DiffSpec,
        progress: &Progress,
    ) -> Result<Box<dyn ChangeSet>, Failure>;
}

/// The differences of one run, and the baseline's way forward.
#[async_trait]
pub trait ChangeSet: Send {
    /// What was found.
    fn summary(&self) -> &DiffSummary;

    /// The next changes, at most `max`; empty at the end. Each key occurs at most once. All removals come before the first
    /// row added or changed.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn next(&mut self, max: usize) -> Result<Vec<Change>, Failure>;

    /// The destination is about to be told of these changes. Once this returns, the process may be killed: until a change is
    /// advanced or withdrawn it is in doubt, and its key is told something in the next run, whatever its row is then (see
    /// [`Doubt`](crate::doubt::Doubt)). Nothing is published before.
    ///
    /// # Errors
    /// The state cannot be written. The changes may or may not be in doubt.
    async fn announce(&mut self, changes: &[&Change]) -> Result<(), Failure>;

    /// The destination was certainly not told of these announced changes. They stay differences, and are not in doubt.
    ///
    /// # Errors
    /// The state cannot be written. The changes may be in doubt.
    async fn withdraw(&mut self, changes: &[&Change]) -> Result<(), Failure>;

    /// The destination has been told of these changes (or need not be told): they are no difference any more.
    /// Once this returns, the process may be killed and they still count. May be called in any order of changes.
    ///
    /// # Errors
    /// The state cannot be written. The changes may or may not count; they may be sent again.
    async fn advance(&mut self, accepted: &[&Change]) -> Result<(), Failure>;

    /// Makes what was advanced the new baseline. Called at the end of every run, also of one that failed or was
    /// stopped; dropping the set instead leaves the same to the next [`Baseline::diff`].
    ///
    /// # Errors
    /// The state cannot be written. Nothing that was advanced is lost.
    async fn finish(self: Box<Self>) -> Result<(), Failure>;
}

/// The record of runs and of what became of each row.
#[async_trait]
pub trait Records: Send + Sync {
    /// Opens the record of a run, in state `queued`.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn begin(&self, sync: &str, kind: RunKind) -> Result<RunId, Failure>;

    /// Writes what a run has done so far, or did.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn update(&self, run: &RunRecord) -> Result<(), Failure>;

    /// Records what became of rows. Durable against the death of the process once it returns.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn append(&self, run: RunId, outcomes: Vec<RowOutcome>) -> Result<(), Failure>;
}

/// Lets one holder at a time have a name.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of a name, or says who holds it. A holder that died holds it no longer.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn take(&self, name: &str) -> Result<Result<Box<dyn Lease>, Holder>, Failure>;
}

/// A lease held until it is dropped.
pub trait Lease: Send + Sync {}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Such as `process 4711`.
    pub who: String,
}

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64;
}

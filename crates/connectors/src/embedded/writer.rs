//! The one thread of a broker that writes its file.
//!
//! It takes all commands that wait, does them in one transaction, hands out messages to the consumers that have room in the
//! same transaction, commits, and answers. So the callers of one commit share its cost (group commit), and an answer
//! always means that the file says so. Commands come by an unbounded channel, whose bound is that each caller waits for
//! its answer, and that publishes stop at `WAITING_BYTES_MAX`.
//!
//! Other processes are noticed by SQLite's `data_version`, which costs microseconds to ask.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc as channel, oneshot};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::Receipt;

use super::consumer::{Flow, Item};
use super::deposit::{Parcel, no_such_queue};
use super::fault::{Fault, translate};
use super::holder::Presence;
use super::ledger::Ledger;
use super::take::{Taken, Verdict};
use super::taker::{Taker, hand_to_takers};
use super::topology::{QueueId, Topology};

/// A consumer of this process.
pub(super) type ConsumerId = i64;

/// A change that the console or the command line asks for. It may be tried twice.
pub(super) type Act = Box<dyn Fn(&mut Ledger<'_>) -> Result<u64, Fault> + Send>;

/// What the writer is asked.
pub(super) enum Command {
    Publish {
        parcels: Vec<Parcel>,
        reply: oneshot::Sender<Vec<Receipt>>,
    },
    Settle {
        consumer: ConsumerId,
        message: i64,
        verdict: Verdict,
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    Consume(Enter),
    Act {
        act: Act,
        reply: oneshot::Sender<Result<u64, Failure>>,
    },
    /// A consumer wants no more.
    Cancel {
        consumer: ConsumerId,
    },
    /// A consumer is gone; it never looked at the messages named.
    Leave {
        consumer: ConsumerId,
        unseen: Vec<i64>,
    },
    /// A consumer has room again.
    Room,
    Close,
}

impl Command {
    /// The consumer that leaves by this.
    fn leaver(&self) -> Option<ConsumerId> {
        match self {
            Command::Leave { consumer, .. } => Some(*consumer),
            Command::Publish { .. }
            | Command::Settle { .. }
            | Command::Consume(_)
            | Command::Act { .. }
            | Command::Cancel { .. }
            | Command::Room
            | Command::Close => None,
        }
    }
}

/// A consumer that begins.
pub(super) struct Enter {
    pub consumer: ConsumerId,
    pub queue: String,
    /// 0 for no bound.
    pub prefetch: u16,
    pub outgoing: channel::Sender<Item>,
    pub flow: Arc<Flow>,
    pub reply: oneshot::Sender<Result<(), Failure>>,
}

/// What a command came to, to be told after the commit.
enum Done {
    Receipts(Vec<Receipt>),
    Settled(bool),
    Entered(QueueId),
    Acted(u64),
    Nothing,
    Refused(Failure),
}

/// What a transaction did: an answer for each command, and the messages for consumers.
type Did = (Vec<Done>, Vec<(ConsumerId, Vec<Taken>)>);

/// Whether a transaction hands out messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandOut {
    Yes,
    No,
}

/// Why a transaction failed, and whether it may have happened nevertheless.
struct Broken {
    failure: Failure,
    at_commit: bool,
}

/// The most messages that one transaction publishes, roughly; a larger batch is one transaction.
const GROUP_MESSAGES_MAX: usize = 4096;
/// How often the next expiry is looked up, at most: it costs a look at each queue.
pub(super) const DUE_EVERY: Duration = Duration::from_millis(5);
/// How often other processes are looked for: with consumers that wait, and without.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_IDLE_EVERY: Duration = Duration::from_millis(100);
/// How long to wait before work that failed is tried again.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) topology: Topology,
    pub(super) holder: i64,
    pub(super) presence: Presence,
    pub(super) commands: Receiver<Command>,
    pub(super) takers: HashMap<ConsumerId, Taker>,
    /// Consumers that left and whose messages could not be put back yet.
    pub(super) leaving: Vec<Command>,
    /// Messages may wait for a consumer that has room.
    pub(super) stirred: bool,
    pub(super) data_version: i64,
    /// When the next message expires, in milliseconds since the epoch; what is not known is looked up.
    pub(super) due_ms: Option<i64>,
    pub(super) due_known: bool,
    pub(super) due_looked: Instant,
    pub(super) gone_looked: Instant,
    pub(super) resting_until: Option<Instant>,
    pub(super) full_sync: bool,
}

impl Writer {
    /// A writer over an open file in which this process is entered.
    pub(super) fn new(
        conn: Connection,
        path: PathBuf,
        topology: Topology,
        holder: i64,
        presence: Presence,
        commands: Receiver<Command>,
    ) -> Writer {
        Writer {
            conn,
            path,
            topology,
            holder,
            presence,
            commands,
            takers: HashMap::new(),
            leaving: Vec::new(),
            stirred: true,
            data_version: 0,
            due_ms: None,
            due_known: false,
            due_looked: Instant::now(),
            gone_looked: Instant::now(),
            resting_until: None,
            full_sync: true,
        }
    }

    /// Works until it is told to close, or nobody is left who could tell.
    pub(super) fn run(mut self) {
        let mut open = true;
        while open {
            let mut commands = Vec::new();
            open = self.gather(&mut commands);
            if !commands.is_empty() {
                self.transact(commands);
            }
            if open {
                self.look();
            }
        }
        self.leave();
    }

    /// Waits for commands, and takes all that are there. False when it is time to close.
    fn gather(&mut self, commands: &mut Vec<Command>) -> bool {
        let mut messages = 0;
        let mut wait = self.patience();
        loop {
            let command = match self.commands.recv_timeout(wait) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            };
            wait = Duration::ZERO;
            match command {
                Command::Close => return false,
                Command::Room => self.stirred = true,
                Command::Cancel { consumer } => {
                    if let Some(taker) = self.takers.get_mut(&consumer) {
                        taker.end(Item::End);
                    }
                }
                Command::Publish { .. }
                | Command::Settle { .. }
                | Command::Consume(_)
                | Command::Act { .. }
                | Command::Leave { .. } => {
                    messages +=
                        if let Command::Publish { parcels, .. } = &command { parcels.len() } else { 1 };
                    commands.push(command);
                    if messages >= GROUP_MESSAGES_MAX {
                        return true;
                    }
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        if let Some(until) = self.resting_until {
            return until.saturating_duration_since(Instant::now()).min(AFTER_FAILURE);
        }
        if self.stirred {
            return Duration::ZERO;
        }
        let look = if self.takers.is_empty() { LOOK_IDLE_EVERY } else { LOOK_EVERY };
        if !self.due_known {
            return DUE_EVERY.min(look);
        }
        match self.due_ms {
            Some(due_ms) => look.min(Duration::from_millis((due_ms - super::now_ms()).max(0) as u64)),
            None => look,
        }
    }

    /// Does commands and answers them. Where the file refuses them together, each is tried alone and nothing is handed
    /// out with it, so that one that cannot be done, or a queue that cannot be read, fails for itself.
    pub(super) fn transact(&mut self, commands: Vec<Command>) {
        match self.attempt(&commands, HandOut::Yes) {
            Ok(did) => self.did(commands, did),
            Err(broken) if commands.is_empty() => self.cannot_hand_out(&broken.failure),
            Err(broken) if broken.at_commit => {
                for command in commands {
                    self.answer_broken(command, &broken);
                }
            }
            Err(_) => {
                for command in commands {
                    match self.attempt(std::slice::from_ref(&command), HandOut::No) {
                        Ok(did) => self.did(vec![command], did),
                        Err(broken) => self.answer_broken(command, &broken),
                    }
                }
                self.stirred = !self.takers.is_empty();
            }
        }
    }

    fn did(&mut self, commands: Vec<Command>, (done, handed_out): Did) {
        self.due_known = false;
        for (command, done) in commands.into_iter().zip(done) {
            self.answer(command, done);
        }
        self.hand_out(handed_out);
        // There may be more than one transaction hands out.
        self.stirred = !self.takers.is_empty();
        self.drop_takers_of_deleted_queues();
    }

    /// Where waiting may help it is tried again later; otherwise the consumers hear of it.
    fn cannot_hand_out(&mut self, failure: &Failure) {
        if failure.kind == FailureKind::Internal {
            for taker in self.takers.values_mut().filter(|taker| taker.room(0) > 0) {
                taker.end(Item::Failed(failure.clone()));
            }
        } else {
            self.stirred = true;
            self.rest();
        }
    }

    fn attempt(&mut self, commands: &[Command], hand_out: HandOut) -> Result<Did, Broken> {
        let lasting =
            commands.iter().any(|command| matches!(command, Command::Publish { .. } | Command::Act { .. }));
        let what = "write to the embedded broker";
        let Writer { conn, path, topology, holder, takers, full_sync, .. } = self;
        let broken = |fault: Fault| Broken { failure: fault.failure(what, path), at_commit: false };
        if lasting != *full_sync {
            // Cannot be changed inside a transaction.
            let pragma = if lasting { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            conn.execute_batch(pragma).map_err(|error| broken(error.into()))?;
            *full_sync = lasting;
        }
        let mut ledger = Ledger::begin(conn, topology, *holder, super::now_ms()).map_err(broken)?;
        let mut done = Vec::with_capacity(commands.len());
        let mut freed: HashMap<ConsumerId, usize> = HashMap::new();
        let leavers: HashSet<ConsumerId> = commands.iter().filter_map(Command::leaver).collect();
        for command in commands {
            match apply(&mut ledger, takers, command, &mut freed) {
                Ok(answer) => done.push(answer),
                Err(Fault::Refused(failure)) => done.push(Done::Refused(*failure)),
                Err(fault) => return Err(broken(fault)),
            }
        }
        let handed_out = match hand_out {
            HandOut::Yes => hand_to_takers(&mut ledger, takers, &freed, &leavers).map_err(broken)?,
            HandOut::No => Vec::new(),
        };
        ledger.settle_accounts().map_err(broken)?;
        ledger.commit().map_err(|fault| {
            // A full disk and a busy file are noticed before the commit is written; another error may come after.
            let failure = fault.failure(what, path);
            Broken { at_commit: failure.kind != FailureKind::Throttled, failure }
        })?;
        Ok((done, handed_out))
    }

    fn answer(&mut self, command: Command, done: Done) {
        // An answer that nobody waits for any more (a publish that timed out) is dropped: `send(…).ok()`.
        match (command, done) {
            (Command::Publish { reply, .. }, Done::Receipts(receipts)) => {
                reply.send(receipts).ok();
            }
            (Command::Settle { consumer, message, reply, .. }, Done::Settled(held)) => {
                if let Some(taker) = self.takers.get_mut(&consumer) {
                    taker.held.remove(&message);
                }
                let answer = if held { Ok(()) } else { Err(not_held()) };
                reply.send(answer).ok();
            }
            (Command::Consume(enter), Done::Entered(queue)) => {
                let taker = Taker {
                    queue,
                    queue_name: enter.queue,
                    prefetch: if enter.prefetch == 0 { usize::MAX } else { enter.prefetch.into() },
                    outgoing: enter.outgoing,
                    flow: enter.flow,
                    held: HashSet::new(),
                    unsent: HashSet::new(),
                    ended: false,
                };
                self.takers.insert(enter.consumer, taker);
                self.stirred = true;
                enter.reply.send(Ok(())).ok();
            }
            (Command::Act { reply, .. }, Done::Acted(count)) => {
                reply.send(Ok(count)).ok();
            }
            (Command::Leave { consumer, .. }, Done::Nothing) => {
                self.takers.remove(&consumer);
                self.stirred = true;
            }
            (command, Done::Refused(failure)) => {
                self.answer_broken(command, &Broken { failure, at_commit: false });
            }
            _ => unreachable!("a command is done as what it is"),
        }
    }

    fn answer_broken(&mut self, command: Command, broken: &Broken) {
        let failure = || broken.failure.clone();
        match command {
            Command::Publish { parcels, reply } => {
                let receipt = || {
                    if broken.at_commit { Receipt::Unknown(failure()) } else { Receipt::Refused(failure()) }
                };
                reply.send(parcels.iter().map(|_| receipt()).collect()).ok();
            }
            Command::Settle { consumer, reply, .. } => {
                reply.send(Err(failure())).ok();
                // The message is still held. The consumer ends, and all that it holds comes back when it is dropped.
                if let Some(taker) = self.takers.get_mut(&consumer) {
                    taker.end(Item::Failed(failure()));
                }
            }
            Command::Consume(enter) => {
                enter.reply.send(Err(failure())).ok();
            }
            Command::Act { reply, .. } => {
                reply.send(Err(failure())).ok();
            }
            Command::Leave { consumer, unseen } => {
                self.leaving.push(Command::Leave { consumer, unseen });
                self.rest();
            }
            Command::Cancel { .. } | Command::Room | Command::Close => {}
        }
    }

    /// Sends what was taken to the consumers it was taken for.
    fn hand_out(&mut self, handed_out: Vec<(ConsumerId, Vec<Taken>)>) {
        for (consumer, messages) in handed_out {
            let Some(taker) = self.takers.get_mut(&consumer) else { continue };
            for taken in messages {
                taker.held.insert(taken.id);
                taker.flow.sent(&taken);
                let id = taken.id;
                if taker.outgoing.try_send(Item::Message(taken)).is_err() {
                    // It is just leaving; its `Leave` puts back all that it holds.
                    taker.unsent.insert(id);
                }
            }
        }
    }

    pub(super) fn drop_takers_of_deleted_queues(&mut self) {
        let topology = &self.topology;
        for taker in self.takers.values_mut() {
            if topology.version != 0 && topology.queue_by_id(taker.queue).is_none() {
                taker.end(Item::Failed(no_such_queue(format!("consume queue `{}`", taker.queue_name))));
            }
        }
    }

    /// Puts back what our consumers hold, and leaves the file.
    fn leave(mut self) {
        for taker in self.takers.values_mut() {
            taker
                .end(Item::Failed(super::consumer::closed(&format!("consume queue `{}`", taker.queue_name))));
        }
        let released = (|| {
            let mut ledger = Ledger::begin(&self.conn, &mut self.topology, self.holder, super::now_ms())?;
            for taker in self.takers.values() {
                taker.put_back(&mut ledger, &HashSet::new())?;
            }
            ledger.release_all(self.holder)?;
            ledger.settle_accounts()?;
            ledger.commit()
        })();
        match released {
            Ok(()) => self.presence.leave(),
            // The lock is freed all the same, so the next process to look puts the messages back.
            Err(fault) => {
                let failure = fault.failure("close the embedded broker", &self.path);
                tracing::debug!(%failure, "broker not closed in good order");
            }
        }
        if let Err((_, error)) = self.conn.close() {
            let failure = translate(error, "close the embedded broker", &self.path);
            tracing::debug!(%failure, "broker not closed in good order");
        }
    }
}

/// Does one command inside a transaction.
fn apply(
    ledger: &mut Ledger<'_>,
    takers: &HashMap<ConsumerId, Taker>,
    command: &Command,
    freed: &mut HashMap<ConsumerId, usize>,
) -> Result<Done, Fault> {
    match command {
        Command::Publish { parcels, .. } => {
            let mut receipts = Vec::with_capacity(parcels.len());
            for parcel in parcels {
                receipts.push(ledger.publish(parcel)?);
            }
            Ok(Done::Receipts(receipts))
        }
        Command::Settle { consumer, message, verdict, .. } => {
            let Some(taker) = takers.get(consumer).filter(|taker| taker.held.contains(message)) else {
                return Ok(Done::Settled(false));
            };
            *freed.entry(*consumer).or_default() += 1;
            Ok(Done::Settled(ledger.settle(taker.queue, *message, *verdict)?))
        }
        Command::Consume(enter) => Ok(Done::Entered(ledger.add_consumer(&enter.queue, enter.consumer)?)),
        Command::Act { act, .. } => Ok(Done::Acted(act(ledger)?)),
        Command::Leave { consumer, unseen } => {
            if let Some(taker) = takers.get(consumer) {
                taker.put_back(ledger, &unseen.iter().copied().collect())?;
                ledger.remove_consumer(*consumer)?;
            }
            Ok(Done::Nothing)
        }
        Command::Cancel { .. } | Command::Room | Command::Close => Ok(Done::Nothing),
    }
}

fn not_held() -> Failure {
    Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "settle a message")
        .detail("its consumer or its queue is gone; if the queue is still there, the message comes again")
}

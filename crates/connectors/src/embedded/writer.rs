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
use super::holder::{Gone, Presence};
use super::ledger::Ledger;
use super::take::{TAKE_MESSAGES_MAX, Taken, Verdict};
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

/// A consumer as the writer knows it.
struct Taker {
    queue: QueueId,
    queue_name: String,
    prefetch: usize,
    outgoing: channel::Sender<Item>,
    flow: Arc<Flow>,
    /// The messages it holds.
    held: HashSet<i64>,
    /// Those of them that could not be sent to it any more.
    unsent: HashSet<i64>,
    /// Whether it was told that nothing more comes.
    ended: bool,
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

/// Why a transaction failed, and whether it may have happened nevertheless.
struct Broken {
    failure: Failure,
    at_commit: bool,
}

/// The most messages that one transaction publishes, roughly; a larger batch is one transaction.
const GROUP_MESSAGES_MAX: usize = 4096;
/// How often other processes are looked for: with consumers that wait, and without.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_IDLE_EVERY: Duration = Duration::from_millis(100);
/// How often the next expiry is looked up, at most: it costs a look at each queue.
const DUE_EVERY: Duration = Duration::from_millis(5);
/// How often it is asked whether other processes have died.
const GONE_EVERY: Duration = Duration::from_millis(200);
/// How long to wait before work that failed is tried again.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    conn: Connection,
    path: PathBuf,
    topology: Topology,
    holder: i64,
    presence: Presence,
    commands: Receiver<Command>,
    takers: HashMap<ConsumerId, Taker>,
    /// Consumers that left and whose messages could not be put back yet.
    leaving: Vec<Command>,
    /// Messages may wait for a consumer that has room.
    stirred: bool,
    data_version: i64,
    /// When the next message expires, in milliseconds since the epoch; what is not known is looked up.
    due_ms: Option<i64>,
    due_known: bool,
    due_looked: Instant,
    gone_looked: Instant,
    resting_until: Option<Instant>,
    full_sync: bool,
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

    /// Does commands and answers them. Where the file refuses several at once, each is tried alone.
    fn transact(&mut self, commands: Vec<Command>) {
        match self.attempt(&commands) {
            Ok((done, handed_out)) => {
                self.due_known = false;
                for (command, done) in commands.into_iter().zip(done) {
                    self.answer(command, done);
                }
                self.hand_out(handed_out);
                // There may be more than one transaction hands out.
                self.stirred = !self.takers.is_empty();
                self.drop_takers_of_deleted_queues();
            }
            Err(broken) if commands.len() > 1 && !broken.at_commit => {
                for command in commands {
                    self.transact(vec![command]);
                }
            }
            Err(broken) => {
                for command in commands {
                    self.answer_broken(command, &broken);
                }
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the two halves of one transaction, named by its only caller")]
    fn attempt(
        &mut self,
        commands: &[Command],
    ) -> Result<(Vec<Done>, Vec<(ConsumerId, Vec<Taken>)>), Broken> {
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
        let handed_out = hand_to_takers(&mut ledger, takers, &freed, &leavers).map_err(broken)?;
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

    fn drop_takers_of_deleted_queues(&mut self) {
        let topology = &self.topology;
        for taker in self.takers.values_mut() {
            if topology.version != 0 && topology.queue_by_id(taker.queue).is_none() {
                taker.end(Item::Failed(no_such_queue(format!("consume queue `{}`", taker.queue_name))));
            }
        }
    }

    /// Looks for what nobody told us: other processes' commits and deaths, and expiries.
    fn look(&mut self) {
        if self.resting_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.resting_until = None;
        if let Err(fault) = self.try_to_look() {
            // The next caller meets the same fault and is told of it; here it only means that we look again later.
            tracing::debug!(failure = %fault.failure("look at the embedded broker", &self.path), "broker look failed");
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.resting_until = Some(Instant::now() + AFTER_FAILURE);
    }

    fn try_to_look(&mut self) -> Result<(), Fault> {
        let leaving = std::mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            self.transact(leaving);
        }
        let data_version: i64 =
            self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if data_version != self.data_version {
            self.data_version = data_version;
            self.stirred = true;
            self.due_known = false;
            let version: i64 =
                self.conn.prepare_cached("SELECT topology FROM state")?.query_row([], |row| row.get(0))?;
            if version != self.topology.version {
                self.topology = Topology::load(&self.conn, version)?;
                self.drop_takers_of_deleted_queues();
            }
        }
        if self.gone_looked.elapsed() >= GONE_EVERY {
            self.gone_looked = Instant::now();
            let gone = self.presence.find_gone(&self.conn, self.holder)?;
            if !gone.is_empty() {
                self.put_back_for(gone)?;
                self.stirred = true;
            }
        }
        if !self.due_known && self.due_looked.elapsed() >= DUE_EVERY {
            self.due_looked = Instant::now();
            self.due_ms = self
                .conn
                .prepare_cached(
                    "SELECT min((SELECT expires_ms FROM ready WHERE ready.queue = queue.id ORDER BY ready.id LIMIT 1))
                     FROM queue",
                )?
                .query_row([], |row| row.get(0))?;
            self.due_known = true;
        }
        if self.due_ms.is_some_and(|due_ms| due_ms <= super::now_ms()) {
            let mut ledger = Ledger::begin(&self.conn, &mut self.topology, self.holder, super::now_ms())?;
            ledger.expire()?;
            ledger.settle_accounts()?;
            ledger.commit()?;
            self.due_known = false;
            self.stirred = true;
        }
        if std::mem::take(&mut self.stirred) && self.somebody_can_take()? {
            self.transact(Vec::new());
        }
        Ok(())
    }

    /// Whether a message waits for a consumer that has room; asked without the write lock.
    fn somebody_can_take(&self) -> Result<bool, Fault> {
        for taker in self.takers.values() {
            if taker.room(0) > 0 {
                let ready: Option<i64> = self
                    .conn
                    .prepare_cached("SELECT (SELECT ready FROM depth WHERE queue = ?1)")?
                    .query_row([taker.queue], |row| row.get(0))?;
                if ready.is_some_and(|ready| ready > 0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn put_back_for(&mut self, gone: Vec<Gone>) -> Result<(), Fault> {
        let mut ledger = Ledger::begin(&self.conn, &mut self.topology, self.holder, super::now_ms())?;
        for gone in &gone {
            // Another process may have been faster.
            if ledger.lock_of(gone.holder)?.is_some() {
                ledger.release_all(gone.holder)?;
            }
        }
        ledger.settle_accounts()?;
        ledger.commit()?;
        gone.into_iter().for_each(Gone::bury);
        Ok(())
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

impl Taker {
    /// Tells it, once, that nothing more comes and why.
    fn end(&mut self, why: Item) {
        if !std::mem::replace(&mut self.ended, true) {
            self.outgoing.try_send(why).ok(); // there is room; one that is just leaving need not hear of it
        }
    }

    /// How many messages it may be sent, `freed` of those that it holds being settled in this transaction.
    fn room(&self, freed: usize) -> usize {
        if self.ended {
            return 0;
        }
        let free = self.prefetch.saturating_sub(self.held.len() - freed.min(self.held.len()));
        if free == 0 { 0 } else { free.min(self.flow.room()) }
    }

    fn put_back(&self, ledger: &mut Ledger<'_>, unseen: &HashSet<i64>) -> Result<(), Fault> {
        for message in &self.held {
            let nobody_saw = unseen.contains(message) || self.unsent.contains(message);
            let verdict = if nobody_saw { Verdict::Unseen } else { Verdict::Requeue };
            ledger.settle(self.queue, *message, verdict)?;
        }
        Ok(())
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

/// Takes messages for the consumers that have room, dealt out in turn where several share a queue.
fn hand_to_takers(
    ledger: &mut Ledger<'_>,
    takers: &HashMap<ConsumerId, Taker>,
    freed: &HashMap<ConsumerId, usize>,
    leavers: &HashSet<ConsumerId>,
) -> Result<Vec<(ConsumerId, Vec<Taken>)>, Fault> {
    let mut by_queue: HashMap<QueueId, Vec<(ConsumerId, usize)>> = HashMap::new();
    for (consumer, taker) in takers {
        let room = taker.room(freed.get(consumer).copied().unwrap_or(0));
        if room > 0 && !leavers.contains(consumer) && ledger.topology.queue_by_id(taker.queue).is_some() {
            by_queue.entry(taker.queue).or_default().push((*consumer, room));
        }
    }
    let mut handed_out: HashMap<ConsumerId, Vec<Taken>> = HashMap::new();
    for (queue, mut shares) in by_queue {
        let room = shares.iter().fold(0_usize, |sum, (_, room)| sum.saturating_add(*room));
        let mut turn = 0;
        for taken in ledger.take(queue, room.min(TAKE_MESSAGES_MAX))? {
            turn %= shares.len();
            let (consumer, room) = &mut shares[turn];
            handed_out.entry(*consumer).or_default().push(taken);
            *room -= 1;
            if *room == 0 {
                shares.swap_remove(turn);
            } else {
                turn += 1;
            }
            if shares.is_empty() {
                break;
            }
        }
    }
    Ok(handed_out.into_iter().collect())
}

fn not_held() -> Failure {
    Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "settle a message")
        .detail("its consumer or its queue is gone; if the queue is still there, the message comes again")
}

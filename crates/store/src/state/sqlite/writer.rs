//! The one thread that writes.
//!
//! It takes what waits, in order, and commits it in one transaction, so that many small appends cost as one large. Each
//! caller is answered after the commit. When nothing waits it prunes, a step at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use warren_engine::failure::Failure;
use warren_engine::ports::Clock;
use warren_engine::run::{RowOutcome, RunId, RunKind, RunRecord};

use super::SqliteOptions;
use super::append::Appending;
use super::fault::Fault;
use super::prune::Pruning;
use super::runs;
use crate::state::block::BlockWriter;
use crate::state::lease::LeaseFolder;
use crate::state::{Pruned, Retention};

/// Commands that may wait; callers beyond that are held up.
const WAITING_MAX: usize = 64;

/// Commands in one transaction.
const TOGETHER_MAX: usize = 32;

/// How long pruning may hold up the end of the process.
const PRUNING_AT_END: Duration = Duration::from_secs(1);

/// What is asked of the thread.
enum Ask {
    Begin { sync: String, kind: RunKind },
    Update(Box<RunRecord>),
    Append { run: RunId, outcomes: Vec<RowOutcome> },
    Prune,
}

/// What it answers.
enum Done {
    Begun(RunId),
    Written,
    Pruned(Pruned),
}

struct Command {
    ask: Ask,
    done: oneshot::Sender<Result<Done, Failure>>,
}

impl Command {
    /// The run it records rows of.
    fn rows_of(&self) -> Option<RunId> {
        match &self.ask {
            Ask::Append { run, .. } => Some(*run),
            Ask::Begin { .. } | Ask::Update(_) | Ask::Prune => None,
        }
    }
}

/// The way to the thread. Dropping it ends the thread and waits for it.
pub(super) struct Writer {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        leases: Arc<LeaseFolder>,
        options: SqliteOptions,
    ) -> Result<Writer, Failure> {
        let (commands, waiting) = mpsc::channel(WAITING_MAX);
        let block = BlockWriter::new().map_err(|error| Failure::internal("make a packer").because(error))?;
        let work = Work {
            connection,
            path,
            leases,
            clock: options.clock,
            retention: options.retention,
            block,
            pruning: None,
            asked_to_prune: Vec::new(),
            bytes_since_pruning: 0,
        };
        let thread = std::thread::Builder::new()
            .name("warren-state".to_owned())
            .spawn(move || work.run(waiting))
            .map_err(|error| Failure::internal("start the state's thread").because(error))?;
        Ok(Writer { commands: Some(commands), thread: Some(thread) })
    }

    pub(super) async fn begin(&self, sync: String, kind: RunKind) -> Result<RunId, Failure> {
        match self.ask("begin a run", Ask::Begin { sync, kind }).await? {
            Done::Begun(run) => Ok(run),
            Done::Written | Done::Pruned(_) => Err(Failure::internal("begin a run")),
        }
    }

    pub(super) async fn update(&self, run: RunRecord) -> Result<(), Failure> {
        self.ask("update a run", Ask::Update(Box::new(run))).await.map(|_| ())
    }

    pub(super) async fn append(&self, run: RunId, outcomes: Vec<RowOutcome>) -> Result<(), Failure> {
        self.ask("record what became of rows", Ask::Append { run, outcomes }).await.map(|_| ())
    }

    pub(super) async fn prune(&self) -> Result<Pruned, Failure> {
        match self.ask("prune the state", Ask::Prune).await? {
            Done::Pruned(pruned) => Ok(pruned),
            Done::Begun(_) | Done::Written => Err(Failure::internal("prune the state")),
        }
    }

    async fn ask(&self, what: &'static str, ask: Ask) -> Result<Done, Failure> {
        let gone = || Failure::internal(what).detail("the thread that writes the state has ended");
        let (done, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(Command { ask, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // its panic has been printed, and its callers were answered that it is gone
        }
    }
}

/// What the thread has.
struct Work {
    connection: Connection,
    path: PathBuf,
    leases: Arc<LeaseFolder>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    block: BlockWriter,
    pruning: Option<Pruning>,
    asked_to_prune: Vec<oneshot::Sender<Result<Done, Failure>>>,
    bytes_since_pruning: u64,
}

impl Work {
    fn run(mut self, mut waiting: mpsc::Receiver<Command>) {
        let mut commands = Vec::new();
        loop {
            if self.pruning.is_none() {
                if waiting.blocking_recv_many(&mut commands, TOGETHER_MAX) == 0 {
                    break; // nobody can ask any more
                }
            } else {
                match waiting.try_recv() {
                    Ok(command) => commands.push(command),
                    Err(mpsc::error::TryRecvError::Empty) => {}
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            }
            self.settle(std::mem::take(&mut commands));
            self.prune_a_little();
        }
        let until = Instant::now() + PRUNING_AT_END;
        while self.pruning.is_some() && Instant::now() < until {
            self.prune_a_little();
        }
    }

    /// Does what was asked and answers.
    fn settle(&mut self, commands: Vec<Command>) {
        let mut write = Vec::new();
        for command in commands {
            match command.ask {
                Ask::Prune => {
                    self.asked_to_prune.push(command.done);
                    self.begin_pruning();
                }
                Ask::Begin { .. } | Ask::Update(_) | Ask::Append { .. } => write.push(command),
            }
        }
        if write.is_empty() {
            return;
        }
        match self.write(&write) {
            Ok(done) => answer(write, done),
            // One of them is to blame: each for itself, so that it fails alone.
            Err(Fault::NoSuchRun(_)) if write.len() > 1 => {
                for command in write {
                    self.settle(vec![command]);
                }
            }
            Err(fault) => {
                let what = write.first().map_or("", |command| what(&command.ask));
                let failure = fault.into_failure(what, &self.path);
                for command in write {
                    command.done.send(Err(failure.clone())).ok(); // who gave up waiting need not hear
                }
            }
        }
    }

    /// Writes all of it in one transaction, or none.
    fn write(&mut self, commands: &[Command]) -> Result<Vec<Done>, Fault> {
        let now = self.clock.now_ms();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = Vec::new();
        let (mut bytes, mut ended) = (0, false);
        // What follows for the same run goes into the same blocks.
        for part in
            commands.chunk_by(|one, next| one.rows_of().is_some_and(|run| next.rows_of() == Some(run)))
        {
            match &part[0].ask {
                Ask::Begin { sync, kind } => {
                    done.push(Done::Begun(runs::begin(&transaction, &self.leases, now, sync, *kind)?));
                }
                Ask::Update(run) => {
                    runs::update(&transaction, run)?;
                    ended |= run.state.is_final();
                    done.push(Done::Written);
                }
                Ask::Append { run, .. } => {
                    let mut appending = Appending::to(&transaction, &mut self.block, *run, now);
                    for command in part {
                        if let Ask::Append { outcomes, .. } = &command.ask {
                            appending.add(outcomes)?;
                        }
                        done.push(Done::Written);
                    }
                    bytes += appending.end()?;
                }
                Ask::Prune => done.push(Done::Written), // never here: it is kept apart
            }
        }
        transaction.commit()?;
        self.bytes_since_pruning += bytes;
        // Also in the midst of a run, which may be larger than all that is kept.
        if ended || self.bytes_since_pruning > self.retention.size.0 / 32 {
            self.begin_pruning();
        }
        Ok(done)
    }

    fn begin_pruning(&mut self) {
        self.bytes_since_pruning = 0;
        if self.pruning.is_none() {
            match Pruning::begin(&self.connection, &self.retention) {
                Ok(pruning) => self.pruning = Some(pruning),
                Err(fault) => self.pruning_failed(fault),
            }
        }
    }

    fn prune_a_little(&mut self) {
        let Some(pruning) = &mut self.pruning else { return };
        match pruning.step(&mut self.connection, &self.retention, self.clock.now_ms()) {
            Ok(true) => {}
            Ok(false) => {
                let pruned = pruning.pruned;
                self.pruning = None;
                for done in self.asked_to_prune.drain(..) {
                    done.send(Ok(Done::Pruned(pruned))).ok(); // who gave up waiting need not hear
                }
            }
            Err(fault) => self.pruning_failed(fault),
        }
    }

    fn pruning_failed(&mut self, fault: Fault) {
        self.pruning = None;
        let failure = fault.into_failure("prune the state", &self.path);
        if self.asked_to_prune.is_empty() {
            warn!(%failure, remedy = failure.remedy, "old records could not be dropped");
        }
        for done in self.asked_to_prune.drain(..) {
            done.send(Err(failure.clone())).ok(); // who gave up waiting need not hear
        }
    }
}

fn answer(commands: Vec<Command>, done: Vec<Done>) {
    for (command, done) in commands.into_iter().zip(done) {
        command.done.send(Ok(done)).ok(); // who gave up waiting need not hear
    }
}

fn what(order: &Ask) -> &'static str {
    match order {
        Ask::Begin { .. } => "begin a run",
        Ask::Update(_) => "update a run",
        Ask::Append { .. } => "record what became of rows",
        Ask::Prune => "prune the state",
    }
}

//! The one thread that writes: it takes what waits, commits it together, answers, and drops what is too old or too much.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use warren_engine::consume::record::{MessageRun, MessageRunId, MessageStatus};
use warren_engine::failure::Failure;
use warren_engine::ports::Clock;

use super::{KIND, message_name};
use crate::database::Fault;
use crate::parking::StoredEnvelope;
use crate::state::Retention;

/// Attempts that may wait; callers beyond that are held up.
const WAITING_MAX: usize = 1024;
/// Attempts in one transaction.
const TOGETHER_MAX: usize = 256;
/// After so many bytes it is looked whether something must go.
const PRUNE_EVERY_BYTES: u64 = 4 << 20;
/// So many attempts are put into the index by name at once; as many are looked through where one is looked for.
const NAMED_TOGETHER: u64 = 4096;
/// After so many attempts were dropped, their names go from the index, which is read whole for that.
const FORGET_EVERY: u64 = 100_000;
/// Attempts dropped in one transaction.
const PRUNED_TOGETHER: i64 = 1000;

enum Ask {
    Append(Box<MessageRun>),
    Late(MessageRunId),
}

struct Command {
    ask: Ask,
    done: oneshot::Sender<Result<MessageRunId, Failure>>,
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
        retention: Retention,
        clock: Arc<dyn Clock>,
    ) -> Result<Writer, Failure> {
        let (commands, waiting) = mpsc::channel(WAITING_MAX);
        let work = Work {
            connection,
            path,
            retention,
            clock,
            bytes: PRUNE_EVERY_BYTES,
            unnamed: NAMED_TOGETHER, // what a process left that died
            dropped: 0,
        };
        let thread = std::thread::Builder::new()
            .name("warren-messages".to_owned())
            .spawn(move || work.run(waiting))
            .map_err(|error| Failure::internal("start the thread of the record").because(error))?;
        Ok(Writer { commands: Some(commands), thread: Some(thread) })
    }

    pub(super) async fn append(&self, run: MessageRun) -> Result<MessageRunId, Failure> {
        self.ask(Ask::Append(Box::new(run))).await
    }

    pub(super) async fn late(&self, run: MessageRunId) -> Result<(), Failure> {
        self.ask(Ask::Late(run)).await.map(|_| ())
    }

    async fn ask(&self, ask: Ask) -> Result<MessageRunId, Failure> {
        let gone = || {
            Failure::internal("record what became of a message").detail("the thread that writes has ended")
        };
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

struct Work {
    connection: Connection,
    path: PathBuf,
    retention: Retention,
    clock: Arc<dyn Clock>,
    /// Written since it was looked whether something must go.
    bytes: u64,
    /// Attempts that are not in the index by name yet.
    unnamed: u64,
    /// Attempts that were dropped and whose names are still there.
    dropped: u64,
}

impl Work {
    fn run(mut self, mut waiting: mpsc::Receiver<Command>) {
        let mut commands = Vec::new();
        while waiting.blocking_recv_many(&mut commands, TOGETHER_MAX) > 0 {
            let commands = std::mem::take(&mut commands);
            match self.write(&commands) {
                Ok(ids) => {
                    for (command, id) in commands.into_iter().zip(ids) {
                        command.done.send(Ok(id)).ok(); // who gave up waiting need not hear
                    }
                }
                Err(fault) => {
                    let failure = fault.into_failure("record what became of a message", &self.path, KIND);
                    for command in commands {
                        command.done.send(Err(failure.clone())).ok(); // as above
                    }
                }
            }
            if self.unnamed >= NAMED_TOGETHER {
                self.unnamed = 0;
                if let Err(fault) = self.name() {
                    let failure = fault.into_failure("add to the index of messages", &self.path, KIND);
                    tracing::warn!(%failure, "messages are found more slowly");
                }
            }
            if self.bytes >= PRUNE_EVERY_BYTES {
                self.bytes = 0;
                if let Err(fault) = self.prune() {
                    let failure = fault.into_failure("drop old records", &self.path, KIND);
                    tracing::warn!(%failure, "old records could not be dropped");
                }
            }
        }
    }

    /// All in one transaction, or none.
    fn write(&mut self, commands: &[Command]) -> Result<Vec<MessageRunId>, Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut ids = Vec::with_capacity(commands.len());
        let (mut bytes, mut appended) = (0, 0);
        for command in commands {
            ids.push(match &command.ask {
                Ask::Append(run) => {
                    appended += 1;
                    bytes += run.job.message.body.len() as u64 + 512;
                    append(&transaction, run)?
                }
                Ask::Late(id) => {
                    transaction
                        .prepare_cached("UPDATE attempts SET status = ?2 WHERE id = ?1")?
                        .execute(params![id.0, MessageStatus::Late.as_str()])?;
                    *id
                }
            });
        }
        transaction.commit()?;
        self.bytes += bytes;
        self.unnamed += appended;
        Ok(ids)
    }

    /// Puts into the index by name what is not in it.
    fn name(&mut self) -> Result<(), Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "INSERT OR IGNORE INTO names SELECT message, id FROM attempts WHERE id > (SELECT up_to FROM named) \
             ORDER BY message, id; \
             UPDATE named SET up_to = max(up_to, (SELECT coalesce(max(id), 0) FROM attempts));",
        )?;
        Ok(transaction.commit()?)
    }

    fn prune(&mut self) -> Result<(), Fault> {
        let age = i64::try_from(self.retention.age.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.now_ms().saturating_sub(age);
        loop {
            let number =
                |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            let used = number("page_size")? * (number("page_count")? - number("freelist_count")?);
            let too_large = used as u64 > self.retention.size.0;
            let dropped = self.connection.execute(
                "DELETE FROM attempts WHERE id IN (SELECT id FROM attempts ORDER BY id LIMIT ?1) \
                 AND (?2 OR ended_at < ?3)",
                params![PRUNED_TOGETHER, too_large, before],
            )?;
            self.dropped += dropped as u64;
            if dropped == 0 || (!too_large && (dropped as i64) < PRUNED_TOGETHER) {
                break;
            }
        }
        if self.dropped >= FORGET_EVERY {
            self.connection.execute(
                "DELETE FROM names WHERE id < (SELECT coalesce(min(id), 9223372036854775807) FROM attempts)",
                [],
            )?;
            self.dropped = 0;
        }
        Ok(())
    }
}

fn append(connection: &Connection, run: &MessageRun) -> Result<MessageRunId, Fault> {
    let message = &run.job.message;
    let error = run.error.as_ref().map(serde_json::to_string).transpose()?;
    let steps = if run.steps.is_empty() { None } else { Some(serde_json::to_string(&run.steps)?) };
    connection
        .prepare_cached(
            "INSERT INTO attempts (consumer, message, attempt, status, class, received_at, started_at, ended_at, \
             next_at, error, steps, properties, envelope, body_bytes, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            &*run.consumer,
            message_name(&run.job),
            run.attempt,
            run.status.as_str(),
            run.class,
            run.received_at,
            run.started_at,
            run.ended_at,
            run.next_at,
            error,
            steps,
            serde_json::to_string(&message.properties)?,
            serde_json::to_string(&StoredEnvelope::from(&run.job.envelope))?,
            message.body.len() as i64,
            run.with_body.then_some(&message.body[..]),
        ])?;
    Ok(MessageRunId(connection.last_insert_rowid()))
}

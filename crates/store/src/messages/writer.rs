//! Recording: attempts go to the journal where they are made; a thread packs a journal that is full into a block, and drops what is too old or
//! too much.
//!
//! Adding to the journal is a copy into a mapped file by whoever has an attempt to record, so it neither waits for others nor wakes anybody. The
//! next journal is there before it is needed. Where it is not (the disk is slow, or full), recording waits, and so do the messages.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{Notify, mpsc, oneshot};
use warren_engine::consume::record::{MessageRun, MessageRunId};
use warren_engine::failure::Failure;
use warren_engine::ports::Clock;

use super::attempt::Written;
use super::block::{ATTEMPTS_MAX, late_in};
use super::journal::{self, Entry, Journal};
use super::{KIND, old};
use crate::database::Fault;
use crate::state::Retention;

/// What may wait for the thread: a journal to be packed, and results that came late.
const WAITING_MAX: usize = 64;
/// A journal is packed after so long, in milliseconds, even if it is not full: what is dropped for its age is dropped in blocks.
const JOURNAL_AGE_MAX: i64 = 60 * 60 * 1000;

/// The way to the record. Dropping it ends the thread and waits for it.
pub(super) struct Writer {
    shared: Arc<Shared>,
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

struct Shared {
    current: Mutex<Current>,
    /// Told when there is a journal to go on with, or a reason why there is none.
    changed: Notify,
}

struct Current {
    journal: Journal,
    /// To go on with when that is full.
    spare: Option<Journal>,
    /// To be packed. There is at most one: the next spare comes after it.
    full: Option<Journal>,
    /// Why there is no spare one.
    fault: Option<Failure>,
}

enum Ask {
    /// There is a journal to be packed, or one that could not be and perhaps can be now.
    Pack,
    Late(MessageRunId, oneshot::Sender<Result<(), Failure>>),
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        retention: Retention,
        clock: Arc<dyn Clock>,
    ) -> Result<Writer, Failure> {
        let failed = |fault: Fault| fault.into_failure("open the record of messages", &path, KIND);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut packer =
            Packer { connection, path: path.clone(), folder, retention, clock, unpacked: None, shared: None };
        old::convert(&mut packer.connection).map_err(failed)?;
        let (journal, spare) = packer.take_up().map_err(failed)?;
        let current = Mutex::new(Current { journal, spare: Some(spare), full: None, fault: None });
        let shared = Arc::new(Shared { current, changed: Notify::new() });
        packer.shared = Some(shared.clone());
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("warren-messages".to_owned())
            .spawn(move || packer.run(asked))
            .map_err(|error| Failure::internal("start the thread of the record").because(error))?;
        Ok(Writer { shared, asks: Some(asks), thread: Some(thread), path })
    }

    pub(super) async fn append(&self, run: &MessageRun) -> Result<MessageRunId, Failure> {
        let entry = Entry::of(&Written::of_run(run));
        if let Some(id) = self.put(&entry, run.ended_at)? {
            return Ok(id);
        }
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable(); // from here on no change is missed
            if let Some(id) = self.put(&entry, run.ended_at)? {
                return Ok(id);
            }
            changed.await;
        }
    }

    /// Adds an attempt. `None`: there is no room until the thread has made some.
    fn put(&self, entry: &Entry, now: i64) -> Result<Option<MessageRunId>, Failure> {
        let mut current = self.shared.current();
        let full = current.journal.is_full();
        let old = current.journal.oldest().is_some_and(|oldest| now.saturating_sub(oldest) > JOURNAL_AGE_MAX);
        if full || old {
            if let Some(spare) = current.spare.take() {
                let done = std::mem::replace(&mut current.journal, spare);
                current.full = Some(done);
                self.ask()?;
            } else if full {
                let Some(fault) = current.fault.clone() else { return Ok(None) };
                self.ask()?;
                return Err(fault);
            }
        }
        current.journal.append(entry).map(Some).map_err(|fault| failed(fault, &self.path))
    }

    fn ask(&self) -> Result<(), Failure> {
        let asks = self.asks.as_ref().ok_or_else(gone)?;
        match asks.try_send(Ask::Pack) {
            // Whatever it is asked, it looks for what is to be packed.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
    }

    pub(super) async fn late(&self, id: MessageRunId) -> Result<(), Failure> {
        let noted = self.shared.current().journal.late(id);
        if noted.map_err(|error| failed(error.into(), &self.path))? {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let asks = self.asks.as_ref().ok_or_else(gone)?;
        asks.send(Ask::Late(id, done)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // its panic has been printed, and its callers were answered that it is gone
        }
    }
}

fn gone() -> Failure {
    Failure::internal("record what became of a message").detail("the thread that writes has ended")
}

fn failed(fault: Fault, path: &Path) -> Failure {
    fault.into_failure("record what became of a message", path, KIND)
}

struct Packer {
    connection: Connection,
    path: PathBuf,
    folder: PathBuf,
    retention: Retention,
    clock: Arc<dyn Clock>,
    /// A journal that could not be packed yet.
    unpacked: Option<Journal>,
    shared: Option<Arc<Shared>>,
}

impl Packer {
    fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        while let Some(ask) = asked.blocking_recv() {
            let Some(shared) = self.shared.clone() else { return };
            let full = shared.current().full.take();
            self.unpacked = full.or(self.unpacked.take());
            if let Ask::Late(id, done) = ask {
                let noted = self.late(id).map_err(|fault| failed(fault, &self.path));
                done.send(noted).ok(); // who gave up waiting need not hear
            }
            if shared.current().spare.is_some() {
                continue;
            }
            let made = self.go_on();
            let mut current = shared.current();
            match made {
                Ok(spare) => (current.spare, current.fault) = (Some(spare), None),
                Err(fault) => current.fault = Some(failed(fault, &self.path)),
            }
            drop(current);
            shared.changed.notify_waiters();
        }
    }

    /// Packs what is to be packed, and makes the journal after the next.
    fn go_on(&mut self) -> Result<Journal, Fault> {
        let Some(journal) = self.unpacked.take() else { return self.journal() };
        if let Err(fault) = self.pack(&journal) {
            self.unpacked = Some(journal);
            return Err(fault);
        }
        if let Err(fault) = self.prune() {
            let failure = fault.into_failure("drop old records", &self.path, KIND);
            tracing::warn!(%failure, "old records could not be dropped");
        }
        let first = self.numbers()?;
        // Where that fails it is known by its number that its attempts are in a block.
        let again = if journal.is_renewable() {
            journal.renew(first).map(Some)
        } else {
            journal.remove().map(|()| None)
        };
        match again {
            Ok(Some(journal)) => return Ok(journal),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a journal that is packed could not be used again, or removed")
            }
        }
        Ok(Journal::create(&self.folder, first)?)
    }

    /// The journal to go on with, and the one after it: those that a process left, or new ones. Others that were left are packed.
    fn take_up(&mut self) -> Result<(Journal, Journal), Fault> {
        journal::tidy(&self.folder)?;
        let mut left = Vec::new();
        for path in journal::files(&self.folder)? {
            left.extend(Journal::adopt(&path)?);
        }
        let (mut current, mut spare) = (None, None);
        // The later ones first: the last of those that have something in them goes on.
        for journal in left.into_iter().rev() {
            if self.is_packed(journal.first())? {
                journal.remove()?;
            } else if journal.count() == 0 && spare.is_none() {
                spare = Some(journal);
            } else if journal.count() > 0 && !journal.is_full() && current.is_none() {
                current = Some(journal);
            } else {
                self.pack(&journal)?;
                journal.remove()?;
            }
        }
        let current = match current {
            Some(journal) => journal,
            None => spare.take().map_or_else(|| self.journal(), Ok)?,
        };
        let spare = spare.map_or_else(|| self.journal(), Ok)?;
        Ok((current, spare))
    }

    /// A new journal.
    fn journal(&mut self) -> Result<Journal, Fault> {
        let first = self.numbers()?;
        Ok(Journal::create(&self.folder, first)?)
    }

    /// The first of as many numbers as a journal needs that nobody was given.
    fn numbers(&mut self) -> Result<i64, Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first: i64 = transaction.query_row("SELECT next FROM numbers", [], |row| row.get(0))?;
        transaction.execute("UPDATE numbers SET next = ?1", [first + ATTEMPTS_MAX as i64])?;
        transaction.commit()?;
        Ok(first)
    }

    fn is_packed(&self, first: i64) -> Result<bool, Fault> {
        let found = self.connection.query_row("SELECT 1 FROM blocks WHERE first = ?1", [first], |_| Ok(()));
        Ok(found.optional()?.is_some())
    }

    fn pack(&self, journal: &Journal) -> Result<(), Fault> {
        if journal.count() > 0 {
            journal.gathered()?.pack()?.insert(&self.connection)?;
        }
        Ok(())
    }

    /// Notes a result that came late of an attempt that is in no current journal. One that was dropped needs no note.
    fn late(&mut self, id: MessageRunId) -> Result<(), Fault> {
        if let Some(journal) = &mut self.unpacked
            && journal.late(id)?
        {
            return Ok(());
        }
        let block = self.connection.query_row(
            "SELECT first, attempts FROM blocks WHERE first <= ?1 AND first + count > ?1 ORDER BY first DESC LIMIT 1",
            [id.0],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
        );
        let Some((first, attempts)) = block.optional()? else { return Ok(()) };
        let (attempts, statuses) = late_in(first, &attempts, id)?;
        self.connection.execute(
            "UPDATE blocks SET attempts = ?2, statuses = ?3 WHERE first = ?1",
            params![first, attempts, statuses],
        )?;
        Ok(())
    }

    /// Drops blocks that are too old, or too much; for their size never the newest.
    fn prune(&self) -> Result<(), Fault> {
        let age = i64::try_from(self.retention.age.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.now_ms().saturating_sub(age);
        loop {
            let number =
                |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            let used = number("page_size")? * (number("page_count")? - number("freelist_count")?);
            let too_large = used as u64 > self.retention.size.0;
            let dropped = self.connection.execute(
                "DELETE FROM blocks WHERE first = (SELECT min(first) FROM blocks) \
                 AND (newest < ?2 OR (?1 AND first < (SELECT max(first) FROM blocks)))",
                params![too_large, before],
            )?;
            if dropped == 0 {
                return Ok(());
            }
        }
    }
}

//! What the clones of a broker and its consumers share: opening the file, the way to its writer, a reader, closing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use warren_engine::failure::Failure;

use super::config::Config;
use super::fault::Fault;
use super::holder::Presence;
use super::ledger::Ledger;
use super::look::Look;
use super::schema;
use super::topology::Topology;
use super::writer::{Command, Writer};

/// The most bytes that publishes may wait with; beyond it they are refused as throttled.
pub(super) const WAITING_BYTES_MAX: usize = 512 << 20;

/// What the clones of a broker and its consumers share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) config: Config,
    running: Mutex<Option<Running>>,
    reader: Mutex<Option<Connection>>,
    pub(super) next_consumer: AtomicI64,
    pub(super) waiting_bytes: AtomicUsize,
}

struct Running {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

/// Bytes of publishes that wait, taken back when dropped.
pub(super) struct Waiting<'s>(&'s AtomicUsize, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Not opened yet.
    pub(super) fn new(name: &str, path: PathBuf, config: &Config) -> Shared {
        Shared {
            name: name.to_owned(),
            path,
            config: config.clone(),
            running: Mutex::new(None),
            reader: Mutex::new(None),
            next_consumer: AtomicI64::new(1),
            waiting_bytes: AtomicUsize::new(0),
        }
    }

    pub(super) fn wait_with(&self, bytes: usize) -> Option<Waiting<'_>> {
        // One batch may be larger than the bound, alone.
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting_bytes, bytes);
        (before == 0 || before + bytes <= WAITING_BYTES_MAX).then_some(waiting)
    }

    pub(super) fn open_commands(&self) -> Option<mpsc::Sender<Command>> {
        lock(&self.running)
            .as_ref()
            .filter(|running| !running.thread.is_finished())
            .map(|running| running.commands.clone())
    }

    /// The way to the writer; opens the file if it is not open.
    pub(super) fn commands(&self) -> Result<mpsc::Sender<Command>, Failure> {
        let mut running = lock(&self.running);
        if let Some(running) = running.as_ref().filter(|running| !running.thread.is_finished()) {
            return Ok(running.commands.clone());
        }
        let started = self.start()?;
        let commands = started.commands.clone();
        *running = Some(started);
        Ok(commands)
    }

    fn start(&self) -> Result<Running, Failure> {
        let conn = schema::open(&self.path)?;
        let presence = Presence::take(&self.path)?;
        let mut topology = Topology::default();
        let what = format!("open the embedded broker `{}`", self.name);
        let declared = (|| {
            let mut ledger = Ledger::begin(&conn, &mut topology, 0, super::now_ms())?;
            let holder = ledger.add_holder(&presence.name)?;
            ledger.declare_all(&self.config)?;
            ledger.settle_accounts()?;
            ledger.commit()?;
            Ok(holder)
        })();
        let holder = match declared {
            Ok(holder) => holder,
            Err(fault) => {
                let fault: Fault = fault;
                presence.leave();
                return Err(fault.failure(&what, &self.path));
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the callers, who each wait for their answer, and for publishes by WAITING_BYTES_MAX; \
                      a bounded one would have to block, in `Drop` too, or let a later publish overtake an earlier one"
        )]
        let (commands, waiting) = mpsc::channel();
        let writer = Writer::new(conn, self.path.clone(), topology, holder, presence, waiting);
        let thread = std::thread::Builder::new()
            .name(format!("broker {}", self.name))
            .spawn(move || writer.run())
            .map_err(|error| Failure::internal("start the embedded broker's thread").because(error))?;
        Ok(Running { commands, thread })
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Look<'_>) -> Result<T, Fault>) -> Result<T, Failure> {
        let mut reader = lock(&self.reader);
        let conn = match reader.take() {
            Some(conn) => conn,
            None => schema::open_to_read(&self.path)?,
        };
        let seen = Look::begin(&conn).and_then(|began| look(&began));
        *reader = Some(conn);
        seen.map_err(|fault| fault.failure("read the embedded broker's file", &self.path))
    }

    pub(super) fn close(&self) {
        lock(&self.reader).take();
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.commands.send(Command::Close).ok(); // a thread that has ended needs no telling
            running.thread.join().ok(); // a panic in it was printed; nothing is left to close
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// Invariant of both locks: what they guard is whole whenever they are free, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal("work on the embedded broker's file").because(error)),
    }
}

//! What waits to be written to a connection.
//!
//! Callers append whole chunks of frames; the writer takes all that is there and writes it with one system call. So a busy
//! connection coalesces by itself and an idle one waits for nothing. Each byte has an offset in the stream, counted from the
//! first: by it a publisher knows afterwards whether its message was handed to the socket.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::consumer::ledger::Ledger;

/// Publishers wait while more than this is unwritten. Several batches fit, so the writer never idles; a broker that
/// stopped reading is felt at once.
const UNWRITTEN_BYTES_MAX: u64 = 4 << 20;

/// How long an acknowledgement may wait for company.
const LAZY: Duration = Duration::from_millis(1);

pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Bytes handed to the socket.
    written: AtomicU64,
    /// Something is there to be written.
    ready: Notify,
    /// There may be room for more, or there will never be.
    room: Notify,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Bytes ever appended. Invariant: `written` never exceeds it.
    appended: u64,
    /// Why the broker holds publishers back.
    blocked: Option<String>,
    closed: bool,
    /// Ledgers with acknowledgements to collect, and when the first of them is due.
    lazy: Vec<Arc<Ledger>>,
    lazy_at: Option<Instant>,
}

/// The outbox takes no more: its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shut;

/// What the writer does next.
pub(crate) enum Next {
    /// Write these.
    Write,
    /// Nothing, until this time at the latest.
    Idle(Option<Instant>),
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            state: Mutex::default(),
            written: AtomicU64::new(0),
            ready: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Appends frames; yields the offset of their first byte.
    pub(crate) fn push(&self, frames: Bytes) -> Result<u64, Shut> {
        let mut state = self.state();
        if state.closed {
            return Err(Shut);
        }
        let start = state.append(frames);
        drop(state);
        self.ready.notify_one();
        Ok(start)
    }

    /// Lets a ledger's acknowledgements be collected soon.
    pub(crate) fn collect_soon(&self, ledger: &Arc<Ledger>) {
        let mut state = self.state();
        let first = state.lazy.is_empty();
        state.lazy.push(ledger.clone());
        if first {
            state.lazy_at = Some(Instant::now() + LAZY);
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Collects a ledger's acknowledgements now.
    pub(crate) fn collect_now(&self, ledger: &Ledger) -> Result<(), Shut> {
        let mut state = self.state();
        if state.closed {
            return Err(Shut);
        }
        state.collect(ledger);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits until a publisher may append: there is room and the broker does not hold back, or all is over.
    pub(crate) async fn room(&self) {
        loop {
            if self.has_room() {
                return;
            }
            let mut notified = std::pin::pin!(self.room.notified());
            notified.as_mut().enable(); // from here on no notification is missed
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        let unwritten = state.appended - self.written();
        state.closed || (state.blocked.is_none() && unwritten < UNWRITTEN_BYTES_MAX)
    }

    /// Bytes handed to the socket so far. Exact once the connection is gone.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The writer reports what the socket took.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// The writer says that it has written all it took.
    pub(crate) fn drained(&self) {
        self.room.notify_waiters();
    }

    /// Moves what is there to the writer.
    pub(crate) fn take(&self, into: &mut VecDeque<Bytes>) -> Next {
        let mut state = self.state();
        let due = state.lazy_at.is_some_and(|at| at <= Instant::now());
        if state.chunks.is_empty() && !due {
            return Next::Idle(state.lazy_at);
        }
        // Acknowledgements travel with whatever is written anyway.
        for ledger in std::mem::take(&mut state.lazy) {
            state.collect(&ledger);
        }
        state.lazy_at = None;
        into.append(&mut state.chunks);
        if into.is_empty() { Next::Idle(None) } else { Next::Write }
    }

    /// Returns when there may be something to write.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Says that the broker holds publishers back, or does no longer.
    pub(crate) fn set_blocked(&self, reason: Option<String>) {
        self.state().blocked = reason;
        self.room.notify_waiters();
    }

    pub(crate) fn blocked(&self) -> Option<String> {
        self.state().blocked.clone()
    }

    /// Takes no more.
    pub(crate) fn shut(&self) {
        let mut state = self.state();
        state.closed = true;
        state.blocked = None;
        state.lazy.clear();
        drop(state);
        self.room.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, frames: Bytes) -> u64 {
        let start = self.appended;
        self.appended += frames.len() as u64;
        self.chunks.push_back(frames);
        start
    }

    // Locks the ledger within the outbox's lock, so that the order of frames is the order of collecting; never the
    // other way round.
    fn collect(&mut self, ledger: &Ledger) {
        let mut frames = Vec::new();
        ledger.collect(&mut frames);
        if !frames.is_empty() {
            self.append(frames.into());
        }
    }
}

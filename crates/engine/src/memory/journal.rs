//! The in-flight journal and the record of messages, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::codes;
use crate::consume::record::{MessageRun, MessageRunId, MessageStatus};
use crate::failure::{Failure, FailureKind};
use crate::ports::{InFlight, MessageRecords, Noted};

/// A journal that outlives a worker, so that a test can let one "die".
#[derive(Debug, Default)]
pub struct MemoryInFlight {
    inner: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct Journal {
    slots: BTreeMap<usize, u128>,
    crashes: BTreeMap<u128, u32>,
    unstarted: BTreeSet<u128>,
}

impl MemoryInFlight {
    /// The process died: what was being handled becomes suspect.
    pub fn crash(&self) {
        let mut inner = self.lock();
        for print in std::mem::take(&mut inner.slots).into_values() {
            *inner.crashes.entry(print).or_default() += 1;
        }
    }

    /// How many messages are being handled.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether nothing is being handled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl InFlight for MemoryInFlight {
    fn crashes(&self, print: u128) -> u32 {
        self.lock().crashes.get(&print).copied().unwrap_or(0)
    }

    fn enter(&self, print: u128) -> Result<Noted, Failure> {
        let mut inner = self.lock();
        let slot = (0..=inner.slots.len()).find(|slot| !inner.slots.contains_key(slot)).unwrap_or(0);
        inner.slots.insert(slot, print);
        Ok(Noted { slot, print })
    }

    fn leave(&self, noted: Noted) {
        let mut inner = self.lock();
        inner.slots.remove(&noted.slot);
        inner.crashes.remove(&noted.print);
    }

    async fn unstarted(&self, prints: &[u128]) {
        self.lock().unstarted.extend(prints);
    }

    async fn take_unstarted(&self, print: u128) -> bool {
        self.lock().unstarted.remove(&print)
    }
}

/// Records of messages in memory.
#[derive(Debug, Default)]
pub struct MemoryMessageRecords {
    inner: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    runs: Vec<MessageRun>,
    full: bool,
    panics: u32,
}

impl MemoryMessageRecords {
    /// Whether nothing more can be written.
    pub fn full(&self, full: bool) {
        self.lock().full = full;
    }

    /// As if there were a bug: the next so many calls panic.
    pub fn panics(&self, times: u32) {
        self.lock().panics = times;
    }

    /// All that is on record, oldest first.
    pub fn all(&self) -> Vec<MessageRun> {
        self.lock().runs.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
#[expect(clippy::panic, reason = "what a test asked for")]
impl MessageRecords for MemoryMessageRecords {
    async fn append(&self, run: &MessageRun) -> Result<MessageRunId, Failure> {
        let mut inner = self.lock();
        if inner.panics > 0 {
            inner.panics -= 1;
            drop(inner);
            panic!("the record of messages was told to panic");
        }
        if inner.full {
            let what = "record what became of a message";
            return Err(Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what));
        }
        inner.runs.push(run.clone());
        Ok(MessageRunId(inner.runs.len() as i64))
    }

    async fn late(&self, run: MessageRunId) -> Result<(), Failure> {
        let at = usize::try_from(run.0 - 1).unwrap_or(usize::MAX);
        if let Some(run) = self.lock().runs.get_mut(at) {
            run.status = MessageStatus::Late;
        }
        Ok(())
    }
}

//! A parking lot in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::ports::{NewParked, Parked, ParkedId, ParkedSum, Parking};

/// Parked messages in memory, for one consumer or several.
#[derive(Debug, Default)]
pub struct MemoryParking {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parked: BTreeMap<ParkedId, (String, NewParked)>,
    last: i64,
    full: bool,
    panics: u32,
}

impl MemoryParking {
    /// Whether nothing more can be written, as if the disk were full.
    pub fn full(&self, full: bool) {
        self.lock().full = full;
    }

    /// As if there were a bug: the next so many messages that are to be parked or delayed panic.
    pub fn panics(&self, times: u32) {
        self.lock().panics = times;
    }

    /// All that is parked, oldest first.
    pub fn all(&self) -> Vec<Parked> {
        let inner = self.lock();
        inner.parked.iter().map(|(id, (_, parked))| Parked { id: *id, parked: parked.clone() }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    #[expect(clippy::panic, reason = "what a test asked for")]
    fn writable(&mut self) -> Result<(), Failure> {
        if self.panics > 0 {
            self.panics -= 1;
            panic!("the parking lot was told to panic");
        }
        if self.full {
            return Err(Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, "park a message"));
        }
        Ok(())
    }
}

#[async_trait]
impl Parking for MemoryParking {
    async fn park_all(&self, consumer: &str, parked: &[NewParked]) -> Result<Vec<ParkedId>, Failure> {
        let mut inner = self.lock();
        inner.writable()?;
        let ids = parked.iter().map(|parked| {
            inner.last += 1;
            let id = ParkedId(inner.last);
            inner.parked.insert(id, (consumer.to_owned(), parked.clone()));
            id
        });
        Ok(ids.collect())
    }

    async fn due(&self, consumer: &str, now_ms: i64, max: usize) -> Result<Vec<Parked>, Failure> {
        let mut lanes = std::collections::BTreeSet::new();
        let inner = self.lock();
        let mut due: Vec<Parked> = Vec::new();
        for (id, (_, parked)) in inner.parked.iter().filter(|(_, (of, _))| of == consumer) {
            let first = parked.lane.as_ref().is_none_or(|lane| lanes.insert(lane.clone()));
            if first && parked.due_ms <= now_ms {
                due.push(Parked { id: *id, parked: parked.clone() });
            }
        }
        due.sort_by_key(|parked| (parked.parked.due_ms, parked.id));
        due.truncate(max);
        Ok(due)
    }

    async fn next_due_ms(&self, consumer: &str) -> Result<Option<i64>, Failure> {
        let mut lanes = std::collections::BTreeSet::new();
        let inner = self.lock();
        let first = inner.parked.values().filter(|(of, parked)| {
            of == consumer && parked.lane.as_ref().is_none_or(|lane| lanes.insert(lane.clone()))
        });
        Ok(first.map(|(_, parked)| parked.due_ms).min())
    }

    async fn lanes(&self, consumer: &str) -> Result<Vec<(Option<String>, ParkedSum)>, Failure> {
        let mut lanes: BTreeMap<Option<String>, ParkedSum> = BTreeMap::new();
        for (of, parked) in self.lock().parked.values() {
            if of == consumer {
                let sum = lanes.entry(parked.lane.as_deref().map(str::to_owned)).or_default();
                sum.messages += 1;
                sum.bytes += parked.job.parked_bytes();
            }
        }
        Ok(lanes.into_iter().collect())
    }

    async fn delay(&self, id: ParkedId, spent: u32, due_ms: i64) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.writable()?;
        if let Some((_, parked)) = inner.parked.get_mut(&id) {
            (parked.spent, parked.due_ms) = (spent, due_ms);
        }
        Ok(())
    }

    async fn remove(&self, id: ParkedId) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.parked.remove(&id);
        Ok(())
    }
}

//! Ids of deliveries in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::failure::Failure;
use crate::hub::push::ids::{IdSlots, StoredId};

/// Slots that outlive a [`WebhookIds`](crate::hub::push::ids::WebhookIds), as a file does.
#[derive(Debug, Default)]
pub struct MemoryIdSlots {
    slots: Mutex<BTreeMap<usize, StoredId>>,
    random: AtomicU8,
}

impl MemoryIdSlots {
    /// Another number each time, for ids.
    pub fn random(&self) -> u8 {
        self.random.fetch_add(1, Ordering::Relaxed)
    }
}

impl IdSlots for MemoryIdSlots {
    fn all(&self) -> Vec<(usize, StoredId)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().map(|(slot, id)| (*slot, *id)).collect()
    }

    fn set(&self, slot: usize, id: Option<&StoredId>) -> Result<(), Failure> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => slots.insert(slot, *id),
            None => slots.remove(&slot),
        };
        Ok(())
    }
}

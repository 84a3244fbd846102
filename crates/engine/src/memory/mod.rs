//! The ports in memory, as strict as the real ones, with faults that are scripted and not hoped for.

mod baseline;
mod broker;
mod consumer;
mod hub;
mod ids;
mod journal;
mod outside;
mod parking;
mod rows;
mod state;
mod users;

pub use baseline::MemoryBaseline;
pub use broker::{Fault, MemoryBroker};
pub use consumer::Event;
pub use hub::{MemoryEstate, MemoryHost, MemorySubscriptions};
pub use ids::MemoryIdSlots;
pub use journal::{MemoryInFlight, MemoryMessageRecords};
pub use outside::{Reply, Script, is_part};
pub use parking::MemoryParking;
pub use rows::MemorySource;
pub use state::{FixedClock, MemoryLeases, MemoryRecords};
pub use users::MemoryUsers;

//! What Warren remembers, in versioned formats.

pub mod baseline;
pub mod in_flight;
pub mod listening;
pub mod messages;
pub mod parking;
pub mod state;
pub mod subscriptions;
pub mod webhook_ids;

mod database;
mod mapped;
mod packed;

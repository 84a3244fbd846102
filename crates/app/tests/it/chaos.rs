//! Triggers where everything fails: the receiver, the broker, the process.

mod ledger;
mod points;
mod soak;

//! `warren serve` as a process, with brokers that are real.

mod again;
mod backlog;
mod checks;
mod doctor;
mod dying;
mod framing;
mod messages;
mod own_broker;
mod secrets;
pub mod served;
mod sqs;
mod waiting;

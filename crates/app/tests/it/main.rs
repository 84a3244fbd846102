//! Tests of the application from outside of it.

#![expect(clippy::unwrap_used, clippy::format_push_string, reason = "these are tests, their helpers too")]

mod broker;
mod chaos;
mod clear;
mod damaged_state;
mod hub;
mod hub_faults;
mod json;
mod kill;
mod pika;
mod pipeline;
mod program;
mod secrets;
mod serve;
mod settings;
mod shop;
mod sqs;
mod tried;
mod truth;

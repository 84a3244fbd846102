//! The connectors against real systems. `./test` starts the servers.

#![allow(clippy::unwrap_used, reason = "what a test sets up is there, or the test fails")]

mod ascii;
mod embedded;
mod estate;
mod exec;
mod execute;
mod grants;
mod http;
mod memory;
mod mysql;
mod pgbouncer;
mod postgres;
mod rabbitmq;
mod reading;
mod silent;
mod sqlite;
mod sqs;

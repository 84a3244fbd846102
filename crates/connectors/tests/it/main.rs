//! The connectors against real systems. `./test` starts the servers.

#![expect(clippy::unwrap_used, reason = "what a test sets up is there, or the test fails")]

mod mysql;
mod postgres;
mod reading;
mod sqlite;

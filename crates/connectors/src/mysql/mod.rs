//! Rows from MySQL and MariaDB, streamed in a read-only transaction with a consistent snapshot.
//!
//! One connection a query. The query runs as a prepared statement, so that values come in the binary protocol with
//! their exact types; [`columns`] decides from the statement how each is packed. A task reads the rows as they come and
//! hands batches to a bounded feed.
//!
//! Nothing is retried here, and nothing can be written: the server refuses it in a read-only transaction, and
//! statements that are no queries are refused before.

mod columns;
mod config;
mod connection;
mod execute;
mod fault;
mod source;
mod statement;

pub use config::Config;
pub use execute::executor;

pub use source::source;

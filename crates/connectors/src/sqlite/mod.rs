//! Rows from a SQLite file, opened for reading only.
//!
//! SQLite is a library that blocks, so each query has a thread: it opens the file, begins a read transaction, steps the
//! statement and hands batches to a bounded feed. SQLite asks us every few thousand steps whether to go on, which
//! is how a timeout and a dropped stream end a query that yields nothing.
//!
//! A type belongs to each value here, not to the column: every column is [`Any`](warren_engine::model::ColumnType::Any).

mod config;
mod execute;
mod fault;
mod source;

pub use config::Config;
pub use execute::executor;

pub use source::source;

//! Rows from PostgreSQL, read by binary `COPY` in a repeatable-read, read-only transaction.
//!
//! One connection a query. The way of a row: the reading task moves the connection ([`connection`]), the messages of
//! `COPY` are joined before the driver sees them ([`merging`]), [`reader`] takes them apart and packs each field by its type ([`cell`]), and full batches go through a
//! bounded feed to whoever asked. [`columns`] decides from the types of the prepared query how each column is read, and
//! which must be cast because its binary form says nothing outside the server.
//!
//! Nothing is retried here, and nothing can be written: the server refuses it in a read-only transaction.

mod cell;
mod columns;
mod config;
mod connection;
mod execute;
mod fault;
mod grants;
mod merging;
mod reader;
mod source;
mod sql;
mod undescribed;

pub use config::Config;
pub use execute::executor;

pub use source::source;

//! Sync: rows to messages. Read [`run`](mod@run) first.

pub mod attributes;
mod batches;
pub mod bind;
mod groups;
pub mod guard;
pub mod limits;
pub mod plan;
pub mod preview;
pub mod property;
pub mod render;
pub mod run;
pub mod send;
pub mod view;
pub mod watch;

//! Warren moves data between databases, message queues and HTTP.
//!
//! Reads configuration ([`config`]), builds the parts ([`assemble`]), and talks to people ([`cli`], [`report`]).

pub mod assemble;
pub mod cli;
pub mod demo;
pub mod exit;
pub mod report;
pub mod serve;

pub use cli::main;

//! Every decision of Warren, and no input or output.
//!
//! The words and where each lives:
//!
//! | word | module |
//! |---|---|
//! | model, schema | [`model`] |
//! | row, value, batch | [`row`] |
//! | fingerprint of a key or a row | [`fingerprint`] |
//! | change, op, change id | [`change`] |
//! | change in doubt | [`doubt`] |
//! | message, route, outbound, receipt | [`message`] |
//! | what SQS calls these, and its rules | [`sqs`] |
//! | delivery, job, settlement | [`delivery`] |
//! | outcome of a handler, attempt, its steps | [`outcome`] |
//! | failure and its kind, codes | [`failure`], [`codes`] |
//! | finding (what a check reports) | [`finding`] |
//! | sets of HTTP statuses | [`statuses`] |
//! | the ports to the world | [`ports`] |
//! | a run and its record | [`run`](mod@run) |
//! | pipeline: a message through steps | [`pipeline`] |
//! | sync: rows to messages | [`sync`] |
//! | consume: deliveries to a handler | [`consume`] |
//!
//! The pages to read first are [`sync::run`](mod@sync::run) and [`consume::worker`].

pub mod canonical;
pub mod change;
pub mod codes;
pub mod consume;
pub mod delivery;
pub mod doubt;
pub mod failure;
pub mod finding;
pub mod fingerprint;
pub mod hub;
pub mod key;
pub mod memory;
pub mod message;
pub mod model;
pub mod near;
pub mod outcome;
pub mod pipeline;
pub mod ports;
pub mod redact;
pub mod row;
pub mod run;
pub mod size;
pub mod span;
pub mod sqs;
pub mod statuses;
pub mod sync;
pub mod url_prefix;

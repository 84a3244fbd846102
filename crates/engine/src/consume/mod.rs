//! Queue to handler: consume, handle, settle.
//!
//! What comes in is the deliveries of one queue; what goes out is that each of them ends acked, tried again later, or
//! dead-lettered, with a record of it made before. A trigger and a subscription are this loop with another handler.
//!
//! | idea | module |
//! |---|---|
//! | what a consumer is told to do | [`plan`] |
//! | the loop: take, start, settle, reconnect, drain | [`worker`] |
//! | one message on its way through it | `work` |
//! | a message as it was first, and its copies | [`copies`] |
//! | outcome and attempt to decision | [`policy`] |
//! | decision to copy, confirm, ack: the only place | `settle` |
//! | which way a message is tried again | [`retry`] |
//! | what may run beside what, and by which key | [`lanes`], [`key`] |
//! | whether messages flow, pause or probe: the state machine | [`flow`] |
//! | what becomes of parked messages at a consumer's end | [`lot`] |
//! | what is put on record | [`record`] |
//! | what can be seen of it from outside | [`status`] |
//!
//! Nothing here is settled before its outcome is on record, and nothing acked before its copy is confirmed.

pub mod copies;
pub mod flow;
pub mod key;
pub mod lanes;
pub mod lot;
pub mod plan;
pub mod policy;
pub mod record;
pub mod retry;
mod settle;
pub mod status;
mod work;
pub mod worker;

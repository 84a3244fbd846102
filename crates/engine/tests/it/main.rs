//! The flow of a sync with ports in memory, under a clock that is moved and not waited for.

#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod characters;
mod choice;
mod consume;
mod ending;
mod groups;
mod guards;
mod hub;
mod messages;
mod order;
mod pipeline;
mod rejected;
mod thin;
mod trouble;
mod unrecorded;
mod world;

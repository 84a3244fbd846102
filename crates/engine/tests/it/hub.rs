//! The flow of a hub with ports in memory: subscriptions, deliveries, topics.

mod compat;
mod deliver;
mod limits;
mod subscribe;
mod undone;
mod websub;
mod world;

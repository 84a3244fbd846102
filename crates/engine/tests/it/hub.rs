//! The flow of a hub with ports in memory: subscriptions, deliveries, topics.

mod compat;
mod deliver;
mod subscribe;
mod websub;
mod world;

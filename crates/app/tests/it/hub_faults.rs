//! The hub as a process, while everything around it fails: nothing that was accepted is lost, and no subscription is forgotten.

mod away;
mod checked;
mod logged;
mod own_broker;
mod poison;
mod soak;
mod undone;
mod world;

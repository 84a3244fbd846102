//! The servers answer, and the testkit does what the other crates' tests rely on.

mod own_broker;
mod pages;
mod servers;
mod tidy;

//! The flow of a consumer with ports in memory, under a clock that is moved and not waited for.

mod again;
mod breaker;
mod crash;
mod dying;
mod operator;
mod ordering;
mod outcomes;
mod panics;
mod retries;
mod settling;
mod world;

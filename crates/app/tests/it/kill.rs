//! A sync that is killed, stopped, doubled, or loses its database: nothing is lost, and the next run goes on.

mod query;
mod soak;
mod stop;

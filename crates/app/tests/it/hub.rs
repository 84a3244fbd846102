//! The hub over HTTP: its routes on a loopback socket, with ports in memory.

mod api;
mod client;
mod codings;
mod early_answers;
mod framing;
mod fuzz;
mod guesses;
mod holes;
mod limits;
mod proxies;
mod real;
mod refusals;
mod refused_publishes;
mod replay;
mod subscriber;
mod walk;
mod websub;
mod world;

//! What the connectors promise, tried on the real thing.

mod embedded;

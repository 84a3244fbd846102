//! What several connectors share.

pub(crate) mod address;
pub(crate) mod asked;
pub(crate) mod check_queue;
pub mod client_network;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod feed;
pub(crate) mod float;
pub mod guard;
pub(crate) mod guesses;
pub(crate) mod limit;
pub(crate) mod logins;
pub(crate) mod permission;
pub(crate) mod place;
pub(crate) mod pool;
pub mod random;
pub mod renew;
pub mod setting;
pub mod tls;
pub mod users;

//! What several connectors share.

pub(crate) mod feed;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod place;
pub mod setting;
pub mod tls;

//! What several connectors share.

#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod feed;
pub mod setting;
pub mod tls;

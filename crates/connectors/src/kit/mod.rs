//! What several connectors share.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod setting;
pub mod tls;

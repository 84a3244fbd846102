//! What several connectors share.

pub mod setting;
pub mod tls;

//! What several connectors share.

pub(crate) mod feed;
pub mod setting;
pub mod tls;

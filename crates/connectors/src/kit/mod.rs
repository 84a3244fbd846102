//! What several connectors share.

pub(crate) mod feed;
pub(crate) mod float;
pub(crate) mod place;
pub mod setting;
pub mod tls;

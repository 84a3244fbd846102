//! What several connectors share.

pub mod setting;

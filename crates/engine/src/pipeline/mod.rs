//! temp
pub mod jq;

//! The configuration as written: one type for each section, with a comment on every key.
//!
//! The comments are the reference: schema, documentation and error messages are generated from these types
//! and nothing else. Do not use `flatten`, `untagged` or `tag`: serde buffers such values, and a buffered
//! value has lost its place.

pub mod attribute;
pub mod consume;
pub mod expression;
pub mod forms;
pub mod hub;
pub mod pipeline;
pub mod section;
pub mod sync;
pub mod varying;
